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

// Expanded panels and tiles of each thread, slices of the head's gradient.
uint64_t CpuBackend::scratch_bytes(const PassSize &size) const {
  constexpr uint64_t kThread = 3 << 20, kSlices = 8;
  return kThread * static_cast<uint64_t>(pool_->threads()) +
         kSlices * static_cast<uint64_t>(size.supervised) * static_cast<uint64_t>(size.hidden + 2) * sizeof(float);
}

std::unique_ptr<Backend> make_backend(std::shared_ptr<ThreadPool> pool, const Kernels &kernels) {
  return std::make_unique<CpuBackend>(std::move(pool), kernels);
}

}  // namespace moe::cpu
