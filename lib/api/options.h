// Values of options, over the table of option_table.h. What is not set has the default of its row.
#pragma once
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "api/handle.h"
#include "api/option_table.h"
#include "base/log.h"

namespace moe::api {

class Options {
 public:
  void set(std::string_view key, std::string_view value);
  void append(std::string_view key, std::string_view element);
  void load_json(const Json &object);  // all or nothing

  bool has(std::string_view key) const;
  // The value in force; of a list its elements. A key that is not in the table is a defect (Code::internal).
  std::string text(std::string_view key) const;
  std::string required_text(std::string_view key) const;  // Code::invalid when it is empty
  int64_t integer(std::string_view key) const;
  double number(std::string_view key) const;
  bool flag(std::string_view key) const;
  std::vector<std::string> list(std::string_view key) const;
  std::vector<float> numbers(std::string_view key) const;
  // The elements of a list as "name=value"; an element without '=' has the name "".
  std::vector<std::pair<std::string, std::string>> named(std::string_view key) const;

  std::string as_text(std::string_view key) const;  // as set() takes it
  Json resolved(std::string_view verb) const;       // "" = all
  // A line for the shell that gives `verb` the options that were set: "moe-eval run --tasks 'a b.jsonl'".
  std::string command(std::string_view program, std::string_view verb) const;
  void check(std::string_view verb) const;          // Code::invalid for an option that the verb does not read

  Log log;

 private:
  const OptionRow &row(std::string_view key) const;
  const std::vector<std::string> &values(const OptionRow &row) const;

  std::map<std::string, std::vector<std::string>, std::less<>> values_;  // by key of the row
};

struct OptionsCore {
  Options options;
  Use use;
};

// Elements of the text of a list: a JSON array of strings and numbers, or parts between commas.
std::vector<std::string> list_elements(std::string_view text);

// For the time of a call: the options of a handle, or all defaults for NULL.
class OptionsOf {
 public:
  explicit OptionsOf(const moe_options *handle);
  const Options *operator->() const { return &options_; }
  const Options &operator*() const { return options_; }

 private:
  std::shared_ptr<OptionsCore> core_;
  Reading reading_;
  const Options &options_;
};

}  // namespace moe::api

struct moe_options : moe::api::Handle<moe::api::OptionsCore, 0x6d6f652d6f707473> {};
