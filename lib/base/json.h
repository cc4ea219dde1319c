// JSON (RFC 8259), strictly: depth at most 128, duplicate keys refused, keys compared exactly (case-sensitive), strings
// valid UTF-8 and possibly with NUL inside, numbers finite, integers of 64 bits kept exactly. Values are plain data.
// Parsed and written here rather than by a C library, whose strings end at a NUL and whose integers end at 2^53.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace moe {

class Json {
 public:
  enum class Kind { null, boolean, number, string, array, object };

  Json() = default;  // null
  Json(bool value);
  Json(double value);
  Json(int value) : Json(static_cast<int64_t>(value)) {}
  Json(unsigned value) : Json(static_cast<int64_t>(value)) {}
  Json(int64_t value);
  Json(uint64_t value);
  Json(const char *value) : Json(std::string(value)) {}
  Json(std::string value);
  Json(std::string_view value) : Json(std::string(value)) {}
  static Json array();
  template <class List>
  static Json array_of(const List &values) {  // of numbers, texts, ...
    Json json = array();
    for (const auto &value : values) json.push(Json(value));
    return json;
  }
  static Json object(std::vector<std::pair<std::string, Json>> members = {});  // the keys must differ

  // Parses one document; `source` (a file name) opens every error message. Trailing text is an error.
  static Json parse(std::string_view text, std::string_view source);

  Kind kind() const { return kind_; }
  bool is_null() const { return kind_ == Kind::null; }
  bool is_bool() const { return kind_ == Kind::boolean; }
  bool is_number() const { return kind_ == Kind::number; }
  bool is_string() const { return kind_ == Kind::string; }
  bool is_array() const { return kind_ == Kind::array; }
  bool is_object() const { return kind_ == Kind::object; }

  // Typed access; a wrong kind is Code::format "expected a number, found a string".
  bool boolean() const;
  double number() const;
  int64_t integer() const;   // a number without fraction, |x| <= 2^53 or kept exactly when written as an integer
  uint64_t natural() const;  // the same for 0 <= x < 2^64
  const std::string &string() const;
  const std::vector<Json> &items() const;
  std::vector<Json> &items();
  const std::vector<std::pair<std::string, Json>> &members() const;  // in the order of the text
  size_t size() const;                                               // of an array or object

  // Object access. find: nullptr when absent. at: Code::format "<source>: key 'x' is missing".
  const Json *find(std::string_view key) const;
  const Json &at(std::string_view key, std::string_view source) const;
  // Typed members with the file and key in the message; the _or forms give `otherwise` when absent or null.
  std::string string_at(std::string_view key, std::string_view source) const;
  int64_t integer_at(std::string_view key, std::string_view source) const;
  double number_at(std::string_view key, std::string_view source) const;
  bool bool_at(std::string_view key, std::string_view source) const;
  std::string string_or(std::string_view key, std::string otherwise, std::string_view source) const;
  int64_t integer_or(std::string_view key, int64_t otherwise, std::string_view source) const;
  double number_or(std::string_view key, double otherwise, std::string_view source) const;
  bool bool_or(std::string_view key, bool otherwise, std::string_view source) const;

  // Building. set replaces a member or appends it; push appends to an array. A null becomes the object or array.
  Json &set(std::string key, Json value);
  Json &push(Json value);

  // indent 0: one line. Numbers are written so that they read back equal; integers without a fraction.
  // NaN and infinities are written as null, bytes that are not UTF-8 as U+FFFD.
  std::string dump(int indent = 0) const;

 private:
  class Parser;  // fills values in place
  bool has_value(std::string_view key) const;
  void write(std::string &out, int indent, int depth) const;
  void write_container(std::string &out, int indent, int depth) const;

  enum class Whole : uint8_t { no, signed_64, unsigned_64 };  // how integer_ holds the number exactly, if it does

  Kind kind_ = Kind::null;
  bool boolean_ = false;
  Whole whole_ = Whole::no;
  double number_ = 0;
  uint64_t integer_ = 0;  // two's complement when signed_64
  std::string string_;
  std::vector<Json> items_;
  std::vector<std::pair<std::string, Json>> members_;
};

// Reads a whole file (at most 1 GiB) and parses it.
Json read_json(const std::string &path);

}  // namespace moe
