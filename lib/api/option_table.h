// The one table of options: the flags of the programs, the keys of configuration files and of moe_options_set, docs/options.md.
#pragma once
#include <moe.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace moe::api {

enum class OptionType : uint8_t { integer, number, boolean, bytes, string, choice };

struct OptionRow {
  const char *key;
  const char *aliases;  // ", " between them: habits from other programs
  OptionType type;
  bool is_list;
  const char *default_value;  // "" = none
  double low, high;           // of numbers, both included
  const char *choices;        // '|' between them
  const char *help;
  const char *verbs;  // ' ' between them
};

std::span<const OptionRow> option_rows();
const char *option_type_name(OptionType type);
std::string option_bounds(const OptionRow &row);  // "0 to 1", "cosine|linear|constant", ""
bool reads(const OptionRow &row, std::string_view verb);

// '-' is '_'; aliases count. nullptr when there is none.
const OptionRow *find_option(std::string_view key);
// The same, or Code::invalid with the nearest name.
const OptionRow &require_option(std::string_view key);
// Code::invalid listing the verbs when it is none.
void check_verb(std::string_view verb);

// One value (of a list: one element) in its canonical text. Code::invalid naming the option, what is expected and what was found.
std::string checked_value(const OptionRow &row, std::string_view value);
// The canonical text as a JSON value of its type.
Json typed_value(const OptionRow &row, const std::string &value);

// The table as JSON; verb "" = all rows.
Json options_json(std::string_view verb);

}  // namespace moe::api
