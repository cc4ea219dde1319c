// Indices into the vocabulary lie on the device, so kernels look at them: a bad one counts as 0, is remembered, and becomes an
// error when the host next waits for the device.
#pragma once
#include <climits>

#include "cuda/device.h"

namespace moe::cuda {

enum class IndexOf : int { embedding, label };
constexpr int kIndexKinds = 2;

// The first bad index of a kind: its position in the high half, the index in the low one. kNoBadIndex = none.
using BadIndex = unsigned long long;
constexpr BadIndex kNoBadIndex = ULLONG_MAX;

__device__ __forceinline__ int64_t checked_index(int32_t index, int64_t limit, int64_t position, BadIndex *bad, IndexOf kind) {
  if (index >= 0 && index < limit) return index;
  atomicMin(bad + static_cast<int>(kind), static_cast<BadIndex>(position) << 32 | static_cast<uint32_t>(index));
  return 0;
}

}  // namespace moe::cuda
