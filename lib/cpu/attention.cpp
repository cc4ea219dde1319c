// Causal attention over sequences of any length with an online softmax (Milakov & Gimelshein 2018; Dao et al. 2022):
//   s_ij = scale <q_i, k_j>,  out_i = sum_j exp(s_ij - m_i) v_j / l_i,  log_sum_exp_i = m_i + log l_i
// Keys are taken in blocks of 256 that start at multiples of 256, whatever the tile of queries, so what a query computes does
// not depend on its neighbours. Two paths: tiles of queries over packed keys and values (prompts, training), and few
// queries straight over the stored rows (decoding), where blocks of keys are tasks and are joined in order.
#include "cpu/attention.h"

#include <cmath>
#include <limits>

#include "base/error.h"
#include "cpu/cpu_backend.h"

namespace moe::cpu {

void check_attention(const AttentionShape &shape, std::span<const AttentionSequence> sequences) {
  if (shape.heads < 1 || shape.kv_heads < 1 || shape.heads % shape.kv_heads != 0 || shape.head_dimension < 1 ||
      shape.window < 0) {
    fail(Code::invalid, "attention: expected heads a multiple of key/value heads, found ", shape.heads, " heads, ",
         shape.kv_heads, " key/value heads, head dimension ", shape.head_dimension, ", window ", shape.window);
  }
  for (const AttentionSequence &sequence : sequences) {
    if (sequence.queries < 0 || sequence.key_count < sequence.queries) {
      fail(Code::invalid, "attention: expected at least as many keys as queries, found ", sequence.key_count, " keys, ",
           sequence.queries, " queries");
    }
  }
}

namespace {

constexpr int64_t kKeyBlock = 256;                // keys of one step of the online softmax
constexpr int64_t kScoreRows = 8 * kRowGroup;     // stacked rows whose scores exist at a time
constexpr int64_t kScoreStride = kKeyBlock + 16;  // keeps neighbouring rows off the same cache sets
constexpr int64_t kFewQueries = 4;
constexpr int64_t kBlocksOfThread = 4;  // key blocks of few queries that keep all threads busy to the end
constexpr float kNone = -std::numeric_limits<float>::infinity();

// The queries of a tile share the packed keys: as many as keep q and out at 96 KiB each.
int64_t tile_queries(const HeadGroup &heads) { return std::clamp<int64_t>(24576 / (heads.group * heads.h), 1, 256); }
bool is_few(const AttentionSequence &sequence) { return sequence.queries <= kFewQueries; }

// ---- tiles of queries ------------------------------------------------------------------------------------------------

struct TileScratch {
  float *q, *out;        // [stacked rows, h]; q times scale
  float *maximum, *sum;  // [stacked rows]
  float *keys, *values;  // panels of a key block
  float *scores;         // [kScoreRows, kScoreStride]
  size_t bytes;

