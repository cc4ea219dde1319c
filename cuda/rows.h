// Activations in kernels: rows of f32, bf16 or int8, read and written eight values at a time (16 bytes of bf16, twice 16 of
// f32) where alignment allows it. The type is the same for a whole launch, so the branch on it costs nothing beside the memory.
// A row of k int8 values (k a multiple of 32) takes 1.5 k bytes, as in lib/cpu/kernels/activations.h: [k] int8 q, then f32:
// [k/32] scale d = max|x| / 127 of 32 values, [k/32] d * sum of 32 q, [k/16] d * sum of 16 q.
#pragma once
#include "cuda/device.h"
#include "tensor/backend.h"

namespace moe::cuda {

struct View {
  char *data;
  int64_t stride;
  DType type;
  bool aligned;  // every row begins at a multiple of 16 bytes
};

// Of an op that also takes int8 rows here.
inline View any_view(const char *op, Rows x) {
  if (x.dtype != DType::f32 && x.dtype != DType::bf16 && x.dtype != DType::i8) {
    fail(Code::invalid, op, ": expected activations of f32, bf16 or int8, found ", dtype_info(x.dtype).name);
  }
  const int64_t size = x.dtype == DType::bf16 ? 2 : 4;
  const bool aligned = reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && x.stride * size % 16 == 0;
  return {static_cast<char *>(x.data), x.stride, x.dtype, aligned};
}
inline View view(const char *op, Rows x) {
  if (x.dtype == DType::i8) fail(Code::invalid, op, ": expected activations of f32 or bf16, found int8");
  return any_view(op, x);
}
// One array of n numbers as one row.
inline View flat_view(const float *x, int64_t n) { return any_view("array", f32_rows(x, (n + 3) / 4 * 4)); }
inline void require_f32_sum(const char *op, Rows y, Store store) {
  if (store == Store::add && y.dtype != DType::f32) fail(Code::invalid, op, ": adding needs f32 rows");
}

// ---- single values ----
__device__ __forceinline__ float bf16_value(uint16_t bits) { return __uint_as_float(static_cast<unsigned>(bits) << 16); }
__device__ __forceinline__ uint16_t bf16_bits(float x) { return __bfloat16_as_ushort(__float2bfloat16_rn(x)); }
__device__ __forceinline__ float load1(const View &x, int64_t t, int64_t j) {
  const int64_t i = t * x.stride + j;
  return x.type == DType::bf16 ? bf16_value(reinterpret_cast<const uint16_t *>(x.data)[i])
                               : reinterpret_cast<const float *>(x.data)[i];
}
__device__ __forceinline__ void store1(const View &y, int64_t t, int64_t j, float value) {
  const int64_t i = t * y.stride + j;
  if (y.type == DType::bf16) reinterpret_cast<uint16_t *>(y.data)[i] = bf16_bits(value);
  else reinterpret_cast<float *>(y.data)[i] = value;
}

// ---- eight neighbours ----
struct Eight {
  float v[8];
};
__device__ __forceinline__ void unpack_bf16(const uint4 &words, float *v) {
  const unsigned w[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
  for (int i = 0; i < 4; i++) {
    v[2 * i] = __uint_as_float(w[i] << 16);
    v[2 * i + 1] = __uint_as_float(w[i] & 0xffff0000u);
  }
}
__device__ __forceinline__ char *int8_row(const View &x, int64_t t) { return x.data + t * (x.stride + x.stride / 2); }
__device__ __forceinline__ Eight load8_int8(const View &x, int64_t t, int64_t j) {
  const char *row = int8_row(x, t);
  const uint2 q = *reinterpret_cast<const uint2 *>(row + j);
  const float scale = reinterpret_cast<const float *>(row + x.stride)[j / 32];
  Eight e;
#pragma unroll
  for (int i = 0; i < 8; i++) e.v[i] = static_cast<float>(static_cast<int8_t>((i < 4 ? q.x : q.y) >> (8 * (i % 4)))) * scale;
  return e;
}
// The four threads of a block of 32 values call this together; they are neighbours in a warp, the first holds the first eight.
// Not-a-number and infinity make the scale such.
__device__ __forceinline__ void store8_int8(const View &y, int64_t t, int64_t j, const Eight &e) {
  const unsigned lane = threadIdx.x % 32, four = 15u << (lane & ~3u);
  unsigned largest = 0;  // of the magnitudes as bits: infinity and not-a-number stand above all numbers
#pragma unroll
  for (int i = 0; i < 8; i++) largest = max(largest, __float_as_uint(e.v[i]) & 0x7fffffffu);
  largest = max(largest, __shfl_xor_sync(four, largest, 1));
  largest = max(largest, __shfl_xor_sync(four, largest, 2));
  const float magnitude = __uint_as_float(largest), d = magnitude / 127, inverse = magnitude > 0x1p-100f ? 127 / magnitude : 0.0f;
  unsigned words[2] = {};
  int sum = 0;
#pragma unroll
  for (int i = 0; i < 8; i++) {
    const float scaled = rintf(e.v[i] * inverse);
    const int q = scaled == scaled ? static_cast<int>(scaled) : 0;
    words[i / 4] |= static_cast<unsigned>(q & 255) << (8 * (i % 4));
    sum += q;
  }
  char *row = int8_row(y, t);
  *reinterpret_cast<uint2 *>(row + j) = make_uint2(words[0], words[1]);
  const int of16 = sum + __shfl_xor_sync(four, sum, 1), of32 = of16 + __shfl_xor_sync(four, of16, 2);
  float *scale = reinterpret_cast<float *>(row + y.stride), *sum32 = scale + y.stride / 32, *sum16 = scale + y.stride / 16;
  if (lane % 2 == 0) sum16[j / 16] = d * static_cast<float>(of16);
  if (lane % 4 == 0) scale[j / 32] = d, sum32[j / 32] = d * static_cast<float>(of32);
}

// Columns [j, j + 8) of row t; those from n on are 0.
__device__ __forceinline__ Eight load8(const View &x, int64_t t, int64_t j, int64_t n) {
  Eight e;
  if (x.type == DType::i8) {
    e = j < n ? load8_int8(x, t, j) : Eight{};
  } else if (x.aligned && j + 8 <= n) {
    if (x.type == DType::bf16) {
      unpack_bf16(*reinterpret_cast<const uint4 *>(x.data + (t * x.stride + j) * 2), e.v);
    } else {
      const float4 *from = reinterpret_cast<const float4 *>(x.data + (t * x.stride + j) * 4);
      const float4 a = from[0], b = from[1];
      e = {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
    }
  } else {
#pragma unroll
    for (int i = 0; i < 8; i++) e.v[i] = j + i < n ? load1(x, t, j + i) : 0.0f;
  }
  return e;
}
// Neighbouring threads call this for neighbouring eights (see store8_int8).
__device__ __forceinline__ void store8(const View &y, int64_t t, int64_t j, int64_t n, const Eight &e) {
  if (y.type == DType::i8) {
    store8_int8(y, t, j, e);
  } else if (y.aligned && j + 8 <= n) {
    if (y.type == DType::bf16) {
      unsigned w[4];
#pragma unroll
      for (int i = 0; i < 4; i++) w[i] = bf16_bits(e.v[2 * i]) | static_cast<unsigned>(bf16_bits(e.v[2 * i + 1])) << 16;
      *reinterpret_cast<uint4 *>(y.data + (t * y.stride + j) * 2) = make_uint4(w[0], w[1], w[2], w[3]);
    } else {
      float4 *to = reinterpret_cast<float4 *>(y.data + (t * y.stride + j) * 4);
      to[0] = make_float4(e.v[0], e.v[1], e.v[2], e.v[3]);
      to[1] = make_float4(e.v[4], e.v[5], e.v[6], e.v[7]);
    }
  } else {
#pragma unroll
    for (int i = 0; i < 8; i++)
      if (j + i < n) store1(y, t, j + i, e.v[i]);
  }
}

// ---- sums in a fixed order ----
template <class T>
__device__ __forceinline__ T warp_sum(T x) {
#pragma unroll
  for (int bits = 16; bits > 0; bits /= 2) x += __shfl_xor_sync(~0u, x, bits);
  return x;
}
__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
  for (int bits = 16; bits > 0; bits /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, bits));
  return x;
}
// Over a block of kThreads; every thread gets the sum. May be called again at once.
template <int kThreads, class T>
__device__ __forceinline__ T block_sum(T x) {
  __shared__ T parts[kThreads / 32];
  const int warp = static_cast<int>(threadIdx.x) / 32;
  x = warp_sum(x);
  __syncthreads();
  if (threadIdx.x % 32 == 0) parts[warp] = x;
  __syncthreads();
  T sum = parts[0];
#pragma unroll
  for (int i = 1; i < kThreads / 32; i++) sum += parts[i];
  return sum;
}

// ---- ops that treat each value by itself ----
// Calls body(t, j) for every eight columns from j on of every row t.
template <class Body>
__global__ void __launch_bounds__(256) for_eights_kernel(int64_t count, unsigned groups, Body body) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  if (count <= 0xffffffff) {  // a division of 64 bits takes longer than the rest
    const auto k = static_cast<unsigned>(i);
    body(static_cast<int64_t>(k / groups), static_cast<int64_t>(k % groups) * 8);
  } else {
    body(i / groups, i % groups * 8);
  }
}
template <class Body>
void for_eights(cudaStream_t stream, int64_t rows, int64_t n, const Body &body) {
  const int64_t groups = (n + 7) / 8, count = rows * groups;
  if (count == 0) return;
  MOE_LAUNCH((for_eights_kernel<Body>), blocks_for(count, 256), 256, 0, stream, count, static_cast<unsigned>(groups), body);
}

}  // namespace moe::cuda
