#include "api/option_table.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include "base/error.h"

namespace moe::api {
namespace {

std::string normalized(std::string_view key) {
  std::string name(key);
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

std::vector<std::string> split(std::string_view text, std::string_view separator) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    const size_t end = std::min(text.find(separator), text.size());
    parts.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + separator.size(), text.size()));
  }
  return parts;
}

// Every key and alias with its row. Sorted, never changed after the first use.
const std::map<std::string, const OptionRow *, std::less<>> &names() {
  static const auto all = [] {
    std::map<std::string, const OptionRow *, std::less<>> table;
    for (const OptionRow &row : option_rows()) {
      table.emplace(row.key, &row);
      for (std::string &alias : split(row.aliases, ", ")) table.emplace(std::move(alias), &row);
    }
    return table;
  }();
  return all;
}

// Insertions, deletions and replacements that turn a into b (Levenshtein 1966).
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); j++) row[j] = j;
  for (size_t i = 1; i <= a.size(); i++) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); j++) {
      const size_t replaced = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

// The nearest name, "" when none is near.
std::string nearest_name(const std::string &name) {
  if (name.size() > 64) return "";
  std::string nearest;
  size_t smallest = std::max<size_t>(2, name.size() / 3) + 1;
  for (const auto &[known, row] : names()) {
    const size_t distance = edit_distance(name, known);
    if (distance < smallest) smallest = distance, nearest = known;
  }
  return nearest;
}

[[noreturn]] void refuse(const OptionRow &row, const std::string &expected, std::string_view found) {
  fail(Code::invalid, row.key, ": expected ", expected, ", found '", found.substr(0, 200), "'");
}

// A number as it is written in the help: 1024, 0.03, 2e-4.
std::string number_text(double value) {
  char buffer[64];
  const auto end = value == std::floor(value) && std::fabs(value) < 1e15
                       ? std::to_chars(buffer, buffer + sizeof buffer, static_cast<int64_t>(value)).ptr
                       : std::to_chars(buffer, buffer + sizeof buffer, value).ptr;
  return {buffer, end};
}

std::string range_text(const OptionRow &row) {
  const std::string low = number_text(row.low);
  return row.high >= 9007199254740992.0 ? low + " or more" : low + " to " + number_text(row.high);
}

template <class T>
bool parse_number(std::string_view text, T &value) {
  if (text.starts_with('+')) text.remove_prefix(1);
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
  return !text.empty() && failure == std::errc() && end == text.data() + text.size();
}

bool in_range(const OptionRow &row, double value) { return value >= row.low && value <= row.high; }

std::string checked_integer(const OptionRow &row, std::string_view value) {
  int64_t number = 0;
  if (!parse_number(value, number) || !in_range(row, static_cast<double>(number)))
    refuse(row, "an integer, " + range_text(row), value);
  return std::to_string(number);
}

std::string checked_number(const OptionRow &row, std::string_view value) {
  double number = 0;
  if (!parse_number(value, number) || !in_range(row, number)) refuse(row, "a number, " + range_text(row), value);
  return std::string(value.starts_with('+') ? value.substr(1) : value);
}

// "8G", "512MiB", "1000000".
std::string checked_bytes(const OptionRow &row, std::string_view value) {
  std::string_view digits = value;
  for (std::string_view unit : {"iB", "B"}) {
    if (digits.size() > unit.size() && digits.ends_with(unit)) {
      digits.remove_suffix(unit.size());
      break;
    }
  }
  double factor = 1;
  constexpr std::string_view kUnits = "KMGT";
  if (!digits.empty()) {
    const size_t unit = kUnits.find(static_cast<char>(digits.back() & ~0x20));
    if (unit != std::string_view::npos) {
      factor = std::ldexp(1, 10 * (static_cast<int>(unit) + 1));
      digits.remove_suffix(1);
    }
  }
  double number = 0;
  if (!parse_number(digits, number) || !in_range(row, number * factor))
    refuse(row, "bytes such as 8G, " + range_text(row), value);
  return std::to_string(static_cast<int64_t>(number * factor));
}

std::string checked_boolean(const OptionRow &row, std::string_view value) {
  for (std::string_view word : {"true", "1", "yes", "on"}) {
    if (value == word) return "true";
  }
  for (std::string_view word : {"false", "0", "no", "off"}) {
    if (value == word) return "false";
  }
  refuse(row, "true or false", value);
}

// A choice "word:N" stands for the word with any number.
bool is_numbered(std::string_view choice, std::string_view value) {
  if (!choice.ends_with(":N")) return false;
  const std::string_view word = choice.substr(0, choice.size() - 1);
  if (!value.starts_with(word)) return false;
  value.remove_prefix(word.size());
  return !value.empty() && value.size() <= 4 && value.find_first_not_of("0123456789") == value.npos;
}

std::string checked_choice(const OptionRow &row, std::string_view value) {
  for (const std::string &choice : split(row.choices, "|")) {
    if (value == choice || is_numbered(choice, value)) return std::string(value);
  }
  refuse(row, row.choices, value);
}

}  // namespace

