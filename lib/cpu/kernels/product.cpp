// Products of one level: register tiles over packed panels, panels from stored weights in both directions, dot products
// of a few tokens straight from the stored blocks, and the outer products of low-rank gradients.
// Every element of C is summed over k in rising order by one accumulator, whatever tile it falls into, so results do not
// depend on how rows are cut into tiles.
#include "cpu/kernels.h"
#include "cpu/kernels/blocks.h"
#include "cpu/kernels/simd.h"
#include "cpu/kernels/transpose.h"

namespace moe::cpu::MOE_KERNEL_LEVEL {
namespace {

#if defined(__AVX512F__)
constexpr int kTileRows = 12, kTileVectors = 2;  // 24 accumulators of 32 registers, the whole panel at once
#elif defined(__AVX2__)
constexpr int kTileRows = 6, kTileVectors = 2;   // 12 accumulators of 16 registers, half a panel at once
#elif MOE_NEON
constexpr int kTileRows = 6, kTileVectors = 4;   // 24 accumulators, 6 registers of A and 2 of the panel: all 32
#else
constexpr int kTileRows = 4, kTileVectors = 2;
#endif

// bf16 operands: rows of the tile, and neighbours along k that stand together in a panel ([K/group][32][group]).
#if defined(__AVX512BF16__)
constexpr int kTileRowsBf16 = 8, kBf16Group = 2;
#elif MOE_NEON >= 3
constexpr int kTileRowsBf16 = 6, kBf16Group = 4;
#endif
#if defined(__AVX512BF16__) || MOE_NEON >= 3
#define MOE_BF16_PRODUCTS
static_assert(kBf16Step % kBf16Group == 0);
template <class Operand> constexpr int kRowsOf = sizeof(Operand) == 4 ? kTileRows : kTileRowsBf16;
template <class Operand> constexpr int kGroupOf = sizeof(Operand) == 4 ? 1 : kBf16Group;
#else
template <class Operand> constexpr int kRowsOf = kTileRows;
template <class Operand> constexpr int kGroupOf = 1;
#endif
constexpr int64_t kTileColumns = kTileVectors * kWidth;
static_assert(kPanel % kTileColumns == 0);

// ---- tiles --------------------------------------------------------------------------------------------------------

// C[R, V vectors] (=|+=) A[R, k] * P, where P[k] starts every kPanel values.
template <int R, int V>
void tile(int64_t k, const float *a, int64_t lda, const float *panel, float *c, int64_t ldc, bool add) {
  Vec sum[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++) {
    for (int v = 0; v < V; v++) sum[r][v] = add ? load(c + r * ldc + v * kWidth) : zero();
  }
  int64_t i = 0;
#if MOE_NEON  // four values of each row in a register, multiplied by lane: 96 FMAs (768 flops) for 22 loads
  for (; i + kWidth <= k; i += kWidth) {
    Vec x[R];
    for (int r = 0; r < R; r++) x[r] = load(a + r * lda + i);
#pragma GCC unroll 4
    for (int lane = 0; lane < kWidth; lane++) {
#pragma GCC unroll 4
      for (int v = 0; v < V; v++) {
        const Vec b = load(panel + (i + lane) * kPanel + v * kWidth);
#pragma GCC unroll 16
        for (int r = 0; r < R; r++) sum[r][v] = fma(b, broadcast(x[r][lane]), sum[r][v]);
      }
    }
  }
#endif
  for (; i < k; i++) {
    Vec b[V];
    for (int v = 0; v < V; v++) b[v] = load(panel + i * kPanel + v * kWidth);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      const Vec x = broadcast(a[r * lda + i]);
      for (int v = 0; v < V; v++) sum[r][v] = fma(x, b[v], sum[r][v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; r++) {
    for (int v = 0; v < V; v++) store(c + r * ldc + v * kWidth, sum[r][v]);
  }
}

// The same of bf16 operands, where P[k / group] starts every group * kPanel values.
#if defined(__AVX512BF16__)
template <int R, int V>
void tile(int64_t k, const uint16_t *a, int64_t lda, const uint16_t *panel, float *c, int64_t ldc, bool add) {
  Vec sum[R][V];
  for (int r = 0; r < R; r++) {
    for (int v = 0; v < V; v++) sum[r][v] = add ? load(c + r * ldc + v * kWidth) : zero();
  }
  for (int64_t i = 0; i < k; i += kBf16Group) {
    __m512bh b[V];
    for (int v = 0; v < V; v++) b[v] = (__m512bh)_mm512_loadu_si512(panel + i * kPanel + v * kWidth * kBf16Group);
#pragma GCC unroll 16
    for (int r = 0; r < R; r++) {
      int pair;
      __builtin_memcpy(&pair, a + r * lda + i, 4);
      const __m512bh x = (__m512bh)_mm512_set1_epi32(pair);
      for (int v = 0; v < V; v++) sum[r][v] = _mm512_dpbf16_ps(sum[r][v], x, b[v]);
    }
  }
  for (int r = 0; r < R; r++) {
    for (int v = 0; v < V; v++) store(c + r * ldc + v * kWidth, sum[r][v]);
  }
}
#elif MOE_NEON >= 3
MOE_INLINE Vec load_pairs(const uint16_t *p) { return load(reinterpret_cast<const float *>(p)); }  // eight bf16
MOE_INLINE Vec low_halves(Vec a, Vec b) { return __builtin_shufflevector(a, b, 0, 1, 4, 5); }
MOE_INLINE Vec high_halves(Vec a, Vec b) { return __builtin_shufflevector(a, b, 2, 3, 6, 7); }

// One instruction multiplies four values of two rows with those of two columns: an accumulator holds the square of the results,
// row by row. 24 accumulators, 6 registers of A (two groups) and 2 of the panel: all 32; 8 values of k take 48 of them
// (1,536 flops), 28 loads and 6 rearrangements.
template <int R, int V>
void tile(int64_t k, const uint16_t *a, int64_t lda, const uint16_t *panel, float *c, int64_t ldc, bool add) {
  constexpr int P = (R + 1) / 2, C = 2 * V;  // pairs of rows, pairs of columns; an odd row stands for its missing partner too
  constexpr auto second = [](int p) { return 2 * p + 1 < R ? 2 * p + 1 : 2 * p; };
  float32x4_t sum[P][C];
  for (int p = 0; p < P; p++) {
    for (int v = 0; v < V; v++) {
      const Vec x = add ? load(c + 2 * p * ldc + v * kWidth) : zero(), y = add ? load(c + second(p) * ldc + v * kWidth) : zero();
      sum[p][2 * v] = low_halves(x, y);
      sum[p][2 * v + 1] = high_halves(x, y);
    }
  }
  const auto multiply = [&](int64_t i, const Vec *x) __attribute__((always_inline)) {
#pragma GCC unroll 8
    for (int j = 0; j < C; j++) {
      const bfloat16x8_t b = reinterpret_cast<bfloat16x8_t>(load_pairs(panel + i * kPanel + j * 2 * kBf16Group));
#pragma GCC unroll 4
      for (int p = 0; p < P; p++) sum[p][j] = vbfmmlaq_f32(sum[p][j], reinterpret_cast<bfloat16x8_t>(x[p]), b);
    }
  };
  int64_t i = 0;
  for (; i + 2 * kBf16Group <= k; i += 2 * kBf16Group) {
    Vec low[P], high[P];
    for (int p = 0; p < P; p++) {
      const Vec x = load_pairs(a + 2 * p * lda + i), y = load_pairs(a + second(p) * lda + i);
      low[p] = low_halves(x, y);
      high[p] = high_halves(x, y);
    }
    multiply(i, low);
    multiply(i + kBf16Group, high);
  }
  for (; i < k; i += kBf16Group) {
    Vec x[P];
    for (int p = 0; p < P; p++) {
      uint16_t rows[2 * kBf16Group];
      __builtin_memcpy(rows, a + 2 * p * lda + i, sizeof rows / 2);
      __builtin_memcpy(rows + kBf16Group, a + second(p) * lda + i, sizeof rows / 2);
      x[p] = load_pairs(rows);
    }
    multiply(i, x);
  }
  for (int p = 0; p < P; p++) {
    for (int v = 0; v < V; v++) {
      store(c + 2 * p * ldc + v * kWidth, low_halves(sum[p][2 * v], sum[p][2 * v + 1]));
      if (second(p) != 2 * p) store(c + second(p) * ldc + v * kWidth, high_halves(sum[p][2 * v], sum[p][2 * v + 1]));
    }
  }
}
#endif

template <int R, int V, class Operand>
void tile_rows(int64_t rows, int64_t k, const Operand *a, int64_t lda, const Operand *panel, float *c, int64_t ldc, bool add) {
  if (rows >= R) return tile<R, V>(k, a, lda, panel, c, ldc, add);
  if constexpr (R > 1) tile_rows<R - 1, V>(rows, k, a, lda, panel, c, ldc, add);
}

// A column of tiles of V vectors; `columns` (<= V * kWidth) of them are stored.
template <int V, class Operand>
void tile_column(int64_t rows, int64_t columns, int64_t k, const Operand *a, int64_t lda, const Operand *panel, float *c, int64_t ldc,
                 bool add) {
  constexpr int64_t width = V * kWidth;
  constexpr int R = kRowsOf<Operand>;
  float edge[R * width];
  for (int64_t r = 0; r < rows; r += R) {
    const int64_t n = rows - r < R ? rows - r : R;
    if (columns == width) {
      tile_rows<R, V>(n, k, a + r * lda, lda, panel, c + r * ldc, ldc, add);
      continue;
    }
    for (int64_t i = 0; add && i < n; i++) __builtin_memcpy(edge + i * width, c + (r + i) * ldc, static_cast<size_t>(columns) * 4);
    tile_rows<R, V>(n, k, a + r * lda, lda, panel, edge, width, add);
    for (int64_t i = 0; i < n; i++) __builtin_memcpy(c + (r + i) * ldc, edge + i * width, static_cast<size_t>(columns) * 4);
  }
}

template <class Operand>
void tiles(int64_t rows, int64_t columns, int64_t k, const Operand *a, int64_t lda, const Operand *panel, float *c, int64_t ldc,
           bool add) {
  for (int64_t j = 0; j < columns; j += kTileColumns, panel += kTileColumns * kGroupOf<Operand>) {
    const int64_t left = columns - j;
    if (left > kWidth) tile_column<kTileVectors>(rows, left < kTileColumns ? left : kTileColumns, k, a, lda, panel, c + j, ldc, add);
    else tile_column<1>(rows, left, k, a, lda, panel, c + j, ldc, add);
  }
}

// ---- panels -------------------------------------------------------------------------------------------------------

// Expands values [first, first + k) of 32 weight rows, a few at a time, then transposes them into the panel.
template <class Block>
void panel_of(const uint8_t *w, int64_t row_bytes, int64_t columns, int64_t first, int64_t k, float *panel) {
  constexpr int64_t step = Block::values > 64 ? Block::values : 64;
  float rows[kPanel * step];
  for (int64_t i = 0; i < k; i += step) {
    const int64_t n = k - i < step ? k - i : step;
    for (int64_t c = 0; c < columns; c++) expand_values<Block>(w + c * row_bytes, first + i, n, rows + c * step);
    if (columns < kPanel) __builtin_memset(rows + columns * step, 0, static_cast<size_t>((kPanel - columns) * step) * 4);
    transpose(kPanel, n, rows, step, panel + i * kPanel, kPanel);
  }
}

void panel_part(DType type, const void *row_data, int64_t row_bytes, int64_t columns, int64_t first, int64_t k, float *panel) {
#define MOE_CALL(Block) panel_of<Block>(static_cast<const uint8_t *>(row_data), row_bytes, columns, first, k, panel)
  MOE_DISPATCH_BLOCK(type, MOE_CALL)
#undef MOE_CALL
}
void panel_f32(DType type, const void *row_data, int64_t row_bytes, int64_t columns, int64_t k, float *panel) {
  panel_part(type, row_data, row_bytes, columns, 0, k, panel);
}

// Columns [column, column + columns) of `k` rows of W, as panels of 32 one after the other, `stride` values apart. A block of
// 256 is expanded once for its eight panels.
template <class Block>
void panel_transposed_of(const uint8_t *w, int64_t row_bytes, int64_t column, int64_t columns, int64_t k, float *panel, int64_t stride) {
  for (int64_t i = 0; i < k; i++, panel += kPanel) {
    const uint8_t *row = w + i * row_bytes;
    if constexpr (Block::values == kPanel) {
      for (int64_t c = 0; c < columns; c += kPanel) {
        const int64_t n = columns - c < kPanel ? columns - c : kPanel;
        float *to = panel + c / kPanel * stride;
        expand_values<Block>(row, column + c, n, to);
        for (int64_t j = n; j < kPanel; j++) to[j] = 0;
      }
    } else {
      float values[Block::values];
      for (int64_t c = 0; c < columns; c += kPanel) {
        const int64_t inside = (column + c) % Block::values;
        if (c == 0 || inside == 0) Block::expand(row + (column + c) / Block::values * Block::bytes, values);
        __builtin_memcpy(panel + c / kPanel * stride, values + inside, kPanel * 4);
      }
    }
  }
}

void panel_transposed_part(DType type, const void *data, int64_t row_bytes, int64_t column, int64_t columns, int64_t k, float *panel, int64_t stride) {
#define MOE_CALL(Block) panel_transposed_of<Block>(static_cast<const uint8_t *>(data), row_bytes, column, columns, k, panel, stride)
  MOE_DISPATCH_BLOCK(type, MOE_CALL)
#undef MOE_CALL
}
void panel_transposed_f32(DType type, const void *data, int64_t row_bytes, int64_t column, int64_t columns, int64_t k, float *panel) {
  panel_transposed_part(type, data, row_bytes, column, columns, k, panel, k * kPanel);
}

void expand(DType type, const void *source, int64_t count, float *destination) {
#define MOE_CALL(Block) expand_values<Block>(static_cast<const uint8_t *>(source), 0, count, destination)
  MOE_DISPATCH_BLOCK(type, MOE_CALL)
#undef MOE_CALL
}

#ifdef MOE_BF16_PRODUCTS
// A group of rows of 32 f32 values along k, one after the other, to one row of 32 groups.
MOE_INLINE void group_rows(const float *rows, uint16_t *out) {
#if defined(__AVX512BF16__)
  for (int half = 0; half < 2; half++) {
    const __m512i e = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(rows + 16 * half)));
    const __m512i o = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(rows + kPanel + 16 * half)));
    _mm512_storeu_si512(out + 32 * half, _mm512_or_si512(e, _mm512_slli_epi32(o, 16)));
  }
#else
  for (int64_t j = 0; j < kPanel; j += kWidth) {
    uint16x4x4_t four;
    for (int i = 0; i < 4; i++) four.val[i] = narrow(load(rows + i * kPanel + j));
    vst4_u16(out + j * kBf16Group, four);
  }
#endif
}
// n rows, which the missing ones of the last group, zeroed here, follow in memory
MOE_INLINE void group_all_rows(float *rows, int64_t n, uint16_t *out) {
  __builtin_memset(rows + n * kPanel, 0, (kBf16Group - 1) * kPanel * 4);
  for (int64_t j = 0; j < n; j += kBf16Group) group_rows(rows + j * kPanel, out + j * kPanel);
}
constexpr int64_t kGroupStep = 256;  // rows of k expanded before they are grouped: 32 KiB

