// Rows of data, each a JSON object, from the three layouts data sets are published in; told apart by their content:
//   lines      one object a line (JSON Lines, whatever the file is called); blank lines are skipped; CR LF and a UTF-8 byte
//              order mark are accepted; read line by line, a line may have 16 MiB
//   document   a list of objects; or {"questions": [...]} or {"data": [...]}; or objects keyed by an id, which then become rows
//              with the key under "id" unless they have one; a document may have 1 GiB
// A file whose first line is a whole object is lines, unless that line is all there is and it looks like one of the documents
// (and the name does not end in .jsonl or .ndjson).
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/json.h"

namespace moe {

class RowReader {
 public:
  explicit RowReader(const std::string &path);

  bool next(Json &row);        // false after the last row
  std::string where() const;   // place of the last row for messages: "<path>:<line>", in a document "<path>: row <n>", from 1
  uint64_t number() const { return number_; }  // line, or row of the document, from 1

 private:
  bool next_line(std::string &line);  // without its end; false at the end of the file
  bool looks_like_document();
  void open_document();
  void take_keyed(Json document);

  static constexpr uint64_t kMaxLine = 16 << 20;
  File file_;
  std::string window_;          // bytes of the file from window_start_ that are not yet consumed begin at at_
  uint64_t window_start_ = 0;
  size_t at_ = 0;
  bool ended_with_newline_ = true;
  bool is_document_ = false;
  std::vector<Json> rows_;      // of a document
  uint64_t number_ = 0;
};

std::vector<Json> read_rows(const std::string &path);

}  // namespace moe
