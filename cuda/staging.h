// The way of uploads: a ring of pinned slots of the host. A call copies into the slot what the device then fetches by itself, so
// while one piece is on its way the next is copied here. Small uploads share a slot. The host waits only where all slots are on
// their way.
#pragma once
#include <array>
#include <mutex>

#include "cuda/memory.h"

namespace moe::cuda {

class Staging {
 public:
  static constexpr size_t kSlots = 4, kSlotBytes = size_t{1} << 20, kBytes = kSlots * kSlotBytes;

  void create() {
    ring_.create(kBytes);
    for (Event &event : sent_) event.create();
  }
  // After what is queued on the stream, always the same; `from` is free at once. From any thread.
  void upload(cudaStream_t stream, void *to, const void *from, size_t bytes);

 private:
  void next_slot(cudaStream_t stream);

  PinnedBuffer ring_;
  std::array<Event, kSlots> sent_;  // behind the last copy out of each slot
  std::mutex mutex_;
  size_t slot_ = 0, used_ = 0;  // where the next piece goes
};

}  // namespace moe::cuda