void panel_bf16(DType type, const void *row_data, int64_t row_bytes, int64_t columns, int64_t k, uint16_t *panel) {
  float part[(kGroupStep + kBf16Group - 1) * kPanel];
  for (int64_t i = 0; i < k; i += kGroupStep) {
    const int64_t n = k - i < kGroupStep ? k - i : kGroupStep;
    panel_part(type, row_data, row_bytes, columns, i, n, part);
    group_all_rows(part, n, panel + i * kPanel);
  }
}
void panel_transposed_bf16(DType type, const void *data, int64_t row_bytes, int64_t column, int64_t columns, int64_t k, uint16_t *panel) {
  constexpr int64_t step = 32, most = 8, space = step + kBf16Group - 1;  // rows and panels expanded at once: 33 KiB
  float part[most * space * kPanel];
  const int64_t stride = bf16_k(k) * kPanel;
  for (int64_t c = 0; c < columns; c += most * kPanel) {
    const int64_t width = columns - c < most * kPanel ? columns - c : most * kPanel;
    for (int64_t i = 0; i < k; i += step) {
      const int64_t n = k - i < step ? k - i : step;
      const uint8_t *rows = static_cast<const uint8_t *>(data) + i * row_bytes;
      panel_transposed_part(type, rows, row_bytes, column + c, width, n, part, space * kPanel);
      for (int64_t p = 0; p * kPanel < width; p++) {
        group_all_rows(part + p * space * kPanel, n, panel + (c / kPanel + p) * stride + i * kPanel);
      }
    }
  }
}
#endif

