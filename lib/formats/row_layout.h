// What RowReader asks of a layout. A further one is a class of this kind, a function that opens it, and its place in the choice
// that rows.cpp makes.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "formats/byte_stream.h"
#include "formats/rows.h"

namespace moe {

class RowLayout {
 public:
  virtual ~RowLayout() = default;
  // The next row, an object; false after the last. A row that cannot be read for a reason of its own, so that the next one can be
  // found, is null, and the reason is in `defect` (which is empty before the call). Everything else is Code::format.
  virtual bool next(Json &row, std::string &defect) = 0;
  virtual uint64_t number() const = 0;  // of the last row, from 1
  virtual bool counts_lines() const { return true; }  // number() is a line of the file; otherwise the rows are counted
};

constexpr uint64_t kMaxRow = 16 << 20;                 // bytes of a line, a record, a paragraph
constexpr uint64_t kMaxDocument = uint64_t{1} << 30;   // bytes of a text or of a JSON document that has to be read whole
constexpr const char *kNotUtf8 = "not valid UTF-8";

// Each of these takes a window at the beginning of the file.
std::unique_ptr<RowLayout> json_lines(TextWindow window);
std::unique_ptr<RowLayout> json_document(TextWindow window);
// A line that is all there is (but for blanks) is a document when it has rows in it.
bool is_document_line(const Json &line);
// Tables of separated cells; the first record is the header. `name` is that of the file. Null when it does not say that it is one
// and the delimiter cannot be told.
std::unique_ptr<RowLayout> separated_cells(TextWindow window, std::string_view name);
std::unique_ptr<RowLayout> plain_text(TextWindow window, PlainText rows);
// Told by its first bytes (ParquetFile::matches), whatever the name; it takes the file, not a window.
std::unique_ptr<RowLayout> parquet_table(const std::string &path, const std::vector<std::string> &columns);

inline bool is_blank(std::string_view text) { return text.find_first_not_of(" \t\r\n\v\f") == std::string_view::npos; }

// The rest of the window, read to the end of the file.
std::string_view read_rest(TextWindow &window);

}  // namespace moe
