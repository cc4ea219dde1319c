// JSON documents: a list is read object by object; other documents are read whole.
#include <algorithm>

#include "base/error.h"
#include "formats/row_layout.h"

namespace moe {
namespace {

constexpr uint64_t kMaxElement = 64 << 20;

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

class ListOfRows : public RowLayout {
 public:
  explicit ListOfRows(TextWindow window) : window_(std::move(window)) { window_.skip(1); }  // '['

  bool next(Json &row, std::string &) override {
    if (ended_) return false;
    if (!window_.skip_blanks()) cut_off();
    if (number_ > 0 || window_.rest().front() == ']') {
      const char c = window_.rest().front();
      window_.skip(1);
      if (c == ']') return end();
      if (c != ',') fail(Code::format, window_.path(), ": expected ',' or ']' after row ", number_);
      if (!window_.skip_blanks()) cut_off();
    }
    ++number_;
    if (window_.rest().front() != '{') fail(Code::format, window_.path(), ": row ", number_, ": expected an object");
    const size_t length = element();
    try {
      row = Json::parse(window_.rest().substr(0, length), "");
    } catch (const Error &error) {
      fail(error.code(), window_.path(), ": row ", number_, error.message());
    }
    window_.skip(length);
    return true;
  }

  uint64_t number() const override { return number_; }
  bool counts_lines() const override { return false; }

 private:
  [[noreturn]] void cut_off() const {
    fail(Code::format, window_.path(), ": the list does not end (after row ", number_, "); the file may be truncated");
  }

  bool end() {
    ended_ = true;
    if (window_.skip_blanks()) fail(Code::format, window_.path(), ": text after the end of the list");
    return false;
  }

  // Length of the object that begins the window, as far as quotes and braces tell.
  size_t element() {
    size_t at = 0, depth = 0;
    bool in_string = false;
    for (;;) {
      const std::string_view rest = window_.rest();
      for (; at < rest.size(); ++at) {
        const char c = rest[at];
        if (in_string) {
          while (at < rest.size() && rest[at] != '"' && rest[at] != '\\') ++at;
          if (at == rest.size()) break;
          if (rest[at] == '"') in_string = false;
          else ++at;
        } else if (c == '"') {
          in_string = true;
        } else if (c == '{') {
          ++depth;
        } else if (c == '}' && --depth == 0) {
          return at + 1;
        }
      }
      if (at > kMaxElement) fail(Code::format, window_.path(), ": row ", number_, ": an object longer than ", kMaxElement, " bytes");
      if (!window_.more()) cut_off();
    }
  }

  TextWindow window_;
  uint64_t number_ = 0;
  bool ended_ = false;
};

class WholeDocument : public RowLayout {
 public:
  explicit WholeDocument(TextWindow window) : path_(window.path()) {
    Json document = Json::parse(read_rest(window), path_);
    if (!document.is_object()) fail(Code::format, path_, ": expected objects, found neither a list nor an object");
    if (const Json *list = row_list(document)) rows_ = list->items();
    else take_keyed(document);
  }

  bool next(Json &row, std::string &) override {
    if (number_ == rows_.size()) return false;
    row = std::move(rows_[number_++]);
    return true;
  }

  uint64_t number() const override { return number_; }
  bool counts_lines() const override { return false; }

 private:
  void take_keyed(const Json &document) {
    for (const auto &[key, value] : document.members()) {
      if (!value.is_object()) {
        fail(Code::format, path_, ": member ", rows_.size() + 1,
             " is no row (an object), and no rows are listed under 'questions' or 'data'");
      }
      rows_.push_back(value);
      if (!value.find("id")) rows_.back().set("id", key);
    }
  }

  std::string path_;
  std::vector<Json> rows_;
  uint64_t number_ = 0;
};

}  // namespace

bool is_document_line(const Json &line) { return line.is_object() && (row_list(line) || all_objects(line)); }

std::unique_ptr<RowLayout> json_document(TextWindow window) {
  const bool list = window.skip_blanks() && window.rest().front() == '[';
  if (list) return std::make_unique<ListOfRows>(std::move(window));
  return std::make_unique<WholeDocument>(std::move(window));
}

}  // namespace moe
