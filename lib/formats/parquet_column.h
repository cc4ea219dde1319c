// One column chunk as a sequence of entries, each with its levels and, where it has one, its value. A few hundred entries are
// decoded at a time.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/parquet_decoder.h"
#include "formats/parquet_pages.h"
#include "formats/parquet_schema.h"

namespace moe {

// Definition or repetition levels of a page: the hybrid of runs, or packed with the most significant bit first as old files have
// it.
class ParquetLevels {
 public:
  ParquetLevels() = default;  // all levels are 0
  ParquetLevels(ByteReader bytes, uint8_t largest, bool is_old, uint32_t values);
  void read(uint8_t *out, size_t count);

 private:
  uint8_t largest_ = 0;
  unsigned width_ = 0;
  bool is_old_ = false;
  HybridReader runs_;
  std::string_view packed_, where_;
  uint64_t at_ = 0;
};

class ParquetColumn {
 public:
  // `field` is a value; `end` and `budget` as for ParquetPages. `where` opens the errors: "<path>: column 'a.b' of row group 1".
  ParquetColumn(const File &file, const ParquetField &field, const ParquetChunk &chunk, uint64_t end, ParquetBudget &budget,
                std::string where);
  ParquetColumn(const ParquetColumn &) = delete;

  const std::string &where() const { return where_; }

  // The current entry. has_entry() must be true before the others are called.
  bool has_entry() { return at_ < definitions_.size() || refill(); }
  uint8_t definition() const { return definitions_[at_]; }
  uint8_t repetition() const { return repetitions_[at_]; }
  bool has_value() const { return definition() == field_.definition; }
  uint64_t word() { return need_value(), values_.words[value_at_]; }  // when has_value() and it is a number
  std::string_view text() {
    return need_value(), values_.texts[value_at_];
  }  // when has_value() and it is not; until the next entry
  void advance();

  // For a column of byte arrays that is not repeated: the next values, some hundred of them, nulls as views of nullptr. They stay
  // until the next call. Empty after the last. Not to be mixed with the above.
  std::span<const std::string_view> next_texts();

 private:
  bool refill();
  void next_page();
  void begin_data(ByteReader body);
  void begin_dictionary();
  void need_value();

  std::string where_;
  const ParquetField &field_;
  const ParquetChunk &chunk_;
  ParquetBudget &budget_;
  ParquetColumnType type_;
  ParquetPages pages_;
  Buffer dictionary_page_;
  ParquetValues dictionary_;
  bool has_dictionary_ = false;

  uint64_t left_ = 0, left_in_page_ = 0;  // entries that were not decoded yet
  ParquetLevels definition_levels_, repetition_levels_;
  std::unique_ptr<ParquetDecoder> decoder_;

  std::vector<uint8_t> definitions_, repetitions_;  // of the entries at hand
  size_t at_ = 0;
  size_t undecoded_ = 0;  // values of the entries at hand that are not in values_ yet
  ParquetValues values_;
  size_t value_at_ = 0, value_count_ = 0;
  std::vector<std::string_view> texts_;
};

}  // namespace moe
