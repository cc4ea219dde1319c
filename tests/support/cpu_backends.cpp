// The backends of the tests in programs that test the CPU: for ops one for each level that this build and machine have.
#include "support/golden.h"
#include "support/reference.h"

namespace moe::test {

std::vector<std::unique_ptr<Backend>> all_backends(int threads) {
  std::vector<std::unique_ptr<Backend>> backends;
  for (const cpu::Kernels *kernels : all_kernels()) backends.push_back(cpu_backend(*kernels, threads));
  return backends;
}

std::shared_ptr<Backend> model_backend(int) { return nullptr; }

bool small_cases_only() { return false; }

}  // namespace moe::test
