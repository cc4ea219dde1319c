// The backends of the op tests in programs that test the CPU: one for each level that this build and machine have.
#include "support/reference.h"

namespace moe::test {

std::vector<std::unique_ptr<Backend>> all_backends(int threads) {
  std::vector<std::unique_ptr<Backend>> backends;
  for (const cpu::Kernels *kernels : all_kernels()) backends.push_back(cpu_backend(*kernels, threads));
  return backends;
}

bool small_cases_only() { return false; }

}  // namespace moe::test
