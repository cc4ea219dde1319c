// out = softmax(scale q k^T + causal mask) v with an online softmax over tiles of keys (Milakov & Gimelshein 2018; Dao et al.
// 2022), in f32. Four threads take a query: they share its scores and each holds a quarter of its output. With few queries and
// many keys (decoding) the keys are cut into parts of kPart that are joined in order. Keys and values are read once for every
// tile of queries and their whole group of heads. Prompts in bf16 go to attention_bf16.cu.
#include "cuda/attention.h"

#include <cmath>

namespace moe::cuda {
namespace {

constexpr int64_t kPart = 256, kFewQueries = 8;

template <int kHead>
struct Tile {
  static constexpr int kRows = kHead <= 128 ? 32 : 16, kKeys = kRows, kThreads = 4 * kRows;
};

// Sums of the keys of one part, not yet divided: parts[((t * heads + head) * count + part) * (h + 2)]: h values, maximum, sum.
struct Parts {
  float *data;
  int64_t count, keys;  // keys of a part; count 1: none
};

template <int kHead>
__global__ void __launch_bounds__(Tile<kHead>::kThreads)
    attention_kernel(AttentionLaunch a, View q, View out, float *log_sum_exp, Parts parts) {
  constexpr int kRows = Tile<kHead>::kRows, kKeys = Tile<kHead>::kKeys, kThreads = Tile<kHead>::kThreads;
  __shared__ float query_tile[kRows * (kHead + 1)], key_tile[kKeys * (kHead + 1)], weights[kRows * kWeightPitch<kKeys>];
  const SequenceView &s = a.sequences[blockIdx.z];
  const int64_t h = a.head_dimension, kv = blockIdx.y, part = static_cast<int64_t>(blockIdx.x) % parts.count;
  const int64_t first_row = static_cast<int64_t>(blockIdx.x) / parts.count * kRows, rows = s.queries * a.group;
  if (first_row >= rows) return;
  const int pitch = static_cast<int>(h) | 1, mine = static_cast<int>(threadIdx.x) / 4,
            quarter = static_cast<int>(threadIdx.x) % 4;
  const int64_t row = first_row + mine, query = row / a.group, head = kv * a.group + row % a.group, index = s.offset() + query;
  const int64_t last_index = s.offset() + min(first_row + kRows - 1, rows - 1) / a.group,
                first_index = s.offset() + first_row / a.group;

  load_head_rows(q, h, kRows, kThreads, query_tile, pitch, [&](int i, int64_t &t, int64_t &column) {
    const int64_t r = first_row + i;
    t = s.first_query + r / a.group, column = (kv * a.group + r % a.group) * h;
    return r < rows;
  });
  const int64_t visible = a.window > 0 ? max(first_index - a.window + 1, int64_t{0}) : 0;
  const int64_t begin = max(visible / kKeys * kKeys, part * parts.keys), end = min(last_index + 1, (part + 1) * parts.keys);
  float maximum = -INFINITY, sum = 0, values[kHead / 4] = {};
  for (int64_t k = begin; k < end; k += kKeys) {
    const auto key_row = [&](int i, int64_t &t, int64_t &column) {
      t = k + i, column = kv * h;
      return t < end;
    };
    __syncthreads();
    load_head_rows(s.keys, h, kKeys, kThreads, key_tile, pitch, key_row);
    __syncthreads();
    float scores[kKeys / 4], largest = maximum;
#pragma unroll
    for (int j = 0; j < kKeys / 4; j++) scores[j] = 0;
    for (int d = 0; d < h; d++) {
      const float x = query_tile[mine * pitch + d];
#pragma unroll
      for (int j = 0; j < kKeys / 4; j++) scores[j] = fmaf(x, key_tile[(quarter + 4 * j) * pitch + d], scores[j]);
    }
#pragma unroll
    for (int j = 0; j < kKeys / 4; j++) {
      const int64_t key = k + quarter + 4 * j;
      scores[j] = key < end && a.sees(index, key) ? scores[j] * a.scale : -INFINITY;
      largest = fmaxf(largest, scores[j]);
    }
    largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 2));
    const float reference = largest == -INFINITY ? 0.0f : largest;  // nothing seen yet: exponentials of -infinity are 0
    const float factor = expf(maximum - reference);
    float added = 0;
#pragma unroll
    for (int j = 0; j < kKeys / 4; j++) {
      const float e = expf(scores[j] - reference);
      weights[mine * kWeightPitch<kKeys> + quarter + 4 * j] = e;
      added += e;
    }
    added += __shfl_xor_sync(~0u, added, 1);
    added += __shfl_xor_sync(~0u, added, 2);
    sum = sum * factor + added;
    maximum = largest;
    __syncthreads();
    load_head_rows(s.values, h, kKeys, kThreads, key_tile, pitch, key_row);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kHead / 4; i++) {
      const int d = quarter + 4 * i;
      if (d >= h) break;
      float x = values[i] * factor;
      for (int j = 0; j < kKeys; j++) x = fmaf(weights[mine * kWeightPitch<kKeys> + j], key_tile[j * pitch + d], x);
      values[i] = x;
    }
  }
  if (row >= rows) return;
  const int64_t t = s.first_query + query;
  float *to = parts.data + ((t * a.heads + head) * parts.count + part) * (h + 2);
  const bool whole = parts.count == 1;
