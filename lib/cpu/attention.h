// What the forward and the backward pass of attention (and other ops that tile by hand) share: views of columns, packing
// of rows into panels, and the geometry of one head group.
//
// The heads of one key/value head are stacked: stacked row r is query r / group, head r % group. In q, out and their
// gradients these are group * h neighbours in memory, so a query is copied as one piece, and the rows that see a key
// are one contiguous range.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "cpu/kernels.h"
#include "tensor/backend.h"

namespace moe::cpu {

// The rows of the tiles below; a multiple of the register tile of every level (12, 6, 4).
inline constexpr int64_t kRowGroup = 12;

inline int64_t round_up(int64_t x, int64_t multiple) { return (x + multiple - 1) / multiple * multiple; }

// Hands out 64-byte aligned pieces of one block. Over address 0 it only counts.
class Carver {
 public:
  explicit Carver(void *base) : base_(reinterpret_cast<uintptr_t>(base)) {}
  float *take(int64_t floats) {
    const uintptr_t at = base_ + used_;
    used_ += static_cast<size_t>(round_up(floats, 16)) * sizeof(float);
    return reinterpret_cast<float *>(at);
  }
  size_t used() const { return used_; }

 private:
  uintptr_t base_;
  size_t used_ = 0;
};

inline int64_t element_bytes(Rows x) { return x.dtype == DType::bf16 ? 2 : 4; }
inline const void *element(Rows x, int64_t row, int64_t column) {
  return static_cast<const std::byte *>(x.data) + (row * x.stride + column) * element_bytes(x);
}
inline float *f32_element(Rows x, int64_t row, int64_t column) { return static_cast<float *>(x.data) + row * x.stride + column; }

// to = factor * x[row, column ... column + n)
inline void read_scaled(const Kernels &k, Rows x, int64_t row, int64_t column, int64_t n, float factor, float *to) {
  const void *from = element(x, row, column);
  if (x.dtype == DType::bf16) {
    k.to_f32(static_cast<const uint16_t *>(from), n, to);
    from = to;
  }
  if (factor != 1.0f || from != to) k.scale(n, factor, static_cast<const float *>(from), to);
}

// y[row, column ... column + n) = factor * from; `from` may be overwritten
inline void write_scaled(const Kernels &k, float *from, int64_t n, float factor, Rows y, int64_t row, int64_t column) {
  void *to = const_cast<void *>(element(y, row, column));
  k.scale(n, factor, from, y.dtype == DType::bf16 ? from : static_cast<float *>(to));
  if (y.dtype == DType::bf16) k.to_bf16(from, n, static_cast<uint16_t *>(to));
}

// Panels for A x^T: columns are `count` rows of x, panel p is [n][32] at panels + p * n * 32.
inline void pack_as_columns(const Kernels &k, Rows x, int64_t first, int64_t count, int64_t column, int64_t n, float *panels) {
  for (int64_t c = 0; c < count; c += kPanel, panels += n * kPanel) {
    const int64_t width = std::min(kPanel, count - c);
    const void *from = element(x, first + c, column);
    if (x.dtype == DType::bf16) {
      k.panel_f32(DType::bf16, from, x.stride * 2, width, n, panels);
      continue;
    }
    if (width < kPanel) std::memset(panels, 0, static_cast<size_t>(n * kPanel) * sizeof(float));
    k.transpose(width, n, static_cast<const float *>(from), x.stride, panels, kPanel);
  }
}

// Panels for A x, reduction over `count` rows of x: panel c is [count][32] at panels + c * panel_stride.
inline void pack_as_rows(const Kernels &k, Rows x, int64_t first, int64_t count, int64_t column, int64_t n, float *panels,
                         int64_t panel_stride) {
  for (int64_t c = 0; c < n; c += kPanel, panels += panel_stride) {
    k.panel_transposed_f32(x.dtype, element(x, first, column), x.stride * element_bytes(x), c, std::min(kPanel, n - c), count,
                           panels);
  }
}

// C[rows, n] (=|+=) A[rows, depth] times panels that lie panel_stride apart.
inline void multiply_panels(const Kernels &k, int64_t rows, int64_t n, int64_t depth, const float *a, int64_t lda,
                            const float *panels, int64_t panel_stride, float *c, int64_t ldc, bool add) {
  for (int64_t j = 0; j < n; j += kPanel, panels += panel_stride)
    k.tile_f32(rows, std::min(kPanel, n - j), depth, a, lda, panels, c + j, ldc, add);
}

inline void multiply_panels(const Kernels &k, int64_t rows, int64_t n, int64_t depth, const uint16_t *a, int64_t lda,
                            const uint16_t *panels, int64_t panel_stride, float *c, int64_t ldc, bool add) {
  for (int64_t j = 0; j < n; j += kPanel, panels += panel_stride)
    k.tile_bf16(rows, std::min(kPanel, n - j), depth, a, lda, panels, c + j, ldc, add);
}

// Which stacked rows see which keys. `first` is the key index at which query 0 of a tile stands.
struct HeadGroup {
  int64_t group = 1, h = 0, heads = 0, kv_heads = 0, window = 0;
  float scale = 0;

  explicit HeadGroup(const AttentionShape &shape)
      : group(shape.heads / shape.kv_heads),
        h(shape.head_dimension),
        heads(shape.heads),
        kv_heads(shape.kv_heads),
        window(shape.window > 0 ? shape.window : int64_t{1} << 40),
        scale(shape.scale) {}

  // Keys [first_key, end_key) seen from a position.
  int64_t first_key(int64_t position) const { return std::max<int64_t>(0, position - window + 1); }
  int64_t end_key(int64_t position) const { return position + 1; }
  // Stacked rows [first_row, end_row) of `rows` that see the key.
  int64_t first_row(int64_t key, int64_t first, int64_t rows) const {
    return std::clamp<int64_t>((key - first) * group, 0, rows);
  }
  int64_t end_row(int64_t key, int64_t first, int64_t rows) const {
    return std::clamp<int64_t>((key + window - first) * group, 0, rows);
  }
};

// Numbers the tasks of several sequences one after another: sequence s has the tasks [starts[s], starts[s + 1]).
// Returns their count.
template <class Count>
int64_t number_tasks(std::vector<int64_t> &starts, std::span<const AttentionSequence> sequences, Count count) {
  starts.assign(1, 0);
  for (const AttentionSequence &sequence : sequences) starts.push_back(starts.back() + count(sequence));
  return starts.back();
}
struct SequenceTask {
  int64_t sequence, local;  // index of the sequence, number of the task within it
};
inline SequenceTask find_task(const std::vector<int64_t> &starts, int64_t task) {
  const int64_t sequence = std::upper_bound(starts.begin(), starts.end(), task) - starts.begin() - 1;
  return {sequence, task - starts[static_cast<size_t>(sequence)]};
}

// Code::invalid for an impossible shape.
void check_attention(const AttentionShape &shape, std::span<const AttentionSequence> sequences);

}  // namespace moe::cpu
