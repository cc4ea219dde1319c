// The grammar of RFC 8259 by recursive descent, one function a rule.
#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/utf8.h"

namespace moe {
namespace {

constexpr int kMaxDepth = 128;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

}  // namespace

class Json::Parser {
 public:
  Parser(std::string_view text, std::string_view source) : text_(text), source_(source) {}

  Json document() {
    Json value;
    parse_value(value, 0);
    skip_space();
    if (at_ < text_.size()) refuse("expected the end of the document");
    return value;
  }

 private:
  [[noreturn]] void refuse(std::string_view problem) const {
    const std::string_view before = text_.substr(0, at_);
    const auto line = 1 + std::count(before.begin(), before.end(), '\n');
    const size_t column = at_ - (before.rfind('\n') + 1) + 1;
    fail(Code::format, source_, ": line ", line, ", column ", column, ": ", problem);
  }

  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

  bool accept(char c) {
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  void skip_space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t' || text_[at_] == '\r')) ++at_;
  }

  void expect_word(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) refuse("expected a value");
    at_ += word.size();
  }

  // Into a null.
  void parse_value(Json &value, int depth) {
    skip_space();
    switch (peek()) {
      case '{': return parse_object(value, depth + 1);
      case '[': return parse_array(value, depth + 1);
      case '"':
        value.kind_ = Kind::string;
        return parse_string(value.string_);
      case 't':
        expect_word("true");
        value = Json(true);
        return;
      case 'f':
        expect_word("false");
        value = Json(false);
        return;
      case 'n': return expect_word("null");
      default: value = parse_number();
    }
  }

  void parse_array(Json &array, int depth) {
    if (depth > kMaxDepth) refuse("nested deeper than 128 levels");
    ++at_;
    array.kind_ = Kind::array;
    skip_space();
    if (accept(']')) return;
    do {
      parse_value(array.items_.emplace_back(), depth);
      skip_space();
    } while (accept(','));
    if (!accept(']')) refuse("expected ',' or ']'");
  }

  void parse_object(Json &object, int depth) {
    if (depth > kMaxDepth) refuse("nested deeper than 128 levels");
    ++at_;
    object.kind_ = Kind::object;
    skip_space();
    if (accept('}')) return;
    object.members_.reserve(4);
    do {
      skip_space();
      if (peek() != '"') refuse("expected a key in quotes");
      auto &[key, value] = object.members_.emplace_back(std::string(), Json());
      parse_string(key);
      skip_space();
      if (!accept(':')) refuse("expected ':'");
      parse_value(value, depth);
      skip_space();
    } while (accept(','));
    if (!accept('}')) refuse("expected ',' or '}'");
    refuse_duplicates(object.members_);
  }

  // The last characters differ nearly always.
  static bool same_key(const std::string &a, const std::string &b) {
    return a.size() == b.size() && (a.empty() || a.back() == b.back()) && a == b;
  }

  void refuse_duplicates(const std::vector<std::pair<std::string, Json>> &members) const {
    const auto refuse_key = [&](std::string_view key) { refuse(text("the key ", Json(key).dump(), " occurs twice in one object")); };
    if (members.size() <= 16) {  // nearly always
      for (size_t i = 1; i < members.size(); ++i)
        for (size_t j = 0; j < i; ++j)
          if (same_key(members[i].first, members[j].first)) refuse_key(members[i].first);
      return;
    }
    std::vector<std::string_view> keys;
    keys.reserve(members.size());
    for (const auto &member : members) keys.push_back(member.first);
    std::sort(keys.begin(), keys.end());
    const auto twice = std::adjacent_find(keys.begin(), keys.end());
    if (twice != keys.end()) refuse_key(*twice);
  }

  // Into an empty text.
  void parse_string(std::string &out) {
    ++at_;
    for (;;) {
      const size_t begin = at_;
      skip_plain();
      out.append(text_, begin, at_ - begin);
      if (at_ >= text_.size()) refuse("the string does not end");
      const char c = text_[at_];
      if (c == '"') {
        ++at_;
        return;
      }
      if (c == '\\') parse_escape(out);
      else refuse(static_cast<uint8_t>(c) < 0x20 ? "a control character in a string must be escaped" : "a string is not valid UTF-8");
    }
  }

  // Skips the characters that stand for themselves inside a string, eight ASCII bytes at once where there are as many.
  void skip_plain() {
    for (;;) {
      size_t plain = 8;
      for (uint64_t eight; plain == 8 && at_ + 8 <= text_.size(); at_ += plain) {
        std::memcpy(&eight, text_.data() + at_, 8);
        plain = plain_bytes(eight);
      }
      if (plain == 8)
        while (at_ < text_.size() && is_plain_ascii(text_[at_])) ++at_;
      if (at_ >= text_.size() || static_cast<uint8_t>(text_[at_]) < 0x80) return;
      const size_t length = utf8_length(text_.substr(at_));
      if (length == 0) return;
      at_ += length;
    }
  }

