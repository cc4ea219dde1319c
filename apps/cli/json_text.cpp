#include "cli/json_text.h"

#include <charconv>
#include <cmath>

#include "cli/failure.h"

namespace moe::cli {

// Recursive descent over the bytes of one document.
class JsonReader {
 public:
  JsonReader(std::string_view text, const std::string &source) : text_(text), source_(source) {}

  Json document() {
    Json value = read_value(0);
    skip_space();
    if (at_ < text_.size()) refuse("text after the end");
    return value;
  }

 private:
  [[noreturn]] void refuse(const char *what) const {
    throw Failure(kFailed, source_ + ": JSON: " + what + " at byte " + std::to_string(at_));
  }

  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

  void skip_space() {
    while (at_ < text_.size() && std::string_view(" \t\r\n").find(text_[at_]) != std::string_view::npos) at_++;
  }

  bool take(char expected) {
    skip_space();
    if (peek() != expected || at_ >= text_.size()) return false;
    at_++;
    return true;
  }

  Json read_value(int depth) {
    if (depth > 128) refuse("nested deeper than 128");
    skip_space();
    switch (peek()) {
      case '{': return read_object(depth);
      case '[': return read_array(depth);
      case '"': return Json(read_string());
      case 't': return read_word("true", Json(true));
      case 'f': return read_word("false", Json(false));
      case 'n': return read_word("null", Json());
      default: return read_number();
    }
  }

  Json read_word(std::string_view word, Json value) {
    if (text_.substr(at_, word.size()) != word) refuse("no value");
    at_ += word.size();
    return value;
  }

  Json read_object(int depth) {
    Json object = Json::object();
    at_++;
    if (take('}')) return object;
    do {
      skip_space();
      if (peek() != '"') refuse("a key is missing");
      std::string key = read_string();
      if (object.find(key)) refuse("a key twice");
      if (!take(':')) refuse("':' is missing");
      object.members_.emplace_back(std::move(key), read_value(depth + 1));
    } while (take(','));
    if (!take('}')) refuse("'}' is missing");
    return object;
  }

  Json read_array(int depth) {
    Json array = Json::array();
    at_++;
    if (take(']')) return array;
    do array.items_.push_back(read_value(depth + 1));
    while (take(','));
    if (!take(']')) refuse("']' is missing");
    return array;
  }

  size_t digits() {
    const size_t begin = at_;
    while (peek() >= '0' && peek() <= '9') at_++;
    return at_ - begin;
  }

  Json read_number() {
    const size_t begin = at_;
    if (peek() == '-') at_++;
    const bool leading_zero = peek() == '0';
    const size_t whole = digits();
    if (whole == 0) refuse("no value");
    if (leading_zero && whole > 1) refuse("a number with a leading zero");
    if (peek() == '.') {
      at_++;
      if (digits() == 0) refuse("no digit after the point");
    }
    if (peek() == 'e' || peek() == 'E') {
      at_++;
      if (peek() == '+' || peek() == '-') at_++;
      if (digits() == 0) refuse("no digit in the exponent");
    }
    Json number;
    number.kind_ = Json::Kind::number;
    number.text_ = text_.substr(begin, at_ - begin);
    return number;
  }

  std::string read_string() {
    std::string out;
    at_++;
    while (true) {
      if (at_ >= text_.size()) refuse("a string without end");
      const auto byte = static_cast<unsigned char>(text_[at_]);
      if (byte == '"') break;
      if (byte < 0x20) refuse("a control character in a string");
      if (byte == '\\') read_escape(out);
      else read_utf8(out);
    }
    at_++;
    return out;
  }

  void read_escape(std::string &out) {
    at_++;
    constexpr std::string_view kLetters = "\"\\/bfnrt", kBytes = "\"\\/\b\f\n\r\t";
    const char letter = peek();
    if (letter == 'u') return append_code_point(out, read_escaped_code_point());
    const size_t which = kLetters.find(letter);
    if (which == std::string_view::npos || at_ >= text_.size()) refuse("an unknown escape");
    out += kBytes[which];
    at_++;
  }

  uint32_t read_hex() {
    if (text_.size() - at_ < 5) refuse("a short \\u escape");
    uint32_t unit = 0;
    const char *begin = text_.data() + at_ + 1;
    if (std::from_chars(begin, begin + 4, unit, 16).ptr != begin + 4) refuse("a bad \\u escape");
    at_ += 5;
    return unit;
  }

  // One UTF-16 unit, or two that are a surrogate pair.
  uint32_t read_escaped_code_point() {
    const uint32_t high = read_hex();
    if (high < 0xD800 || high > 0xDFFF) return high;
    if (high > 0xDBFF || text_.substr(at_, 2) != "\\u") refuse("a lone surrogate");
    at_++;
    const uint32_t low = read_hex();
    if (low < 0xDC00 || low > 0xDFFF) refuse("a lone surrogate");
    return 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
  }

