// The visits of a mixture: the pairs (group, token) of a group of low-rank factors, which is an expert of an FFN mixture or a
// gated term of a projection, and a token that goes through it. Groups follow in order, the visits of a group in the order of
// their tokens. The list stays on the device: a kernel over visits is launched for the most there can be and reads in `first` how
// many there are.
#pragma once
#include <algorithm>
#include <span>

#include "cuda/device.h"
#include "tensor/backend.h"

namespace moe::cuda {

// Of an FFN mixture gate, up and down; of a projection the first alone.
struct Group {
  LowRank factors[3];
  LowRankGradient gradients[3];
  const uint8_t *selected = nullptr;  // of token t at selected[t * stride]; nullptr = the tokens whose gate is not 0
  const float *gate = nullptr;        // of token t at gate[t * stride]
  int64_t stride = 0;
  float *gate_gradient = nullptr;  // likewise

  __host__ __device__ int64_t rank() const { return factors[0].rank + factors[1].rank + factors[2].rank; }
};

struct Visits {
  int64_t tokens = 0, groups = 0, most = 0;  // most visits
  Group *group = nullptr;                    // [groups]
  int32_t *first = nullptr;                  // [groups + 1] of each group
  int32_t *token = nullptr;                  // [most]
  float *gate = nullptr;                     // [most]
  int32_t *at = nullptr;                     // [tokens, groups] the visit, or -1

  void take(Arena &arena) {
    group = arena.take<Group>(static_cast<size_t>(groups));
    first = arena.take<int32_t>(static_cast<size_t>(groups + 1));
    token = arena.take<int32_t>(static_cast<size_t>(most));
    gate = arena.take<float>(static_cast<size_t>(most));
    at = arena.take<int32_t>(static_cast<size_t>(tokens * groups));
  }
};

// So many tokens at a time that an array of n values for each visit takes at most 64 MiB, at least 64.
inline int64_t tokens_of_piece(int64_t groups_of_token, int64_t n) {
  return std::max<int64_t>(64, (int64_t{1} << 24) / std::max<int64_t>(1, groups_of_token * n) / 64 * 64);
}
inline Rows rows_from(Rows x, int64_t first) {
  if (x.data) x.data = static_cast<char *>(x.data) + row_bytes(x.dtype, first * x.stride);
  return x;
}

// Up to kVisits visits of one group, number `tile` of all.
struct VisitTile {
  int64_t group;
  int32_t first, count;  // 0 = there is no such tile
};
template <int kVisits>
int64_t most_tiles(const Visits &v) {
  return std::min(v.most, v.most / kVisits + v.groups);
}
template <int kVisits>
__device__ __forceinline__ VisitTile visit_tile(const Visits &v, int64_t tile) {
  for (int64_t g = 0; g < v.groups; g++) {
    const int32_t first = v.first[g], count = v.first[g + 1] - first, tiles = (count + kVisits - 1) / kVisits;
    if (tile < tiles) {
      const int32_t before = static_cast<int32_t>(tile) * kVisits;
      return {g, first + before, min(kVisits, count - before)};
    }
    tile -= tiles;
  }
  return {0, 0, 0};
}

}  // namespace moe::cuda