  // How many of eight bytes are plain before the first that is not.
  static size_t plain_bytes(uint64_t eight) {
    constexpr uint64_t kOnes = 0x0101010101010101, kTops = 0x8080808080808080;
    const uint64_t quote = eight ^ (kOnes * '"'), backslash = eight ^ (kOnes * '\\');
    // Subtracting 1 from a zero byte, or 32 from one below 32, borrows into its top bit: the lowest top bit is that of the first such
    // byte, or of one that is not ASCII.
    const uint64_t marks = ((quote - kOnes) | (backslash - kOnes) | (eight - kOnes * 0x20) | eight) & kTops;
    if (marks == 0) return 8;
    if constexpr (std::endian::native == std::endian::little) return static_cast<size_t>(std::countr_zero(marks)) / 8;
    size_t plain = 0;
    while (plain < 8 && is_plain_ascii(reinterpret_cast<const char *>(&eight)[plain])) ++plain;
    return plain;
  }

  static bool is_plain_ascii(char c) {
    return static_cast<uint8_t>(c) >= 0x20 && static_cast<uint8_t>(c) < 0x80 && c != '"' && c != '\\';
  }

  void parse_escape(std::string &out) {
    ++at_;
    const char c = peek();
    constexpr std::string_view kNames = "\"\\/bfnrt", kMeanings = "\"\\/\b\f\n\r\t";
    if (c == 'u') {
      append_utf8(out, parse_code_point());
    } else if (const size_t which = kNames.find(c); which != std::string_view::npos) {
      out += kMeanings[which];
      ++at_;
    } else {
      refuse("unknown escape in a string");
    }
  }

  // uXXXX, or a surrogate pair uD8XX\uDCXX.
  uint32_t parse_code_point() {
    const uint32_t first = parse_hex();
    if (first < 0xD800 || first > 0xDFFF) return first;
    if (first > 0xDBFF || !accept('\\') || peek() != 'u') refuse("a surrogate without its partner");
    const uint32_t second = parse_hex();
    if (second < 0xDC00 || second > 0xDFFF) refuse("a surrogate without its partner");
    return 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
  }

  uint32_t parse_hex() {
    ++at_;
    const std::string_view digits = text_.substr(at_, 4);
    uint32_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
    if (error != std::errc() || end != digits.data() + 4) refuse("expected four hexadecimal digits after \\u");
    at_ += 4;
    return value;
  }

  void skip_digits() {
    if (!is_digit(peek())) refuse("expected a digit");
    while (is_digit(peek())) ++at_;
  }

  Json parse_number() {
    const size_t begin = at_;
    const bool negative = accept('-');
    if (!negative && !is_digit(peek())) refuse(at_ < text_.size() ? "expected a value" : "expected a value, found the end");
    if (!accept('0')) skip_digits();
    bool whole = true;
    if (accept('.')) whole = false, skip_digits();
    if (accept('e') || accept('E')) {
      whole = false;
      if (!accept('+')) accept('-');
      skip_digits();
    }
    const std::string_view token = text_.substr(begin, at_ - begin);
    if (whole && token != "-0") {
      uint64_t natural;
      int64_t integer;
      if (negative && convert(token, integer)) return Json(integer);
      if (!negative && convert(token, natural)) return Json(natural);
    }
    double value = 0;
    if (!convert(token, value)) {  // out of range: too large, or so small that it is zero
      if (leading_exponent(token) > 0) refuse("the number is too large");
      value = negative ? -0.0 : 0.0;
    }
    return Json(value);
  }

  template <class T>
  static bool convert(std::string_view token, T &value) {
    return std::from_chars(token.data(), token.data() + token.size(), value).ec == std::errc();
  }

  // The power of ten of the first digit that is not zero, roughly: only its sign matters, far from zero.
  static int64_t leading_exponent(std::string_view token) {
    const size_t mark = std::min(token.find_first_of("eE"), token.size());
    const std::string_view digits = token.substr(0, mark);
    const size_t point = std::min(digits.find('.'), digits.size());
    const size_t first = std::min(digits.find_first_of("123456789"), digits.size());
    int64_t exponent = 0;
    if (mark < token.size()) {
      std::string_view written = token.substr(mark + 1);
      if (written.starts_with('+')) written.remove_prefix(1);
      constexpr int64_t kFar = int64_t{1} << 50;  // no document is as long
      if (!convert(written, exponent)) exponent = written.starts_with('-') ? -kFar : kFar;
      exponent = std::clamp(exponent, -kFar, kFar);
    }
    return static_cast<int64_t>(point) - static_cast<int64_t>(first) + exponent;
  }

  std::string_view text_, source_;
  size_t at_ = 0;
};

Json Json::parse(std::string_view text, std::string_view source) { return Parser(text, source).document(); }

Json read_json(const std::string &path) { return Json::parse(read_file(path), path); }

}  // namespace moe
