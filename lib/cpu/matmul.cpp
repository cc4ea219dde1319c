// Dense products with stored weights: y = x W^T (forward) and dx = dy W (transposed), straight from the stored blocks.
// A task is a group of 32-column panels times a range of rows. It expands its panels into its thread's scratch (they stay in L2),
// then streams the rows over them; each element is one accumulator over k in rising order, so neither the cut into tasks nor the
// number of threads changes a bit. A few tokens (<= 8) skip the panels: weights are expanded in registers.
#include <unistd.h>

#include <algorithm>

#include "cpu/cpu_backend.h"

namespace moe::cpu {
namespace {

constexpr int64_t kFewTokens = 8;
constexpr int64_t kDefaultL2 = 1 << 20;
constexpr int64_t kLeastRows = 128;             // of a task, so that expansion stays a small part
constexpr int64_t kWantedTasks = 8;

struct Product {
  int64_t tokens, columns, k;  // C[tokens, columns] = A[tokens, k] * panels
  int64_t panels, group, groups, row_parts;
};

// Expanded panels of one task take half of the level-2 cache; the rows that stream past them need the rest.
int64_t panel_bytes() {
  static const int64_t bytes = [] {
#if defined(_SC_LEVEL2_CACHE_SIZE)
    const int64_t found = sysconf(_SC_LEVEL2_CACHE_SIZE);
#else
    const int64_t found = 0;
#endif
    return std::clamp<int64_t>(found > 0 ? found : kDefaultL2, 256 << 10, 4 << 20) / 2;
  }();
  return bytes;
}

// How a product is cut: panels in even groups that fit the cache, rows only when there would be too few tasks.
Product cut(int64_t tokens, int64_t columns, int64_t k, int64_t operand_bytes) {
  Product p{tokens, columns, k, (columns + kPanel - 1) / kPanel, 0, 0, 1};
  const int64_t fits = std::max<int64_t>(1, panel_bytes() / (kPanel * k * operand_bytes));
  p.groups = (p.panels + fits - 1) / fits;
  if (p.groups % 2 == 1 && p.panels > p.groups) p.groups++;
  p.groups = std::min(std::max(p.groups, std::min<int64_t>(p.panels, 4)), p.panels);
  p.group = (p.panels + p.groups - 1) / p.groups;
  if (p.groups < kWantedTasks) p.row_parts = std::clamp<int64_t>(tokens / kLeastRows, 1, (kWantedTasks + p.groups - 1) / p.groups);
  return p;
}

}  // namespace

// Operand rows as the tiles read them: the rows themselves when the type already fits.
template <>
const float *CpuBackend::operand_rows<float>(Rows a, int64_t first, int64_t rows, int64_t k, float *space, int64_t *lda) const {
  if (a.dtype == DType::f32) {
    *lda = a.stride;
    return static_cast<const float *>(a.data) + first * a.stride;
  }
  *lda = k;
  for (int64_t r = 0; r < rows; r++) k_.to_f32(static_cast<const uint16_t *>(a.data) + (first + r) * a.stride, k, space + r * k);
  return space;
}
template <>
const uint16_t *CpuBackend::operand_rows<uint16_t>(Rows a, int64_t first, int64_t rows, int64_t k, uint16_t *space, int64_t *lda) const {
  if (a.dtype == DType::bf16 && k % 2 == 0) {
    *lda = a.stride;
    return static_cast<const uint16_t *>(a.data) + first * a.stride;
  }
  *lda = (k + 1) / 2 * 2;
  for (int64_t r = 0; r < rows; r++) {
    uint16_t *to = space + r * *lda;
    if (a.dtype == DType::f32) {
      k_.to_bf16(static_cast<const float *>(a.data) + (first + r) * a.stride, k, to);
    } else {
      std::copy_n(static_cast<const uint16_t *>(a.data) + (first + r) * a.stride, k, to);
    }
    if (k % 2) to[k] = 0;
  }
  return space;
}

// make_panels(first_panel, count, destination) fills the operand panels of a task.
template <class Operand, class MakePanels>
void CpuBackend::product(int64_t tokens, int64_t columns, int64_t k, Rows a, Rows y, Store store, MakePanels &&make_panels) {
  const Product p = cut(tokens, columns, k, sizeof(Operand));
  const int64_t even_k = (k + 1) / 2 * 2, block = 2 * k_.rows_per_tile;
  const int64_t panel_values = p.group * even_k * kPanel, row_values = block * even_k, result_values = block * kPanel;
  reserve_scratch(static_cast<size_t>(panel_values + row_values) * sizeof(Operand) + static_cast<size_t>(result_values) * 4 + 256);
  pool_->run(p.groups * p.row_parts, [&](int64_t task, int thread) {
    const int64_t group = task / p.row_parts, part = task % p.row_parts;
    const int64_t first_panel = p.panels * group / p.groups, last_panel = p.panels * (group + 1) / p.groups;
    const int64_t first_row = tokens * part / p.row_parts, last_row = tokens * (part + 1) / p.row_parts;
    Operand *panels = scratch<Operand>(thread), *space = panels + panel_values;
    float *result = reinterpret_cast<float *>(space + row_values + (row_values % 2));
    const int64_t stride = (sizeof(Operand) == 2 ? even_k : k) * kPanel;
    make_panels(first_panel, last_panel - first_panel, panels);
    for (int64_t row = first_row; row < last_row; row += block) {
      const int64_t rows = std::min(block, last_row - row);
      int64_t lda;
      const Operand *operand = operand_rows<Operand>(a, row, rows, k, space, &lda);
      for (int64_t panel = first_panel; panel < last_panel; panel++) {
        const int64_t column = panel * kPanel, n = std::min(kPanel, columns - column);
        const bool direct = y.dtype == DType::f32;
        float *c = direct ? static_cast<float *>(y.data) + row * y.stride + column : result;
        const int64_t ldc = direct ? y.stride : kPanel;
        const Operand *b = panels + (panel - first_panel) * stride;
        if constexpr (sizeof(Operand) == 4) k_.tile_f32(rows, n, k, operand, lda, b, c, ldc, store == Store::add);
        else k_.tile_bf16(rows, n, k, operand, lda, b, c, ldc, store == Store::add);
        for (int64_t r = 0; !direct && r < rows; r++) {
          k_.to_bf16(result + r * kPanel, n, static_cast<uint16_t *>(y.data) + (row + r) * y.stride + column);
        }
      }
    }
  });
}

void CpuBackend::matmul(int64_t tokens, Rows x, const Matrix &w, Rows y, Store store) {
  if (tokens == 0) return;
  const int64_t bytes = row_bytes(w.dtype, w.columns);
  const auto *data = static_cast<const std::byte *>(w.data);
  if (tokens <= kFewTokens) return few_tokens(tokens, x, w, y, store);
  // bf16 operands round f32 weights too, low-rank factors among them; f32 inputs (the narrow side) keep f32 products
  if (k_.bf16_operands && x.dtype == DType::bf16) {
    return product<uint16_t>(tokens, w.rows, w.columns, x, y, store, [&](int64_t panel, int64_t count, uint16_t *to) {
      for (int64_t i = 0; i < count; i++) {
        const int64_t row = (panel + i) * kPanel;
        k_.panel_bf16(w.dtype, data + row * bytes, bytes, std::min(kPanel, w.rows - row), w.columns, to + i * ((w.columns + 1) / 2 * 2) * kPanel);
      }
    });
  }
  product<float>(tokens, w.rows, w.columns, x, y, store, [&](int64_t panel, int64_t count, float *to) {
    for (int64_t i = 0; i < count; i++) {
      const int64_t row = (panel + i) * kPanel;
      k_.panel_f32(w.dtype, data + row * bytes, bytes, std::min(kPanel, w.rows - row), w.columns, to + i * w.columns * kPanel);
    }
  });
}

void CpuBackend::matmul_transposed(int64_t tokens, Rows dy, const Matrix &w, Rows dx, Store store) {
  if (tokens == 0) return;
  const int64_t bytes = row_bytes(w.dtype, w.columns);
  const auto make = [&](auto kernel, int64_t panel, int64_t count, auto *to) {
    const int64_t column = panel * kPanel;
    kernel(w.dtype, w.data, bytes, column, std::min(count * kPanel, w.columns - column), w.rows, to);
  };
  if (k_.bf16_operands && dy.dtype == DType::bf16) {
    return product<uint16_t>(tokens, w.columns, w.rows, dy, dx, store,
                             [&](int64_t panel, int64_t count, uint16_t *to) { make(k_.panel_transposed_bf16, panel, count, to); });
  }
  product<float>(tokens, w.columns, w.rows, dy, dx, store,
                 [&](int64_t panel, int64_t count, float *to) { make(k_.panel_transposed_f32, panel, count, to); });
}

// y = x W^T for at most 8 tokens: tasks are ranges of weight rows.
void CpuBackend::few_tokens(int64_t tokens, Rows x, const Matrix &w, Rows y, Store store) {
  constexpr int64_t rows_per_task = 32;
  const int64_t bytes = row_bytes(w.dtype, w.columns);
  const float *input = static_cast<const float *>(x.data);
  int64_t ldx = x.stride;
  if (x.dtype == DType::bf16) {
    ldx = w.columns;
    float *converted = shared<float>(tokens * w.columns);
    for (int64_t t = 0; t < tokens; t++) as_f32(x, t, w.columns, converted + t * w.columns);
    input = converted;
  }
  pool_->run((w.rows + rows_per_task - 1) / rows_per_task, [&](int64_t task, int) {
    const int64_t row = task * rows_per_task, rows = std::min(rows_per_task, w.rows - row);
    const void *data = static_cast<const std::byte *>(w.data) + row * bytes;
    if (y.dtype == DType::f32) {
      k_.dot_rows(w.dtype, data, bytes, rows, w.columns, tokens, input, ldx, static_cast<float *>(y.data) + row, y.stride, store == Store::add);
      return;
    }
    float result[kFewTokens * rows_per_task];
    k_.dot_rows(w.dtype, data, bytes, rows, w.columns, tokens, input, ldx, result, rows_per_task, false);
    for (int64_t t = 0; t < tokens; t++) {
      k_.to_bf16(result + t * rows_per_task, rows, static_cast<uint16_t *>(y.data) + t * y.stride + row);
    }
  });
}

// Columns are shared out over tasks; every element sums over all tokens in order. Long batches are not split over tokens.
void CpuBackend::outer_product(int64_t tokens, int64_t m, int64_t n, Rows v, Rows x, float *g, bool transposed) {
  const int64_t rows = (m + 7) / 8 * 8;
  reserve_scratch(static_cast<size_t>(rows * kPanel * 2) * 4);
  pool_->run((n + kPanel - 1) / kPanel, [&](int64_t task, int thread) {
    const int64_t column = task * kPanel, columns = std::min(kPanel, n - column);
    float *sums = g + column;
    int64_t ldg = n;
    if (transposed) {
      sums = scratch<float>(thread);
      ldg = kPanel;
      std::fill_n(sums, m * kPanel, 0.0f);
    }
    const float *factors = static_cast<const float *>(v.data);
    if (x.dtype == DType::f32) k_.outer_f32(tokens, m, columns, factors, v.stride, static_cast<const float *>(x.data) + column, x.stride, sums, ldg);
    else k_.outer_bf16(tokens, m, columns, factors, v.stride, static_cast<const uint16_t *>(x.data) + column, x.stride, sums, ldg);
    if (!transposed) return;
    for (int64_t j = 0; j < columns; j++) {
      for (int64_t i = 0; i < m; i++) g[(column + j) * m + i] += sums[i * kPanel + j];
    }
  });
}

}  // namespace moe::cpu
