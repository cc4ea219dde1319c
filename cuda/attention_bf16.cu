// Attention of prompts on tensor cores: the online softmax of attention.cu with q, k, v in bf16 and sums in f32; the weights are
// rounded to bf16 for their product with v. A block takes 64 rows (queries of a group of heads), a warp 16 of them with all keys
// of a tile of 64. What q k^T leaves in the registers of a lane is what the product with v wants there (mma.h), so weights never
// leave the registers. Rows of the shared tiles are 16 bytes longer than a head: the words that a fragment reads at once, of 8
// keys and 4 pairs (k) or of 4 pairs of keys and 8 columns (v), lie in different banks.
#include <cmath>

#include "cuda/attention.h"
#include "cuda/mma.h"

namespace moe::cuda {
namespace {

constexpr int kRows = 64, kKeys = 64, kThreads = 128;

__device__ __forceinline__ uint32_t bf16_pair(float low, float high) {
  return bf16_bits(low) | static_cast<uint32_t>(bf16_bits(high)) << 16;
}

// Rows [first, end) of a head, eight values a thread, into tile [kKeys][pitch]; the rest is 0.
template <int kHead>
__device__ __forceinline__ void load_tile(const View &x, int64_t first, int64_t end, int64_t column, uint16_t *tile) {
  constexpr int kPitch = kHead + 8, kGroups = kHead / 8;
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < kKeys * kGroups; i += kThreads) {
    const int row = i / kGroups, d = i % kGroups * 8;
    uint4 eight = make_uint4(0, 0, 0, 0);
    if (first + row < end) eight = *reinterpret_cast<const uint4 *>(x.data + ((first + row) * x.stride + column + d) * 2);
    *reinterpret_cast<uint4 *>(tile + row * kPitch + d) = eight;
  }
}

// The largest of the four lanes that share a row, and their sum.
__device__ __forceinline__ float row_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
  return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}
__device__ __forceinline__ float row_sum(float x) {
  x += __shfl_xor_sync(~0u, x, 1);
  return x + __shfl_xor_sync(~0u, x, 2);
}