  TileScratch(void *base, const HeadGroup &heads) {
    Carver carver(base);
    const int64_t rows = tile_queries(heads) * heads.group;
    q = carver.take(rows * heads.h);
    out = carver.take(rows * heads.h);
    maximum = carver.take(rows);
    sum = carver.take(rows);
    keys = carver.take(kKeyBlock * heads.h);
    values = carver.take(kKeyBlock * round_up(heads.h, kPanel));
    scores = carver.take(kScoreRows * kScoreStride);
    bytes = carver.used();
  }
};

// Scores of a row's visible keys [begin, end) become probabilities against the running maximum; what was gathered before
// is brought to the new maximum.
void online_softmax(const Kernels &k, int64_t n, float *scores, float *maximum, float *sum, int64_t h, float *out) {
  const float highest = k.max(n, scores);
  if (highest > *maximum) {
    if (*sum != 0) {
      const float factor = std::exp(*maximum - highest);
      *sum *= factor;
      k.scale(h, factor, out, out);
    }
    *maximum = highest;
  }
  *sum += k.exp_shifted(n, scores, *maximum, scores);
}

// Stacked rows [row, row + rows) against the packed keys [begin, end). `first`: position of the tile's query 0.
void attend(const Kernels &k, const HeadGroup &heads, int64_t first, int64_t row, int64_t rows, int64_t begin, int64_t end,
            const TileScratch &x) {
  const int64_t h = heads.h, all = row + rows;
  for (int64_t key = begin; key < end; key += kPanel) {
    const int64_t width = std::min(kPanel, end - key);
    const int64_t from = std::max(row, heads.first_row(key, first, all)), to = heads.end_row(key + width - 1, first, all);
    if (from >= to) continue;
    k.tile_f32(to - from, width, h, x.q + from * h, h, x.keys + (key - begin) * h,
               x.scores + (from - row) * kScoreStride + (key - begin), kScoreStride, false);
  }
  for (int64_t r = row; r < all; r += kRowGroup) {
    const int64_t n = std::min(kRowGroup, all - r);
    const int64_t group_begin = std::max(begin, heads.first_key(first + r / heads.group));
    const int64_t group_end = std::min(end, heads.end_key(first + (r + n - 1) / heads.group));
    if (group_begin >= group_end) continue;
    float *const group_scores = x.scores + (r - row) * kScoreStride + (group_begin - begin);
    for (int64_t i = 0; i < n; i++) {
      const int64_t position = first + (r + i) / heads.group;
      const int64_t from = std::clamp(heads.first_key(position), group_begin, group_end) - group_begin;
      const int64_t to = std::clamp(heads.end_key(position), group_begin, group_end) - group_begin;
      float *const scores = group_scores + i * kScoreStride;
      std::fill(scores, scores + from, 0.0f);
      std::fill(scores + std::max(from, to), scores + (group_end - group_begin), 0.0f);
      if (from < to) online_softmax(k, to - from, scores + from, x.maximum + r + i, x.sum + r + i, h, x.out + (r + i) * h);
    }
    multiply_panels(k, n, h, group_end - group_begin, group_scores, kScoreStride, x.values + (group_begin - begin) * kPanel,
                    kKeyBlock * kPanel, x.out + r * h, h, true);
  }
}

struct Tile {
  int64_t kv_head, query, queries;  // queries [query, query + queries) of the sequence
};

void attention_tile(const Kernels &k, const HeadGroup &heads, const AttentionSequence &sequence, const Tile &tile, Rows q,
                    Rows out, float *log_sum_exp, const TileScratch &x) {
  const int64_t h = heads.h, group = heads.group, rows = tile.queries * group, column = tile.kv_head * group * h;
  const int64_t token = sequence.first_query + tile.query, first = sequence.key_count - sequence.queries + tile.query;
  for (int64_t i = 0; i < tile.queries; i++) read_scaled(k, q, token + i, column, group * h, heads.scale, x.q + i * group * h);
  std::fill_n(x.out, rows * h, 0.0f);
  std::fill_n(x.maximum, rows, kNone);
  std::fill_n(x.sum, rows, 0.0f);

  const int64_t first_key = heads.first_key(first), end_key = heads.end_key(first + tile.queries - 1);
  for (int64_t block = first_key / kKeyBlock * kKeyBlock; block < end_key; block += kKeyBlock) {
    const int64_t begin = std::max(block, first_key), end = std::min(block + kKeyBlock, end_key);
    pack_as_columns(k, sequence.keys, begin, end - begin, tile.kv_head * h, h, x.keys);
    pack_as_rows(k, sequence.values, begin, end - begin, tile.kv_head * h, h, x.values, kKeyBlock * kPanel);
    for (int64_t row = 0; row < rows; row += kScoreRows)
      attend(k, heads, first, row, std::min(kScoreRows, rows - row), begin, end, x);
  }

  for (int64_t i = 0; i < tile.queries; i++) {
    for (int64_t g = 0; g < group; g++) {
      const int64_t r = i * group + g;
      write_scaled(k, x.out + r * h, h, 1.0f / x.sum[r], out, token + i, column + g * h);
      if (log_sum_exp) log_sum_exp[(token + i) * heads.heads + tile.kv_head * group + g] = x.maximum[r] + std::log(x.sum[r]);
    }
  }
}

// ---- few queries -----------------------------------------------------------------------------------------------------

// What one block of keys gives to the stacked rows of a few queries.
struct Part {
  float *maximum, *sum;  // [kFewQueries * group]
  float *out;            // [kFewQueries * group, h], relative to maximum, not divided