// ---- a few tokens ---------------------------------------------------------------------------------------------------

// y[t] = <x_t, row> for N tokens; two accumulators a token, the tail of a plain row by parts of a vector.
template <class Block, int N>
MOE_INLINE void dot_row(const uint8_t *row, int64_t k, const float *x, int64_t ldx, float *out) {
  Vec sum[N][2];
  for (int t = 0; t < N; t++) sum[t][0] = sum[t][1] = zero();
  int64_t i = 0;
  for (; i + Block::values <= k; i += Block::values, row += Block::bytes) {
    fetch_ahead(row, Block::bytes);
    Vec w[Block::values / kWidth];
    expand_vectors<Block>(row, w);
#pragma GCC unroll 16
    for (int64_t j = 0; j < Block::values / kWidth; j++) {
      for (int t = 0; t < N; t++) sum[t][j % 2] = fma(w[j], load(x + t * ldx + i + j * kWidth), sum[t][j % 2]);
    }
  }
  if (i < k) {  // a row of plain numbers; f32 is read where it stands
    float values[Block::values];
    const float *w = values;
    if constexpr (Block::bytes == 4 * Block::values) w = reinterpret_cast<const float *>(row);
    else expand_values<Block>(row, 0, k - i, values);
    for (int64_t j = 0; j < k - i; j += kWidth) {
      const int64_t n = k - i - j < kWidth ? k - i - j : kWidth;
      const Vec part = load_part(w + j, n);
      for (int t = 0; t < N; t++) sum[t][0] = fma(part, load_part(x + t * ldx + i + j, n), sum[t][0]);
    }
  }
  for (int t = 0; t < N; t++) out[t] = reduce_add(sum[t][0] + sum[t][1]);
}

