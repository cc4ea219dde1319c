#include "base/json.h"

#include <charconv>
#include <cmath>
#include <limits>

#include "base/error.h"
#include "base/utf8.h"

namespace moe {
namespace {

constexpr double kExact = 9007199254740992.0;  // 2^53: integers up to here are exact in a double

const char *name_of(Json::Kind kind) {
  switch (kind) {
    case Json::Kind::null: return "null";
    case Json::Kind::boolean: return "a boolean";
    case Json::Kind::number: return "a number";
    case Json::Kind::string: return "a string";
    case Json::Kind::array: return "an array";
    case Json::Kind::object: return "an object";
  }
  return "nothing";
}

void expect(Json::Kind expected, Json::Kind found) {
  if (expected != found) fail(Code::format, "expected ", name_of(expected), ", found ", name_of(found));
}

// Calls get(member) and puts the file and the key in front of its error.
template <class Get>
auto with_place(std::string_view source, std::string_view key, Get get) {
  try {
    return get();
  } catch (const Error &error) {
    fail(error.code(), source, ": key '", key, "': ", error.message());
  }
}

void write_string(std::string &out, std::string_view string) {
  out += '"';
  while (!string.empty()) {
    const char c = string.front();
    size_t length = utf8_length(string);
    if (length == 0) {
      out += "\xEF\xBF\xBD";  // U+FFFD
      length = 1;
    } else if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (static_cast<uint8_t>(c) < 0x20) {
      out += c < 0x10 ? "\\u000" : "\\u001";
      out += "0123456789abcdef"[c & 15];
    } else {
      out.append(string.substr(0, length));
    }
    string.remove_prefix(length);
  }
  out += '"';
}

template <class T>
void write_number(std::string &out, T value) {
  char digits[32];
  out.append(digits, std::to_chars(digits, digits + sizeof digits, value).ptr);
}

}  // namespace

Json::Json(bool value) : kind_(Kind::boolean), boolean_(value) {}

Json::Json(double value) : kind_(Kind::number), number_(value) {}

Json::Json(int64_t value)
    : kind_(Kind::number), whole_(Whole::signed_64), number_(static_cast<double>(value)), integer_(static_cast<uint64_t>(value)) {
}

Json::Json(uint64_t value)
    : kind_(Kind::number), whole_(Whole::unsigned_64), number_(static_cast<double>(value)), integer_(value) {}

Json::Json(std::string value) : kind_(Kind::string), string_(std::move(value)) {}

Json Json::array() {
  Json json;
  json.kind_ = Kind::array;
  return json;
}

Json Json::object(std::vector<std::pair<std::string, Json>> members) {
  Json json;
  json.kind_ = Kind::object;
  json.members_ = std::move(members);
  return json;
}

bool Json::boolean() const {
  expect(Kind::boolean, kind_);
  return boolean_;
}

double Json::number() const {
  expect(Kind::number, kind_);
  return number_;
}

int64_t Json::integer() const {
  expect(Kind::number, kind_);
  const bool fits = whole_ == Whole::signed_64 || integer_ <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  if (whole_ != Whole::no && fits) return static_cast<int64_t>(integer_);
  if (whole_ != Whole::no || number_ != std::trunc(number_) || std::abs(number_) > kExact) {
    fail(Code::format, "expected an integer, found ", dump());
  }
  return static_cast<int64_t>(number_);
}

uint64_t Json::natural() const {
  if (kind_ == Kind::number && whole_ == Whole::unsigned_64) return integer_;
  const int64_t value = integer();
  if (value < 0) fail(Code::format, "expected an integer of at least 0, found ", dump());
  return static_cast<uint64_t>(value);
}

const std::string &Json::string() const {
  expect(Kind::string, kind_);
  return string_;
}

const std::vector<Json> &Json::items() const {
  expect(Kind::array, kind_);
  return items_;
}

std::vector<Json> &Json::items() {
  expect(Kind::array, kind_);
  return items_;
}

const std::vector<std::pair<std::string, Json>> &Json::members() const {
  expect(Kind::object, kind_);
  return members_;
}

size_t Json::size() const { return kind_ == Kind::array ? items_.size() : members().size(); }

const Json *Json::find(std::string_view key) const {
  for (const auto &[name, value] : members()) {
    if (name == key) return &value;
  }
  return nullptr;
}

const Json &Json::at(std::string_view key, std::string_view source) const {
  if (!is_object()) fail(Code::format, source, ": expected an object with the key '", key, "', found ", name_of(kind_));
  const Json *value = find(key);
  if (!value) fail(Code::format, source, ": key '", key, "' is missing");
  return *value;
}

std::string Json::string_at(std::string_view key, std::string_view source) const {
  const Json &value = at(key, source);
  return with_place(source, key, [&] { return value.string(); });
}

int64_t Json::integer_at(std::string_view key, std::string_view source) const {
  const Json &value = at(key, source);
  return with_place(source, key, [&] { return value.integer(); });
}

double Json::number_at(std::string_view key, std::string_view source) const {
  const Json &value = at(key, source);
  return with_place(source, key, [&] { return value.number(); });
}

bool Json::bool_at(std::string_view key, std::string_view source) const {
  const Json &value = at(key, source);
  return with_place(source, key, [&] { return value.boolean(); });
}

bool Json::has_value(std::string_view key) const {
  const Json *value = find(key);
  return value && !value->is_null();
}

std::string Json::string_or(std::string_view key, std::string otherwise, std::string_view source) const {
  return has_value(key) ? string_at(key, source) : otherwise;
}

int64_t Json::integer_or(std::string_view key, int64_t otherwise, std::string_view source) const {
  return has_value(key) ? integer_at(key, source) : otherwise;
}

double Json::number_or(std::string_view key, double otherwise, std::string_view source) const {
  return has_value(key) ? number_at(key, source) : otherwise;
}

bool Json::bool_or(std::string_view key, bool otherwise, std::string_view source) const {
  return has_value(key) ? bool_at(key, source) : otherwise;
}

Json &Json::set(std::string key, Json value) {
  if (is_null()) kind_ = Kind::object;
  expect(Kind::object, kind_);
  for (auto &[name, old] : members_) {
    if (name == key) {
      old = std::move(value);
      return *this;
    }
  }
  members_.emplace_back(std::move(key), std::move(value));
  return *this;
}

Json &Json::push(Json value) {
  if (is_null()) kind_ = Kind::array;
  expect(Kind::array, kind_);
  items_.push_back(std::move(value));
  return *this;
}

std::string Json::dump(int indent) const {
  std::string out;
  write(out, indent, 0);
  return out;
}

void Json::write(std::string &out, int indent, int depth) const {
  switch (kind_) {
    case Kind::null: out += "null"; break;
    case Kind::boolean: out += boolean_ ? "true" : "false"; break;
    case Kind::string: write_string(out, string_); break;
    case Kind::number:
      if (whole_ == Whole::signed_64) write_number(out, static_cast<int64_t>(integer_));
      else if (whole_ == Whole::unsigned_64) write_number(out, integer_);
      else if (std::isfinite(number_)) write_number(out, number_);
      else out += "null";
      break;
    case Kind::array:
    case Kind::object: write_container(out, indent, depth); break;
  }
}

void Json::write_container(std::string &out, int indent, int depth) const {
  const bool is_list = kind_ == Kind::array;
  const auto new_line = [&](int level) {
    if (indent > 0) out.append("\n").append(static_cast<size_t>(indent) * static_cast<size_t>(level), ' ');
  };
  out += is_list ? '[' : '{';
  for (size_t i = 0; i < size(); ++i) {
    if (i > 0) out += indent > 0 ? "," : ", ";
    new_line(depth + 1);
    if (!is_list) {
      write_string(out, members_[i].first);
      out += ": ";
    }
    (is_list ? items_[i] : members_[i].second).write(out, indent, depth + 1);
  }
  if (size() > 0) new_line(depth);
  out += is_list ? ']' : '}';
}

}  // namespace moe
