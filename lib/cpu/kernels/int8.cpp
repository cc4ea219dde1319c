// Integer products of block-quantized weights with int8 activations: C[t][r] = sum over groups g of the row
//   scale_rg d_tg sum_i code_rgi q_tgi  -  minimum_rg (d_tg sum_i q_tgi)
// with exact integer sums inside a group and f32 across groups in rising order, so no cut into tiles changes a bit. Compiled for
// every level, and twice more with the dot products of VNNI.
#include "cpu/kernels.h"
#include "cpu/kernels/activations.h"
#include "cpu/kernels/codes.h"
#include "cpu/kernels/simd.h"
#include "cpu/kernels/transpose.h"

namespace moe::cpu::MOE_KERNEL_LEVEL {
namespace {

// ---- dot products of bytes ------------------------------------------------------------------------------------------

#if defined(__AVX512F__) && !defined(__AVX512VNNI__)
MOE_INLINE __m512i add_pairs(__m512i sum, __m512i codes, __m512i a) {
  return _mm512_add_epi32(sum, _mm512_madd_epi16(_mm512_maddubs_epi16(codes, a), _mm512_set1_epi16(1)));
}
#elif defined(__AVX2__) && !defined(__AVXVNNI__) && !defined(__AVX512F__)
MOE_INLINE __m256i add_pairs(__m256i sum, __m256i codes, __m256i a) {
  return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(codes, a), _mm256_set1_epi16(1)));
}
#endif

// Lane l: sum + codes (unsigned) times a (signed) over the bytes 4 l .. 4 l + 3. Pairs of products of codes above 127 would not
// fit 16 bits, so without VNNI wide codes go in two parts.
template <bool wide>
MOE_INLINE IntVec dot_bytes(IntVec sum, IntVec codes, IntVec a) {
#if defined(__AVX512VNNI__)
  return reinterpret_cast<IntVec>(
      _mm512_dpbusd_epi32(reinterpret_cast<__m512i>(sum), reinterpret_cast<__m512i>(codes), reinterpret_cast<__m512i>(a)));
#elif defined(__AVXVNNI__)
  return reinterpret_cast<IntVec>(
      _mm256_dpbusd_avx_epi32(reinterpret_cast<__m256i>(sum), reinterpret_cast<__m256i>(codes), reinterpret_cast<__m256i>(a)));
#elif defined(__AVX512F__) || defined(__AVX2__)
#if defined(__AVX512F__)
  typedef __m512i Register;
#else
  typedef __m256i Register;
#endif
  const IntVec low = codes & 0x7f7f7f7f, high = codes & static_cast<int32_t>(0x80808080u);
  Register s = reinterpret_cast<Register>(sum);
  s = add_pairs(s, reinterpret_cast<Register>(wide ? low : codes), reinterpret_cast<Register>(a));
  if constexpr (wide) s = add_pairs(s, reinterpret_cast<Register>(high), reinterpret_cast<Register>(a));
  return reinterpret_cast<IntVec>(s);
#else
  for (int byte = 0; byte < 4; byte++) sum += ((codes >> (8 * byte)) & 255) * ((a << (24 - 8 * byte)) >> 24);
  return sum;
#endif
}

MOE_INLINE IntVec load_bytes(const void *p) {
  IntVec v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
MOE_INLINE float float_at(const uint8_t *p) {
  float x;
  __builtin_memcpy(&x, p, 4);
  return x;
}
// As load_bytes; `half`: only the first 32 bytes of a vector of 64, which may be the last of the memory, then zero.
MOE_INLINE IntVec load_bytes(const void *p, bool half) {
#if defined(__AVX512F__)
  if (half) return reinterpret_cast<IntVec>(_mm512_zextsi256_si512(_mm256_loadu_si256((const __m256i *)p)));
#else
  (void)half;
#endif
  return load_bytes(p);
}
MOE_INLINE IntVec broadcast_bytes(const uint8_t *p) {
  int32_t four;
  __builtin_memcpy(&four, p, 4);
  return four - IntVec{};
}
MOE_INLINE Vec to_float(IntVec v) {
#if defined(__AVX512F__)
  return _mm512_cvtepi32_ps(reinterpret_cast<__m512i>(v));
#else
  return __builtin_convertvector(v, Vec);
#endif
}

// ---- a few tokens ---------------------------------------------------------------------------------------------------

// The scales of a chunk times those of a token's activations.
template <int G>
struct ProductScales {
#if defined(__AVX512F__)
  Vec all;
  MOE_INLINE_MEMBER void set(Vec scale, const float *token, int64_t groups) {
    if constexpr (G == 32) {
      all = scale * load_part(token, groups);
    } else {
      const __m512i doubled = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
      all = scale * reinterpret_cast<Vec>(_mm512_permutexvar_ps(doubled, load_part(token, groups / 2)));
    }
  }
  // of the lanes of the 64 values from 64 j on
  MOE_INLINE_MEMBER Vec lanes(int j) const {
    const __m512i index = G == 32 ? _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1)
                                  : _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    return _mm512_permutexvar_ps(_mm512_add_epi32(index, _mm512_set1_epi32(j * 64 / G)), all);
  }
#else
  float all[kGroups];
  MOE_INLINE_MEMBER void set(const float *scale, const float *token, int64_t groups) {
    for (int64_t g = 0; g < groups; g++) all[g] = scale[g] * token[g * G / 32];
  }
  MOE_INLINE_MEMBER Vec lanes(int j) const {
    constexpr int values = 4 * kWidth;
    if constexpr (values <= G) return broadcast(all[j * values / G]);
    Vec v;
    for (int l = 0; l < kWidth; l++) v[l] = all[j * (values / G) + 4 * l / G];
    return v;
  }
#endif
};

