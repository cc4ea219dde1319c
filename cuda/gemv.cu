// Products of a few tokens: a warp takes one row of W, which is read once from memory, and all tokens. Lane l holds the eight
// columns from 8 l on of every 256. Decoding is this kernel: its time is that of reading the packed weights.
#include "cuda/products.h"

namespace moe::cuda {
namespace {

constexpr int kThreads = 128;

template <DType kType>
__global__ void __launch_bounds__(kThreads) one_token_kernel(View x, Stored w, View y, bool add) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  const int lane = static_cast<int>(threadIdx.x % 32);
  if (row >= w.rows) return;
  float sum = 0;
  for (int64_t j = 8 * lane; j < w.columns; j += 256) {
    float values[8];
    load_weights8<kType>(w.row(row), j, w.columns, values);
    const Eight e = load8(x, 0, j, w.columns);
#pragma unroll
    for (int i = 0; i < 8; i++) sum = fmaf(values[i], e.v[i], sum);
  }
  sum = warp_sum(sum);
  if (lane == 0) store1(y, 0, row, add ? load1(y, 0, row) + sum : sum);
}

// The activations of 256 columns wait in shared memory for the four warps, in two planes of four values a lane.
template <DType kType>
__global__ void __launch_bounds__(kThreads) few_tokens_kernel(int tokens, View x, Stored w, View y, bool add) {
  __shared__ float4 tile[kFewTokens][2][32];
  const int64_t row = static_cast<int64_t>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  const int lane = static_cast<int>(threadIdx.x % 32);
  float sums[kFewTokens] = {};
  for (int64_t first = 0; first < w.columns; first += 256) {
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < 32 * tokens; i += kThreads) {
      const Eight e = load8(x, i / 32, first + 8 * (i % 32), w.columns);
      tile[i / 32][0][i % 32] = make_float4(e.v[0], e.v[1], e.v[2], e.v[3]);
      tile[i / 32][1][i % 32] = make_float4(e.v[4], e.v[5], e.v[6], e.v[7]);
    }
    __syncthreads();
    if (row >= w.rows) continue;
    float v[8];
    load_weights8<kType>(w.row(row), first + 8 * lane, w.columns, v);
#pragma unroll
    for (int t = 0; t < kFewTokens; t++) {
      if (t >= tokens) break;
      const float4 a = tile[t][0][lane], b = tile[t][1][lane];
      sums[t] = fmaf(v[3], a.w, fmaf(v[2], a.z, fmaf(v[1], a.y, fmaf(v[0], a.x, sums[t]))));
      sums[t] = fmaf(v[7], b.w, fmaf(v[6], b.z, fmaf(v[5], b.y, fmaf(v[4], b.x, sums[t]))));
    }
  }
  if (row >= w.rows) return;
#pragma unroll
  for (int t = 0; t < kFewTokens; t++) {
    if (t >= tokens) break;
    const float sum = warp_sum(sums[t]);
    if (lane == 0) store1(y, t, row, add ? load1(y, t, row) + sum : sum);
  }
}

}  // namespace

void few_tokens_product(cudaStream_t stream, const Product &p) {
  const int tokens = static_cast<int>(p.tokens);
  const unsigned blocks = blocks_for(p.w.rows, kThreads / 32);
  with_weight_type("matmul", p.type, [&]<DType kType>() {
    if (tokens == 1) MOE_LAUNCH((one_token_kernel<kType>), blocks, kThreads, 0, stream, p.x, p.w, p.y, p.add);
    else MOE_LAUNCH((few_tokens_kernel<kType>), blocks, kThreads, 0, stream, tokens, p.x, p.w, p.y, p.add);
  });
}

}  // namespace moe::cuda
