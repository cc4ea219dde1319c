// Every kernel walks tiles of visits of one group; each sum belongs to one visit (or to one element of a gradient, over the
// group's visits in order), so no sum depends on which visits share a tile. Tiles that do not exist end at once.
//   narrow        as gemv.cu: a warp takes a row of A and up to 8 visits
//   narrow, back  16 ranks of up to 8 visits; 16 threads share the sum over a column of B
//   wide          tiles of 32 visits and 64 columns, 32 of the rank at a time
//   gradients     a block takes 16 ranks and 64 columns of one group's factor (outer_tile.h)
#include "cuda/grouped_products.h"

#include "cuda/gated_activation.h"
#include "cuda/outer_tile.h"

namespace moe::cuda {
namespace {

__device__ __forceinline__ View factor_view(const float *data, int64_t stride) {
  return {reinterpret_cast<char *>(const_cast<float *>(data)), stride, DType::f32,
          reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride % 4 == 0};
}
__device__ __forceinline__ int64_t ranks_before(const Group &group, int first, int factor) {
  int64_t ranks = 0;
  for (int i = first; i < factor; i++) ranks += group.factors[i].rank;
  return ranks;
}

// ---- narrow ----
constexpr int kNarrowVisits = 8, kNarrowThreads = 128;

__global__ void __launch_bounds__(kNarrowThreads)
    narrow_kernel(Visits v, VisitRows x, int64_t in, FactorRange factors, Scaling scaling, Narrow low) {
  __shared__ float4 tile[kNarrowVisits][2][32];
  const VisitTile visits = visit_tile<kNarrowVisits>(v, blockIdx.x);
  if (visits.count == 0) return;
  const Group &group = v.group[visits.group];
  const int64_t first_row = static_cast<int64_t>(blockIdx.y) * (kNarrowThreads / 32), row = first_row + threadIdx.x / 32;
  const int lane = static_cast<int>(threadIdx.x % 32);
  if (first_row >= ranks_before(group, factors.first, factors.last + 1)) return;
  int factor = factors.first;
  int64_t r = row;
  while (factor <= factors.last && r >= group.factors[factor].rank) r -= group.factors[factor++].rank;
  const bool has_row = factor <= factors.last;
  const LowRank delta = group.factors[has_row ? factor : factors.last];
  const View a = factor_view(delta.a, in);
  float sums[kNarrowVisits] = {};
  for (int64_t first = 0; first < in; first += 256) {
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < 32 * visits.count; i += kNarrowThreads) {
      const Eight e = load8(x.rows, x.row(v, visits.first + i / 32), first + 8 * (i % 32), in);
      tile[i / 32][0][i % 32] = make_float4(e.v[0], e.v[1], e.v[2], e.v[3]);
      tile[i / 32][1][i % 32] = make_float4(e.v[4], e.v[5], e.v[6], e.v[7]);
    }
    __syncthreads();
    if (!has_row) continue;
    const Eight w = load8(a, r, first + 8 * lane, in);
#pragma unroll
    for (int i = 0; i < kNarrowVisits; i++) {
      if (i >= visits.count) break;
      const float4 p = tile[i][0][lane], q = tile[i][1][lane];
      sums[i] = fmaf(w.v[3], p.w, fmaf(w.v[2], p.z, fmaf(w.v[1], p.y, fmaf(w.v[0], p.x, sums[i]))));
      sums[i] = fmaf(w.v[7], q.w, fmaf(w.v[6], q.z, fmaf(w.v[5], q.y, fmaf(w.v[4], q.x, sums[i]))));
    }
  }
  if (!has_row) return;
#pragma unroll
  for (int i = 0; i < kNarrowVisits; i++) {
    if (i >= visits.count) break;
    const float sum = warp_sum(sums[i]);
    const int32_t visit = visits.first + i;
    if (lane == 0) low.data[visit * low.stride + row] = scaling.of(delta.scale, v.gate[visit]) * sum;
  }
}

constexpr int kRanks = 16, kParts = 16, kBackThreads = kRanks * kParts, kBackDepth = 256, kSumPitch = kRanks * kNarrowVisits + 16;

__global__ void __launch_bounds__(kBackThreads)
    narrow_back_kernel(Visits v, VisitRows dy, int64_t out, int first, int factor, Narrow low) {
  __shared__ float4 tile[kNarrowVisits][kBackDepth / 4];
  __shared__ float shares[kParts * kSumPitch];
  const VisitTile visits = visit_tile<kNarrowVisits>(v, blockIdx.x);
  if (visits.count == 0) return;
  const Group &group = v.group[visits.group];
  const LowRank &delta = group.factors[factor];
  const int64_t first_rank = static_cast<int64_t>(blockIdx.y) * kRanks;
  if (first_rank >= delta.rank) return;
  const int thread = static_cast<int>(threadIdx.x), part = thread / kRanks, of_rank = thread % kRanks;
  const int64_t r = first_rank + of_rank;
  float sums[kNarrowVisits] = {};
  for (int64_t start = 0; start < out; start += kBackDepth) {
    Eight e = {};
    if (thread / 32 < visits.count) e = load8(dy.rows, dy.row(v, visits.first + thread / 32), start + thread % 32 * 8, out);
    __syncthreads();
    tile[thread / 32][thread % 32] = make_float4(e.v[0], e.v[1], e.v[2], e.v[3]);
    tile[thread / 32][thread % 32 + 32] = make_float4(e.v[4], e.v[5], e.v[6], e.v[7]);
    __syncthreads();
    if (r >= delta.rank) continue;
    for (int at = part; at < kBackDepth / 4; at += kParts) {  // the first four of each eight stand in front
      float w[4];
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int64_t n = start + at % 32 * 8 + at / 32 * 4 + i;
        w[i] = n < out ? delta.b[n * delta.rank + r] : 0.0f;
      }
#pragma unroll
      for (int i = 0; i < kNarrowVisits; i++) {
        const float4 p = tile[i][at];
        sums[i] = fmaf(w[3], p.w, fmaf(w[2], p.z, fmaf(w[1], p.y, fmaf(w[0], p.x, sums[i]))));
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kNarrowVisits; i++) shares[part * kSumPitch + i * kRanks + of_rank] = sums[i];
  __syncthreads();
  if (thread >= kRanks * visits.count || r >= delta.rank) return;
  float sum = 0;
  for (int p = 0; p < kParts; p++) sum += shares[p * kSumPitch + thread];
  low.data[(visits.first + part) * low.stride + ranks_before(group, first, factor) + r] = delta.scale * sum;
}

// ---- wide ----
constexpr int kVisits = 32, kColumns = 64, kDepth = 32, kThreads = 256, kLeftPitch = kVisits + 1;

struct WideTile {
  float left[kDepth * kLeftPitch];                     // [depth][visit]
  float right[kDepth][OuterTile::kPitch];              // [depth][OuterTile::place(column)], for the same reason
};
// Sums of a thread: visits ty and ty + 16, columns tx + 16 j.
struct WidePlace {
  int tx, ty;
  int64_t first_column;
  __device__ WidePlace()
      : tx(static_cast<int>(threadIdx.x) % 16), ty(static_cast<int>(threadIdx.x) / 16),
        first_column(static_cast<int64_t>(blockIdx.y) * kColumns) {}
  // body(i, j, visit, column) of every sum that exists
  template <class Body>
  __device__ __forceinline__ void each(const VisitTile &visits, int64_t columns, Body body) const {
#pragma unroll
    for (int i = 0; i < 2; i++) {
      if (ty + 16 * i >= visits.count) continue;
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const int64_t column = first_column + tx + 16 * j;
        if (column < columns) body(i, j, visits.first + ty + 16 * i, column);
      }
    }
  }
};

// sums += B low, or A^T low if kBack, with low from column `before` on.
template <bool kBack>
__device__ __forceinline__ void add_wide(WideTile &tile, const WidePlace &place, const VisitTile &visits, const Narrow &low,
                                         int64_t before, const LowRank &delta, int64_t columns, float (&sums)[2][4]) {
  const int thread = static_cast<int>(threadIdx.x);
  const View factor = kBack ? factor_view(delta.a, columns) : factor_view(delta.b, delta.rank);
  for (int64_t k = 0; k < delta.rank; k += kDepth) {
    __syncthreads();
    {
      const int visit = thread / 8, depth = thread % 8 * 4;
      const float *from = low.data + (visits.first + visit) * low.stride + before + k + depth;
#pragma unroll
      for (int i = 0; i < 4; i++)
        tile.left[(depth + i) * kLeftPitch + visit] = visit < visits.count && k + depth + i < delta.rank ? from[i] : 0.0f;
    }
    Eight e = {};
    if (kBack) {
      const int depth = thread / 8, column = thread % 8 * 8;
      if (k + depth < delta.rank) e = load8(factor, k + depth, place.first_column + column, columns);
#pragma unroll
      for (int i = 0; i < 8; i++) tile.right[depth][OuterTile::place(column + i)] = e.v[i];
    } else {
      const int column = thread / 4, depth = thread % 4 * 8;
      if (place.first_column + column < columns) e = load8(factor, place.first_column + column, k + depth, delta.rank);
#pragma unroll
      for (int i = 0; i < 8; i++) tile.right[depth + i][OuterTile::place(column)] = e.v[i];
    }
    __syncthreads();
    const int depths = static_cast<int>(min(delta.rank - k, static_cast<int64_t>(kDepth)));
    for (int d = 0; d < depths; d++) {
      float a[2], b[4];
#pragma unroll
      for (int i = 0; i < 2; i++) a[i] = tile.left[d * kLeftPitch + place.ty + 16 * i];
#pragma unroll
      for (int j = 0; j < 4; j++) b[j] = tile.right[d][OuterTile::place(place.tx + 16 * j)];
#pragma unroll
      for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) sums[i][j] = fmaf(a[i], b[j], sums[i][j]);
    }
  }
}

