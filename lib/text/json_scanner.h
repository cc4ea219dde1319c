// Reads JSON as a stream, without a tree: a tokenizer.json holds a million strings that go straight into tables.
// The same rules as base/json.h: strict grammar, depth at most 128, valid UTF-8, errors with source and byte offset.
// Small values are cut out as text (skip) and given to Json::parse.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace moe {

class JsonScanner {
 public:
  JsonScanner(std::string_view text, std::string_view source) : text_(text), source_(source) {}

  void begin_object() { open('{', "an object"); }
  bool next_key(std::string &key);  // false at the end of the object, which is consumed
  void begin_array() { open('[', "an array"); }
  bool next_item();                               // false at the end of the array, which is consumed
  std::string_view string(std::string &storage);  // in the text itself or in `storage`
  int64_t integer();
  std::string_view skip();         // any value; returns its text
  std::string_view skip_unread();  // the same for an object that will be read later: looks for its end only
  char peek();                     // the first character of the value that follows, '\0' at the end
  void finish();                   // nothing but white space may follow
  [[noreturn]] void refuse(std::string_view problem) const;

 private:
  void skip_space();
  void open(char bracket, std::string_view what);
  bool next(char closing);
  void unescape(std::string &out);
  uint32_t hex4();

  std::string_view text_, source_;
  size_t at_ = 0;
  std::vector<bool> started_;  // per open object or array: an element was read
};

}  // namespace moe
