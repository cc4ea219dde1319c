#include "cpu/cpu_backend.h"

#include "cpu/backend.h"

namespace moe::cpu {

CpuBackend::CpuBackend(std::shared_ptr<ThreadPool> pool, const Kernels &kernels)
    : pool_(std::move(pool)), k_(kernels), name_(std::string("cpu ") + kernels.level), scratch_(static_cast<size_t>(pool_->threads())) {}

void CpuBackend::reserve_scratch(size_t bytes) {
  for (Buffer &block : scratch_) {
    if (block.size() < bytes) block = Buffer(bytes + bytes / 4);
  }
}

std::unique_ptr<Backend> make_backend(std::shared_ptr<ThreadPool> pool, const Kernels &kernels) {
  return std::make_unique<CpuBackend>(std::move(pool), kernels);
}

}  // namespace moe::cpu
