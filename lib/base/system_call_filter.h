// The calls of the operating system that a program keeps when it runs with little (seccomp, Linux on x86-64 and 64-bit Arm). A list of
// what is allowed, all else is refused: memory, reading files, pipes, time, threads and signals of its own. Refused are with it
// sockets, other processes (to make, to signal, to look into), files to write, make, rename or remove, and everything for
// administrators. Programs that it executes keep the filter.
#pragma once
#include <vector>

#if defined(__linux__) && (defined(__x86_64__) || defined(__aarch64__))
#define MOE_HAVE_SYSTEM_CALL_FILTER 1
#include <linux/filter.h>

namespace moe {

std::vector<sock_filter> system_call_filter();

// In the child, before it executes: 0, or -1 with errno. Allocates nothing.
int install(const std::vector<sock_filter> &filter);

}  // namespace moe
#else
#define MOE_HAVE_SYSTEM_CALL_FILTER 0
#endif