template <bool kBack>
__global__ void __launch_bounds__(kThreads) wide_kernel(Visits v, Narrow low, int64_t columns, FactorRange factors, View y) {
  __shared__ WideTile tile;
  const VisitTile visits = visit_tile<kVisits>(v, blockIdx.x);
  if (visits.count == 0) return;
  const Group &group = v.group[visits.group];
  const WidePlace place;
  float sums[2][4] = {};
  int64_t before = 0;
  for (int factor = factors.first; factor <= factors.last; factor++) {
    add_wide<kBack>(tile, place, visits, low, before, group.factors[factor], columns, sums);
    before += group.factors[factor].rank;
  }
  place.each(visits, columns, [&](int i, int j, int32_t visit, int64_t column) { store1(y, visit, column, sums[i][j]); });
}

__global__ void __launch_bounds__(kThreads)
    network_kernel(Visits v, Narrow low, int64_t f, Activation phi, View a0, View b0, View a, View b, View h) {
  __shared__ WideTile tile;
  const VisitTile visits = visit_tile<kVisits>(v, blockIdx.x);
  if (visits.count == 0) return;
  const Group &group = v.group[visits.group];
  const WidePlace place;
  float gate_sums[2][4] = {}, up_sums[2][4] = {};
  add_wide<false>(tile, place, visits, low, 0, group.factors[0], f, gate_sums);
  add_wide<false>(tile, place, visits, low, group.factors[0].rank, group.factors[1], f, up_sums);
  place.each(visits, f, [&](int i, int j, int32_t visit, int64_t column) {
    const int64_t token = v.token[visit];
    const float gate_value = load1(a0, token, column) + gate_sums[i][j], up_value = load1(b0, token, column) + up_sums[i][j];
    if (a.data) store1(a, visit, column, gate_value), store1(b, visit, column, up_value);
    store1(h, visit, column, gated(phi, gate_value, up_value));
  });
}

