#include "cli/program.h"

#include <cstdio>
#include <exception>

#include "cli/help.h"
#include "cli/interrupt.h"

namespace moe::cli {
namespace {

const Verb *find_verb(const Program &program, const std::string &name) {
  for (const Verb &verb : program.verbs) {
    if (name == verb.name) return &verb;
  }
  return nullptr;
}

std::string verb_names(const Program &program) {
  std::string names;
  for (const Verb &verb : program.verbs) {
    if (verb.run) names += (names.empty() ? "" : ", ") + std::string(verb.name);
  }
  return names;
}

// Takes the verb off the arguments.
const Verb &take_verb(const Program &program, std::vector<std::string> &arguments) {
  std::string name = program.default_verb ? program.default_verb : "";
  if (!arguments.empty() && !arguments[0].starts_with("-")) {
    name = arguments[0];
    arguments.erase(arguments.begin());
  }
  if (name.empty()) throw Failure(kUsage, "a verb is needed: " + verb_names(program));
  const Verb *verb = find_verb(program, name);
  if (!verb) throw Failure(kUsage, "'" + name + "' is no verb; there are: " + verb_names(program));
  if (!verb->run) throw Failure(kUsage, "'" + name + "' is not in this version");
  return *verb;
}

int run_verb(const Program &program, const Verb &verb, Context &context) {
  Command &command = context.command;
  if (command.version) return context.console.print(std::string(program.name) + " " + moe_version() + "\n"), kDone;
  if (command.help) return context.console.print(verb_help(program, verb)), kDone;
  if (command.operands.size() > static_cast<size_t>(verb.operands)) {
    throw Failure(
        kUsage, "'" + command.operands[static_cast<size_t>(verb.operands)] + "' is one argument too many; options begin with --");
  }
  if (command.print_config && verb.plain_config)
    return context.console.print(resolved(command.options, verb.name).dump(2) + "\n"), kDone;
  context.cancel = cancel_on_interrupt();
  call(moe_options_set_log, command.options.get(), log_to_console, &context.console);
  return verb.run(context);
}

// The status of a failure, after its line on stderr.
int report(Console &console, const Failure &failure, bool hint) {
  console.error(std::string(failure.what()) + (hint && failure.status() == kUsage ? " (see --help)" : ""));
  return failure.status();
}

int run_parsed(const Program &program, const Verb &verb, Command command) {
  Console console(program.name, {command.quiet, command.verbose, !command.no_color});
  try {
    Context context{std::move(command), console, nullptr};
    const int status = run_verb(program, verb, context);
    console.flush();
    console.end_progress();
    return status;
  } catch (const Failure &failure) {
    return report(console, failure, true);
  } catch (const std::exception &failure) {
    return report(console, Failure(kFailed, failure.what()), false);
  }
}

}  // namespace

Options Context::copied() const {
  Options result = copy(command.options);
  call(moe_options_set_log, result.get(), log_to_console, &console);
  return result;
}

int run_program(const Program &program, int argc, char **argv) {
  std::vector<std::string> arguments(argv + 1, argv + argc);
  Console console(program.name, {});
  try {
    const std::string first = arguments.empty() ? "" : arguments[0];
    if (first == "--help" || first == "-h" || first == "help")
      return console.print(program_help(program)), console.flush(), kDone;
    if (first == "--version")
      return console.print(std::string(program.name) + " " + moe_version() + "\n"), console.flush(), kDone;
    const Verb &verb = take_verb(program, arguments);
    return run_parsed(program, verb, parse_command(verb.name, arguments, verb.plain_config));
  } catch (const Failure &failure) {
    return report(console, failure, true);
  } catch (const std::exception &failure) {
    return report(console, Failure(kFailed, failure.what()), false);
  }
}

}  // namespace moe::cli
