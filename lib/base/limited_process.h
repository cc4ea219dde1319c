// A program of somebody else as a child process with little: bounded in time, memory and output, and where it is confined without
// files to write, network and processes of its own (system_call_filter.h). The host sees nothing of it: its descriptors are not passed
// on, and the end of the child raises no SIGCHLD.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/cancel.h"

namespace moe {

struct ProcessLimits {
  int64_t cpu_seconds = 5;
  double seconds = 30;              // on the clock
  uint64_t memory = 512ull << 20;   // bytes of address space
  size_t output = 64 << 10;         // bytes that are kept, of all it prints; the rest is read and dropped
};

struct LimitedProcess {
  std::vector<std::string> command;      // the path of the program first
  std::vector<std::string> environment;  // "NAME=value", nothing else
  std::string folder;                    // where it runs
  std::string input;                     // what it reads
  bool confined = true;
  ProcessLimits limits = {};
};

struct ProcessResult {
  enum class End { exited, signalled, timed_out };  // timed_out: of either time
  End end = End::exited;
  int number = 0;      // exit status, or the signal
  std::string output;  // what it printed on standard output and standard error
  std::string report;  // what it wrote to descriptor 3, bounded as the output
};

// Waits for the end. When it is told to stop, out of time or throws, the process and its group are killed. Code::unsupported where
// the system or the processor has no such limits, Code::io when the program cannot be started.
ProcessResult run_limited(const LimitedProcess &process, const Cancel *cancel);

}  // namespace moe