  static int64_t floats(const HeadGroup &heads) { return kFewQueries * heads.group * (heads.h + 2); }
  Part(float *at, const HeadGroup &heads)
      : maximum(at), sum(at + kFewQueries * heads.group), out(at + 2 * kFewQueries * heads.group) {}
};

struct FewScratch {
  float *q;       // [kFewQueries * group, h]
  float *scores;  // [kFewQueries * group, kKeyBlock]
  size_t bytes;

  FewScratch(void *base, const HeadGroup &heads) {
    Carver carver(base);
    q = carver.take(kFewQueries * heads.group * heads.h);
    scores = carver.take(kFewQueries * heads.group * kKeyBlock);
    bytes = carver.used();
  }
};

// Index of the first key block that a few queries see, and their number.
int64_t first_block(const HeadGroup &heads, const AttentionSequence &s) {
  return heads.first_key(s.key_count - s.queries) / kKeyBlock;
}
int64_t key_blocks(const HeadGroup &heads, const AttentionSequence &s) {
  return s.queries == 0 ? 0 : (s.key_count - 1) / kKeyBlock - first_block(heads, s) + 1;
}

void attend_few(const Kernels &k, const HeadGroup &heads, const AttentionSequence &sequence, int64_t kv_head, int64_t block,
                Rows q, const FewScratch &x, const Part &part) {
  const int64_t h = heads.h, group = heads.group, rows = sequence.queries * group, first = sequence.key_count - sequence.queries;
  const int64_t begin = std::max(block * kKeyBlock, heads.first_key(first)),
                end = std::min((block + 1) * kKeyBlock, sequence.key_count);
  for (int64_t i = 0; i < sequence.queries; i++) {
    read_scaled(k, q, sequence.first_query + i, kv_head * group * h, group * h, heads.scale, x.q + i * group * h);
  }
  k.row_scores(sequence.keys.dtype, rows, end - begin, h, x.q, h, element(sequence.keys, begin, kv_head * h),
               sequence.keys.stride, x.scores, kKeyBlock);
  for (int64_t r = 0; r < rows; r++) {
    const int64_t position = first + r / group;
    const int64_t from = std::clamp(heads.first_key(position), begin, end) - begin,
                  to = std::clamp(heads.end_key(position), begin, end) - begin;
    float *const scores = x.scores + r * kKeyBlock;
    std::fill(scores, scores + from, 0.0f);
    std::fill(scores + std::max(from, to), scores + (end - begin), 0.0f);
    part.maximum[r] = from < to ? k.max(to - from, scores + from) : kNone;
    part.sum[r] = from < to ? k.exp_shifted(to - from, scores + from, part.maximum[r], scores + from) : 0.0f;
  }
  k.weighted_rows(sequence.values.dtype, rows, end - begin, h, x.scores, kKeyBlock, element(sequence.values, begin, kv_head * h),
                  sequence.values.stride, part.out, h);
}

// Joins the blocks of one sequence and key/value head in order. Part b stands at parts + b * part_stride.
void join_few(const Kernels &k, const HeadGroup &heads, const AttentionSequence &sequence, int64_t kv_head, const float *parts,
              int64_t part_stride, Rows out, float *log_sum_exp, float *joined) {
  const int64_t h = heads.h, group = heads.group, blocks = key_blocks(heads, sequence);
  const auto part = [&](int64_t b) { return Part(const_cast<float *>(parts) + b * part_stride, heads); };
  for (int64_t i = 0; i < sequence.queries; i++) {
    const int64_t token = sequence.first_query + i;
    for (int64_t g = 0; g < group; g++) {
      const int64_t r = i * group + g;
      float maximum = kNone, sum = 0;
      for (int64_t b = 0; b < blocks; b++) maximum = std::max(maximum, part(b).maximum[r]);
      for (int64_t b = 0; b < blocks; b++) {
        if (part(b).sum[r] != 0) sum += part(b).sum[r] * std::exp(part(b).maximum[r] - maximum);
      }
      float *const row = joined + g * h;
      std::fill_n(row, h, 0.0f);
      for (int64_t b = 0; b < blocks; b++) {
        if (part(b).sum[r] != 0) k.axpy(h, std::exp(part(b).maximum[r] - maximum) / sum, part(b).out + r * h, row);
      }
      if (log_sum_exp) log_sum_exp[token * heads.heads + kv_head * group + g] = maximum + std::log(sum);
    }
    write_scaled(k, joined, group * h, 1.0f, out, token, kv_head * group * h);
  }
}

}  // namespace

void CpuBackend::attention(const AttentionShape &shape, std::span<const AttentionSequence> sequences, Rows q, Rows out,
                           float *log_sum_exp) {
  check_attention(shape, sequences);
  const HeadGroup heads(shape);
  const int64_t queries = tile_queries(heads);

  const int64_t tasks = number_tasks(task_starts_, sequences, [&](const AttentionSequence &s) {
    return is_few(s) ? 0 : heads.kv_heads * ((s.queries + queries - 1) / queries);
  });
  if (tasks > 0) reserve_scratch(TileScratch(nullptr, heads).bytes);
  pool_->run(tasks, [&](int64_t task, int thread) {
    const auto [s, local] = find_task(task_starts_, task);
    const AttentionSequence &sequence = sequences[static_cast<size_t>(s)];
    // the last queries see the most keys: longest tasks first
    const int64_t tile = (sequence.queries + queries - 1) / queries - 1 - local / heads.kv_heads;
    const Tile where{local % heads.kv_heads, tile * queries, std::min(queries, sequence.queries - tile * queries)};
    attention_tile(k_, heads, sequence, where, q, out, log_sum_exp, TileScratch(scratch<float>(thread), heads));
  });

  // Part of block b and key/value head g of sequence s: number (starts[s] + b) * kv_heads + g.
  const int64_t blocks =
      number_tasks(task_starts_, sequences, [&](const AttentionSequence &s) { return is_few(s) ? key_blocks(heads, s) : 0; });
  if (blocks == 0) return;
  const int64_t part_floats = round_up(Part::floats(heads), 16);
  reserve_scratch(FewScratch(nullptr, heads).bytes);
  float *const parts = shared<float>(blocks * heads.kv_heads * part_floats);
  // Where there are blocks enough for all threads, a task reads whole rows of the cache: all heads of its block.
  const int64_t together = blocks >= kBlocksOfThread * pool_->threads() ? heads.kv_heads : 1, of_block = heads.kv_heads / together;
  pool_->run(blocks * of_block, [&](int64_t task, int thread) {
    const auto [s, block] = find_task(task_starts_, task / of_block);
    const AttentionSequence &sequence = sequences[static_cast<size_t>(s)];
    for (int64_t part = task * together; part < (task + 1) * together; part++) {
      attend_few(k_, heads, sequence, part % heads.kv_heads, first_block(heads, sequence) + block, q,
                 FewScratch(scratch<float>(thread), heads), Part(parts + part * part_floats, heads));
    }
  });
  pool_->run(static_cast<int64_t>(sequences.size()) * heads.kv_heads, [&](int64_t task, int thread) {
    const size_t s = static_cast<size_t>(task / heads.kv_heads);
    if (!is_few(sequences[s])) return;
    const int64_t kv_head = task % heads.kv_heads;
    join_few(k_, heads, sequences[s], kv_head, parts + (task_starts_[s] * heads.kv_heads + kv_head) * part_floats,
             heads.kv_heads * part_floats, out, log_sum_exp, scratch<float>(thread));
  });
}

}  // namespace moe::cpu