#pragma unroll
  for (int i = 0; i < kHead / 4; i++) {
    const int d = quarter + 4 * i;
    if (d >= h) break;
    if (whole) store1(out, t, head * h + d, values[i] / sum);
    else to[d] = values[i];
  }
  if (quarter != 0) return;
  if (!whole) to[h] = maximum, to[h + 1] = sum;
  else if (log_sum_exp) log_sum_exp[t * a.heads + head] = maximum + logf(sum);
}

constexpr int kJoinThreads = 128;

// A warp joins the parts of one query and head.
__global__ void __launch_bounds__(kJoinThreads)
    join_kernel(int64_t count, int64_t heads, int64_t h, View out, float *log_sum_exp, Parts parts, int64_t first) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * (kJoinThreads / 32) + threadIdx.x / 32;
  const int lane = static_cast<int>(threadIdx.x % 32);
  if (i >= count) return;
  const int64_t row = first * heads + i;  // (t, head)
  const float *from = parts.data + row * parts.count * (h + 2);
  float maximum = -INFINITY, sum = 0;
  for (int64_t p = 0; p < parts.count; p++) maximum = fmaxf(maximum, from[p * (h + 2) + h]);
  const auto factor = [&](int64_t p) {
    const float m = from[p * (h + 2) + h];
    return m == -INFINITY ? 0.0f : expf(m - maximum);
  };
  for (int64_t p = 0; p < parts.count; p++) sum = fmaf(from[p * (h + 2) + h + 1], factor(p), sum);
  for (int64_t d = lane; d < h; d += 32) {
    float x = 0;
    for (int64_t p = 0; p < parts.count; p++) x = fmaf(from[p * (h + 2) + d], factor(p), x);
    store1(out, row / heads, row % heads * h + d, x / sum);
  }
  if (lane == 0 && log_sum_exp) log_sum_exp[row] = maximum + logf(sum);
}

}  // namespace

void check_attention(const AttentionShape &shape, std::span<const AttentionSequence> sequences, bool training) {
  const char *op = training ? "attention_backward" : "attention";
  if (shape.kv_heads < 1 || shape.heads < 1 || shape.heads % shape.kv_heads != 0)
    fail(Code::invalid, op, ": expected query heads that are a multiple of key/value heads, found ", shape.heads, " and ",
         shape.kv_heads);
  for (size_t i = 0; i < sequences.size(); i++) {
    const AttentionSequence &s = sequences[i];
    if (s.key_count < s.queries || (training && s.key_count != s.queries))
      fail(Code::invalid, op, ": sequence ", i, ": expected ", training ? "" : "at least ", "as many keys as queries, found ",
           s.key_count, " keys and ", s.queries, " queries");
  }
}

void CudaBackend::attention(const AttentionShape &shape, std::span<const AttentionSequence> sequences, Rows q, Rows out,
                            float *log_sum_exp) {
  check_attention(shape, sequences, false);
  const int64_t h = shape.head_dimension;
  const View queries_view = head_view("attention", q, h), out_view = view("attention", out);
  for_launches("attention", shape, sequences, [&](const AttentionLaunch &launch, unsigned count, int64_t queries, int64_t keys) {
    if (tensor_cores_ && queries > kFewQueries && takes_bf16_attention(launch, count, queries_view))
      return bf16_attention(on(), launch, count, queries, queries_view, out_view, log_sum_exp);
    Parts parts{nullptr, 1, keys};
    int64_t first = 0, end = 0;  // rows of q that the sequences of this launch span
    if (queries <= kFewQueries && keys > kPart) {
      first = launch.sequences[0].first_query;
      for (unsigned i = 0; i < count; i++) {
        first = std::min(first, launch.sequences[i].first_query);
        end = std::max(end, launch.sequences[i].first_query + launch.sequences[i].queries);
      }
      parts.keys = kPart;
      parts.count = (keys + kPart - 1) / kPart;
      parts.data =
          scratch<float>((end - first) * shape.heads * parts.count * (h + 2)) - first * shape.heads * parts.count * (h + 2);
    }
    with_head_size("attention", h, [&]<int kHead>() {
      const int64_t tiles = (queries * launch.group + Tile<kHead>::kRows - 1) / Tile<kHead>::kRows;
      const dim3 grid(blocks_for(tiles * parts.count, 1), static_cast<unsigned>(shape.kv_heads), count);
      MOE_LAUNCH((attention_kernel<kHead>), grid, Tile<kHead>::kThreads, 0, on(), launch, queries_view, out_view, log_sum_exp,
                 parts);
    });
    if (parts.count == 1) return;
    for (unsigned i = 0; i < count; i++) {
      const SequenceView &s = launch.sequences[i];
      const int64_t pairs = s.queries * shape.heads;
      if (pairs == 0) continue;
      MOE_LAUNCH((join_kernel), blocks_for(pairs, kJoinThreads / 32), kJoinThreads, 0, on(), pairs, shape.heads, h, out_view,
                 log_sum_exp, parts, s.first_query);
    }
  });
}

}  // namespace moe::cuda
