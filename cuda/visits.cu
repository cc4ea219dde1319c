// The list of visits, made in one launch: a block takes a group, counts the visits of the groups before it and then ranks its own
// tokens, 256 at a time. `selected` is read once for each group and all before it: bytes that stay in the caches.
#include "cuda/cuda_backend.h"

#include "cuda/rows.h"

namespace moe::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;

__device__ __forceinline__ bool visited(const Group &group, int64_t t) {
  if (group.rank() == 0) return false;  // equals the base
  return group.selected ? group.selected[t * group.stride] != 0 : group.gate[t * group.stride] != 0;
}

__global__ void __launch_bounds__(kThreads) list_kernel(Visits v) {
  __shared__ int counts[kWarps];
  const int64_t g = blockIdx.x;
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  int before = 0;
  for (int64_t i = 0; i < g; i++)
    for (int64_t t = threadIdx.x; t < v.tokens; t += kThreads) before += visited(v.group[i], t);
  int next = block_sum<kThreads>(before);
  if (threadIdx.x == 0) v.first[g] = next;
  const Group &group = v.group[g];
  for (int64_t start = 0; start < v.tokens; start += kThreads) {
    const int64_t t = start + threadIdx.x;
    const bool yes = t < v.tokens && visited(group, t);
    const unsigned of_warp = __ballot_sync(~0u, yes);
    __syncthreads();
    if (lane == 0) counts[warp] = __popc(of_warp);
    __syncthreads();
    int visit = next + __popc(of_warp & ((1u << lane) - 1));
    for (int w = 0; w < kWarps; w++) {
      if (w < warp) visit += counts[w];
      next += counts[w];
    }
    if (t < v.tokens) v.at[t * v.groups + g] = yes ? visit : -1;
    if (!yes) continue;
    v.token[visit] = static_cast<int32_t>(t);
    v.gate[visit] = group.gate[t * group.stride];
  }
  if (threadIdx.x == 0 && g + 1 == v.groups) v.first[v.groups] = next;
}

}  // namespace

// The host's part: the groups, which are small, go to the device.
void CudaBackend::list_visits(const Visits &visits, std::span<const Group> groups) {
  upload(visits.group, groups.data(), groups.size_bytes());
  MOE_LAUNCH((list_kernel), blocks_for(visits.groups, 1), kThreads, 0, on(), visits);
}

}  // namespace moe::cuda