template <class Block, int N>
void dot_rows_of(const uint8_t *w, int64_t row_bytes, int64_t rows, int64_t k, const float *x, int64_t ldx, float *y, int64_t ldy, bool add) {
  for (int64_t r = 0; r < rows; r++) {
    float out[N];
    dot_row<Block, N>(w + r * row_bytes, k, x, ldx, out);
    for (int t = 0; t < N; t++) y[t * ldy + r] = add ? y[t * ldy + r] + out[t] : out[t];
  }
}

template <class Block>
void dot_tokens(const uint8_t *w, int64_t row_bytes, int64_t rows, int64_t k, int64_t tokens, const float *x, int64_t ldx, float *y, int64_t ldy,
                bool add) {
  for (int64_t t = 0; t < tokens;) {
    const int64_t left = tokens - t;
    const float *xt = x + t * ldx;
    float *yt = y + t * ldy;
    if (left >= 4) {
      dot_rows_of<Block, 4>(w, row_bytes, rows, k, xt, ldx, yt, ldy, add);
      t += 4;
    } else if (left >= 2) {
      dot_rows_of<Block, 2>(w, row_bytes, rows, k, xt, ldx, yt, ldy, add);
      t += 2;
    } else {
      dot_rows_of<Block, 1>(w, row_bytes, rows, k, xt, ldx, yt, ldy, add);
      t += 1;
    }
  }
}

