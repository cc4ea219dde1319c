// Reading and copying options, and their table. Keys are those of moe.h.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "cli/handles.h"
#include "cli/json_text.h"

namespace moe::cli {

Options new_options();
void set(const Options &options, const std::string &key, const std::string &value);

bool has(const Options &options, const std::string &key);         // it was set
std::string get(const Options &options, const std::string &key);  // "" = none
int64_t integer(const Options &options, const std::string &key);
bool flag(const Options &options, const std::string &key);
std::vector<std::string> list(const Options &options, const std::string &key);
// Elements name=value; the name is "" where there is none.
std::vector<std::pair<std::string, std::string>> named(const Options &options, const std::string &key);
// The value, or wrong usage "option --model is needed".
std::string required(const Options &options, const std::string &key);

// Those in force for a verb, as JSON.
Json resolved(const Options &options, const char *verb);
// The same options; only what was set is set.
Options copy(const Options &options);

// The row of a name, an alias or a flag without its dashes; '-' is '_'. false when there is none.
bool find_row(const std::string &name, moe_option &row);
bool reads(const moe_option &row, const std::string &verb);

// A whole file. Failure with the system's reason.
std::string read_file(const std::string &path);
bool file_exists(const std::string &path);

}  // namespace moe::cli
