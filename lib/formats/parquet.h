// Parquet files (parquet-format of Apache Parquet): flat and nested columns of every type and encoding that files of text use,
// and their rows as JSON. Every number is checked against what remains of the file before it is used; pages are held one at a
// time. Refused by name: encrypted columns, columns in other files, LZO.
//
// A ParquetFile does not change after it was opened, and readers of it share nothing else: row groups can be read by several
// threads at once, each with a reader of its own.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "formats/parquet_column.h"
#include "formats/parquet_metadata.h"
#include "formats/parquet_schema.h"

namespace moe {

class ParquetFile {
 public:
  explicit ParquetFile(const std::string &path) : ParquetFile(File(path)) {}
  explicit ParquetFile(File file);

  static bool matches(const File &file);  // by its first bytes

  const std::string &path() const { return file_.path(); }
  const File &file() const { return file_; }
  uint64_t rows() const { return metadata_.rows; }
  size_t row_groups() const { return metadata_.row_groups.size(); }
  const ParquetMetadata &metadata() const { return metadata_; }
  const std::vector<ParquetField> &fields() const { return fields_; }  // of a row

  // The fields of these names, in the order of the file; all of them when no name is given. Code::invalid for a name that the
  // file does not have.
  std::vector<const ParquetField *> select(const std::vector<std::string> &names) const;
  // The column of a value below `fields()` in one row group.
  std::unique_ptr<ParquetColumn> column(size_t row_group, const ParquetField &value, ParquetBudget &budget) const;

  static constexpr uint64_t kMemory = uint64_t{1} << 30;  // for the columns of a row group that is being read

 private:
  std::string read_footer();
  void check_row_groups() const;
  void check_chunks(const ParquetField &field, size_t row_group) const;
  std::string where(size_t row_group, const ParquetField &value) const;
  const ParquetChunk &chunk(size_t row_group, const ParquetField &value) const {
    return metadata_.row_groups[row_group].chunks[value.first_column];
  }

  File file_;
  uint64_t data_end_ = 0;
  ParquetMetadata metadata_;
  std::vector<ParquetField> fields_;
};

// The rows of one row group as objects. Values are written as
//   null, true, 1, 0.5, "text" (UTF8 and JSON columns)     what they are; NaN and infinities as "NaN", "Infinity", "-Infinity"
//   {"hex": "00ff"}                                         bytes, also UUID, ENUM, BSON, fixed lengths
//   {"decimal": "1.50"}
//   {"int": 0, "arrow": "timestamp[us, tz=UTC]"}            dates, times and timestamps: the stored number and what it counts
//   [...], {...}, [[key, value], ...]                       lists, structs, maps
class ParquetRowGroup {
 public:
  // The file must outlive the reader.
  ParquetRowGroup(const ParquetFile &file, size_t row_group, const std::vector<std::string> &names = {});

  uint64_t rows() const { return rows_; }
  // False after the last row. A row with a text that is not UTF-8 is null, and `defect` says so; it is empty otherwise.
  bool next(Json &row, std::string &defect);

 private:
  void add_columns(const ParquetField &field);
  ParquetColumn &column(const ParquetField &field) { return *columns_[field.first_column]; }
  Json read(const ParquetField &field, uint8_t repetition, uint8_t parent);
  Json read_value(const ParquetField &field, ParquetColumn &column);
  Json read_entries(const ParquetField &field, uint8_t repetition);
  void skip(const ParquetField &field, uint8_t repetition, uint8_t definition);
  void expect_entry(ParquetColumn &column, uint8_t repetition, uint8_t least) const;
  void spend(uint64_t bytes);

  const ParquetFile &file_;
  size_t row_group_;
  uint64_t rows_ = 0, number_ = 0;
  uint64_t output_left_, row_left_ = 0;
  ParquetBudget budget_;
  std::vector<const ParquetField *> fields_;
  std::string defect_;
  std::vector<std::unique_ptr<ParquetColumn>> columns_;  // those of `fields_`, by their number in the file
};

// All rows of a file, in its order. One row group is open at a time.
class ParquetRows {
 public:
  explicit ParquetRows(const std::string &path, std::vector<std::string> names = {})
      : ParquetRows(File(path), std::move(names)) {}
  explicit ParquetRows(File file, std::vector<std::string> names = {});

  const ParquetFile &file() const { return *file_; }
  bool next(Json &row, std::string &defect);   // as ParquetRowGroup
  bool next(Json &row);                        // a defect is Code::format
  std::string where() const;                   // of the last row, for messages: "<path>: row <n>", from 1
  uint64_t number() const { return number_; }  // from 1

 private:
  std::unique_ptr<const ParquetFile> file_;
  std::vector<std::string> names_;
  std::unique_ptr<ParquetRowGroup> group_;
  size_t next_group_ = 0;
  uint64_t number_ = 0;
};

// The texts of one column of a row group without building rows: for a column of strings that is not inside a list or struct.
class ParquetTexts {
 public:
  // Code::invalid when `name` is not such a column. The file must outlive the reader.
  ParquetTexts(const ParquetFile &file, size_t row_group, const std::string &name);

  // The next texts, some hundred of them, valid until the next call; a null is a view of nullptr. Empty after the last.
  std::span<const std::string_view> next();

 private:
  ParquetBudget budget_;
  std::unique_ptr<ParquetColumn> column_;
  uint64_t number_ = 0;
};

// What a file holds: schema, row groups, for each column type, codec, encodings and sizes, and the file's own metadata.
Json describe_parquet(const ParquetFile &file);
// {"question": "string", "answer": "string not null"}
Json parquet_types(const ParquetFile &file);

}  // namespace moe
