// The backend of the op tests in the program for real devices.
#include "support/mirrored_backend.h"
#include "support/reference.h"
#include "tensor/cuda.h"

namespace moe::test {

std::vector<std::unique_ptr<Backend>> all_backends(int) {
  std::vector<std::unique_ptr<Backend>> backends;
  backends.push_back(mirrored(open_cuda("cuda", MOE_CUDA_LIBRARY)));
  return backends;
}

bool small_cases_only() { return false; }

}  // namespace moe::test