const char *option_type_name(OptionType type) {
  constexpr const char *kNames[] = {"int", "float", "bool", "bytes", "string", "choice"};
  return kNames[static_cast<size_t>(type)];
}

std::string option_bounds(const OptionRow &row) {
  switch (row.type) {
    case OptionType::integer:
    case OptionType::number:
    case OptionType::bytes: return range_text(row);
    case OptionType::choice: return row.choices;
    default: return "";
  }
}

bool reads(const OptionRow &row, std::string_view verb) {
  const std::vector<std::string> verbs = split(row.verbs, " ");
  return std::find(verbs.begin(), verbs.end(), verb) != verbs.end();
}

const OptionRow *find_option(std::string_view key) {
  const auto found = names().find(normalized(key));
  return found == names().end() ? nullptr : found->second;
}

const OptionRow &require_option(std::string_view key) {
  if (const OptionRow *row = find_option(key)) return *row;
  const std::string nearest = nearest_name(normalized(key));
  fail(Code::invalid, "option '", key.substr(0, 100), "' does not exist",
       nearest.empty() ? "" : "; did you mean '" + nearest + "'?");
}

void check_verb(std::string_view verb) {
  std::vector<std::string> verbs;
  for (const OptionRow &row : option_rows()) {
    for (std::string &name : split(row.verbs, " ")) {
      if (name == verb) return;
      if (std::find(verbs.begin(), verbs.end(), name) == verbs.end()) verbs.push_back(std::move(name));
    }
  }
  std::string list;
  for (const std::string &name : verbs) list += (list.empty() ? "" : ", ") + name;
  fail(Code::invalid, "verb: expected one of ", list, ", found '", verb.substr(0, 100), "'");
}

std::string checked_value(const OptionRow &row, std::string_view value) {
  switch (row.type) {
    case OptionType::integer: return checked_integer(row, value);
    case OptionType::number: return checked_number(row, value);
    case OptionType::boolean: return checked_boolean(row, value);
    case OptionType::bytes: return checked_bytes(row, value);
    case OptionType::choice: return checked_choice(row, value);
    case OptionType::string: break;
  }
  return std::string(value);
}

Json typed_value(const OptionRow &row, const std::string &value) {
  switch (row.type) {
    case OptionType::integer:
    case OptionType::bytes: {
      int64_t number = 0;
      parse_number(value, number);
      return number;
    }
    case OptionType::number: {
      double number = 0;
      parse_number(value, number);
      return number;
    }
    case OptionType::boolean: return value == "true";
    default: return value;
  }
}

Json options_json(std::string_view verb) {
  if (!verb.empty()) check_verb(verb);
  const auto list = [](std::string_view text, std::string_view separator) {
    Json array = Json::array();
    for (const std::string &part : split(text, separator)) array.push(part);
    return array;
  };
  Json rows = Json::array();
  for (const OptionRow &row : option_rows()) {
    if (!verb.empty() && !reads(row, verb)) continue;
    rows.push(Json::object({{"key", row.key},
                            {"aliases", list(row.aliases, ", ")},
                            {"type", option_type_name(row.type)},
                            {"is_list", row.is_list},
                            {"default", *row.default_value ? Json(row.default_value) : Json()},
                            {"bounds", option_bounds(row)},
                            {"help", row.help},
                            {"verbs", list(row.verbs, " ")}}));
  }
  return rows;
}

}  // namespace moe::api
