// The backward pass of attention by recomputation (Dao et al. 2022). With P = exp(scale q k^T - log_sum_exp) and D = <dout, out>,
//   dv = P^T dout      dS = P (dout v^T - D) scale      dq = dS k      dk = dS^T q
// One kernel takes tiles of queries and sums dq over the keys, the other takes tiles of keys and sums dk and dv over the queries
// of the whole group of heads: every sum has one owner and one order. Four threads take a row of the tile.
#include "cuda/attention.h"

#include <cmath>

namespace moe::cuda {
namespace {

constexpr int kDotThreads = 128;

// D[t, head] = <dout, out>; a warp takes a head of a token.
__global__ void __launch_bounds__(kDotThreads)
    output_dots_kernel(int64_t first, int64_t count, int64_t heads, int64_t h, View out, View dout, float *dots) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * (kDotThreads / 32) + threadIdx.x / 32;
  const int lane = static_cast<int>(threadIdx.x % 32);
  if (i >= count) return;
  const int64_t t = first + i / heads, column = i % heads * h;
  float sum = 0;
  for (int64_t d = lane; d < h; d += 32) sum = fmaf(load1(out, t, column + d), load1(dout, t, column + d), sum);
  sum = warp_sum(sum);
  if (lane == 0) dots[t * heads + i % heads] = sum;
}

template <int kHead>
struct QueryTile {
  static constexpr int kRows = kHead <= 64 ? 32 : kHead <= 128 ? 16 : 8, kKeys = kHead <= 128 ? 32 : 16, kThreads = 4 * kRows;
};

template <int kHead>
__global__ void __launch_bounds__(QueryTile<kHead>::kThreads)
    query_gradient_kernel(AttentionLaunch a, View q, View dout, const float *log_sum_exp, const float *dots, View dq) {
  constexpr int kRows = QueryTile<kHead>::kRows, kKeys = QueryTile<kHead>::kKeys, kThreads = QueryTile<kHead>::kThreads;
  __shared__ float query_tile[kRows * (kHead + 1)], dout_tile[kRows * (kHead + 1)], key_tile[kKeys * (kHead + 1)],
      slopes[kRows * kWeightPitch<kKeys>];
  const SequenceView &s = a.sequences[blockIdx.z];
  const int64_t h = a.head_dimension, kv = blockIdx.y, first_row = static_cast<int64_t>(blockIdx.x) * kRows,
                rows = s.queries * a.group;
  if (first_row >= rows) return;
  const int pitch = static_cast<int>(h) | 1, mine = static_cast<int>(threadIdx.x) / 4,
            quarter = static_cast<int>(threadIdx.x) % 4;
  const int64_t row = first_row + mine, query = row / a.group, head = kv * a.group + row % a.group, t = s.first_query + query;
  const int64_t last = min(first_row + kRows - 1, rows - 1) / a.group, first_query = first_row / a.group;
  const auto query_row = [&](int i, int64_t &token, int64_t &column) {
    const int64_t r = first_row + i;
    token = s.first_query + r / a.group, column = (kv * a.group + r % a.group) * h;
    return r < rows;
  };
  load_head_rows(q, h, kRows, kThreads, query_tile, pitch, query_row);
  load_head_rows(dout, h, kRows, kThreads, dout_tile, pitch, query_row);
  const float shift = row < rows ? log_sum_exp[t * a.heads + head] : 0.0f, dot = row < rows ? dots[t * a.heads + head] : 0.0f;
  const int64_t visible = a.window > 0 ? max(first_query - a.window + 1, int64_t{0}) : 0;
  float gradient[kHead / 4] = {};
  for (int64_t k = visible / kKeys * kKeys; k <= last; k += kKeys) {
    const auto key_row = [&](int i, int64_t &token, int64_t &column) {
      token = k + i, column = kv * h;
      return token <= last;
    };
    float dp[kKeys / 4], scores[kKeys / 4];
#pragma unroll
    for (int j = 0; j < kKeys / 4; j++) dp[j] = scores[j] = 0;
    __syncthreads();
    load_head_rows(s.values, h, kKeys, kThreads, key_tile, pitch, key_row);
    __syncthreads();
    for (int d = 0; d < h; d++) {
      const float x = dout_tile[mine * pitch + d];
#pragma unroll
      for (int j = 0; j < kKeys / 4; j++) dp[j] = fmaf(x, key_tile[(quarter + 4 * j) * pitch + d], dp[j]);
    }
    __syncthreads();
    load_head_rows(s.keys, h, kKeys, kThreads, key_tile, pitch, key_row);
    __syncthreads();
    for (int d = 0; d < h; d++) {
      const float x = query_tile[mine * pitch + d];
#pragma unroll
      for (int j = 0; j < kKeys / 4; j++) scores[j] = fmaf(x, key_tile[(quarter + 4 * j) * pitch + d], scores[j]);
    }
#pragma unroll
    for (int j = 0; j < kKeys / 4; j++) {
      const int64_t key = k + quarter + 4 * j;
      const float p = row < rows && a.sees(query, key) ? expf(scores[j] * a.scale - shift) : 0.0f;
      slopes[mine * kWeightPitch<kKeys> + quarter + 4 * j] = p == 0 ? 0.0f : p * (dp[j] - dot) * a.scale;
    }
    __syncwarp();  // the four threads of a row are of one warp
#pragma unroll
    for (int i = 0; i < kHead / 4; i++) {
      const int d = quarter + 4 * i;
      if (d >= h) break;
      float x = gradient[i];
      for (int j = 0; j < kKeys; j++) x = fmaf(slopes[mine * kWeightPitch<kKeys> + j], key_tile[j * pitch + d], x);
      gradient[i] = x;
    }
  }
  if (row >= rows) return;
#pragma unroll
  for (int i = 0; i < kHead / 4; i++) {
    const int d = quarter + 4 * i;
    if (d < h) store1(dq, t, head * h + d, gradient[i]);
  }
}

template <int kHead>
struct KeyTile {
  static constexpr int kKeys = kHead <= 64 ? 32 : kHead <= 128 ? 16 : 8, kRows = kKeys, kThreads = 4 * kKeys;
};

template <int kHead>
__global__ void __launch_bounds__(KeyTile<kHead>::kThreads)
    key_gradient_kernel(AttentionLaunch a, View q, View dout, const float *log_sum_exp, const float *dots, View dk, View dv) {
  constexpr int kRows = KeyTile<kHead>::kRows, kKeys = KeyTile<kHead>::kKeys, kThreads = KeyTile<kHead>::kThreads;
  __shared__ float key_tile[kKeys * (kHead + 1)], value_tile[kKeys * (kHead + 1)], query_tile[kRows * (kHead + 1)],
      dout_tile[kRows * (kHead + 1)];
  __shared__ float weights[kKeys * kWeightPitch<kRows>], slopes[kKeys * kWeightPitch<kRows>];
  const SequenceView &s = a.sequences[blockIdx.z];
  const int64_t h = a.head_dimension, kv = blockIdx.y, first_key = static_cast<int64_t>(blockIdx.x) * kKeys;
  if (first_key >= s.key_count) return;
  const int pitch = static_cast<int>(h) | 1, mine = static_cast<int>(threadIdx.x) / 4,
            quarter = static_cast<int>(threadIdx.x) % 4;
  const int64_t key = first_key + mine;
  const auto key_row = [&](int i, int64_t &token, int64_t &column) {
    token = first_key + i, column = kv * h;
    return token < s.key_count;
  };
  load_head_rows(s.keys, h, kKeys, kThreads, key_tile, pitch, key_row);
  load_head_rows(s.values, h, kKeys, kThreads, value_tile, pitch, key_row);
  const int64_t end_query = a.window > 0 ? min(s.queries, first_key + kKeys - 1 + a.window) : s.queries,
                end_row = end_query * a.group;
  float key_gradient[kHead / 4] = {}, value_gradient[kHead / 4] = {};
  for (int64_t first_row = first_key * a.group; first_row < end_row; first_row += kRows) {
    const auto query_row = [&](int i, int64_t &token, int64_t &column) {
      const int64_t r = first_row + i;
      token = s.first_query + r / a.group, column = (kv * a.group + r % a.group) * h;
      return r < end_row;
    };
    __syncthreads();
    load_head_rows(q, h, kRows, kThreads, query_tile, pitch, query_row);
    load_head_rows(dout, h, kRows, kThreads, dout_tile, pitch, query_row);
    __syncthreads();
    float dp[kRows / 4], scores[kRows / 4];
#pragma unroll
    for (int j = 0; j < kRows / 4; j++) dp[j] = scores[j] = 0;
    for (int d = 0; d < h; d++) {
      const float x = key_tile[mine * pitch + d], y = value_tile[mine * pitch + d];
#pragma unroll
      for (int j = 0; j < kRows / 4; j++) {
        scores[j] = fmaf(x, query_tile[(quarter + 4 * j) * pitch + d], scores[j]);
        dp[j] = fmaf(y, dout_tile[(quarter + 4 * j) * pitch + d], dp[j]);
      }
    }
#pragma unroll
    for (int j = 0; j < kRows / 4; j++) {
      const int64_t row = first_row + quarter + 4 * j, query = row / a.group,
                    pair = (s.first_query + query) * a.heads + kv * a.group + row % a.group;
      const bool seen = row < end_row && key < s.key_count && a.sees(query, key);
      const float p = seen ? expf(scores[j] * a.scale - log_sum_exp[pair]) : 0.0f;
      weights[mine * kWeightPitch<kRows> + quarter + 4 * j] = p;
      slopes[mine * kWeightPitch<kRows> + quarter + 4 * j] = p == 0 ? 0.0f : p * (dp[j] - dots[pair]) * a.scale;
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kHead / 4; i++) {
      const int d = quarter + 4 * i;
      if (d >= h) break;
      float x = key_gradient[i], y = value_gradient[i];
      for (int j = 0; j < kRows; j++) {
        x = fmaf(slopes[mine * kWeightPitch<kRows> + j], query_tile[j * pitch + d], x);
        y = fmaf(weights[mine * kWeightPitch<kRows> + j], dout_tile[j * pitch + d], y);
      }
      key_gradient[i] = x;
      value_gradient[i] = y;
    }
  }
  if (key >= s.key_count) return;
#pragma unroll
  for (int i = 0; i < kHead / 4; i++) {
    const int d = quarter + 4 * i;
    if (d >= h) break;
    store1(dk, s.first_query + key, kv * h + d, key_gradient[i]);
    store1(dv, s.first_query + key, kv * h + d, value_gradient[i]);
  }
}

}  // namespace

