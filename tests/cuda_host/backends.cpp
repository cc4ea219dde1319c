// The backend of the op and model tests in programs that test CUDA on the CPU. CUDA_HOST_STRICT=1 and CUDA_HOST_ASYNC=1 choose modes.
#include <cstdlib>

#include "cuda/cuda_backend.h"
#include "cuda_host/host.h"
#include "support/golden.h"
#include "support/mirrored_backend.h"
#include "support/reference.h"

namespace moe::test {

namespace {

void set_modes() {
  cuda_host::set_strict(std::getenv("CUDA_HOST_STRICT") != nullptr);
  cuda_host::set_async(std::getenv("CUDA_HOST_ASYNC") != nullptr);
}
uint64_t seed_of(int threads) { return threads > 1 ? static_cast<uint64_t>(threads) : 0; }

}  // namespace

// "Threads" are orders in which the device runs: one thread runs by number, more at random.
std::vector<std::unique_ptr<Backend>> all_backends(int threads) {
  set_modes();
  const uint64_t seed = seed_of(threads);
  std::vector<std::unique_ptr<Backend>> backends;
  backends.push_back(mirrored(std::make_unique<cuda::CudaBackend>(0), [seed] { cuda_host::set_seed(seed); }));
  return backends;
}

std::shared_ptr<Backend> model_backend(int threads) {
  set_modes();
  cuda_host::set_seed(seed_of(threads));
  return std::make_shared<cuda::CudaBackend>(0);
}

bool small_cases_only() { return cuda_host::checks_races(); }

}  // namespace moe::test
