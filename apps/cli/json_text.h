// JSON for the programs: reads what the library hands out and the lines of JSONL files, writes lines and state files. Strict (RFC
// 8259): depth at most 128, duplicate keys refused, valid UTF-8, surrogate pairs joined and lone ones refused. A number keeps the
// text it was written with, so that it is passed on unchanged. (The library's own JSON is not part of moe.h, which is all that
// the programs use.)
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace moe::cli {

class Json {
 public:
  enum class Kind { null, boolean, number, string, array, object };
  using Member = std::pair<std::string, Json>;

  Json() = default;
  Json(bool value) : kind_(Kind::boolean), boolean_(value) {}
  Json(double value);  // null when it is not finite
  Json(int64_t value) : kind_(Kind::number), text_(std::to_string(value)) {}
  Json(uint64_t value) : kind_(Kind::number), text_(std::to_string(value)) {}
  Json(int value) : Json(static_cast<int64_t>(value)) {}
  Json(std::string value) : kind_(Kind::string), text_(std::move(value)) {}
  Json(std::string_view value) : Json(std::string(value)) {}
  Json(const char *value) : Json(std::string(value)) {}
  static Json array();
  static Json object(std::vector<Member> members = {});

  // One document. Failure (exit status 1) "<source>: JSON: ... at byte N".
  static Json parse(std::string_view text, const std::string &source);

  Kind kind() const { return kind_; }
  bool is_null() const { return kind_ == Kind::null; }
  bool is_string() const { return kind_ == Kind::string; }
  bool is_number() const { return kind_ == Kind::number; }
  bool is_array() const { return kind_ == Kind::array; }
  bool is_object() const { return kind_ == Kind::object; }

  bool boolean() const { return boolean_; }  // false for another kind
  double number() const;                     // 0 for another kind
  int64_t integer() const { return static_cast<int64_t>(number()); }
  const std::string &string() const { return text_; }        // of a number: as it was written
  const std::vector<Json> &items() const { return items_; }  // empty for another kind
  const std::vector<Member> &members() const { return members_; }
  size_t size() const { return items_.size() + members_.size(); }

  const Json *find(std::string_view key) const;  // nullptr when absent or no object
  const Json &at(std::string_view key) const;    // a null when absent
  Json &set(std::string key, Json value);        // replaces or appends; *this becomes an object
  Json &push(Json value);
  void erase(std::string_view key);

  std::string dump(int indent = 0) const;  // indent 0: one line
  bool operator==(const Json &other) const { return dump() == other.dump(); }

 private:
  friend class JsonReader;
  void write(std::string &out, int indent, int depth) const;

  Kind kind_ = Kind::null;
  bool boolean_ = false;
  std::string text_;
  std::vector<Json> items_;
  std::vector<Member> members_;
};

}  // namespace moe::cli
