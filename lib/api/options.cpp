#include "api/options.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"

namespace moe::api {
namespace {

std::string scalar_text(const OptionRow &row, const Json &value) {
  if (value.is_string()) return value.string();
  if (value.is_bool()) return value.boolean() ? "true" : "false";
  if (value.is_number()) return value.dump();
  fail(Code::invalid, row.key, ": expected a text, a number or true/false in the JSON");
}

std::vector<std::string> json_elements(const OptionRow &row, const Json &value) {
  std::vector<std::string> elements;
  if (value.is_object()) {
    for (const auto &[name, member] : value.members()) elements.push_back(name + "=" + scalar_text(row, member));
  } else if (value.is_array()) {
    for (const Json &item : value.items()) elements.push_back(scalar_text(row, item));
  } else if (value.is_string()) {
    elements = list_elements(value.string());
  } else {
    elements.push_back(scalar_text(row, value));
  }
  return elements;
}

std::vector<std::string> checked_values(const OptionRow &row, std::vector<std::string> elements) {
  for (std::string &element : elements) element = checked_value(row, element);
  return elements;
}

std::string shell_word(const std::string &value) {
  constexpr std::string_view kPlain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./=:,+@%";
  if (!value.empty() && value.find_first_not_of(kPlain) == std::string::npos) return value;
  std::string word = "'";
  for (const char c : value) word += c == '\'' ? "'\\''" : std::string(1, c);
  return word + "'";
}

}  // namespace

std::vector<std::string> list_elements(std::string_view text) {
  std::vector<std::string> elements;
  if (text.starts_with('[') && text.ends_with(']')) {
    try {
      const Json array = Json::parse(text, "list");
      for (const Json &item : array.items()) elements.push_back(item.is_string() ? item.string() : item.dump());
      return elements;
    } catch (const Error &) {
      elements.clear();  // no JSON: a value that happens to have brackets, such as a regular expression
    }
  }
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    elements.emplace_back(text.substr(0, comma));
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  return elements;
}

void Options::set(std::string_view key, std::string_view value) {
  const OptionRow &row = require_option(key);
  values_[row.key] = checked_values(row, row.is_list ? list_elements(value) : std::vector<std::string>{std::string(value)});
}

void Options::append(std::string_view key, std::string_view element) {
  const OptionRow &row = require_option(key);
  if (!row.is_list) fail(Code::invalid, row.key, ": takes one value; only lists can be appended to");
  std::string value = checked_value(row, element);
  values_[row.key].push_back(std::move(value));
}

void Options::load_json(const Json &object) {
  if (!object.is_object()) fail(Code::format, "options: expected a JSON object");
  auto values = values_;
  for (const auto &[key, value] : object.members()) {
    const OptionRow &row = require_option(key);
    if (value.is_null()) values.erase(row.key);
    else
      values[row.key] =
          checked_values(row, row.is_list ? json_elements(row, value) : std::vector<std::string>{scalar_text(row, value)});
  }
  values_ = std::move(values);
}

bool Options::has(std::string_view key) const {
  const OptionRow *row = find_option(key);
  return row && values_.contains(row->key);
}

const OptionRow &Options::row(std::string_view key) const {
  const OptionRow *row = find_option(key);
  if (!row) fail(Code::internal, "option '", key, "' is not in the table");
  return *row;
}

// The defaults of all rows, checked once like a caller's values.
const std::vector<std::string> &Options::values(const OptionRow &row) const {
  static const auto defaults = [] {
    std::map<const OptionRow *, std::vector<std::string>> all;
    for (const OptionRow &one : option_rows()) {
      std::vector<std::string> &list = all[&one];
      if (*one.default_value) list = one.is_list ? list_elements(one.default_value) : std::vector<std::string>{one.default_value};
    }
    return all;
  }();
  const auto found = values_.find(row.key);
  return found == values_.end() ? defaults.at(&row) : found->second;
}

std::string Options::text(std::string_view key) const {
  const std::vector<std::string> &all = values(row(key));
  return all.empty() ? "" : all.front();
}

std::string Options::required_text(std::string_view key) const {
  std::string value = text(key);
  if (value.empty()) fail(Code::invalid, key, ": this option is needed");
  return value;
}

int64_t Options::integer(std::string_view key) const {
  const OptionRow &one = row(key);
  const std::string value = text(key);
  return value.empty() ? 0 : typed_value(one, value).integer();
}

double Options::number(std::string_view key) const {
  const OptionRow &one = row(key);
  const std::string value = text(key);
  return value.empty() ? 0 : typed_value(one, value).number();
}

bool Options::flag(std::string_view key) const { return text(key) == "true"; }

std::vector<std::string> Options::list(std::string_view key) const { return values(row(key)); }

std::vector<float> Options::numbers(std::string_view key) const {
  std::vector<float> result;
  for (const std::string &value : list(key)) result.push_back(static_cast<float>(typed_value(row(key), value).number()));
  return result;
}

std::vector<std::pair<std::string, std::string>> Options::named(std::string_view key) const {
  std::vector<std::pair<std::string, std::string>> result;
  for (const std::string &element : list(key)) {
    const size_t equals = element.find('=');
    if (equals == std::string::npos) result.emplace_back("", element);
    else result.emplace_back(element.substr(0, equals), element.substr(equals + 1));
  }
  return result;
}

std::string Options::as_text(std::string_view key) const {
  const OptionRow &one = require_option(key);
  const std::vector<std::string> &all = values(one);
  if (!one.is_list) return all.empty() ? "" : all.front();
  const bool plain = std::none_of(all.begin(), all.end(), [](const std::string &value) {
    return value.empty() || value.front() == '[' || value.find_first_of(std::string_view(",\0", 2)) != std::string::npos;
  });
  std::string joined;
  if (plain) {
    for (const std::string &value : all) joined += (joined.empty() ? "" : ",") + value;
    return joined;
  }
  Json array = Json::array();
  for (const std::string &value : all) array.push(value);
  return array.dump();
}

Json Options::resolved(std::string_view verb) const {
  if (!verb.empty()) check_verb(verb);
  Json object = Json::object();
  for (const OptionRow &one : option_rows()) {
    if (!verb.empty() && !reads(one, verb)) continue;
    const std::vector<std::string> &all = values(one);
    Json value;
    if (one.is_list) {
      value = Json::array();
      for (const std::string &element : all) value.push(typed_value(one, element));
    } else if (!all.empty()) {
      value = typed_value(one, all.front());
    }
    object.set(one.key, std::move(value));
  }
  return object;
}

std::string Options::command(std::string_view program, std::string_view verb) const {
  std::string line = std::string(program) + " " + std::string(verb);
  for (const OptionRow &row : option_rows()) {
    const auto found = values_.find(row.key);
    if (found == values_.end() || !reads(row, verb)) continue;
    std::string flag = row.key;
    std::replace(flag.begin(), flag.end(), '_', '-');
    if (row.type == OptionType::boolean && found->second.front() == "true") line += " --" + flag;
    else
      for (const std::string &value : found->second) line += " --" + flag + " " + shell_word(value);
  }
  return line;
}

void Options::check(std::string_view verb) const {
  check_verb(verb);
  for (const OptionRow &one : option_rows()) {
    if (values_.contains(one.key) && !reads(one, verb)) {
      fail(Code::invalid, "option '", one.key, "' is not read by '", verb, "'; it belongs to: ", one.verbs);
    }
  }
}

namespace {

std::shared_ptr<OptionsCore> core_or_null(const moe_options *handle) { return handle ? core_of(handle, "moe_options") : nullptr; }

const Options &default_options() {
  static const Options defaults;
  return defaults;
}

}  // namespace

OptionsOf::OptionsOf(const moe_options *handle)
    : core_(core_or_null(handle)), reading_(core_ ? &core_->use : nullptr, "moe_options"),
      options_(core_ ? core_->options : default_options()) {}

}  // namespace moe::api
