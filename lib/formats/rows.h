// Rows of data, each a JSON object, from the layouts data sets are published in:
//   lines      one JSON object a line (whatever the file is called); blank lines are skipped; read line by line
//   document   a JSON list of objects, read one by one; or {"questions": [...]} or {"data": [...]}; or objects keyed by an id,
//              which then become rows with the key under "id" unless they have one; those are read whole, 1 GiB at most
//   separated  cells of text (RFC 4180: .csv .tsv .tab), the first record names the columns; the delimiter is told by the first
//              records; a record with another number of cells than the header is a defect
//   text       plain text (.txt .text .raw) as rows {"text"}: the whole file, or its paragraphs
//   Parquet    a table of columns (formats/parquet.h), told by its first bytes or its name
// All but the last may be compressed (gzip, Zstandard: told by the first bytes). CR LF and a UTF-8 byte order mark are accepted, UTF-16
// is refused. A line, record or paragraph may have 16 MiB. Reading takes no more memory for a long file than for a short one.
// A file whose first line is a whole object is lines, unless that line is all there is and it looks like one of the documents
// (and the name does not end in .jsonl or .ndjson). A file with another beginning and no telling name is separated when its first
// records agree about a delimiter.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"

namespace moe {

class RowLayout;

enum class PlainText { document, paragraphs };  // what is one row of a plain text file

class RowReader {
 public:
  // columns: those that are wanted, {} = all. Where a layout can, it leaves the others out without reading them (Parquet); names that
  // the file does not have are passed over, and when it has none of them all are read.
  explicit RowReader(const std::string &path, PlainText plain_text = PlainText::document, const std::vector<std::string> &columns = {});
  ~RowReader();

  // False after the last row. A row that cannot be read is null and has a defect: text that is not UTF-8, a record with too few
  // cells. Damage that hides the rows after it is Code::format with the place.
  bool next(Json &row);
  const std::string &defect() const { return defect_; }  // of the last row; "" when there is none
  std::string where() const;   // place of the last row for messages: "<path>:<line>", in a document "<path>: row <n>", from 1
  uint64_t number() const;     // that line or row

 private:
  std::string path_, defect_;
  std::unique_ptr<RowLayout> layout_;
};

// All rows; a defect is Code::format.
std::vector<Json> read_rows(const std::string &path);

bool is_row_file_name(std::string_view name);  // it may end in that of a compression as well
std::string row_file_endings();                // of data files: ".jsonl ..."

}  // namespace moe