// ---- gradients ----
// of A: g[m, n] += sum over the visits of low[m] x[n];   of B, g[n, m]
template <bool kOfB>
__global__ void __launch_bounds__(OuterTile::kThreads)
    gradient_kernel(Visits v, Narrow low, int first, int factor, Scaling scaling, VisitRows x, int64_t n) {
  __shared__ OuterTile tile;
  const Group &group = v.group[blockIdx.z];
  float *const gradient = kOfB ? group.gradients[factor].b : group.gradients[factor].a;
  const float scale = group.factors[factor].scale;
  const int64_t rank = group.factors[factor].rank, before = ranks_before(group, first, factor);
  const int64_t first_n = static_cast<int64_t>(blockIdx.x) * OuterTile::kN, first_m = static_cast<int64_t>(blockIdx.y) * OuterTile::kM;
  const int32_t end = v.first[blockIdx.z + 1];
  if (!gradient || first_m >= rank || v.first[blockIdx.z] == end) return;
  float sums[4] = {};
  for (int32_t start = v.first[blockIdx.z]; start < end; start += OuterTile::kSteps) {
    tile.load([&](int step, int column) { return start + step < end ? load8(x.rows, x.row(v, start + step), first_n + column, n) : Eight{}; },
              [&](int step, int row) {
                const int32_t visit = start + step;
                if (visit >= end || first_m + row >= rank) return 0.0f;
                return low.data[visit * low.stride + before + first_m + row] * scaling.of(scale, v.gate[visit]);
              });
    __syncthreads();
    tile.add(sums);
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const int64_t m = first_m + OuterTile::row() + 4 * i, k = first_n + OuterTile::column();
    if (m < rank && k < n) gradient[kOfB ? k * rank + m : m * n + k] += sums[i];
  }
}

