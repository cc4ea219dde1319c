// The examples of one file of rows: schema by name, by the path of a schema file, or found from the fields of the first rows.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/cancel.h"
#include "data/example.h"
#include "data/schema.h"
#include "formats/rows.h"

namespace moe {

// The rows of a file; a plain text file (.txt .text .raw) is one row {"text": all of it}.
class DataRows {
 public:
  explicit DataRows(const std::string &path);
  bool next(Json &row);                                                                           // false after the last row
  int64_t number() const { return reader_ ? static_cast<int64_t>(reader_->number()) : number_; }  // line or row, from 1

 private:
  std::optional<RowReader> reader_;
  Json document_;
  int64_t number_ = 0;
};

// Gives out the examples of a file one by one, so that no file has to fit into memory.
class ExampleReader {
 public:
  // `schema` "" = found from the rows. Code::invalid when no schema fits (with the fields that were seen and the known schemas),
  // or when the rows do not tell from where their answers count; Code::format for an empty file.
  ExampleReader(const std::string &path, const std::string &schema);

  bool next(Example &example);  // false after the last
  // Code::invalid when the answers read so far contradict the schema throughout: they count from 1 where it says 0, or the
  // reverse.
  void check_answers() const;

  const std::string &path() const { return path_; }
  const Schema &schema() const { return schema_; }
  int64_t rows() const { return row_count_; }  // read so far
  const SkipReport &skipped() const { return skipped_; }

 private:
  std::string path_;
  Schema schema_;
  DataRows rows_;
  std::vector<Example> pending_;  // of the last row, in reverse
  AnswerBase answers_;
  SkipReport skipped_;
  int64_t row_count_ = 0;
};

struct ExampleFile {
  std::string path, sha256;
  Schema schema;     // the one in force
  int64_t rows = 0;  // read from the file
  std::vector<Example> examples;
  SkipReport skipped;
};

// All examples, or with `limit` > 0 the first `limit`. Errors of ExampleReader; Code::invalid when no row can be used.
ExampleFile read_examples(const std::string &path, const std::string &schema, int64_t limit, const Cancel *cancel = nullptr);

// The files a data path stands for: itself, or the data files of a folder (.json .jsonl .ndjson .txt .text .raw), sorted by
// name. Code::invalid when a folder has none.
std::vector<std::string> data_files(const std::string &path);

}  // namespace moe
