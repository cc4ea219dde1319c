// Streams of small integers: levels, dictionary indices, booleans (Encodings.md of Apache Parquet).
//
//   hybrid   runs, each a varint head: even, head >> 1 times the value that follows in ceil(width / 8) bytes; odd, (head >> 1) x
//   8
//            values of `width` bits each, the least significant bit first
//   delta    DELTA_BINARY_PACKED, see DeltaReader
#pragma once
#include <cstdint>
#include <string_view>

#include "base/error.h"

namespace moe {

// Reads integers from the front of a byte string; its end is a clear error.
class ByteReader {
 public:
  ByteReader() = default;
  ByteReader(std::string_view bytes, std::string_view where) : bytes_(bytes), where_(where) {}

  size_t remaining() const { return bytes_.size() - at_; }
  size_t position() const { return at_; }
  std::string_view where() const { return where_; }
  std::string_view take(uint64_t bytes) {
    if (bytes > remaining()) fail(Code::format, where_, ": ", bytes, " bytes are needed, ", remaining(), " remain in the page");
    at_ += bytes;
    return bytes_.substr(at_ - bytes, bytes);
  }
  std::string_view rest() { return take(remaining()); }
  uint32_t u32();
  uint64_t varint();
  int64_t zigzag();

 private:
  std::string_view bytes_, where_;
  size_t at_ = 0;
};

// Value `i` of values of `width` bits (0 to 64), the least significant bit first. The bytes must reach (i + 1) x width bits.
uint64_t packed_value(std::string_view bytes, uint64_t i, unsigned width);

class HybridReader {
 public:
  HybridReader() = default;
  HybridReader(ByteReader bytes, unsigned width) : bytes_(bytes), width_(width) {}

  // The next `count` values; none of them may exceed `largest`. T is uint8_t or uint32_t.
  template <class T>
  void read(T *out, size_t count, uint32_t largest);

 private:
  void next_run();

  ByteReader bytes_;
  unsigned width_ = 0;
  uint64_t left_ = 0;  // values of the run that are to come
  bool is_packed_ = false;
  uint32_t value_ = 0;  // of a run of equal values
  std::string_view packed_;
  uint64_t packed_at_ = 0;
};

// DELTA_BINARY_PACKED, read as it is needed:
//
//   varint values in a block, varint miniblocks in a block, varint values in all, zigzag first value
//   block   zigzag smallest delta, one byte width for each miniblock, then the miniblocks: deltas less the smallest, of that
//   width
//
// Values are sums in 64 bits that wrap.
class DeltaReader {
 public:
  DeltaReader() = default;
  explicit DeltaReader(ByteReader bytes);

  uint64_t count() const { return count_; }
  uint64_t left() const { return left_; }
  int64_t next();                          // Code::format beyond the last
  static size_t length(ByteReader bytes);  // of the whole stream

 private:
  void next_block();
  void next_miniblock();

  ByteReader bytes_;
  uint64_t per_miniblock_ = 0, miniblocks_ = 0, count_ = 0, left_ = 0;
  uint64_t value_ = 0, smallest_ = 0;
  std::string_view widths_, packed_;
  uint64_t miniblock_ = 0, in_miniblock_ = 0;
  unsigned width_ = 0;
  bool is_first_ = true;
};

}  // namespace moe