// Sum over groups of minimum times d sum(q).
template <int G>
MOE_INLINE Vec add_minima(Vec low, Vec minimum, const float *token_sums, int64_t groups) { return fma(minimum, load_part(token_sums, groups), low); }
template <int G>
MOE_INLINE Vec add_minima(Vec low, const float *minimum, const float *token_sums, int64_t groups) {
  int64_t g = 0;
  for (; g + kWidth <= groups; g += kWidth) low = fma(load(minimum + g), load(token_sums + g), low);
  return g < groups ? fma(load_part(minimum + g, groups - g), load_part(token_sums + g, groups - g), low) : low;
}

// out[t] = <x_t, row>
template <class Block, int N>
MOE_INLINE void dot_row(const uint8_t *row, int64_t k, const ActivationRow *x, float *out) {
  constexpr int G = CodeTraits<Block>::group;
  constexpr int64_t step = chunk_values<Block>(), lanes = 4 * kWidth;
  Vec sum[N][2], low[N];
  for (int t = 0; t < N; t++) sum[t][0] = sum[t][1] = low[t] = zero();
  for (int64_t i = 0; i < k; i += step, row += step / Block::values * Block::bytes) {
    const int64_t n = k - i < step ? k - i : step, groups = n / G;
    Chunk<Block> chunk;
    chunk.read(row, groups);
    ProductScales<G> scales[N];
    for (int t = 0; t < N; t++) {
      scales[t].set(chunk.scale, x[t].scale + i / 32, groups);
      low[t] = add_minima<G>(low[t], chunk.minimum, sums<G>(x[t]) + i / G, groups);
    }
    const auto part = [&](int j) __attribute__((always_inline)) {
      const bool half = n - j * lanes < lanes;
      const IntVec codes = chunk.codes(j, half);
      for (int t = 0; t < N; t++) {
        const IntVec dot = dot_bytes<CodeTraits<Block>::wide>(IntVec{}, codes, load_bytes(x[t].q + i + j * lanes, half));
        sum[t][j % 2] = fma(to_float(dot), scales[t].lanes(j), sum[t][j % 2]);
      }
    };
    if (n == step) {
#pragma GCC unroll 8
      for (int j = 0; j < step / lanes; j++) part(j);
    } else {
      for (int j = 0; j * lanes < n; j++) part(j);
    }
  }
  for (int t = 0; t < N; t++) out[t] = reduce_add(sum[t][0] + sum[t][1]) - reduce_add(low[t]);
}

template <class Block, int N>
void dot_rows_of(const uint8_t *w, int64_t row_bytes, int64_t rows, int64_t k, const uint8_t *x, int64_t x_bytes, float *y, int64_t ldy, bool add) {
  ActivationRow tokens[N];
  for (int t = 0; t < N; t++) tokens[t] = activation_row(x + t * x_bytes, k);
  for (int64_t r = 0; r < rows; r++) {
    float out[N];
    dot_row<Block, N>(w + r * row_bytes, k, tokens, out);
    for (int t = 0; t < N; t++) y[t * ldy + r] = add ? y[t * ldy + r] + out[t] : out[t];
  }
}

