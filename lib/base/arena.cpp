#include "base/arena.h"

#include <algorithm>

#include "base/memory.h"

namespace moe {

Arena::Arena() : base_(nullptr, free_aligned) {}

Arena::Arena(size_t bytes) : base_(allocate_aligned(bytes), free_aligned), capacity_(bytes) {}

void *Arena::take_bytes(size_t bytes) {
  constexpr size_t kAlignment = 64;
  const size_t rounded = checked_add(bytes, kAlignment - 1, "arena") / kAlignment * kAlignment;
  const size_t end = checked_add(used_, rounded, "arena");
  if (!measuring() && end > capacity_) {
    fail(Code::internal, "arena: the plan of ", capacity_, " bytes is too small: ", used_, " are used and ", bytes,
         " are asked for");
  }
  void *memory = measuring() ? nullptr : base_.get() + used_;
  used_ = end;
  peak_ = std::max(peak_, used_);
  return memory;
}

}  // namespace moe
