#include "cli/command.h"

#include <algorithm>

#include "cli/format.h"

namespace moe::cli {
namespace {

// The flags that are no options of the library.
bool *find_switch(Command &command, const std::string &name) {
  const std::pair<const char *, bool *> switches[] = {
      {"json", &command.json},
      {"quiet", &command.quiet},
      {"verbose", &command.verbose},
      {"no_color", &command.no_color},
      {"print_config", &command.print_config},
      {"help", &command.help},
      {"version", &command.version},
  };
  for (const auto &[known, value] : switches) {
    if (name == known) return value;
  }
  return nullptr;
}

bool is_truth(const std::string &text) {
  constexpr const char *kWords[] = {"true", "false", "1", "0", "yes", "no", "on", "off"};
  return std::any_of(std::begin(kWords), std::end(kWords), [&](const char *word) { return text == word; });
}

class Parser {
 public:
  Parser(Command &command, const std::vector<std::string> &arguments) : command_(command), arguments_(arguments) {}

  void parse() {
    while (at_ < arguments_.size()) {
      const std::string &argument = arguments_[at_++];
      if (argument == "--") {
        command_.operands.insert(command_.operands.end(), arguments_.begin() + static_cast<std::ptrdiff_t>(at_),
                                 arguments_.end());
        return;
      }
      if (argument == "-h") command_.help = true;
      else if (argument.starts_with("--")) parse_flag(argument.substr(2));
      else if (argument.starts_with("-") && argument.size() > 1)
        throw Failure(kUsage, "'" + argument + "' is no flag; flags begin with --");
      else command_.operands.push_back(argument);
    }
  }

 private:
  void parse_flag(const std::string &flag) {
    const size_t equals = flag.find('=');
    const bool has_value = equals != std::string::npos;
    std::string name = flag.substr(0, equals), value = has_value ? flag.substr(equals + 1) : "";
    std::replace(name.begin(), name.end(), '-', '_');
    if (bool *on = find_switch(command_, name)) {
      if (has_value) throw Failure(kUsage, "option " + flag_name(name) + " takes no value");
      *on = true;
    } else if (name == "config") {
      command_.config = has_value ? value : next_value(name);
    } else {
      parse_option(name, has_value, value);
    }
  }

  void parse_option(const std::string &name, bool has_value, std::string value) {
    moe_option row = MOE_OPTION_INIT;
    if (!find_row(name, row)) {
      set(command_.options, name, "");  // fails, with the nearest name
      throw Failure(kUsage, "option '" + name + "' does not exist");
    }
    if (!has_value) {
      const bool boolean = row.type == std::string("bool");
      if (boolean && (at_ >= arguments_.size() || !is_truth(arguments_[at_]))) value = "true";
      else value = next_value(name);
    }
    command_.given.emplace_back(row.key, std::move(value));
  }

  std::string next_value(const std::string &name) {
    if (at_ >= arguments_.size() || arguments_[at_].starts_with("--"))
      throw Failure(kUsage, "option " + flag_name(name) + " needs a value");
    return arguments_[at_++];
  }

  Command &command_;
  const std::vector<std::string> &arguments_;
  size_t at_ = 0;
};

void load_file(const Command &command) {
  const std::string json = read_file(command.config);
  moe_error error = MOE_ERROR_INIT;
  const int32_t status = moe_options_load_json(command.options.get(), json.data(), json.size(), &error);
  if (status != MOE_OK) throw Failure(kUsage, command.config + ": " + error.message);
}

}  // namespace

Command parse_command(const std::string &verb, const std::vector<std::string> &arguments, bool load_config) {
  Command command;
  command.verb = verb;
  command.options = new_options();
  Parser(command, arguments).parse();
  if (!command.config.empty() && load_config && !command.help) load_file(command);
  apply(command.given, "", command.options);
  if (!command.help && !command.version) {
    moe_error error = MOE_ERROR_INIT;
    check_usage(moe_options_check(command.options.get(), verb.c_str(), &error), error);
  }
  return command;
}

void apply(const std::vector<std::pair<std::string, std::string>> &given, const std::string &verb, const Options &options) {
  for (size_t i = 0; i < given.size(); i++) {
    const std::string &key = given[i].first, &value = given[i].second;
    moe_option row = MOE_OPTION_INIT;
    find_row(key, row);
    if (!verb.empty() && !reads(row, verb)) continue;
    const auto same = [&](const auto &other) { return other.first == key; };
    if (!row.is_list || std::count_if(given.begin(), given.end(), same) == 1) {
      set(options, key, value);
      continue;
    }
    if (std::find_if(given.begin(), given.end(), same) == given.begin() + static_cast<std::ptrdiff_t>(i)) set(options, key, "[]");
    moe_error error = MOE_ERROR_INIT;
    check_usage(moe_options_append(options.get(), key.c_str(), value.data(), value.size(), &error), error);
  }
}

}  // namespace moe::cli