void dot_rows_i8(DType type, const void *row_data, int64_t row_bytes, int64_t rows, int64_t k, int64_t tokens, const uint8_t *x, int64_t x_bytes,
                 float *y, int64_t ldy, bool add) {
  for (int64_t t = 0; t < tokens;) {
    const int64_t n = tokens - t >= 4 ? 4 : tokens - t >= 2 ? 2 : 1;
    const uint8_t *w = static_cast<const uint8_t *>(row_data), *xt = x + t * x_bytes;
    float *yt = y + t * ldy;
#define MOE_CALL(Block)                                                                              \
  n == 4   ? dot_rows_of<Block, 4>(w, row_bytes, rows, k, xt, x_bytes, yt, ldy, add)                 \
  : n == 2 ? dot_rows_of<Block, 2>(w, row_bytes, rows, k, xt, x_bytes, yt, ldy, add)                 \
           : dot_rows_of<Block, 1>(w, row_bytes, rows, k, xt, x_bytes, yt, ldy, add)
    MOE_DISPATCH_CODES(type, MOE_CALL)
#undef MOE_CALL
    t += n;
  }
}

// ---- panels and tiles -----------------------------------------------------------------------------------------------

// Panel of 32 weight rows: for each group of G along k, [G/4][32 rows][4] codes, [32] scales, [32] minima.
template <class Block>
void panel_of(const uint8_t *w, int64_t row_bytes, int64_t columns, int64_t k, uint8_t *panel) {
  constexpr int G = CodeTraits<Block>::group;
  constexpr int64_t step = chunk_values<Block>(), lanes = 4 * kWidth, group_bytes = G * kPanel + 2 * kPanel * 4;
  constexpr int64_t stride = step + 64;  // not a power of two: rows fall into different sets of the cache
  uint8_t codes[kPanel * stride];
  constexpr int64_t square_columns = 16;
  float scales[kPanel * kGroups], minima[kPanel * kGroups], turned[2 * kGroups * kPanel], square[square_columns * kPanel];
  if (columns < kPanel) {
    __builtin_memset(codes, 0, sizeof codes);
    __builtin_memset(scales, 0, sizeof scales);
    __builtin_memset(minima, 0, sizeof minima);
  }
  for (int64_t i = 0; i < k; i += step) {
    const int64_t n = k - i < step ? k - i : step, groups = n / G;
    for (int64_t c = 0; c < columns; c++) {
      Chunk<Block> chunk;
      chunk.read(w + c * row_bytes + i / Block::values * Block::bytes, groups);
      chunk.store_scales(scales + c * kGroups, minima + c * kGroups);
      for (int j = 0; j * lanes < n; j++) {
        const IntVec v = chunk.codes(j, n - j * lanes < lanes);
        __builtin_memcpy(codes + c * stride + j * lanes, &v, sizeof v);
      }
    }
    transpose(kPanel, groups, scales, kGroups, turned, kPanel);
    transpose(kPanel, groups, minima, kGroups, turned + kGroups * kPanel, kPanel);
    // 16 columns of 4 codes at a time, which is a square of registers and two or four groups
    for (int64_t j = 0; j < n / 4; j += square_columns) {
      const int64_t columns_left = n / 4 - j < square_columns ? n / 4 - j : square_columns;
      transpose(kPanel, columns_left, reinterpret_cast<const float *>(codes + 4 * j), stride / 4, square, kPanel);
      for (int64_t c = 0; c < columns_left; c += G / 4) {
        const int64_t g = 4 * (j + c) / G;
        uint8_t *group = panel + g * group_bytes;
        __builtin_memcpy(group, square + c * kPanel, G * kPanel);
        __builtin_memcpy(group + G * kPanel, turned + g * kPanel, kPanel * 4);
        __builtin_memcpy(group + G * kPanel + kPanel * 4, turned + (kGroups + g) * kPanel, kPanel * 4);
      }
    }
    panel += groups * group_bytes;
  }
}

void panel_i8(DType type, const void *row_data, int64_t row_bytes, int64_t columns, int64_t k, uint8_t *panel) {
#define MOE_CALL(Block) panel_of<Block>(static_cast<const uint8_t *>(row_data), row_bytes, columns, k, panel)
  MOE_DISPATCH_CODES(type, MOE_CALL)
#undef MOE_CALL
}

#if defined(__AVX512F__)
constexpr int kInt8Rows = 6;
#else
constexpr int kInt8Rows = 3;
#endif
constexpr int kInt8Vectors = 2;
constexpr int64_t kInt8Columns = kInt8Vectors * kWidth;

