#include "formats/rows.h"

#include <algorithm>

#include "base/error.h"

namespace moe {

namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
constexpr std::string_view kBlank = " \t\r\n\v\f";
constexpr uint64_t kWindow = 1 << 18;
constexpr uint64_t kMaxDocument = uint64_t{1} << 30;

bool is_blank(std::string_view line) { return line.find_first_not_of(kBlank) == std::string_view::npos; }

bool is_named_lines(std::string_view path) { return path.ends_with(".jsonl") || path.ends_with(".ndjson"); }

const Json *row_list(const Json &object) {
  for (const char *key : {"questions", "data"}) {
    const Json *list = object.find(key);
    if (list && list->is_array() &&
        std::all_of(list->items().begin(), list->items().end(), [](const Json &item) { return item.is_object(); })) {
      return list;
    }
  }
  return nullptr;
}

bool all_objects(const Json &object) {
  return object.size() > 0 && std::all_of(object.members().begin(), object.members().end(),
                                          [](const auto &member) { return member.second.is_object(); });
}

}  // namespace

RowReader::RowReader(const std::string &path) : file_(path) {
  if (looks_like_document()) open_document();
  window_.clear();
  window_start_ = at_ = number_ = 0;
  ended_with_newline_ = true;
}

bool RowReader::looks_like_document() {
  if (is_named_lines(file_.path())) return false;
  std::string line;
  try {
    while (next_line(line) && is_blank(line)) {
    }
  } catch (const Error &) {
    return true;  // a first line longer than a line may be
  }
  if (is_blank(line)) return false;  // nothing in the file
  if (line[line.find_first_not_of(kBlank)] != '{') return true;
  Json first;
  try {
    first = Json::parse(line, file_.path());
  } catch (const Error &) {
    return true;  // an object over several lines, or a malformed one, which the message of the document names
  }
  if (!row_list(first) && !all_objects(first)) return false;
  while (next_line(line)) {
    if (!is_blank(line)) return false;
  }
  return true;
}

void RowReader::open_document() {
  is_document_ = true;
  std::string content = file_.read_all(kMaxDocument);
  const size_t skip = content.starts_with(kByteOrderMark) ? kByteOrderMark.size() : 0;
  Json document = Json::parse(std::string_view(content).substr(skip), file_.path());
  if (document.is_array()) {
    rows_ = std::move(document.items());
  } else if (!document.is_object()) {
    fail(Code::format, file_.path(), ": expected objects, found neither a list nor an object");
  } else if (const Json *list = row_list(document)) {
    rows_ = list->items();
  } else {
    take_keyed(std::move(document));
  }
  for (size_t i = 0; i < rows_.size(); ++i) {
    if (!rows_[i].is_object()) fail(Code::format, file_.path(), ": row ", i + 1, ": expected an object");
  }
}

void RowReader::take_keyed(Json document) {
  for (const auto &[key, value] : document.members()) {
    if (!value.is_object()) {
      fail(Code::format, file_.path(), ": member ", rows_.size() + 1,
           " is no row (an object), and no rows are listed under 'questions' or 'data'");
    }
    rows_.push_back(value);
    if (!value.find("id")) rows_.back().set("id", key);
  }
}

bool RowReader::next_line(std::string &line) {
  line.clear();
  while (true) {
    if (at_ == window_.size()) {
      window_start_ += window_.size();
      at_ = 0;
      window_.resize(std::min<uint64_t>(kWindow, file_.size() - window_start_));
      if (window_.empty()) {
        if (line.empty()) return false;
        ended_with_newline_ = false;
        break;
      }
      file_.read(window_start_, window_.data(), window_.size());
    }
    const size_t newline = window_.find('\n', at_);
    const size_t end = newline == std::string::npos ? window_.size() : newline;
    if (line.size() + (end - at_) > kMaxLine) {
      fail(Code::format, file_.path(), ":", number_ + 1, ": a line longer than ", kMaxLine, " bytes");
    }
    line.append(window_, at_, end - at_);
    at_ = newline == std::string::npos ? end : end + 1;
    if (newline != std::string::npos) break;
  }
  ++number_;
  if (number_ == 1 && line.starts_with(kByteOrderMark)) line.erase(0, kByteOrderMark.size());
  return true;
}

bool RowReader::next(Json &row) {
  if (is_document_) {
    if (number_ == rows_.size()) return false;
    row = std::move(rows_[number_++]);
    return true;
  }
  std::string line;
  do {
    if (!next_line(line)) return false;
  } while (is_blank(line));
  try {
    row = Json::parse(line, where());
  } catch (const Error &error) {
    if (ended_with_newline_) throw;
    fail(error.code(), error.message(), " (the last line; the file may be truncated)");
  }
  if (!row.is_object()) fail(Code::format, where(), ": expected an object");
  return true;
}

std::string RowReader::where() const {
  return is_document_ ? text(file_.path(), ": row ", number_) : text(file_.path(), ":", number_);
}

std::vector<Json> read_rows(const std::string &path) {
  RowReader reader(path);
  std::vector<Json> rows;
  for (Json row; reader.next(row);) rows.push_back(std::move(row));
  return rows;
}

}  // namespace moe
