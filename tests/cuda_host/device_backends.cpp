// The backend of the tests in the programs for real devices.
#include "support/golden.h"
#include "support/mirrored_backend.h"
#include "support/reference.h"
#include "tensor/cuda.h"

namespace moe::test {

std::vector<std::unique_ptr<Backend>> all_backends(int) {
  std::vector<std::unique_ptr<Backend>> backends;
  backends.push_back(mirrored(open_cuda("cuda", MOE_CUDA_LIBRARY)));
  return backends;
}

std::shared_ptr<Backend> model_backend(int) { return open_cuda("cuda", MOE_CUDA_LIBRARY); }

bool small_cases_only() { return false; }

}  // namespace moe::test
