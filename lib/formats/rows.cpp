#include "formats/rows.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "formats/parquet.h"
#include "formats/row_layout.h"

namespace moe {
namespace {

constexpr std::array kPlainTextNames{".txt", ".text", ".raw"};
constexpr std::array kOtherNames{".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".tab", ".parquet"};

template <class Endings>
bool ends_with_any(std::string_view name, const Endings &endings) {
  return std::any_of(endings.begin(), endings.end(), [&](std::string_view ending) { return name.ends_with(ending); });
}

bool is_lines_name(std::string_view name) { return name.ends_with(".jsonl") || name.ends_with(".ndjson"); }

// Whether the first line is all of a row and not a document.
bool is_lines(const std::string &path, std::string_view name) {
  TextWindow window(path);
  if (!window.skip_blanks() || is_lines_name(name)) return true;
  if (window.rest().front() != '{') return false;
  size_t end = 0;
  while ((end = window.rest().find('\n', end)) == std::string_view::npos) {
    end = window.rest().size();
    if (end > kMaxRow) return false;
    if (!window.more()) break;
  }
  Json line;
  try {
    line = Json::parse(window.rest().substr(0, end), path);
  } catch (const Error &) {
    return false;  // an object over several lines, or a malformed one, which the message of the document names
  }
  if (!is_document_line(line)) return true;
  window.skip(std::min(end, window.rest().size()));
  return window.skip_blanks();
}

std::unique_ptr<RowLayout> open_layout(const std::string &path, PlainText text_rows, const std::vector<std::string> &columns) {
  if (path.ends_with(".parquet") || ParquetFile::matches(File(path))) return parquet_table(path, columns);
  const std::string_view name = uncompressed_name(path);
  TextWindow window(path);
  if (ends_with_any(name, kPlainTextNames)) return plain_text(std::move(window), text_rows);
  if (ends_with_any(name, std::array{".csv", ".tsv", ".tab"})) return separated_cells(std::move(window), name);
  if (is_lines(path, name)) return json_lines(std::move(window));
  if (std::string_view("{[").find(window.skip_blanks() ? window.rest().front() : '{') == std::string_view::npos)
    if (auto cells = separated_cells(TextWindow(path), name)) return cells;
  return json_document(std::move(window));
}

}  // namespace

bool is_row_file_name(std::string_view name) {
  name = uncompressed_name(name);
  return ends_with_any(name, kPlainTextNames) || ends_with_any(name, kOtherNames);
}

std::string row_file_endings() {
  std::string endings;
  for (const char *ending : kOtherNames) endings += std::string(ending) + " ";
  for (const char *ending : kPlainTextNames) endings += std::string(ending) + " ";
  return endings + "and with .gz or .zst";
}

RowReader::RowReader(const std::string &path, PlainText plain_text, const std::vector<std::string> &columns)
    : path_(path), layout_(open_layout(path, plain_text, columns)) {}

RowReader::~RowReader() = default;

bool RowReader::next(Json &row) {
  defect_.clear();
  return layout_->next(row, defect_);
}

uint64_t RowReader::number() const { return layout_->number(); }

std::string RowReader::where() const { return text(path_, layout_->counts_lines() ? ":" : ": row ", number()); }

std::vector<Json> read_rows(const std::string &path) {
  RowReader reader(path);
  std::vector<Json> rows;
  for (Json row; reader.next(row);) {
    if (!reader.defect().empty()) fail(Code::format, reader.where(), ": ", reader.defect());
    rows.push_back(std::move(row));
  }
  return rows;
}

std::string_view read_rest(TextWindow &window) {
  while (window.more()) {
    if (window.rest().size() > kMaxDocument)
      fail(Code::format, window.path(), ": too large: expected at most ", kMaxDocument, " bytes in one document");
  }
  return window.rest();
}

}  // namespace moe
