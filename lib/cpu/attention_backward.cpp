// Backward of attention from the saved log_sum_exp L (Dao et al. 2022):
//   P = exp(scale q k^T - L),  D_i = <dout_i, out_i>,  dS = P (dout v^T - D),
//   dv = P^T dout,  dk = scale dS^T q,  dq = scale dS k
// Scores are computed transposed, [keys, stacked rows]: L and D are then vectors along a row, and P^T and dS^T are ready
// left operands for dv and dk; only dS is transposed back, for dq.
// A sequence's keys are cut into at most four parts, each a task per key/value head that owns its dk and dv. The first
// part writes dq itself, the others write partial sums that are added in order afterwards.
#include "base/error.h"
#include "cpu/attention.h"
#include "cpu/cpu_backend.h"

namespace moe::cpu {
namespace {

constexpr int64_t kPartKeys = 256, kMaxParts = 4;
constexpr int64_t kStackedRows = 8 * kRowGroup;  // of one tile, except for larger groups

// The cut of one sequence's keys. Depends on its length only.
struct KeyParts {
  int64_t count, keys;
  explicit KeyParts(int64_t n) {
    count = std::clamp<int64_t>((n + kPartKeys - 1) / kPartKeys, 1, kMaxParts);
    keys = round_up((n + count - 1) / count, kPanel);
    count = n == 0 ? 0 : (n + keys - 1) / keys;
  }
  int64_t begin(int64_t part) const { return part * keys; }
  int64_t end(int64_t part, int64_t n) const { return std::min((part + 1) * keys, n); }
  // Rows of partial dq before part `part` (1, 2, ...): part p holds the queries [begin(p), n).
  int64_t partial_rows(int64_t part, int64_t n) const { return (part - 1) * n - keys * part * (part - 1) / 2; }
};

int64_t key_block(const HeadGroup &heads) { return heads.h <= 128 ? 256 : 128; }
int64_t tile_queries(const HeadGroup &heads) { return std::max<int64_t>(1, kStackedRows / heads.group); }

struct Scratch {
  int64_t stacked, score_stride, key_stride;  // rows of a tile; stride of transposed scores; stride of ds
  float *key_rows, *value_rows;               // [key_block, h], used where keys and values are not f32
  float *keys;                                // panels for dS k
  float *q, *dout;                            // [stacked, h]; q times scale
  float *q_columns, *dout_columns;            // panels for k q^T and v dout^T
  float *q_rows, *dout_rows;                  // panels for dS^T q and P^T dout
  float *log_sum_exp, *d;                     // [stacked]
  float *p, *ds_transposed;                   // [key_block, score_stride]
  float *ds;                                  // [stacked, key_stride]
  float *dq;                                  // [stacked, h]
  size_t bytes;

