// Dense products with stored weights: y = x W^T (forward) and dx = dy W (transposed), straight from the stored blocks.
// A task is a group of 32-column panels of weights times a range of rows. It expands its panels into its thread's scratch (they stay
// in L2), then streams the rows over them; each element is one accumulator over k in rising order, so neither the cut into tasks nor
// the number of threads changes a bit. A few tokens skip the panels: weights are expanded in registers.
// i8 activations and quantized weights exchange the parts: tokens stand in panels of 32, packed once; a task expands a block of
// weight rows into codes and multiplies it with all of them.
#include <unistd.h>

#include <algorithm>
#include <array>

#include "cpu/cpu_backend.h"

namespace moe::cpu {
namespace {

constexpr int64_t kFewTokens = 8, kFewInt8Tokens = 2;  // up to here a panel costs more than it saves
constexpr int64_t kRowsPerTask = 32;            // weight rows of a piece of few tokens
constexpr int64_t kTaskBytes = 48 << 10;        // of stored weights that one thread reads in a row: fetching ahead pays off
constexpr int64_t kInt8Rows = 48, kInt8Strip = 12;  // weight rows of a task of integer products, and of its tiles
constexpr int64_t kDefaultL2 = 1 << 20;
constexpr int64_t kLeastRows = 128;             // of a task, so that expansion stays a small part
constexpr int64_t kWantedTasks = 8;

struct Product {
  int64_t panels, group, groups, row_parts;
  int64_t tasks() const { return groups * row_parts; }
  int64_t first_panel(int64_t task) const { return panels * (task / row_parts) / groups; }
  int64_t last_panel(int64_t task) const { return panels * (task / row_parts + 1) / groups; }
  int64_t first_row(int64_t task, int64_t rows) const { return rows * (task % row_parts) / row_parts; }
  int64_t last_row(int64_t task, int64_t rows) const { return rows * (task % row_parts + 1) / row_parts; }
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
Product cut(int64_t tokens, int64_t columns, int64_t bytes_of_panel) {
  Product p{(columns + kPanel - 1) / kPanel, 0, 0, 1};
  const int64_t fits = std::max<int64_t>(1, panel_bytes() / bytes_of_panel);
  p.groups = (p.panels + fits - 1) / fits;
  if (p.groups % 2 == 1 && p.panels > p.groups) p.groups++;
  p.groups = std::min(std::max(p.groups, std::min<int64_t>(p.panels, 4)), p.panels);
  p.group = (p.panels + p.groups - 1) / p.groups;
  if (p.groups < kWantedTasks) p.row_parts = std::clamp<int64_t>(tokens / kLeastRows, 1, (kWantedTasks + p.groups - 1) / p.groups);
  return p;
}

// How an integer product is cut: blocks of weight rows, and lots of panels of tokens only when there would be too few tasks.
struct Int8Product {
  int64_t k, panel_bytes, panels, blocks, parts = 1;
  Int8Product(int64_t tokens, const Matrix &w)
      : k(w.columns), panel_bytes(int8_panel_bytes(w.dtype, w.columns)), panels((tokens + kPanel - 1) / kPanel),
        blocks((w.rows + kInt8Rows - 1) / kInt8Rows) {
    if (blocks < kWantedTasks) parts = std::clamp<int64_t>(tokens / kLeastRows, 1, (kWantedTasks + blocks - 1) / blocks);
  }
  int64_t tasks() const { return blocks * parts; }
  int64_t first_row(int64_t task) const { return task / parts * kInt8Rows; }
  int64_t first_panel(int64_t task) const { return panels * (task % parts) / parts; }
  int64_t last_panel(int64_t task) const { return panels * (task % parts + 1) / parts; }
  size_t scratch_bytes() const { return static_cast<size_t>(expanded_bytes(kInt8Rows, k) + 2 * kInt8Rows * kPanel * 4); }
};

// The part that holds a task, from the numbers after the last task of each.
size_t part_of(std::span<const int64_t> ends, int64_t task) {
  size_t part = 0;
  while (task >= ends[part]) part++;
  return part;
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
  for (int64_t r = 0; r < rows; r++) as_f32(a, first + r, k, space + r * k);
  return space;
}
template <>
const uint16_t *CpuBackend::operand_rows<uint16_t>(Rows a, int64_t first, int64_t rows, int64_t k, uint16_t *space, int64_t *lda) const {
  if (a.dtype == DType::bf16 && k == bf16_k(k)) {
    *lda = a.stride;
    return static_cast<const uint16_t *>(a.data) + first * a.stride;
  }
  *lda = bf16_k(k);
  for (int64_t r = 0; r < rows; r++) {
    uint16_t *to = space + r * *lda;
    if (a.dtype == DType::f32) {
      k_.to_bf16(static_cast<const float *>(a.data) + (first + r) * a.stride, k, to);
    } else {
      std::copy_n(static_cast<const uint16_t *>(a.data) + (first + r) * a.stride, k, to);
    }
    std::fill(to + k, to + *lda, uint16_t{0});
  }
  return space;
}

void CpuBackend::Joined::panel(const Kernels &kernels, int64_t column, int64_t columns, float *to) const {
  const auto *data = static_cast<const float *>(factor.data);
  const int64_t bytes = factor.columns * 4;
  if (transposed) kernels.panel_transposed_f32(DType::f32, data, bytes, column, columns, factor.rows, to);
  else kernels.panel_f32(DType::f32, data + column * factor.columns, bytes, columns, factor.columns, to);
}

// make_panels(first_panel, count, destination) fills the operand panels of a task. What joins the product is added while the results
// are in the first-level cache.
template <class Operand, class MakePanels>
void CpuBackend::product(int64_t tokens, int64_t columns, int64_t k, Rows a, Rows y, Store store, const Joined *joined,
                         MakePanels &&make_panels) {
  const Product p = cut(tokens, columns, kPanel * k * static_cast<int64_t>(sizeof(Operand)));
  const int64_t padded_k = bf16_k(k), block = 2 * k_.rows_per_tile, rank = joined ? joined->narrow.stride : 0;
  const int64_t panel_values = p.group * padded_k * kPanel, row_values = block * padded_k, result_values = block * kPanel;
  reserve_scratch(static_cast<size_t>(panel_values + row_values) * sizeof(Operand) +
                  static_cast<size_t>(result_values + p.group * rank * kPanel) * 4 + 256);
  pool_->run(p.tasks(), [&](int64_t task, int thread) {
    const int64_t first_panel = p.first_panel(task), last_panel = p.last_panel(task);
    const int64_t first_row = p.first_row(task, tokens), last_row = p.last_row(task, tokens);
    Operand *panels = scratch<Operand>(thread), *space = panels + panel_values;
    float *result = reinterpret_cast<float *>(space + row_values), *narrow_panels = result + result_values;
    const int64_t stride = (sizeof(Operand) == 2 ? padded_k : k) * kPanel;
    make_panels(first_panel, last_panel - first_panel, panels);
    for (int64_t panel = first_panel; rank > 0 && panel < last_panel; panel++) {
      joined->panel(k_, panel * kPanel, std::min(kPanel, columns - panel * kPanel), narrow_panels + (panel - first_panel) * rank * kPanel);
    }
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
        if (rank > 0) {
          k_.tile_f32(rows, n, rank, static_cast<const float *>(joined->narrow.data) + row * rank, rank,
                      narrow_panels + (panel - first_panel) * rank * kPanel, c, ldc, true);
        }
        for (int64_t r = 0; joined && joined->bias && r < rows; r++) k_.add(n, joined->bias + column, c + r * ldc);
        for (int64_t r = 0; !direct && r < rows; r++) {
          k_.to_bf16(result + r * kPanel, n, static_cast<uint16_t *>(y.data) + (row + r) * y.stride + column);
        }
      }
    }
  });
}

template <class Dot>
void CpuBackend::few_tokens(int64_t tokens, std::span<const OneProduct> parts, Dot &&dot) {
  const auto bytes_of = [](const Matrix &w) { return row_bytes(w.dtype, w.columns); };
  int64_t total = 0, tasks = 0;
  for (const OneProduct &part : parts) total += part.w->rows * bytes_of(*part.w);
  const int64_t threads = pool_->threads(), wanted = ((total + kTaskBytes - 1) / kTaskBytes + threads - 1) / threads * threads;
  std::array<int64_t, kMostParts> counts{}, ends{};
  for (size_t i = 0; i < parts.size(); i++) {
    const Matrix &w = *parts[i].w;
    counts[i] = std::clamp<int64_t>((w.rows * bytes_of(w) * wanted + total / 2) / total, 1, w.rows);
    ends[i] = tasks += counts[i];
  }
  pool_->run(tasks, [&](int64_t task, int) {
    const size_t i = part_of(ends, task);
    const auto &[weights, y, store] = parts[i];
    const Matrix &w = *weights;
    const int64_t count = counts[i], piece = task - (ends[i] - count);
    for (int64_t row = w.rows * piece / count, end = w.rows * (piece + 1) / count, rows; row < end; row += rows) {
      rows = std::min(kRowsPerTask, end - row);
      const void *data = static_cast<const std::byte *>(w.data) + row * bytes_of(w);
      if (y.dtype == DType::f32) {
        dot(w, data, rows, static_cast<float *>(y.data) + row, y.stride, store == Store::add);
        continue;
      }
      float result[kFewTokens * kRowsPerTask];
      dot(w, data, rows, result, kRowsPerTask, false);
      for (int64_t t = 0; t < tokens; t++) put_part(result + t * kRowsPerTask, row, rows, y, t, Store::set);
    }
  });
}

void CpuBackend::few_tokens_f32(int64_t tokens, Rows x, const Matrix &w, Rows y, Store store) {
  const float *input = static_cast<const float *>(x.data);
  int64_t ldx = x.stride;
  if (x.dtype != DType::f32) {
    ldx = w.columns;
    float *converted = shared<float>(tokens * w.columns);
    for (int64_t t = 0; t < tokens; t++) as_f32(x, t, w.columns, converted + t * w.columns);
    input = converted;
  }
  const OneProduct part{&w, y, store};
  few_tokens(tokens, {&part, 1}, [&](const Matrix &, const void *data, int64_t rows, float *out, int64_t ldo, bool add) {
    k_.dot_rows(w.dtype, data, row_bytes(w.dtype, w.columns), rows, w.columns, tokens, input, ldx, out, ldo, add);
  });
}

void CpuBackend::matmul(int64_t tokens, Rows x, const Matrix &w, Rows y, Store store) {
  if (tokens == 0) return;
  const OneProduct part{&w, y, store};
  if (x.dtype == DType::i8 && dtype_info(w.dtype).quantized) return matmul_i8(tokens, x, {&part, 1});
  if (tokens <= kFewTokens) return few_tokens_f32(tokens, x, w, y, store);
  matmul_f32(tokens, x, w, y, store);
}

void CpuBackend::matmul_low_rank(int64_t tokens, Rows x, const Matrix &w, bool transposed, Rows narrow, const Matrix &factor,
                                 const float *bias, Rows y, Store store, float *scratch) {
  if (tokens <= kFewTokens || x.dtype == DType::i8) {
    return Backend::matmul_low_rank(tokens, x, w, transposed, narrow, factor, bias, y, store, scratch);
  }
  const Joined joined{narrow, factor, bias, transposed};
  if (transposed) transposed_f32(tokens, x, w, y, store, &joined);
  else matmul_f32(tokens, x, w, y, store, &joined);
}

void CpuBackend::matmul_f32(int64_t tokens, Rows x, const Matrix &w, Rows y, Store store, const Joined *joined) {
  const int64_t bytes = row_bytes(w.dtype, w.columns);
  const auto *data = static_cast<const std::byte *>(w.data);
  // bf16 operands round f32 weights too, low-rank factors among them; f32 inputs (the narrow side) keep f32 products
  if (k_.bf16_operands && x.dtype == DType::bf16) {
    return product<uint16_t>(tokens, w.rows, w.columns, x, y, store, joined, [&](int64_t panel, int64_t count, uint16_t *to) {
      for (int64_t i = 0; i < count; i++) {
        const int64_t row = (panel + i) * kPanel;
        k_.panel_bf16(w.dtype, data + row * bytes, bytes, std::min(kPanel, w.rows - row), w.columns,
                      to + i * bf16_k(w.columns) * kPanel);
      }
    });
  }
  product<float>(tokens, w.rows, w.columns, x, y, store, joined, [&](int64_t panel, int64_t count, float *to) {
    for (int64_t i = 0; i < count; i++) {
      const int64_t row = (panel + i) * kPanel;
      k_.panel_f32(w.dtype, data + row * bytes, bytes, std::min(kPanel, w.rows - row), w.columns, to + i * w.columns * kPanel);
    }
  });
}

void CpuBackend::pack_i8(int64_t tokens, Rows x, const Matrix &w, uint8_t *panels) {
  const auto pack = [&](int64_t panel, int) {
    k_.panel_i8(w.dtype, std::min(kPanel, tokens - panel * kPanel), w.columns, i8_row(x, panel * kPanel), row_bytes(DType::i8, x.stride),
                panels + panel * int8_panel_bytes(w.dtype, w.columns));
  };
  const int64_t count = (tokens + kPanel - 1) / kPanel;
  if (count == 1) pack(0, 0);  // sooner done than handed over
  else pool_->run(count, pack);
}

// Integer products without low-rank terms run as one: one hand-over to the threads, the tokens turned once. Turned tokens fit weights
// of one type.
void CpuBackend::projections(int64_t tokens, Rows x, std::span<const ProjectionPart> parts, float *scratch) {
  const auto joins = [&](const ProjectionPart &part) {
    return dtype_info(part.w->dtype).quantized &&
           std::all_of(part.terms.begin(), part.terms.end(), [](const LowRankTerm &term) { return term.factors.rank == 0; });
  };
  if (tokens == 0 || x.dtype != DType::i8 || !std::all_of(parts.begin(), parts.end(), joins)) {
    return Backend::projections(tokens, x, parts, scratch);
  }
  std::array<OneProduct, kMostParts> joined;
  size_t count = 0;
  for (size_t i = 0; i < parts.size(); i++) {
    joined[count++] = {parts[i].w, parts[i].y, Store::set};
    const bool next_fits = i + 1 < parts.size() && count < kMostParts &&
                           (tokens <= kFewInt8Tokens || parts[i + 1].w->dtype == parts[i].w->dtype);
    if (next_fits) continue;
    matmul_i8(tokens, x, {joined.data(), count});
    count = 0;
  }
}

void CpuBackend::matmul_i8(int64_t tokens, Rows x, std::span<const OneProduct> parts) {
  const Matrix &first_w = *parts[0].w;
  const int64_t k = first_w.columns, x_bytes = row_bytes(DType::i8, x.stride);
  const auto *input = static_cast<const uint8_t *>(x.data);
  if (tokens <= kFewInt8Tokens) {
    return few_tokens(tokens, parts, [&](const Matrix &w, const void *data, int64_t rows, float *out, int64_t ldo, bool add) {
      k_.dot_rows_i8(w.dtype, data, row_bytes(w.dtype, k), rows, k, tokens, input, x_bytes, out, ldo, add);
    });
  }
  std::array<int64_t, kMostParts> ends{};
  int64_t tasks = 0;
  for (size_t i = 0; i < parts.size(); i++) ends[i] = tasks += Int8Product(tokens, *parts[i].w).tasks();
  const Int8Product turned_tokens(tokens, first_w);
  uint8_t *const panels = shared<uint8_t>(turned_tokens.panels * turned_tokens.panel_bytes);
  pack_i8(tokens, x, first_w, panels);
  reserve_scratch(turned_tokens.scratch_bytes());
  pool_->run(tasks, [&](int64_t index, int thread) {
    const size_t part = part_of(ends, index);
    const auto &[weights, y, store] = parts[part];
    const Matrix &w = *weights;
    const Int8Product p(tokens, w);
    const int64_t task = index - (ends[part] - p.tasks()), bytes = row_bytes(w.dtype, k);
    const int64_t row = p.first_row(task), rows = std::min(kInt8Rows, w.rows - row);
    const int64_t first = p.first_panel(task), last = p.last_panel(task);
    float *const result = scratch<float>(thread), *const turned = result + kInt8Rows * kPanel;
    uint8_t *const expanded = reinterpret_cast<uint8_t *>(turned + kInt8Rows * kPanel);
    const std::byte *const data = static_cast<const std::byte *>(w.data) + row * bytes;
    const auto put = [&, &y = y, &store = store](int64_t panel) {
      const int64_t token = panel * kPanel, n = std::min(kPanel, tokens - token);
      k_.transpose(rows, (n + 15) / 16 * 16, result, kPanel, turned, kInt8Rows);
      for (int64_t t = 0; t < n; t++) put_part(turned + t * kInt8Rows, row, rows, y, token + t, store);
    };
    if (last - first == 1) {  // each weight is used once: a strip is expanded while the next is fetched
      for (int64_t r = 0; r < rows; r += kInt8Strip) {
        const int64_t count = std::min(kInt8Strip, rows - r);
        k_.expand_i8(w.dtype, data + r * bytes, bytes, count, k, expanded);
        // behind the last strip the first one of the task that this thread will probably take next
        const int64_t next = r + count < rows ? r + count : pool_->threads() * kInt8Rows;
        k_.tile_i8(w.dtype, count, std::min(kPanel, tokens - first * kPanel), k, expanded, panels + first * p.panel_bytes,
                   data + next * bytes, row + next < w.rows ? count * bytes : 0, result + r * kPanel);
      }
      return put(first);
    }
    k_.expand_i8(w.dtype, data, bytes, rows, k, expanded);
    for (int64_t panel = first; panel < last; panel++) {
      k_.tile_i8(w.dtype, rows, std::min(kPanel, tokens - panel * kPanel), k, expanded, panels + panel * p.panel_bytes, nullptr, 0, result);
      put(panel);
    }
  });
}

void CpuBackend::matmul_transposed(int64_t tokens, Rows dy, const Matrix &w, Rows dx, Store store) {
  if (tokens > 0) transposed_f32(tokens, dy, w, dx, store);
}

void CpuBackend::transposed_f32(int64_t tokens, Rows dy, const Matrix &w, Rows dx, Store store, const Joined *joined) {
  const int64_t bytes = row_bytes(w.dtype, w.columns);
  const auto make = [&](auto kernel, int64_t panel, int64_t count, auto *to) {
    const int64_t column = panel * kPanel;
    kernel(w.dtype, w.data, bytes, column, std::min(count * kPanel, w.columns - column), w.rows, to);
  };
  if (k_.bf16_operands && dy.dtype == DType::bf16) {
    return product<uint16_t>(tokens, w.columns, w.rows, dy, dx, store, joined,
                             [&](int64_t panel, int64_t count, uint16_t *to) { make(k_.panel_transposed_bf16, panel, count, to); });
  }
  product<float>(tokens, w.columns, w.rows, dy, dx, store, joined,
                 [&](int64_t panel, int64_t count, float *to) { make(k_.panel_transposed_f32, panel, count, to); });
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
