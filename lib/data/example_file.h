// The examples of one file of rows: schema by name, by the path of a schema file, or found from the fields of the first rows.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/cancel.h"
#include "data/example.h"
#include "data/schema.h"
#include "formats/rows.h"

namespace moe {

// Ids of rows that occurred before: 16 bytes a row until they are counted.
class RepeatedIds {
 public:
  void see(const Json &id, int64_t row);  // a text or a number; other values are no ids
  Skipped count();                        // how many rows, and the first of them

 private:
  std::vector<std::pair<uint64_t, int64_t>> seen_;  // hash of the id, row
};

// Gives out the examples of a file one by one, so that no file has to fit into memory.
class ExampleReader {
 public:
  // `schema` "" = found from the rows. Code::invalid when no schema fits (with the fields that were seen and the known schemas),
  // or when the rows do not tell from where their answers count; Code::format for an empty file. whole_rows: also the columns that
  // the schema does not need, for on_skip.
  ExampleReader(const std::string &path, const std::string &schema, bool whole_rows = false);

  bool next(Example &example);  // false after the last
  // Code::invalid when the answers read so far contradict the schema throughout: they count from 1 where it says 0, or the
  // reverse.
  void check_answers() const;

  const std::string &path() const { return path_; }
  const Schema &schema() const { return schema_; }
  int64_t rows() const { return row_count_; }  // read so far
  const SkipReport &skipped() const { return skipped_; }
  // Called for each row (and entry of a row) that gives no example, with the row, null where it could not be read.
  using OnSkip = std::function<void(int64_t number, const std::string &reason, const Json &row)>;
  void on_skip(OnSkip call) { on_skip_ = std::move(call); }
  Skipped repeated_ids() { return ids_.count(); }  // among the rows read so far; such rows are used like others

 private:
  void skip(int64_t number, const SkipReport &why, const Json &row);


  std::string path_;
  Schema schema_;
  RowReader rows_;
  std::vector<Example> pending_;  // of the last row, in reverse
  AnswerBase answers_;
  SkipReport skipped_;
  OnSkip on_skip_;
  RepeatedIds ids_;
  int64_t row_count_ = 0;
};

struct ExampleFile {
  std::string path, sha256;
  Schema schema;     // the one in force
  int64_t rows = 0;  // read from the file
  std::vector<Example> examples;
  SkipReport skipped;
  Skipped repeated_ids;
};

// All examples, or with `limit` > 0 the first `limit`. Errors of ExampleReader; Code::invalid when no row can be used.
ExampleFile read_examples(const std::string &path, const std::string &schema, int64_t limit, const Cancel *cancel = nullptr);

// The files a data path stands for: itself; or the data files in a folder and the folders in it, told by their names; or the files
// that a pattern (* ? [...]) fits. Sorted. Code::invalid when there are none.
std::vector<std::string> data_files(const std::string &path);

}  // namespace moe
