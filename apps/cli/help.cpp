#include "cli/help.h"

#include <algorithm>

namespace moe::cli {
namespace {

constexpr size_t kColumn = 36;  // where the explanations begin

std::string line(const std::string &name, const std::string &text) {
  std::string out = "  " + name;
  if (out.size() + 2 > kColumn) out += "\n" + std::string(kColumn, ' ');
  else out.resize(kColumn, ' ');
  return out + text + "\n";
}

std::string value_name(const moe_option &row) {
  const std::string type = row.type;
  if (type == "bool") return "";
  std::string name = type == "choice" ? "WORD" : type == "string" ? "TEXT" : type == "float" ? "NUMBER" : type;
  std::transform(name.begin(), name.end(), name.begin(),
                 [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; });
  return " " + name + (row.is_list ? ",..." : "");
}

std::string option_line(const moe_option &row) {
  std::string about = row.help, limits = row.bounds;
  const std::string value = row.default_value;
  if (!value.empty() && row.type != std::string("bool")) limits += (limits.empty() ? "default " : "; default ") + value;
  if (!limits.empty()) about += " (" + limits + ")";
  return line(flag_name(row.key) + value_name(row), about);
}

std::string common_flags() {
  return line("--config FILE", "JSON file of the same names; flags win over it") +
         line("--print-config", "print the configuration in force as JSON and end") +
         line("--json", "results as JSON on standard output") + line("--quiet", "errors only on standard error") +
         line("--verbose", "also log what is rarely of interest") +
         line("--no-color", "no colours; so does the environment's NO_COLOR") + line("--help", "this text") +
         line("--version", "the version of the library");
}

}  // namespace

std::string program_help(const Program &program) {
  std::string text = std::string(program.name) + " " + moe_version() + ": " + program.about + "\n\nusage: " + program.name + " " +
                     (program.default_verb ? "[verb]" : "verb") + " [options]\n\nverbs (" + program.name +
                     " VERB --help shows the options of one)\n";
  for (const Verb &verb : program.verbs) {
    const bool is_default = program.default_verb && verb.name == std::string(program.default_verb);
    text += line(verb.name,
                 std::string(verb.help) + (is_default ? " (the default)" : "") + (verb.run ? "" : " (not in this version)"));
  }
  return text + "\nflags of every verb\n" + common_flags() +
         "\nExit status: 0 done, 1 failed, 2 wrong usage, 130 cancelled (Ctrl-C ends in order, a second one at once).\n";
}

std::string verb_help(const Program &program, const Verb &verb) {
  std::string text = std::string(program.name) + " " + verb.name + ": " + verb.help + "\n\nusage: " + program.name + " " +
                     verb.name + " " + verb.usage + "\n\noptions\n";
  moe_option row = MOE_OPTION_INIT;
  for (size_t i = 0; moe_options_row(i, &row); i++) {
    if (reads(row, verb.name)) text += option_line(row);
  }
  return text + "\nflags of every verb\n" + common_flags();
}

}  // namespace moe::cli