void CudaBackend::attention_backward(const AttentionShape &shape, std::span<const AttentionSequence> sequences, Rows q, Rows out,
                                     const float *log_sum_exp, Rows dout, Rows dq, Rows dk, Rows dv) {
  const char *op = "attention_backward";
  check_attention(shape, sequences, true);
  const int64_t h = shape.head_dimension, heads = shape.heads;
  const View queries_view = head_view(op, q, h), dout_view = head_view(op, dout, h), out_view = view(op, out);
  const View dq_view = view(op, dq), dk_view = view(op, dk), dv_view = view(op, dv);
  int64_t tokens = 0;
  for (const AttentionSequence &s : sequences) tokens = std::max(tokens, s.first_query + s.queries);
  if (tokens == 0) return;
  float *const dots = scratch<float>(tokens * heads);
  for_launches(op, shape, sequences, [&](const AttentionLaunch &launch, unsigned count, int64_t queries, int64_t keys) {
    for (unsigned i = 0; i < count; i++) {
      const SequenceView &s = launch.sequences[i];
      const int64_t pairs = s.queries * heads;
      if (pairs == 0) continue;
      MOE_LAUNCH((output_dots_kernel), blocks_for(pairs, kDotThreads / 32), kDotThreads, 0, on(), s.first_query, pairs, heads, h,
                 out_view, dout_view, dots);
    }
    with_head_size(op, h, [&]<int kHead>() {
      const auto kv_heads = static_cast<unsigned>(shape.kv_heads);
      const dim3 query_grid(blocks_for(queries * launch.group, QueryTile<kHead>::kRows), kv_heads, count);
      MOE_LAUNCH((query_gradient_kernel<kHead>), query_grid, QueryTile<kHead>::kThreads, 0, on(), launch, queries_view, dout_view,
                 log_sum_exp, static_cast<const float *>(dots), dq_view);
      const dim3 key_grid(blocks_for(keys, KeyTile<kHead>::kKeys), kv_heads, count);
      MOE_LAUNCH((key_gradient_kernel<kHead>), key_grid, KeyTile<kHead>::kThreads, 0, on(), launch, queries_view, dout_view,
                 log_sum_exp, static_cast<const float *>(dots), dk_view, dv_view);
    });
  });
}

}  // namespace moe::cuda