void dot_rows(DType type, const void *row_data, int64_t row_bytes, int64_t rows, int64_t k, int64_t tokens, const float *x, int64_t ldx, float *y,
              int64_t ldy, bool add) {
#define MOE_CALL(Block) dot_tokens<Block>(static_cast<const uint8_t *>(row_data), row_bytes, rows, k, tokens, x, ldx, y, ldy, add)
  MOE_DISPATCH_BLOCK(type, MOE_CALL)
#undef MOE_CALL
}

// ---- outer products -------------------------------------------------------------------------------------------------

template <class X>
MOE_INLINE Vec load_values(const X *x) {
  if constexpr (sizeof(X) == 4) return load(reinterpret_cast<const float *>(x));
  else return widen(*reinterpret_cast<const UnalignedHalfVec *>(x));
}

// g[M][32 columns] += sum_t v[t][M] x[t][32 columns]
template <int M, class X>
void outer_tile(int64_t tokens, const float *v, int64_t ldv, const X *x, int64_t ldx, float *g, int64_t ldg) {
  constexpr int vectors = kPanel / kWidth < 2 ? 1 : 2;
  for (int64_t j = 0; j < kPanel; j += vectors * kWidth) {
    Vec sum[M][vectors];
    for (int m = 0; m < M; m++) {
      for (int u = 0; u < vectors; u++) sum[m][u] = load(g + m * ldg + j + u * kWidth);
    }
    for (int64_t t = 0; t < tokens; t++) {
      Vec b[vectors];
      for (int u = 0; u < vectors; u++) b[u] = load_values(x + t * ldx + j + u * kWidth);
      for (int m = 0; m < M; m++) {
        const Vec a = broadcast(v[t * ldv + m]);
        for (int u = 0; u < vectors; u++) sum[m][u] = fma(a, b[u], sum[m][u]);
      }
    }
    for (int m = 0; m < M; m++) {
      for (int u = 0; u < vectors; u++) store(g + m * ldg + j + u * kWidth, sum[m][u]);
    }
  }
}

