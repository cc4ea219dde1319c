// The help of a program and of a verb, made from the library's table of options.
#pragma once
#include <string>

#include "cli/program.h"

namespace moe::cli {

std::string program_help(const Program &program);
std::string verb_help(const Program &program, const Verb &verb);

}  // namespace moe::cli
