// A command line: verb, options of the library's table, and the flags that every verb has. "--name value" and "--name=value", '-'
// and
// '_' alike, names and aliases; a boolean needs no value; a list is split at commas, or given by repeating its flag, once for
// each element as it is. --config FILE.json holds the same names; flags win.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "cli/options.h"

namespace moe::cli {

struct Command {
  std::string verb;
  Options options;
  std::vector<std::string> operands;                       // what is no flag
  std::vector<std::pair<std::string, std::string>> given;  // flags of the table as given: key, value
  std::string config;
  bool json = false, quiet = false, verbose = false, no_color = false, print_config = false, help = false, version = false;
};

// Parses what follows the verb. load_config: false where the file is no plain list of options (pipeline). Wrong usage is a
// Failure of status 2; a misspelt name is answered with the nearest.
Command parse_command(const std::string &verb, const std::vector<std::string> &arguments, bool load_config);

// Sets flags on options, in the order they were given: those that `verb` reads, or all of them with "".
void apply(const std::vector<std::pair<std::string, std::string>> &given, const std::string &verb, const Options &options);

}  // namespace moe::cli
