// Log lines go to a callback of the host and nowhere else: the library never prints.
#pragma once
#include <functional>
#include <string>

namespace moe {

enum class LogLevel : int { error = 0, warning = 1, info = 2, debug = 3 };
using Log = std::function<void(LogLevel, const std::string &)>;  // may be empty

inline void log(const Log &sink, LogLevel level, const std::string &line) {
  if (sink) sink(level, line);
}

}  // namespace moe