  static void append_code_point(std::string &out, uint32_t point) {
    const auto tail = [&](int shift) { out += static_cast<char>(0x80 | ((point >> shift) & 0x3F)); };
    if (point < 0x80) {
      out += static_cast<char>(point);
    } else if (point < 0x800) {
      out += static_cast<char>(0xC0 | (point >> 6));
      tail(0);
    } else if (point < 0x10000) {
      out += static_cast<char>(0xE0 | (point >> 12));
      tail(6), tail(0);
    } else {
      out += static_cast<char>(0xF0 | (point >> 18));
      tail(12), tail(6), tail(0);
    }
  }

  void read_utf8(std::string &out);

  std::string_view text_;
  const std::string &source_;
  size_t at_ = 0;
};

namespace {

// Length of the well-formed UTF-8 character at the front, 0 when there is none (Unicode 15, table 3-7).
size_t utf8_length(std::string_view text) {
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const auto tail = [&](size_t i) { return (byte(i) & 0xC0) == 0x80; };
  const unsigned first = byte(0), second = byte(1);
  if (text.empty()) return 0;
  if (first < 0x80) return 1;
  if (first < 0xC2 || first > 0xF4 || !tail(1)) return 0;
  if (first < 0xE0) return 2;
  if (first < 0xF0) {
    const bool bad = (first == 0xE0 && second < 0xA0) || (first == 0xED && second > 0x9F);
    return !bad && tail(2) ? 3 : 0;
  }
  const bool bad = (first == 0xF0 && second < 0x90) || (first == 0xF4 && second > 0x8F);
  return !bad && tail(2) && tail(3) ? 4 : 0;
}

// Bytes that are not UTF-8 become U+FFFD.
void write_string(std::string &out, std::string_view text) {
  out += '"';
  while (!text.empty()) {
    const size_t length = utf8_length(text);
    const char byte = text.front();
    if (length == 0) out += "\xEF\xBF\xBD";
    else if (byte == '"' || byte == '\\') (out += '\\') += byte;
    else if (byte == '\n') out += "\\n";
    else if (byte == '\t') out += "\\t";
    else if (byte == '\r') out += "\\r";
    else if (static_cast<unsigned char>(byte) < 0x20)
      ((out += "\\u00") += (byte < 0x10 ? '0' : '1')) += "0123456789abcdef"[byte & 15];
    else out += text.substr(0, length);
    text.remove_prefix(length ? length : 1);
  }
  out += '"';
}

void break_line(std::string &out, int indent, int depth) {
  if (indent > 0) out += '\n', out.append(static_cast<size_t>(indent * depth), ' ');
}

}  // namespace

void JsonReader::read_utf8(std::string &out) {
  const size_t length = utf8_length(text_.substr(at_));
  if (length == 0) refuse("bytes that are not UTF-8");
  out += text_.substr(at_, length);
  at_ += length;
}

Json::Json(double value) {
  if (!std::isfinite(value)) return;
  kind_ = Kind::number;
  char buffer[32];
  text_.assign(buffer, std::to_chars(buffer, buffer + sizeof buffer, value).ptr);
}

Json Json::array() {
  Json value;
  value.kind_ = Kind::array;
  return value;
}

Json Json::object(std::vector<Member> members) {
  Json value;
  value.kind_ = Kind::object;
  value.members_ = std::move(members);
  return value;
}

Json Json::parse(std::string_view text, const std::string &source) { return JsonReader(text, source).document(); }

double Json::number() const {
  double value = 0;
  if (kind_ == Kind::number) std::from_chars(text_.data(), text_.data() + text_.size(), value);
  return value;
}

const Json *Json::find(std::string_view key) const {
  for (const Member &member : members_) {
    if (member.first == key) return &member.second;
  }
  return nullptr;
}

const Json &Json::at(std::string_view key) const {
  static const Json null;
  const Json *value = find(key);
  return value ? *value : null;
}

Json &Json::set(std::string key, Json value) {
  kind_ = Kind::object;
  for (Member &member : members_) {
    if (member.first == key) return member.second = std::move(value), *this;
  }
  members_.emplace_back(std::move(key), std::move(value));
  return *this;
}

Json &Json::push(Json value) {
  kind_ = Kind::array;
  items_.push_back(std::move(value));
  return *this;
}

void Json::erase(std::string_view key) {
  std::erase_if(members_, [&](const Member &member) { return member.first == key; });
}

std::string Json::dump(int indent) const {
  std::string out;
  write(out, indent, 0);
  return out;
}

void Json::write(std::string &out, int indent, int depth) const {
  switch (kind_) {
    case Kind::null: out += "null"; return;
    case Kind::boolean: out += boolean_ ? "true" : "false"; return;
    case Kind::number: out += text_; return;
    case Kind::string: write_string(out, text_); return;
    default: break;
  }
  const bool is_list = kind_ == Kind::array;
  out += is_list ? '[' : '{';
  for (size_t i = 0; i < size(); i++) {
    if (i > 0) out += indent > 0 ? "," : ", ";
    break_line(out, indent, depth + 1);
    if (is_list) {
      items_[i].write(out, indent, depth + 1);
    } else {
      write_string(out, members_[i].first);
      out += ": ";
      members_[i].second.write(out, indent, depth + 1);
    }
  }
  if (size() > 0) break_line(out, indent, depth);
  out += is_list ? ']' : '}';
}

}  // namespace moe::cli