MOE_INLINE float value_of(float x) { return x; }
MOE_INLINE float value_of(uint16_t x) {
  const uint32_t bits = static_cast<uint32_t>(x) << 16;
  float value;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}

constexpr int kOuterRows = kRegisters / 4;  // and two registers each

template <class X>
void outer(int64_t tokens, int64_t m, int64_t n, const float *v, int64_t ldv, const X *x, int64_t ldx, float *g, int64_t ldg) {
  int64_t i = 0;
  if (n == kPanel) {
    for (; i + kOuterRows <= m; i += kOuterRows) outer_tile<kOuterRows>(tokens, v + i, ldv, x, ldx, g + i * ldg, ldg);
    for (; i < m; i++) outer_tile<1>(tokens, v + i, ldv, x, ldx, g + i * ldg, ldg);
    return;
  }
  for (; i < m; i++) {
    for (int64_t j = 0; j < n; j++) {
      float sum = g[i * ldg + j];
      for (int64_t t = 0; t < tokens; t++) sum = __builtin_fmaf(v[t * ldv + i], value_of(x[t * ldx + j]), sum);
      g[i * ldg + j] = sum;
    }
  }
}

void outer_f32(int64_t tokens, int64_t m, int64_t n, const float *v, int64_t ldv, const float *x, int64_t ldx, float *g, int64_t ldg) {
  outer(tokens, m, n, v, ldv, x, ldx, g, ldg);
}
void outer_bf16(int64_t tokens, int64_t m, int64_t n, const float *v, int64_t ldv, const uint16_t *x, int64_t ldx, float *g, int64_t ldg) {
  outer(tokens, m, n, v, ldv, x, ldx, g, ldg);
}

}  // namespace

void fill_product_kernels(Kernels &table);
void fill_product_kernels(Kernels &table) {
  table.rows_per_tile = kTileRows;
  table.tile_f32 = tiles<float>;
  table.panel_f32 = panel_f32;
  table.panel_transposed_f32 = panel_transposed_f32;
  table.dot_rows = dot_rows;
  table.expand = expand;
  table.outer_f32 = outer_f32;
  table.outer_bf16 = outer_bf16;
#ifdef MOE_BF16_PRODUCTS
  table.bf16_operands = true;
  table.rows_per_tile = kTileRowsBf16;
  table.tile_bf16 = tiles<uint16_t>;
  table.panel_bf16 = panel_bf16;
  table.panel_transposed_bf16 = panel_transposed_bf16;
#endif
}

}  // namespace moe::cpu::MOE_KERNEL_LEVEL
