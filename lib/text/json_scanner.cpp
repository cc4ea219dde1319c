#include "text/json_scanner.h"

#include <charconv>

#include "base/error.h"
#include "base/utf8.h"

namespace moe {
namespace {
constexpr size_t kMaxDepth = 128;
}

void JsonScanner::refuse(std::string_view problem) const { fail(Code::format, source_, ": byte ", at_, ": ", problem); }

void JsonScanner::skip_space() {
  while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t' || text_[at_] == '\r')) ++at_;
}

char JsonScanner::peek() {
  skip_space();
  return at_ < text_.size() ? text_[at_] : '\0';
}

void JsonScanner::open(char bracket, std::string_view what) {
  if (peek() != bracket) refuse(text("expected ", what));
  if (started_.size() == kMaxDepth) refuse("nested deeper than 128");
  ++at_;
  started_.push_back(false);
}

bool JsonScanner::next(char closing) {
  const char c = peek();
  if (c == closing) {
    ++at_;
    started_.pop_back();
    return false;
  }
  if (started_.back()) {
    if (c != ',') refuse(text("expected ',' or '", closing, "'"));
    ++at_;
  }
  started_.back() = true;
  return true;
}

bool JsonScanner::next_item() { return next(']'); }

bool JsonScanner::next_key(std::string &key) {
  if (!next('}')) return false;
  std::string storage;
  key = string(storage);
  if (peek() != ':') refuse("expected ':'");
  ++at_;
  return true;
}

std::string_view JsonScanner::string(std::string &storage) {
  if (peek() != '"') refuse("expected a string");
  const size_t begin = ++at_;
  while (at_ < text_.size()) {
    const auto c = static_cast<uint8_t>(text_[at_]);
    if (c == '"') return text_.substr(begin, at_++ - begin);
    if (c == '\\') break;
    if (c < 0x20) refuse("a control character inside a string");
    const size_t length = c < 0x80 ? 1 : utf8_length(text_.substr(at_));
    if (length == 0) refuse("a string that is not valid UTF-8");
    at_ += length;
  }
  storage.assign(text_, begin, at_ - begin);
  while (at_ < text_.size()) {
    const auto c = static_cast<uint8_t>(text_[at_]);
    if (c == '"') return ++at_, storage;
    if (c == '\\') {
      unescape(storage);
      continue;
    }
    if (c < 0x20) refuse("a control character inside a string");
    const size_t length = utf8_length(text_.substr(at_));
    if (length == 0) refuse("a string that is not valid UTF-8");
    storage.append(text_, at_, length);
    at_ += length;
  }
  refuse("a string without an end");
}

uint32_t JsonScanner::hex4() {
  uint32_t value = 0;
  const char *begin = text_.data() + at_;
  if (text_.size() - at_ < 4 || std::from_chars(begin, begin + 4, value, 16).ptr != begin + 4) refuse("expected four hex digits");
  at_ += 4;
  return value;
}

void JsonScanner::unescape(std::string &out) {
  if (++at_ == text_.size()) refuse("a string without an end");
  switch (text_[at_++]) {
    case '"': out += '"'; return;
    case '\\': out += '\\'; return;
    case '/': out += '/'; return;
    case 'b': out += '\b'; return;
    case 'f': out += '\f'; return;
    case 'n': out += '\n'; return;
    case 'r': out += '\r'; return;
    case 't': out += '\t'; return;
    case 'u': break;
    default: refuse("an unknown escape in a string");
  }
  uint32_t code_point = hex4();
  if (code_point >= 0xD800 && code_point < 0xDC00) {
    if (text_.substr(at_, 2) != "\\u") refuse("half of a surrogate pair");
    at_ += 2;
    const uint32_t low = hex4();
    if (low < 0xDC00 || low > 0xDFFF) refuse("half of a surrogate pair");
    code_point = 0x10000 + ((code_point - 0xD800) << 10) + (low - 0xDC00);
  } else if (code_point >= 0xDC00 && code_point < 0xE000) {
    refuse("half of a surrogate pair");
  }
  append_utf8(out, code_point);
}

int64_t JsonScanner::integer() {
  skip_space();
  int64_t value = 0;
  const char *begin = text_.data() + at_, *end = text_.data() + text_.size();
  const auto [stop, problem] = std::from_chars(begin, end, value);
  if (problem != std::errc() || (stop != end && (*stop == '.' || *stop == 'e' || *stop == 'E'))) refuse("expected an integer");
  at_ += static_cast<size_t>(stop - begin);
  return value;
}

std::string_view JsonScanner::skip() {
  skip_space();
  const size_t begin = at_;
  std::string key;
  const char first = peek();
  if (first == '{') {
    begin_object();
    while (next_key(key)) skip();
  } else if (first == '[') {
    begin_array();
    while (next_item()) skip();
  } else if (first == '"') {
    string(key);
  } else {
    while (at_ < text_.size() && (std::string_view(",]} \n\r\t").find(text_[at_]) == std::string_view::npos)) ++at_;
    if (at_ == begin) refuse("expected a value");
  }
  return text_.substr(begin, at_ - begin);
}

std::string_view JsonScanner::skip_unread() {
  if (peek() != '{') refuse("expected an object");
  const size_t begin = at_;
  size_t depth = 0;
  for (; at_ < text_.size(); ++at_) {
    const char c = text_[at_];
    if (c == '"') {
      do {  // to the next quote that has an even number of backslashes before it
        at_ = text_.find('"', at_ + 1);
        if (at_ == std::string_view::npos) break;
      } while ((at_ - 1 - text_.find_last_not_of('\\', at_ - 1)) % 2 == 1);
    } else if (c == '{' || c == '[') {
      ++depth;
    } else if ((c == '}' || c == ']') && --depth == 0) {
      return text_.substr(begin, ++at_ - begin);
    }
    if (at_ == std::string_view::npos) break;
  }
  at_ = text_.size();
  refuse("an object without an end");
}

void JsonScanner::finish() {
  if (peek() != '\0' || at_ < text_.size()) refuse("expected the end of the document");
}

}  // namespace moe
