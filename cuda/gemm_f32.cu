// Products in f32: a block makes a tile of 64 tokens and 64 outputs, 32 terms of the sums at a time; weights are expanded into
// shared memory, each thread holds 4 x 4 sums.
#include "cuda/products.h"

namespace moe::cuda {
namespace {

constexpr int kTile = 64, kDepth = 32, kThreads = 256, kPitch = kTile + 5;

// Rows of the shared tiles have a gap of four values in the middle. So these lie in different banks: the neighbours of a row that
// are read at once, eight columns of every eighth row, and every eighth column of four rows.
__device__ __forceinline__ int place(int depth, int column) { return depth * kPitch + column + column / 32 * 4; }

template <DType kType, bool kTransposed>
__global__ void __launch_bounds__(kThreads)
    f32_product_kernel(int64_t tokens, int64_t inner, int64_t outer, View x, Stored w, View y, bool add) {
  __shared__ float left[kDepth * kPitch], right[kDepth * kPitch];  // [depth][token], [depth][output]
  const int thread = static_cast<int>(threadIdx.x), tx = thread % 16, ty = thread / 16;
  const int64_t first_output = static_cast<int64_t>(blockIdx.x) * kTile, first_token = static_cast<int64_t>(blockIdx.y) * kTile;
  float sums[4][4] = {};
  for (int64_t k = 0; k < inner; k += kDepth) {
    {
      const int token = thread / 4, depth = thread % 4 * 8;
      Eight e = {};
      if (first_token + token < tokens) e = load8(x, first_token + token, k + depth, inner);
#pragma unroll
      for (int i = 0; i < 8; i++) left[place(depth + i, token)] = e.v[i];
    }
    float values[8] = {};
    if (kTransposed) {
      const int depth = thread / 8, output = thread % 8 * 8;
      if (k + depth < inner) load_weights8<kType>(w.row(k + depth), first_output + output, outer, values);
#pragma unroll
      for (int i = 0; i < 8; i++) right[place(depth, output + i)] = values[i];
    } else {
      const int output = thread / 4, depth = thread % 4 * 8;
      if (first_output + output < outer) load_weights8<kType>(w.row(first_output + output), k + depth, inner, values);
#pragma unroll
      for (int i = 0; i < 8; i++) right[place(depth + i, output)] = values[i];
    }
    __syncthreads();
#pragma unroll 8
    for (int d = 0; d < kDepth; d++) {
      float a[4], b[4];
#pragma unroll
      for (int i = 0; i < 4; i++) a[i] = left[place(d, ty + 16 * i)], b[i] = right[place(d, tx + 16 * i)];
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) sums[i][j] = fmaf(a[i], b[j], sums[i][j]);
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const int64_t t = first_token + ty + 16 * i;
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const int64_t o = first_output + tx + 16 * j;
      if (t < tokens && o < outer) store1(y, t, o, add ? load1(y, t, o) + sums[i][j] : sums[i][j]);
    }
  }
}

}  // namespace

void f32_product(cudaStream_t stream, const Product &p) {
  const dim3 grid(blocks_for(p.outer(), kTile), blocks_for(p.tokens, kTile));
  with_weight_type("matmul", p.type, [&]<DType kType>() {
    if (p.transposed)
      MOE_LAUNCH((f32_product_kernel<kType, true>), grid, kThreads, 0, stream, p.tokens, p.inner(), p.outer(), p.x, p.w, p.y,
                 p.add);
    else
      MOE_LAUNCH((f32_product_kernel<kType, false>), grid, kThreads, 0, stream, p.tokens, p.inner(), p.outer(), p.x, p.w, p.y,
                 p.add);
  });
}

}  // namespace moe::cuda
