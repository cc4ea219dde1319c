// A program of several verbs: finds the verb, parses, runs it, and turns failures into one line on stderr and an exit status.
#pragma once
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/console.h"
#include "cli/format.h"

namespace moe::cli {

// What a verb works with. The cancel token is fired by Ctrl-C.
struct Context {
  Command command;
  Console &console;
  moe_cancel_token *cancel;

  const Options &options() const { return command.options; }
  // Options for other calls: the same log goes on.
  Options copied() const;
};

struct Verb {
  const char *name;
  const char *help;              // one line
  const char *usage;             // what follows the verb
  int (*run)(Context &context);  // nullptr: not in this version
  int operands = 0;              // how many there may be
  bool plain_config = true;      // --config holds options of the table; otherwise the verb reads it and prints it
};

struct Program {
  const char *name, *about;
  std::vector<Verb> verbs;
  const char *default_verb;  // when the first argument is a flag; nullptr: a verb is needed
};

int run_program(const Program &program, int argc, char **argv);

}  // namespace moe::cli