// C[R, V vectors] (=|+=) activations times the panel's columns from `column` on.
template <int G, bool wide, int R>
void int8_tile(int64_t k, const uint8_t *a, int64_t a_bytes, const uint8_t *panel, int64_t column, float *c, int64_t ldc, bool add) {
  constexpr int V = kInt8Vectors;
  constexpr int64_t group_bytes = G * kPanel + 2 * kPanel * 4;
  Vec total[R][V];
  const uint8_t *row[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; r++) {
    row[r] = a + r * a_bytes;
    for (int v = 0; v < V; v++) total[r][v] = add ? load(c + r * ldc + v * kWidth) : zero();
  }
  const uint8_t *codes = panel + column * 4;
  int64_t scale_at = k, sum_at = k + k / 32 * (G == 32 ? 4 : 8);  // of the group, in bytes from the start of a row
  for (int64_t i = 0; i < k; i += G, codes += group_bytes) {
    IntVec sum[R][V];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
      for (int v = 0; v < V; v++) sum[r][v] = IntVec{};
    }
#pragma GCC unroll 8
    for (int s = 0; s < G / 4; s++) {
      IntVec w[V];
      for (int v = 0; v < V; v++) w[v] = load_bytes(codes + (s * kPanel + v * kWidth) * 4);
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) {
        const IntVec x = broadcast_bytes(row[r] + i + 4 * s);
        for (int v = 0; v < V; v++) sum[r][v] = dot_bytes<wide>(sum[r][v], w[v], x);
      }
    }
    const float *scale = reinterpret_cast<const float *>(codes + G * kPanel), *minimum = scale + kPanel;
    Vec s[V], m[V];
    for (int v = 0; v < V; v++) {
      s[v] = load(scale + v * kWidth);
      m[v] = load(minimum + v * kWidth);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
      const Vec d = broadcast(float_at(row[r] + scale_at)), low = broadcast(float_at(row[r] + sum_at));
      for (int v = 0; v < V; v++) total[r][v] = fma(to_float(sum[r][v]), s[v] * d, total[r][v] - m[v] * low);
    }
    sum_at += 4;
    if (G == 32 || i % 32 != 0) scale_at += 4;
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; r++) {
    for (int v = 0; v < V; v++) store(c + r * ldc + v * kWidth, total[r][v]);
  }
}

template <int G, bool wide, int R>
void int8_rows(int64_t rows, int64_t k, const uint8_t *a, int64_t a_bytes, const uint8_t *panel, int64_t column, float *c, int64_t ldc, bool add) {
  if (rows >= R) return int8_tile<G, wide, R>(k, a, a_bytes, panel, column, c, ldc, add);
  if constexpr (R > 1) int8_rows<G, wide, R - 1>(rows, k, a, a_bytes, panel, column, c, ldc, add);
}

template <int G, bool wide>
void int8_panel(int64_t rows, int64_t columns, int64_t k, const uint8_t *a, int64_t a_bytes, const uint8_t *panel, float *c, int64_t ldc, bool add) {
  float edge[kInt8Rows * kInt8Columns];
  for (int64_t j = 0; j < columns; j += kInt8Columns) {
    const int64_t width = columns - j < kInt8Columns ? columns - j : kInt8Columns;
    for (int64_t r = 0, n; r < rows; r += n) {  // even parts: two tiles of 4 rows hide more latency than one of 6 and one of 2
      const int64_t tiles = (rows - r + kInt8Rows - 1) / kInt8Rows;
      n = (rows - r + tiles - 1) / tiles;
      const uint8_t *from = a + r * a_bytes;
      float *to = c + r * ldc + j;
      if (width == kInt8Columns) {
        int8_rows<G, wide, kInt8Rows>(n, k, from, a_bytes, panel, j, to, ldc, add);
        continue;
      }
      for (int64_t i = 0; add && i < n; i++) __builtin_memcpy(edge + i * kInt8Columns, to + i * ldc, static_cast<size_t>(width) * 4);
      int8_rows<G, wide, kInt8Rows>(n, k, from, a_bytes, panel, j, edge, kInt8Columns, add);
      for (int64_t i = 0; i < n; i++) __builtin_memcpy(to + i * ldc, edge + i * kInt8Columns, static_cast<size_t>(width) * 4);
    }
  }
}

void tile_i8(DType type, int64_t rows, int64_t columns, int64_t k, const uint8_t *a, int64_t a_bytes, const uint8_t *panel, float *c, int64_t ldc,
             bool add) {
  if (type == DType::q8_0) int8_panel<32, true>(rows, columns, k, a, a_bytes, panel, c, ldc, add);
  else if (int8_group(type) == 32) int8_panel<32, false>(rows, columns, k, a, a_bytes, panel, c, ldc, add);
  else int8_panel<16, false>(rows, columns, k, a, a_bytes, panel, c, ldc, add);
}

}  // namespace

void fill_int8_kernels(Kernels &table);
void fill_int8_kernels(Kernels &table) {
#if defined(__AVX2__)
  table.int8_is_fast = true;
#endif
  table.quantize = quantize;
  table.dequantize = dequantize;
  table.panel_i8 = panel_i8;
  table.tile_i8 = tile_i8;
  table.dot_rows_i8 = dot_rows_i8;
}

}  // namespace moe::cpu::MOE_KERNEL_LEVEL
