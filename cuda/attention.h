// What the attention kernels share. The queries of a sequence that meet one key/value head are numbered r = query * group + head
// within the group, so that a tile of keys serves the whole group. A launch takes up to kSequences sequences as an argument
// of the kernel: nothing has to be copied to the device for them.
#pragma once
#include "cuda/cuda_backend.h"
#include "cuda/rows.h"

namespace moe::cuda {

struct SequenceView {
  int64_t first_query, queries, key_count;
  View keys, values;
  __device__ int64_t offset() const { return key_count - queries; }  // key index of query 0
};
constexpr size_t kSequences = 32;
struct AttentionLaunch {
  SequenceView sequences[kSequences];
  int64_t heads, kv_heads, group, head_dimension, window;
  float scale;
  __device__ bool sees(int64_t query_index, int64_t key) const {
    return key <= query_index && (window == 0 || key > query_index - window);
  }
};
static_assert(sizeof(AttentionLaunch) < 3600, "arguments of a kernel take at most 4 KiB");

// Row t, head `head` of x in 16-byte pieces only where every head begins at a multiple of 16 bytes.
inline View head_view(const char *op, Rows x, int64_t head_dimension) {
  View v = view(op, x);
  v.aligned = v.aligned && head_dimension % 8 == 0;
  return v;
}

// On tensor cores, for q, k, v in bf16 with aligned rows and heads of 64 or 128 (attention_bf16.cu).
bool takes_bf16_attention(const AttentionLaunch &launch, unsigned count, const View &q);
void bf16_attention(cudaStream_t stream, const AttentionLaunch &launch, unsigned count, int64_t queries, const View &q,
                    const View &out, float *log_sum_exp);

void check_attention(const AttentionShape &shape, std::span<const AttentionSequence> sequences, bool training);

// Calls body(launch, count of its sequences, most queries, most keys) for groups of sequences.
template <class Body>
void for_launches(const char *op, const AttentionShape &shape, std::span<const AttentionSequence> sequences, Body &&body) {
  for (size_t first = 0; first < sequences.size(); first += kSequences) {
    AttentionLaunch launch{};
    launch.heads = shape.heads, launch.kv_heads = shape.kv_heads, launch.group = shape.heads / shape.kv_heads;
    launch.head_dimension = shape.head_dimension, launch.window = shape.window, launch.scale = shape.scale;
    const size_t count = std::min(kSequences, sequences.size() - first);
    int64_t queries = 0, keys = 0;
    for (size_t i = 0; i < count; i++) {
      const AttentionSequence &s = sequences[first + i];
      launch.sequences[i] = {s.first_query, s.queries, s.key_count, head_view(op, s.keys, shape.head_dimension),
                             head_view(op, s.values, shape.head_dimension)};
      queries = std::max(queries, s.queries);
      keys = std::max(keys, s.key_count);
    }
    if (queries > 0) body(launch, static_cast<unsigned>(count), queries, keys);
  }
}

// The head h of `rows` rows of x, chosen by row_of(i), into tile[i * pitch + column], pitch odd; rows beyond are 0. A warp takes
// 32 neighbouring columns of eight rows: what it stores at once lies in 32 banks.
template <class RowOf>
__device__ __forceinline__ void load_head_rows(const View &x, int64_t h, int rows, int threads, float *tile, int pitch,
                                               const RowOf &row_of) {
  const int pieces = static_cast<int>((h + 31) / 32) * 4;  // of eight columns
  for (int i = static_cast<int>(threadIdx.x); i < rows * pieces; i += threads) {
    const int r = i / 4 % rows, d = (i / 4 / rows * 4 + i % 4) * 8;
    if (d >= h) continue;
    int64_t row, column;
    Eight e = {};
    if (row_of(r, row, column)) e = load8(x, row, column + d, column + h);
    for (int j = 0; j < 8; j++)
      if (d + j < h) tile[r * pitch + d + j] = e.v[j];
  }
}

// From row to row of a tile of weights. The four threads of a row store four neighbours at once: with eight rows they fill 32
// banks.
template <int kColumns>
inline constexpr int kWeightPitch = kColumns + 4;

// Calls body.template operator()<kHead>() with the size of head that the tiles are made for.
template <class Body>
void with_head_size(const char *op, int64_t head_dimension, Body &&body) {
  if (head_dimension <= 64) body.template operator()<64>();
  else if (head_dimension <= 128) body.template operator()<128>();
  else if (head_dimension <= 256) body.template operator()<256>();
  else fail(Code::unsupported, "cuda: ", op, ": expected a head dimension of at most 256, found ", head_dimension);
}

}  // namespace moe::cuda
