// Separated cells (RFC 4180): a cell in quotes may hold delimiters, line breaks and doubled quotes; elsewhere a quote stands for
// itself. CR LF, LF and CR end a record; blank lines are skipped. Cells are texts, as they stand.
#include <algorithm>
#include <vector>

#include "base/error.h"
#include "base/utf8.h"
#include "formats/row_layout.h"

namespace moe {
namespace {

constexpr std::string_view kDelimiters = ",\t;|";
constexpr size_t kRecordsLookedAt = 32, kBytesLookedAt = 1 << 16;

struct Record {
  std::vector<std::string> cells;
  size_t bytes = 0, lines = 0;
  bool text_after_quote = false, is_blank = false;  // blank: nothing but a line break
};

enum class Scan { record, unfinished, open_quote };

bool ends_line(char c) { return c == '\n' || c == '\r'; }

// Appends a cell that begins at `at` and leaves `at` where it ends: at a delimiter, a line break or the end of the text. The cell
// is unfinished when more of the file could change it.
Scan scan_cell(std::string_view text, bool is_all, char delimiter, size_t &at, Record &record) {
  std::string cell;
  const bool quoted = at < text.size() && text[at] == '"';
  if (quoted) {
    for (size_t begin = at + 1;;) {
      const size_t quote = text.find('"', begin);
      if (quote == std::string_view::npos) return is_all ? Scan::open_quote : Scan::unfinished;
      cell.append(text, begin, quote - begin);
      at = quote + 1;
      if (at == text.size() && !is_all) return Scan::unfinished;
      if (at == text.size() || text[at] != '"') break;
      cell += '"';
      begin = at + 1;
    }
    record.lines += static_cast<size_t>(std::count(cell.begin(), cell.end(), '\n'));
  }
  const size_t begin = at;
  while (at < text.size() && text[at] != delimiter && !ends_line(text[at])) ++at;
  if (at == text.size() && !is_all) return Scan::unfinished;
  if (quoted && at > begin) record.text_after_quote = true;
  cell.append(text, begin, at - begin);
  record.cells.push_back(std::move(cell));
  return Scan::record;
}

// The record that begins `text`, which is not empty.
Scan scan_record(std::string_view text, bool is_all, char delimiter, Record &record) {
  record = Record();
  record.is_blank = ends_line(text.front());
  for (size_t at = 0;; ++at) {
    if (const Scan result = scan_cell(text, is_all, delimiter, at, record); result != Scan::record) return result;
    if (at < text.size() && text[at] == delimiter) continue;
    ++record.lines;
    if (at < text.size() && text[at++] == '\r') {
      if (at == text.size() && !is_all) return Scan::unfinished;
      if (at < text.size() && text[at] == '\n') ++at;
    }
    record.bytes = at;
    return Scan::record;
  }
}

// How well the first records agree about a delimiter: the share of those with as many cells as the header, 0 below two cells.
struct Evidence {
  size_t columns = 0, records = 0;
  double share = 0;
};

Evidence evidence_for(std::string_view text, bool is_all, char delimiter) {
  Evidence evidence;
  size_t agreeing = 0;
  for (Record record; !text.empty() && evidence.records < kRecordsLookedAt; text.remove_prefix(record.bytes)) {
    if (scan_record(text, is_all, delimiter, record) != Scan::record) break;
    if (record.is_blank) continue;
    if (evidence.records++ == 0) evidence.columns = record.cells.size();
    agreeing += record.cells.size() == evidence.columns;
  }
  if (evidence.columns >= 2) evidence.share = static_cast<double>(agreeing) / static_cast<double>(evidence.records);
  return evidence;
}

class Separated : public RowLayout {
 public:
  Separated(TextWindow window, char delimiter) : window_(std::move(window)), delimiter_(delimiter) {
    Record header;
    if (!next_record(header)) return;
    names_ = std::move(header.cells);
    for (const std::string &name : names_) {
      if (!is_utf8(name)) fail(Code::format, window_.path(), ":", number_, ": the header is ", kNotUtf8);
      if (std::count(names_.begin(), names_.end(), name) > 1)
        fail(Code::format, window_.path(), ":", number_, ": the column '", name, "' occurs twice in the header");
    }
  }

  bool next(Json &row, std::string &defect) override {
    Record record;
    if (!next_record(record)) return false;
    row = Json();
    if (record.text_after_quote) defect = "text after the closing quote of a cell";
    else if (record.cells.size() < names_.size()) defect = "fewer cells than the header";
    else if (record.cells.size() > names_.size()) defect = "more cells than the header";
    else if (!std::all_of(record.cells.begin(), record.cells.end(), [](const auto &cell) { return is_utf8(cell); })) defect = kNotUtf8;
    if (!defect.empty()) return true;
    std::vector<std::pair<std::string, Json>> members;
    members.reserve(names_.size());
    for (size_t i = 0; i < names_.size(); ++i) members.emplace_back(names_[i], std::move(record.cells[i]));
    row = Json::object(std::move(members));
    return true;
  }

  uint64_t number() const override { return number_; }

 private:
  bool next_record(Record &record) {
    do {
      number_ = next_line_;
      for (;;) {
        if (window_.rest().empty() && !window_.more()) return false;
        const Scan result = scan_record(window_.rest(), window_.at_end(), delimiter_, record);
        if (result == Scan::open_quote)
          fail(Code::format, window_.path(), ":", number_, ": a quote in this record does not end; the file may be truncated");
        if ((result == Scan::record ? record.bytes : window_.rest().size()) > kMaxRow)
          fail(Code::format, window_.path(), ":", number_, ": a record longer than ", kMaxRow, " bytes; a quote may not end");
        if (result == Scan::record) break;
        window_.more();
      }
      window_.skip(record.bytes);
      next_line_ += record.lines;
    } while (record.is_blank);
    return true;
  }

  TextWindow window_;
  char delimiter_;
  std::vector<std::string> names_;
  uint64_t number_ = 0, next_line_ = 1;
};

}  // namespace

std::unique_ptr<RowLayout> separated_cells(TextWindow window, std::string_view name) {
  const bool named_tabs = name.ends_with(".tsv") || name.ends_with(".tab"), named = named_tabs || name.ends_with(".csv");
  while (window.rest().size() < kBytesLookedAt && window.more()) {
  }
  const char usual = named_tabs ? '\t' : ',';  // goes first where the evidence is equal
  char best = usual;
  Evidence most = evidence_for(window.rest(), window.at_end(), usual);
  for (const char delimiter : kDelimiters) {
    const Evidence evidence = evidence_for(window.rest(), window.at_end(), delimiter);
    if (evidence.share > most.share) most = evidence, best = delimiter;
  }
  if (!named && (most.share < 1 || most.records < 2)) return nullptr;
  return std::make_unique<Separated>(std::move(window), best);
}

}  // namespace moe
