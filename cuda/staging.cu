#include "cuda/staging.h"

#include <algorithm>
#include <cstring>

namespace moe::cuda {
namespace {

constexpr size_t kAlignment = 256;

}  // namespace

void Staging::upload(cudaStream_t stream, void *to, const void *from, size_t bytes) {
  const std::lock_guard<std::mutex> one_upload(mutex_);
  for (size_t done = 0; done < bytes;) {
    // What fits into a slot is not cut.
    if (used_ == kSlotBytes || (used_ > 0 && bytes - done <= kSlotBytes && bytes - done > kSlotBytes - used_)) next_slot(stream);
    const size_t piece = std::min(bytes - done, kSlotBytes - used_);
    std::byte *const slot = ring_.data() + slot_ * kSlotBytes + used_;
    std::memcpy(slot, static_cast<const std::byte *>(from) + done, piece);
    check(cudaMemcpyAsync(static_cast<std::byte *>(to) + done, slot, piece, cudaMemcpyHostToDevice, stream),
          "copy to the device");
    used_ = std::min(kSlotBytes, (used_ + piece + kAlignment - 1) / kAlignment * kAlignment);
    done += piece;
  }
}

void Staging::next_slot(cudaStream_t stream) {
  sent_[slot_].record(stream);
  const size_t next = (slot_ + 1) % kSlots;
  sent_[next].wait();
  slot_ = next;
  used_ = 0;
}

}  // namespace moe::cuda