// ---- rows of tokens ----
struct AddVisits {
  Visits v;
  View x, from, y;
  int64_t n;
  __device__ void operator()(int64_t t, int64_t j) const {
    Eight sum = load8(from, t, j, n);
    bool changed = from.data != y.data;
    each_visit(v, t, [&](int32_t visit) {
      const Eight e = load8(x, visit, j, n);
      for (int i = 0; i < 8; i++) sum.v[i] += e.v[i];
      changed = true;
    });
    if (changed) store8(y, t, j, n, sum);
  }
};

template <bool kOfB>
void add_gradients(cudaStream_t stream, const Visits &v, Narrow low, int first, int factor, Scaling scaling, VisitRows x,
                   int64_t n) {
  if (low.stride == 0) return;
  const dim3 grid(blocks_for(n, OuterTile::kN), blocks_for(low.stride, OuterTile::kM), blocks_for(v.groups, 1));
  MOE_LAUNCH((gradient_kernel<kOfB>), grid, OuterTile::kThreads, 0, stream, v, low, first, factor, scaling, x, n);
}

template <bool kBack>
void wide(cudaStream_t stream, const Visits &v, Narrow low, int64_t columns, FactorRange factors, View y) {
  const dim3 grid(blocks_for(most_tiles<kVisits>(v), 1), blocks_for(columns, kColumns));
  MOE_LAUNCH((wide_kernel<kBack>), grid, kThreads, 0, stream, v, low, columns, factors, y);
}

}  // namespace

void narrow_product(cudaStream_t stream, const Visits &v, VisitRows x, int64_t in, FactorRange factors, Scaling scaling,
                    Narrow low) {
  if (low.stride == 0) return;
  const dim3 grid(blocks_for(most_tiles<kNarrowVisits>(v), 1), blocks_for(low.stride, kNarrowThreads / 32));
  MOE_LAUNCH((narrow_kernel), grid, kNarrowThreads, 0, stream, v, x, in, factors, scaling, low);
}
void narrow_product_back(cudaStream_t stream, const Visits &v, VisitRows dy, int64_t out, int first, int factor, Narrow low) {
  if (low.stride == 0) return;
  const dim3 grid(blocks_for(most_tiles<kNarrowVisits>(v), 1), blocks_for(low.stride, kRanks));
  MOE_LAUNCH((narrow_back_kernel), grid, kBackThreads, 0, stream, v, dy, out, first, factor, low);
}
void wide_product(cudaStream_t stream, const Visits &v, Narrow low, int64_t out, FactorRange factors, View y) {
  wide<false>(stream, v, low, out, factors, y);
}
void wide_product_back(cudaStream_t stream, const Visits &v, Narrow low, int64_t in, FactorRange factors, View y) {
  wide<true>(stream, v, low, in, factors, y);
}
void add_a_gradients(cudaStream_t stream, const Visits &v, Narrow low, int first, int factor, Scaling scaling, VisitRows x,
                     int64_t in) {
  add_gradients<false>(stream, v, low, first, factor, scaling, x, in);
}
void add_b_gradients(cudaStream_t stream, const Visits &v, Narrow low, int first, int factor, Scaling scaling, VisitRows dy,
                     int64_t out) {
  add_gradients<true>(stream, v, low, first, factor, scaling, dy, out);
}
void add_visits(cudaStream_t stream, const Visits &v, View x, View from, View y, int64_t n) {
  for_eights(stream, v.tokens, n, AddVisits{v, x, from, y, n});
}
void expert_network(cudaStream_t stream, const Visits &v, Narrow low, int64_t f, Activation phi, View a0, View b0, View a, View b,
                    View h) {
  const dim3 grid(blocks_for(most_tiles<kVisits>(v), 1), blocks_for(f, kColumns));
  MOE_LAUNCH((network_kernel), grid, kThreads, 0, stream, v, low, f, phi, a0, b0, a, b, h);
}

}  // namespace moe::cuda
