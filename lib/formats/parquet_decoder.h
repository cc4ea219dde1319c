// The values of a data page, decoded piece by piece (Encodings.md of Apache Parquet).
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "formats/parquet_metadata.h"
#include "formats/parquet_runs.h"

namespace moe {

// Decoded values without the nulls. Numbers and booleans are words: integers sign-extended, floats as their bits. Byte arrays,
// fixed ones and INT96 are texts, which point into the page, the dictionary or `store`.
struct ParquetValues {
  std::vector<uint64_t> words;
  std::vector<std::string_view> texts;
  std::string store;

  void clear() { words.clear(), texts.clear(), store.clear(); }
};

struct ParquetColumnType {
  ParquetPhysical physical;
  uint32_t fixed_length;

  bool is_text() const {
    return physical == ParquetPhysical::byte_array || physical == ParquetPhysical::fixed_length ||
           physical == ParquetPhysical::int96;
  }
  uint32_t width() const;  // bytes of a value as PLAIN stores it; 0 for booleans and byte arrays
};

class ParquetDecoder {
 public:
  virtual ~ParquetDecoder() = default;
  // Replaces `out` by the next values: at least one, at most `wanted` (> 0); fewer when they would take much memory. Code::format
  // when the page has none left.
  virtual size_t decode(size_t wanted, ParquetValues &out) = 0;
};

// A decoder for the values in `bytes`. `dictionary` may be null where the encoding does without; it must outlive the decoder.
std::unique_ptr<ParquetDecoder> make_parquet_decoder(ParquetEncoding encoding, ParquetColumnType type, ByteReader bytes,
                                                     const ParquetValues *dictionary);

}  // namespace moe