template <int kHead>
__global__ void __launch_bounds__(kThreads) attention_bf16_kernel(AttentionLaunch a, View q, View out, float *log_sum_exp) {
  constexpr int kPitch = kHead + 8;
  __shared__ __align__(16) uint16_t key_tile[kKeys * kPitch], value_tile[kKeys * kPitch];
  const SequenceView &s = a.sequences[blockIdx.z];
  const int64_t kv = blockIdx.y, first_row = static_cast<int64_t>(blockIdx.x) * kRows, rows = s.queries * a.group;
  if (first_row >= rows) return;
  const int lane = static_cast<int>(threadIdx.x) % 32, quarter = lane % 4;
  int64_t row[2], index[2];  // the two rows of this lane and their key indices
#pragma unroll
  for (int i = 0; i < 2; i++) {
    row[i] = first_row + static_cast<int>(threadIdx.x) / 32 * 16 + lane / 4 + 8 * i;
    index[i] = s.offset() + row[i] / a.group;
  }
  const auto position = [&](int64_t r, int64_t d) {
    return (s.first_query + r / a.group) * q.stride + (kv * a.group + r % a.group) * kHead + d;
  };
  uint32_t queries[kHead / 16][4];
#pragma unroll
  for (int d = 0; d < kHead / 16; d++)
#pragma unroll
    for (int part = 0; part < 4; part++) {
      const int64_t r = row[part % 2];
      queries[d][part] =
          r < rows ? *reinterpret_cast<const uint32_t *>(q.data + position(r, 16 * d + 2 * quarter + 8 * (part / 2)) * 2) : 0;
    }
  const int64_t first_index = s.offset() + first_row / a.group,
                last_index = s.offset() + min(first_row + kRows - 1, rows - 1) / a.group;
  const int64_t visible = a.window > 0 ? max(first_index - a.window + 1, int64_t{0}) : 0, end = last_index + 1;
  float maximum[2] = {-INFINITY, -INFINITY}, sum[2] = {}, values[kHead / 8][4] = {};
  for (int64_t k = visible / kKeys * kKeys; k < end; k += kKeys) {
    __syncthreads();
    load_tile<kHead>(s.keys, k, end, kv * kHead, key_tile);
    load_tile<kHead>(s.values, k, end, kv * kHead, value_tile);
    __syncthreads();
    float scores[kKeys / 8][4] = {};
#pragma unroll
    for (int j = 0; j < kKeys / 8; j++)
#pragma unroll
      for (int d = 0; d < kHead / 16; d++) {
        const uint16_t *from = key_tile + (8 * j + lane / 4) * kPitch + 16 * d + 2 * quarter;
        const uint32_t b[2] = {*reinterpret_cast<const uint32_t *>(from), *reinterpret_cast<const uint32_t *>(from + 8)};
        mma_bf16(scores[j], queries[d], b);
      }
#pragma unroll
    for (int i = 0; i < 2; i++) {
      float largest = maximum[i], added = 0;
#pragma unroll
      for (int j = 0; j < kKeys / 8; j++)
#pragma unroll
        for (int c = 0; c < 2; c++) {
          float &score = scores[j][2 * i + c];
          score = a.sees(index[i], k + 8 * j + 2 * quarter + c) ? score * a.scale : -INFINITY;
          largest = fmaxf(largest, score);
        }
      largest = row_max(largest);
      const float reference = largest == -INFINITY ? 0.0f : largest, factor = expf(maximum[i] - reference);
#pragma unroll
      for (int j = 0; j < kKeys / 8; j++)
#pragma unroll
        for (int c = 0; c < 2; c++) added += scores[j][2 * i + c] = expf(scores[j][2 * i + c] - reference);
      sum[i] = sum[i] * factor + row_sum(added);
      maximum[i] = largest;
#pragma unroll
      for (int d = 0; d < kHead / 8; d++) values[d][2 * i] *= factor, values[d][2 * i + 1] *= factor;
    }
#pragma unroll
    for (int j = 0; j < kKeys / 16; j++) {
      uint32_t weights[4];
#pragma unroll
      for (int part = 0; part < 4; part++) {
        const float *pair = scores[2 * j + part / 2] + 2 * (part % 2);
        weights[part] = bf16_pair(pair[0], pair[1]);
      }
#pragma unroll
      for (int d = 0; d < kHead / 8; d++) {
        const uint16_t *from = value_tile + (16 * j + 2 * quarter) * kPitch + 8 * d + lane / 4;
        const uint32_t b[2] = {from[0] | static_cast<uint32_t>(from[kPitch]) << 16,
                               from[8 * kPitch] | static_cast<uint32_t>(from[9 * kPitch]) << 16};
        mma_bf16(values[d], weights, b);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 2; i++) {
    if (row[i] >= rows) continue;
    const int64_t t = s.first_query + row[i] / a.group, head = kv * a.group + row[i] % a.group;
#pragma unroll
    for (int d = 0; d < kHead / 8; d++)
#pragma unroll
      for (int c = 0; c < 2; c++) store1(out, t, head * kHead + 8 * d + 2 * quarter + c, values[d][2 * i + c] / sum[i]);
    if (quarter == 0 && log_sum_exp) log_sum_exp[t * a.heads + head] = maximum[i] + logf(sum[i]);
  }
}

}  // namespace

bool takes_bf16_attention(const AttentionLaunch &launch, unsigned count, const View &q) {
  const auto fits = [](const View &x) { return x.type == DType::bf16 && x.aligned; };
  bool all = fits(q) && (launch.head_dimension == 64 || launch.head_dimension == 128);
  for (unsigned i = 0; i < count; i++) all = all && fits(launch.sequences[i].keys) && fits(launch.sequences[i].values);
  return all;
}

void bf16_attention(cudaStream_t stream, const AttentionLaunch &launch, unsigned count, int64_t queries, const View &q,
                    const View &out, float *log_sum_exp) {
  const dim3 grid(blocks_for(queries * launch.group, kRows), static_cast<unsigned>(launch.kv_heads), count);
  if (launch.head_dimension == 64)
    MOE_LAUNCH((attention_bf16_kernel<64>), grid, kThreads, 0, stream, launch, q, out, log_sum_exp);
  else MOE_LAUNCH((attention_bf16_kernel<128>), grid, kThreads, 0, stream, launch, q, out, log_sum_exp);
}

}  // namespace moe::cuda
