#include "formats/parquet_runs.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/checked.h"

namespace moe {

static_assert(std::endian::native == std::endian::little, "values are used as they are stored");

uint32_t ByteReader::u32() {
  uint32_t value;
  std::memcpy(&value, take(sizeof value).data(), sizeof value);
  return value;
}

uint64_t ByteReader::varint() {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    const auto part = static_cast<uint8_t>(take(1)[0]);
    value |= static_cast<uint64_t>(part & 0x7F) << shift;
    if (part < 0x80) return value;
  }
  fail(Code::format, where_, ": an integer of more than 64 bits");
}

int64_t ByteReader::zigzag() {
  const uint64_t value = varint();
  return static_cast<int64_t>(value >> 1 ^ (0 - (value & 1)));
}

uint64_t packed_value(std::string_view bytes, uint64_t i, unsigned width) {
  if (width == 0) return 0;
  const uint64_t bit = i * width;
  const char *from = bytes.data() + bit / 8;
  const size_t there = bytes.size() - bit / 8;
  const unsigned shift = bit % 8;
  uint64_t low = 0;
  std::memcpy(&low, from, std::min<size_t>(there, 8));
  low >>= shift;
  if (shift + width > 64) low |= static_cast<uint64_t>(static_cast<uint8_t>(from[8])) << (64 - shift);
  return width == 64 ? low : low & ((uint64_t{1} << width) - 1);
}

void HybridReader::next_run() {
  const uint64_t head = bytes_.varint();
  left_ = head >> 1;
  is_packed_ = head & 1;
  if (is_packed_) {
    // The last run may be cut off behind the values that are used.
    left_ = checked_multiply(left_, 8, bytes_.where());
    if (width_ > 0) left_ = std::min<uint64_t>(left_, bytes_.remaining() * 8 / width_);
    if (left_ == 0) fail(Code::format, bytes_.where(), ": a packed run without values");
    packed_ = bytes_.take((left_ * width_ + 7) / 8);
    packed_at_ = 0;
    return;
  }
  if (left_ == 0) fail(Code::format, bytes_.where(), ": a run without values");
  value_ = 0;
  const std::string_view stored = bytes_.take((width_ + 7) / 8);
  std::memcpy(&value_, stored.data(), stored.size());
}

template <class T>
void HybridReader::read(T *out, size_t count, uint32_t largest) {
  const auto refuse = [&](uint64_t value) {
    fail(Code::format, bytes_.where(), ": expected a level or index of at most ", largest, ", found ", value);
  };
  while (count > 0) {
    if (left_ == 0) next_run();
    const size_t part = std::min<uint64_t>(count, left_);
    if (is_packed_) {
      uint32_t seen = 0;
      for (size_t i = 0; i < part; ++i) {
        const auto value = static_cast<uint32_t>(packed_value(packed_, packed_at_ + i, width_));
        seen = std::max(seen, value);
        out[i] = static_cast<T>(value);
      }
      packed_at_ += part;
      if (seen > largest) refuse(seen);
    } else {
      if (value_ > largest) refuse(value_);
      std::fill_n(out, part, static_cast<T>(value_));
    }
    out += part, count -= part, left_ -= part;
  }
}

template void HybridReader::read(uint8_t *, size_t, uint32_t);
template void HybridReader::read(uint32_t *, size_t, uint32_t);

DeltaReader::DeltaReader(ByteReader bytes) : bytes_(bytes) {
  constexpr uint64_t kMaxBlock = 1 << 20;
  const uint64_t block = bytes_.varint();
  miniblocks_ = bytes_.varint();
  count_ = left_ = bytes_.varint();
  value_ = static_cast<uint64_t>(bytes_.zigzag());
  const bool divides = miniblocks_ > 0 && miniblocks_ <= block && block <= kMaxBlock && block % miniblocks_ == 0;
  if (!divides || block / miniblocks_ % 8 != 0) {
    fail(Code::format, bytes_.where(), ": deltas in blocks of ", block, " values and ", miniblocks_, " miniblocks");
  }
  per_miniblock_ = block / miniblocks_;
  miniblock_ = miniblocks_;
  in_miniblock_ = per_miniblock_;
}

void DeltaReader::next_block() {
  smallest_ = static_cast<uint64_t>(bytes_.zigzag());
  widths_ = bytes_.take(miniblocks_);
  miniblock_ = 0;
}

void DeltaReader::next_miniblock() {
  if (miniblock_ == miniblocks_) next_block();
  width_ = static_cast<uint8_t>(widths_[miniblock_++]);
  if (width_ > 64) fail(Code::format, bytes_.where(), ": deltas of ", width_, " bits");
  // The last miniblock may be cut off behind the values that are used.
  const uint64_t whole = per_miniblock_ * width_ / 8, used = (std::min(left_, per_miniblock_) * width_ + 7) / 8;
  packed_ = bytes_.take(std::max(used, std::min<uint64_t>(whole, bytes_.remaining())));
  in_miniblock_ = 0;
}

int64_t DeltaReader::next() {
  if (left_ == 0) fail(Code::format, bytes_.where(), ": more values are needed than the ", count_, " deltas that are there");
  if (is_first_) {
    is_first_ = false;
  } else {
    if (in_miniblock_ == per_miniblock_) next_miniblock();
    value_ += smallest_ + packed_value(packed_, in_miniblock_++, width_);
  }
  --left_;
  return static_cast<int64_t>(value_);
}

size_t DeltaReader::length(ByteReader bytes) {
  const size_t start = bytes.position();
  DeltaReader reader(bytes);
  for (uint64_t left = reader.count_ > 0 ? reader.count_ - 1 : 0; left > 0; left -= std::min(left, reader.per_miniblock_)) {
    reader.left_ = left;
    reader.next_miniblock();
  }
  return reader.bytes_.position() - start;
}

}  // namespace moe
