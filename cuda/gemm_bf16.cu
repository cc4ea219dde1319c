// Products on tensor cores: a block of four warps makes a tile of 64 tokens and 64 outputs, 32 terms of the sums at a time;
// weights are expanded into bf16 in shared memory. A warp holds 32 x 32 sums. Where a value of the shared tiles lies is chosen so
// that whatever a warp reads or stores at once lies in different banks (place).
#include "cuda/mma.h"
#include "cuda/products.h"

namespace moe::cuda {
namespace {

constexpr int kTile = 64, kDepth = 32, kThreads = 128;

__device__ __forceinline__ uint32_t bf16_pair(float low, float high) {
  return bf16_bits(low) | static_cast<uint32_t>(bf16_bits(high)) << 16;
}
__device__ __forceinline__ void put8(uint16_t *to, const float *v) {
  *reinterpret_cast<uint4 *>(to) =
      make_uint4(bf16_pair(v[0], v[1]), bf16_pair(v[2], v[3]), bf16_pair(v[4], v[5]), bf16_pair(v[6], v[7]));
}
// Two rows of 32 values make a line of 32 banks, eight pieces of 16 bytes. Which piece of it row and column / 8 get changes with
// the line, so that these lie in different banks: one piece of eight rows from a multiple of 8 on (a fragment), all pieces of a
// line (rows stored in pieces of 16 bytes), and one piece of every eighth row (columns stored in pairs).
// Every bit is an exclusive or of bits of row and column: place(a ^ b, c ^ d) is place(a, c) ^ place(b, d).
__device__ __forceinline__ int place(int row, int column) {
  return (row ^ (row / 32 % 2)) * kDepth + ((column / 8) ^ ((row / 2 ^ row / 8) % 4)) * 8 + column % 8;
}
__device__ __forceinline__ uint32_t pair_at(const uint16_t *tile, int at) {
  return *reinterpret_cast<const uint32_t *>(tile + at);
}

template <DType kType, bool kTransposed>
__global__ void __launch_bounds__(kThreads)
    bf16_product_kernel(int64_t tokens, int64_t inner, int64_t outer, View x, Stored w, View y, bool add) {
  __shared__ __align__(16) uint16_t left[kTile * kDepth], right[kTile * kDepth];  // [token][depth], [output][depth]
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32, row = warp / 2 * 32,
            column = warp % 2 * 32;
  const int64_t first_output = static_cast<int64_t>(blockIdx.x) * kTile, first_token = static_cast<int64_t>(blockIdx.y) * kTile;
  const int left_place = place(row + lane / 4, 2 * (lane % 4)), right_place = place(column + lane / 4, 2 * (lane % 4)),
            row_place = place(thread / 4, thread % 4 * 8), column_place = place(thread % 8 * 8, thread / 8 * 2);
  float sums[2][4][4] = {};
  for (int64_t k = 0; k < inner; k += kDepth) {
#pragma unroll
    for (int part = 0; part < 2; part++) {
      const int token = thread / 4 + 32 * part, depth = thread % 4 * 8;
      Eight e = {};
      if (first_token + token < tokens) e = load8(x, first_token + token, k + depth, inner);
      put8(left + (row_place ^ place(32 * part, 0)), e.v);
      if (kTransposed) continue;
      float values[8] = {};
      if (first_output + token < outer) load_weights8<kType>(w.row(first_output + token), k + depth, inner, values);
      put8(right + (row_place ^ place(32 * part, 0)), values);
    }
    if (kTransposed) {
      const int depth = thread / 8 * 2, output = thread % 8 * 8;
      float values[2][8] = {};
#pragma unroll
      for (int i = 0; i < 2; i++)
        if (k + depth + i < inner) load_weights8<kType>(w.row(k + depth + i), first_output + output, outer, values[i]);
#pragma unroll
      for (int i = 0; i < 8; i++)
        *reinterpret_cast<uint32_t *>(right + (column_place ^ place(i, 0))) = bf16_pair(values[0][i], values[1][i]);
    }
    __syncthreads();
#pragma unroll
    for (int d = 0; d < kDepth; d += 16) {
      uint32_t a[2][4], b[4][2];
#pragma unroll
      for (int i = 0; i < 2; i++)
#pragma unroll
        for (int part = 0; part < 4; part++)
          a[i][part] = pair_at(left, left_place ^ place(16 * i + 8 * (part % 2), d + 8 * (part / 2)));
#pragma unroll
      for (int j = 0; j < 4; j++)
#pragma unroll
        for (int part = 0; part < 2; part++) b[j][part] = pair_at(right, right_place ^ place(8 * j, d + 8 * part));
#pragma unroll
      for (int i = 0; i < 2; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) mma_bf16(sums[i][j], a[i], b[j]);
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < 2; i++)
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
      for (int part = 0; part < 4; part++) {
        const int64_t t = first_token + row + 16 * i + lane / 4 + 8 * (part / 2),
                      o = first_output + column + 8 * j + 2 * (lane % 4) + part % 2;
        if (t < tokens && o < outer) store1(y, t, o, add ? load1(y, t, o) + sums[i][j][part] : sums[i][j][part]);
      }
}

}  // namespace

void bf16_product(cudaStream_t stream, const Product &p) {
  const dim3 grid(blocks_for(p.outer(), kTile), blocks_for(p.tokens, kTile));
  with_weight_type("matmul", p.type, [&]<DType kType>() {
    if (p.transposed)
      MOE_LAUNCH((bf16_product_kernel<kType, true>), grid, kThreads, 0, stream, p.tokens, p.inner(), p.outer(), p.x, p.w, p.y,
                 p.add);
    else
      MOE_LAUNCH((bf16_product_kernel<kType, false>), grid, kThreads, 0, stream, p.tokens, p.inner(), p.outer(), p.x, p.w, p.y,
                 p.add);
  });
}

}  // namespace moe::cuda