  Scratch(void *base, const HeadGroup &heads) {
    Carver carver(base);
    const int64_t keys_max = key_block(heads), h = heads.h, h_panels = round_up(h, kPanel);
    stacked = tile_queries(heads) * heads.group;
    score_stride = round_up(stacked, kPanel);
    key_stride = keys_max + 16;
    key_rows = carver.take(keys_max * h);
    value_rows = carver.take(keys_max * h);
    keys = carver.take(keys_max * h_panels);
    q = carver.take(stacked * h);
    dout = carver.take(stacked * h);
    q_columns = carver.take(score_stride * h);
    dout_columns = carver.take(score_stride * h);
    q_rows = carver.take(stacked * h_panels);
    dout_rows = carver.take(stacked * h_panels);
    log_sum_exp = carver.take(stacked);
    d = carver.take(stacked);
    p = carver.take(keys_max * score_stride);
    ds_transposed = carver.take(keys_max * score_stride);
    ds = carver.take(stacked * key_stride);
    dq = carver.take(stacked * h);
    bytes = carver.used();
  }
};

struct Operands {
  Rows q, out, dout, dq, dk, dv;
  const float *log_sum_exp;
};

// What one task works on. Keys and values of a block are f32 rows.
struct Block {
  const float *keys, *values;
  int64_t key_stride, value_stride;
  int64_t begin, end;  // keys of the sequence
};
struct Tile {
  int64_t token, first, rows;  // row of q of the first query, its position, stacked rows
};

// Stacked rows of a tile: q (times scale), dout, L and D, and both forms of panels.
void load_tile(const Kernels &k, const HeadGroup &heads, int64_t kv_head, const Operands &o, const Tile &tile, const Scratch &x) {
  const int64_t h = heads.h, group = heads.group, column = kv_head * group * h;
  for (int64_t i = 0; i < tile.rows / group; i++) {
    const int64_t token = tile.token + i;
    read_scaled(k, o.q, token, column, group * h, heads.scale, x.q + i * group * h);
    read_scaled(k, o.dout, token, column, group * h, 1.0f, x.dout + i * group * h);
    const float *out = x.dq;
    if (o.out.dtype == DType::f32) out = f32_element(o.out, token, column);
    else read_scaled(k, o.out, token, column, group * h, 1.0f, x.dq);
    for (int64_t g = 0; g < group; g++) {
      const int64_t r = i * group + g;
      x.d[r] = k.dot(h, x.dout + r * h, out + g * h);
      x.log_sum_exp[r] = o.log_sum_exp[token * heads.heads + kv_head * group + g];
    }
  }
  const Rows q = f32_rows(x.q, h), dout = f32_rows(x.dout, h);
  pack_as_columns(k, q, 0, tile.rows, 0, h, x.q_columns);
  pack_as_columns(k, dout, 0, tile.rows, 0, h, x.dout_columns);
  pack_as_rows(k, q, 0, tile.rows, 0, h, x.q_rows, x.stacked * kPanel);
  pack_as_rows(k, dout, 0, tile.rows, 0, h, x.dout_rows, x.stacked * kPanel);
}

// P^T and dS^T of the block's keys [begin, end) against the tile; zero where a row does not see a key.
void transposed_gradients(const Kernels &k, const HeadGroup &heads, const Block &block, const Tile &tile, int64_t begin,
                          int64_t end, const Scratch &x) {
  const int64_t h = heads.h;
  for (int64_t c = 0; c < tile.rows; c += kPanel) {
    const int64_t width = std::min(kPanel, tile.rows - c);
    const int64_t from = std::max(begin, heads.first_key(tile.first + c / heads.group));
    const int64_t to = std::min(end, heads.end_key(tile.first + (c + width - 1) / heads.group));
    if (from >= to) continue;
    const int64_t at = (from - block.begin) * x.score_stride + c;
    k.tile_f32(to - from, width, h, block.keys + (from - block.begin) * block.key_stride, block.key_stride, x.q_columns + c * h,
               x.p + at, x.score_stride, false);
    k.tile_f32(to - from, width, h, block.values + (from - block.begin) * block.value_stride, block.value_stride,
               x.dout_columns + c * h, x.ds_transposed + at, x.score_stride, false);
  }
  for (int64_t key = begin; key < end; key++) {
    float *const p = x.p + (key - block.begin) * x.score_stride;
    float *const ds = x.ds_transposed + (key - block.begin) * x.score_stride;
    const int64_t from = heads.first_row(key, tile.first, tile.rows), to = heads.end_row(key, tile.first, tile.rows);
    k.softmax_gradient(to - from, p + from, x.log_sum_exp + from, ds + from, x.d + from, p + from, ds + from);
    if (from > 0) std::fill(p, p + from, 0.0f), std::fill(ds, ds + from, 0.0f);
    if (to < tile.rows) std::fill(p + to, p + tile.rows, 0.0f), std::fill(ds + to, ds + tile.rows, 0.0f);
  }
}

// dk += dS^T q and dv += P^T dout for the keys [begin, end).
void key_gradients(const Kernels &k, const HeadGroup &heads, const Block &block, const Tile &tile, int64_t begin, int64_t end,
                   float *dk, int64_t dk_stride, float *dv, int64_t dv_stride, const Scratch &x) {
  for (int64_t c = 0; c < heads.h; c += kPanel) {
    const int64_t width = std::min(kPanel, heads.h - c);
    const float *const q_panel = x.q_rows + c * x.stacked, *const dout_panel = x.dout_rows + c * x.stacked;
    for (int64_t key = begin; key < end; key += kRowGroup) {
      const int64_t n = std::min(kRowGroup, end - key);
      const int64_t from = heads.first_row(key, tile.first, tile.rows), to = heads.end_row(key + n - 1, tile.first, tile.rows);
      const int64_t at = (key - block.begin) * x.score_stride + from;
      k.tile_f32(n, width, to - from, x.p + at, x.score_stride, dout_panel + from * kPanel, dv + key * dv_stride + c, dv_stride,
                 true);
      k.tile_f32(n, width, to - from, x.ds_transposed + at, x.score_stride, q_panel + from * kPanel, dk + key * dk_stride + c,
                 dk_stride, true);
    }
  }
}

// dq (rows of the tile at `dq`) += scale dS k over the keys [begin, end).
void query_gradients(const Kernels &k, const HeadGroup &heads, const Block &block, const Tile &tile, int64_t begin, int64_t end,
                     float *dq, int64_t dq_stride, const Scratch &x) {
  const int64_t h = heads.h, group = heads.group, panel_stride = key_block(heads) * kPanel;
  for (int64_t key = begin; key < end; key += kPanel) {
    k.transpose(std::min(kPanel, end - key), tile.rows, x.ds_transposed + (key - block.begin) * x.score_stride, x.score_stride,
                x.ds + (key - block.begin), x.key_stride);
  }
  for (int64_t r = 0; r < tile.rows; r += kRowGroup) {
    const int64_t n = std::min(kRowGroup, tile.rows - r);
    const int64_t from = std::max(begin, heads.first_key(tile.first + r / group)) - block.begin;
    const int64_t to = std::max(from, std::min(end, heads.end_key(tile.first + (r + n - 1) / group)) - block.begin);
    multiply_panels(k, n, h, to - from, x.ds + r * x.key_stride + from, x.key_stride, x.keys + from * kPanel, panel_stride,
                    x.dq + r * h, h, false);
  }
  for (int64_t i = 0; i < tile.rows / group; i++) k.axpy(group * h, heads.scale, x.dq + i * group * h, dq + i * dq_stride);
}

const float *rows_as_f32(const Kernels &k, Rows x, int64_t first, int64_t count, int64_t column, int64_t n, float *space,
                         int64_t *stride) {
  *stride = x.stride;
  if (x.dtype == DType::f32) return f32_element(x, first, column);
  for (int64_t i = 0; i < count; i++) read_scaled(k, x, first + i, column, n, 1.0f, space + i * n);
  *stride = n;
  return space;
}

// Keys [begin, end) of a sequence and one key/value head. dq: the head group's columns of query `begin`.
void backward_part(const Kernels &k, const HeadGroup &heads, const AttentionSequence &sequence, int64_t kv_head, int64_t begin,
                   int64_t end, const Operands &o, float *dq, int64_t dq_stride, const Scratch &x) {
  const int64_t h = heads.h, queries = tile_queries(heads);
  float *const dk = f32_element(o.dk, sequence.first_query, kv_head * h);
  float *const dv = f32_element(o.dv, sequence.first_query, kv_head * h);
  for (int64_t key = begin; key < end; key++) {
    std::fill_n(dk + key * o.dk.stride, h, 0.0f);
    std::fill_n(dv + key * o.dv.stride, h, 0.0f);
  }
  for (int64_t first_key = begin; first_key < end; first_key += key_block(heads)) {
    Block block{};
    block.begin = first_key;
    block.end = std::min(first_key + key_block(heads), end);
    const int64_t count = block.end - block.begin;
    block.keys = rows_as_f32(k, sequence.keys, block.begin, count, kv_head * h, h, x.key_rows, &block.key_stride);
    block.values = rows_as_f32(k, sequence.values, block.begin, count, kv_head * h, h, x.value_rows, &block.value_stride);
    pack_as_rows(k, sequence.keys, block.begin, count, kv_head * h, h, x.keys, key_block(heads) * kPanel);

    const int64_t end_query = std::min(sequence.queries, block.end - 1 + heads.window);
    for (int64_t query = block.begin; query < end_query; query += queries) {
      const int64_t n = std::min(queries, end_query - query);
      const Tile tile{sequence.first_query + query, query, n * heads.group};
      const int64_t from = std::max(block.begin, heads.first_key(query)), to = std::min(block.end, heads.end_key(query + n - 1));
      load_tile(k, heads, kv_head, o, tile, x);
      transposed_gradients(k, heads, block, tile, from, to, x);
      key_gradients(k, heads, block, tile, from, to, dk, o.dk.stride, dv, o.dv.stride, x);
      query_gradients(k, heads, block, tile, from, to, dq + (query - begin) * dq_stride, dq_stride, x);
    }
  }
}

}  // namespace

void CpuBackend::attention_backward(const AttentionShape &shape, std::span<const AttentionSequence> sequences, Rows q, Rows out,
                                    const float *log_sum_exp, Rows dout, Rows dq, Rows dk, Rows dv) {
  check_attention(shape, sequences);
  for (const AttentionSequence &s : sequences) {
    if (s.key_count != s.queries)
      fail(Code::invalid, "attention_backward: expected as many keys as queries, found ", s.key_count, " and ", s.queries);
  }
  const HeadGroup heads(shape);
  const Operands operands{q, out, dout, dq, dk, dv, log_sum_exp};
  const int64_t width = heads.heads * heads.h, group_width = heads.group * heads.h;

  const int64_t partial_rows = number_tasks(slot_starts_, sequences, [](const AttentionSequence &s) {
    const KeyParts parts(s.queries);
    return parts.count > 1 ? parts.partial_rows(parts.count, s.queries) : 0;
  });
  float *const partial = shared<float>(partial_rows * width);
  const auto slot = [&](size_t s, int64_t part) {
    return partial + (slot_starts_[s] + KeyParts(sequences[s].queries).partial_rows(part, sequences[s].queries)) * width;
  };

  int64_t tasks = number_tasks(task_starts_, sequences,
                               [&](const AttentionSequence &s) { return heads.kv_heads * KeyParts(s.queries).count; });
  reserve_scratch(Scratch(nullptr, heads).bytes);
  pool_->run(tasks, [&](int64_t task, int thread) {
    const auto [index, local] = find_task(task_starts_, task);
    const size_t s = static_cast<size_t>(index);
    const AttentionSequence &sequence = sequences[s];
    const KeyParts parts(sequence.queries);
    const int64_t part = local / heads.kv_heads, kv_head = local % heads.kv_heads, begin = parts.begin(part);
    float *const rows =
        part == 0 ? f32_element(dq, sequence.first_query, kv_head * group_width) : slot(s, part) + kv_head * group_width;
    const int64_t stride = part == 0 ? dq.stride : width;
    for (int64_t i = 0; i < sequence.queries - begin; i++) std::fill_n(rows + i * stride, group_width, 0.0f);
    backward_part(k_, heads, sequence, kv_head, begin, parts.end(part, sequence.queries), operands, rows, stride,
                  Scratch(scratch<float>(thread), heads));
  });

  constexpr int64_t kSumRows = 32;
  tasks = number_tasks(task_starts_, sequences, [](const AttentionSequence &s) {
    return KeyParts(s.queries).count > 1 ? (s.queries + kSumRows - 1) / kSumRows : 0;
  });
  pool_->run(tasks, [&](int64_t task, int) {
    const auto [index, local] = find_task(task_starts_, task);
    const size_t s = static_cast<size_t>(index);
    const KeyParts parts(sequences[s].queries);
    for (int64_t query = local * kSumRows; query < std::min((local + 1) * kSumRows, sequences[s].queries); query++) {
      for (int64_t part = 1; part < parts.count && parts.begin(part) <= query; part++) {
        k_.add(width, slot(s, part) + (query - parts.begin(part)) * width, f32_element(dq, sequences[s].first_query + query, 0));
      }
    }
  });
}

}  // namespace moe::cpu
