// Integer products of block-quantized weights with int8 activations: C[t][r] = sum over groups g of the row
//   scale_rg d_tg sum_i code_rgi q_tgi  -  minimum_rg (d_tg sum_i q_tgi)
// with exact integer sums inside a group and f32 across groups in rising order, so no cut into tiles changes a bit. Compiled for
// every level, and again with the dot products of bytes of VNNI and of Arm.
#include "cpu/kernels.h"
#include "cpu/kernels/activations.h"
#include "cpu/kernels/codes.h"
#include "cpu/kernels/simd.h"
#include "cpu/kernels/transpose.h"

namespace moe::cpu::MOE_KERNEL_LEVEL {
namespace {

// ---- dot products of bytes ------------------------------------------------------------------------------------------

// Lane l: sum + codes times a over the bytes 4 l .. 4 l + 3. a is within -127 .. 127. Without VNNI a pair of products has to fit
// 16 bits: 2 * 128 * 127 does, so codes that may be negative give their sign to a.
template <bool negative>
MOE_INLINE IntVec dot_bytes(IntVec sum, IntVec codes, IntVec a) {
#if defined(__AVX512VNNI__)
  return reinterpret_cast<IntVec>(
      _mm512_dpbusd_epi32(reinterpret_cast<__m512i>(sum), reinterpret_cast<__m512i>(codes), reinterpret_cast<__m512i>(a)));
#elif defined(__AVXVNNI__)
  return reinterpret_cast<IntVec>(
      _mm256_dpbusd_avx_epi32(reinterpret_cast<__m256i>(sum), reinterpret_cast<__m256i>(codes), reinterpret_cast<__m256i>(a)));
#elif defined(__AVX512F__)
  __m512i c = reinterpret_cast<__m512i>(codes), x = reinterpret_cast<__m512i>(a);
  if constexpr (negative) {
    x = _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(c), _mm512_setzero_si512(), x);
    c = _mm512_abs_epi8(c);
  }
  return sum + reinterpret_cast<IntVec>(_mm512_madd_epi16(_mm512_maddubs_epi16(c, x), _mm512_set1_epi16(1)));
#elif defined(__AVX2__)
  __m256i c = reinterpret_cast<__m256i>(codes), x = reinterpret_cast<__m256i>(a);
  if constexpr (negative) {
    x = _mm256_sign_epi8(x, c);
    c = _mm256_abs_epi8(c);
  }
  return sum + reinterpret_cast<IntVec>(_mm256_madd_epi16(_mm256_maddubs_epi16(c, x), _mm256_set1_epi16(1)));
#elif MOE_NEON >= 2
  return vdotq_s32(sum, reinterpret_cast<int8x16_t>(codes), reinterpret_cast<int8x16_t>(a));
#elif MOE_NEON
  const int8x16_t c = reinterpret_cast<int8x16_t>(codes), x = reinterpret_cast<int8x16_t>(a);
  const int16x8_t low = vmull_s8(vget_low_s8(c), vget_low_s8(x)), high = vmull_high_s8(c, x);
  return vpadalq_s16(sum, vpaddq_s16(low, high));
#else
  for (int shift = 24; shift >= 0; shift -= 8) sum += ((codes << shift) >> 24) * ((a << shift) >> 24);
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
#if MOE_NEON == 2
// as dot_bytes, with the four codes of one lane for all lanes of a
MOE_INLINE int32x4_t dot_lane(int32x4_t sum, int8x16_t codes, int8x16_t a, int lane) {
  switch (lane) {
    case 0: return vdotq_laneq_s32(sum, a, codes, 0);
    case 1: return vdotq_laneq_s32(sum, a, codes, 1);
    case 2: return vdotq_laneq_s32(sum, a, codes, 2);
    default: return vdotq_laneq_s32(sum, a, codes, 3);
  }
}
#elif MOE_NEON < 2
// The 4 or 8 bytes at p in all lanes of that many bytes.
template <int N>
MOE_INLINE IntVec broadcast_bytes(const uint8_t *p) {
  if constexpr (N == 4) {
    int32_t four;
    __builtin_memcpy(&four, p, 4);
    return four - IntVec{};
  } else {
    typedef int64_t LongVec __attribute__((vector_size(kWidth * 4)));
    int64_t eight;
    __builtin_memcpy(&eight, p, 8);
    return reinterpret_cast<IntVec>(eight - LongVec{});
  }
}
#endif
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
  // of the lanes of part j of the chunk
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
    if constexpr (values <= G) return broadcast(all[j]);
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
  constexpr int64_t width = lanes < G ? G : lanes;  // of a part: a register, or those of a group, summed before the scale
  Vec sum[N][2], low[N];
  for (int t = 0; t < N; t++) sum[t][0] = sum[t][1] = low[t] = zero();
  for (int64_t i = 0; i < k; i += step, row += step / Block::values * Block::bytes) {
    const int64_t n = k - i < step ? k - i : step, groups = n / G;
    fetch_ahead(row, n / Block::values * Block::bytes);
    Chunk<Block> chunk;
    chunk.read(row, groups);
    ProductScales<G> scales[N];
    for (int t = 0; t < N; t++) {
      scales[t].set(chunk.scale, x[t].scale + i / 32, groups);
      low[t] = add_minima<G>(low[t], chunk.minimum, sums<G>(x[t]) + i / G, groups);
    }
    const auto part = [&](int j, int of_two) __attribute__((always_inline)) {
      const bool half = n - j * width < width;
      IntVec dot[N] = {};
#pragma GCC unroll 2
      for (int u = 0; u < width / lanes; u++) {
        const IntVec codes = chunk.codes(static_cast<int>(j * (width / lanes) + u), half);
        for (int t = 0; t < N; t++) {
          dot[t] = dot_bytes<CodeTraits<Block>::negative>(dot[t], codes, load_bytes(x[t].q + i + j * width + u * lanes, half));
        }
      }
      for (int t = 0; t < N; t++) sum[t][of_two] = fma(to_float(dot[t]), scales[t].lanes(j), sum[t][of_two]);
    };
    if (n == step) {
#pragma GCC unroll 4
      for (int j = 0; j < step / width; j += 2) {
        part(j, 0);
        part(j + 1, 1);
      }
    } else {
      for (int j = 0; j * width < n; j += 2) {
        part(j, 0);
        if ((j + 1) * width < n) part(j + 1, 1);
      }
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

// ---- expanded weights times panels of activations -------------------------------------------------------------------

// Weight rows as the tiles read them, in pieces of 512 values along k: for each piece [rows][512 codes, 32 scales, 32 negative minima], so
// that the distance of neighbouring rows is a constant.
constexpr int64_t kPieceScales = 32, kPieceRowBytes = kExpandedPiece + 2 * kPieceScales * 4;
static_assert(kPieceRowBytes == kExpandedPieceRowBytes && kExpandedPiece >= kChunkValues);

template <class Block>
void expand_rows(const uint8_t *w, int64_t row_bytes, int64_t rows, int64_t k, uint8_t *out) {
  constexpr int G = CodeTraits<Block>::group;
  constexpr int64_t step = chunk_values<Block>(), lanes = 4 * kWidth;
  for (int64_t r = 0; r < rows; r++, w += row_bytes, out += kPieceRowBytes) {
    const uint8_t *from = w;
    for (int64_t i = 0; i < k; i += step, from += step / Block::values * Block::bytes) {
      const int64_t n = k - i < step ? k - i : step, groups = n / G, inside = i % kExpandedPiece;
      uint8_t *const codes = out + i / kExpandedPiece * rows * kPieceRowBytes;
      float *const scale = reinterpret_cast<float *>(codes + kExpandedPiece) + inside / G;
      Chunk<Block> chunk;
      chunk.read(from, groups);
#pragma GCC unroll 2
      for (int j = 0; j * lanes < n; j++) {
        const IntVec v = chunk.codes(j, n - j * lanes < lanes);
        __builtin_memcpy(codes + inside + j * lanes, &v, sizeof v);
      }
      chunk.store_scales(scale, scale + kPieceScales);
    }
  }
}

void expand_i8(DType type, const void *row_data, int64_t row_bytes, int64_t rows, int64_t k, uint8_t *out) {
#define MOE_CALL(Block) expand_rows<Block>(static_cast<const uint8_t *>(row_data), row_bytes, rows, k, out)
  MOE_DISPATCH_CODES(type, MOE_CALL)
#undef MOE_CALL
}

#if MOE_NEON >= 3
constexpr int kStep = 8;  // neighbours along k that stand together in a panel
// Two steps of 4 neighbours along k to one of 8, in place.
MOE_INLINE void pair_steps(float *values, int64_t k) {
  for (int64_t i = 0; i < k / 8; i++, values += 2 * kPanel) {
    Vec even[kPanel / kWidth], odd[kPanel / kWidth];
    for (int j = 0; j < kPanel / kWidth; j++) {
      even[j] = load(values + j * kWidth);
      odd[j] = load(values + kPanel + j * kWidth);
    }
    for (int j = 0; j < kPanel / kWidth; j++) {
      store(values + 2 * j * kWidth, vzip1q_f32(even[j], odd[j]));
      store(values + 2 * j * kWidth + kWidth, vzip2q_f32(even[j], odd[j]));
    }
  }
}
#else
constexpr int kStep = 4;
MOE_INLINE void pair_steps(float *, int64_t) {}
#endif

// Panel of up to 32 tokens: [k/kStep][32 tokens][kStep] int8, [k/G][32] scales, [k/G][32] sums. Only whole lots of 16 tokens are
// written, with zeros behind the last. With AVX-512 up to 8 tokens take two lanes each: [k/8][16 lanes of 32][4], the sums in the first.
constexpr int64_t kLot = 16;
MOE_INLINE int lanes_of_a_token(int64_t tokens) { return kWidth == 16 && tokens <= 8 ? 2 : 1; }

// to[j][t] = from[t][j] for a lot of tokens whose rows of `columns` values lie ldf apart.
void turn_lot(int64_t tokens, int64_t columns, const float *from, int64_t ldf, float *to) {
  if (tokens >= kLot) return transpose(kLot, columns, from, ldf, to, kPanel);
  constexpr int64_t step = 128;
  alignas(64) float rows[kLot * step] = {};
  for (int64_t j = 0; j < columns; j += step) {
    const int64_t n = columns - j < step ? columns - j : step;
    for (int64_t t = 0; t < tokens; t++) __builtin_memcpy(rows + t * step, from + t * ldf + j, static_cast<size_t>(n) * 4);
    transpose(kLot, n, rows, step, to + j * kPanel, kPanel);
  }
}

template <int G>
void panel_of(int64_t tokens, int64_t k, const uint8_t *x, int64_t x_bytes, uint8_t *panel) {
  float *const values = reinterpret_cast<float *>(panel);
  if (lanes_of_a_token(tokens) == 2) {
    float *const scales = values + k / 8 * kPanel, *const token_sums = scales + k / G * kPanel;
    for (int64_t i = 0; i < k / 8; i++) __builtin_memset(values + i * kPanel, 0, kLot * 4);
    for (int64_t g = 0; g < k / G; g++) __builtin_memset(scales + g * kPanel, 0, kLot * 4), __builtin_memset(token_sums + g * kPanel, 0, kLot * 4);
    for (int64_t t = 0; t < tokens; t++) {
      const ActivationRow row = activation_row(x + t * x_bytes, k);
      for (int64_t i = 0; i < k / 8; i++) __builtin_memcpy(values + i * kPanel + 2 * t, row.q + 8 * i, 8);
      for (int64_t g = 0; g < k / G; g++) {
        scales[g * kPanel + 2 * t] = scales[g * kPanel + 2 * t + 1] = row.scale[g * G / 32];
        token_sums[g * kPanel + 2 * t] = sums<G>(row)[g];
      }
    }
    return;
  }
  float *const scales = values + k / 4 * kPanel, *const token_sums = scales + k / G * kPanel;
  for (int64_t first = 0; first < tokens; first += kLot) {
    const ActivationRow row = activation_row(x + first * x_bytes, k);
    turn_lot(tokens - first, k / 4, reinterpret_cast<const float *>(row.q), x_bytes / 4, values + first);
    turn_lot(tokens - first, k / G, sums<G>(row), x_bytes / 4, token_sums + first);
    turn_lot(tokens - first, k / 32, row.scale, x_bytes / 4, scales + first);
    for (int64_t g = k / G - 1; G == 16 && g > 0; g--) __builtin_memcpy(scales + g * kPanel + first, scales + g / 2 * kPanel + first, kLot * 4);
  }
  pair_steps(values, k);
}

void panel_i8(DType type, int64_t tokens, int64_t k, const uint8_t *x, int64_t x_bytes, uint8_t *panel) {
  if (int8_group(type) == 32) panel_of<32>(tokens, k, x, x_bytes, panel);
  else panel_of<16>(tokens, k, x, x_bytes, panel);
}

// What lies behind the weights of a tile in memory: fetched while the tile computes, `bytes` (at most) a group.
struct Ahead {
  const uint8_t *at;
  int64_t bytes;
};

// sum[r][v] = codes of row r times vector v of the panel's lanes, over one group
template <int G, bool negative, int R, int V, int S>
MOE_INLINE void group_sums(const uint8_t *codes, const uint8_t *values, IntVec (*sum)[V]) {
#if MOE_NEON >= 3
  // Eight values of two rows by those of two tokens a product: 12 accumulators, each the square of its results, beside 12
  // totals, 6 registers of codes and 2 of the panel.
  constexpr int P = (R + 1) / 2;
  typedef int64_t Pair __attribute__((vector_size(16)));
  const auto pair = [](IntVec a, IntVec b, int half) __attribute__((always_inline)) {
    const Pair x = reinterpret_cast<Pair>(a), y = reinterpret_cast<Pair>(b);
    return reinterpret_cast<int8x16_t>(half ? __builtin_shufflevector(x, y, 1, 3) : __builtin_shufflevector(x, y, 0, 2));
  };
  int32x4_t square[P][2 * V] = {};
#pragma GCC unroll 2
  for (int part = 0; part < G; part += 16) {
    int8x16_t w[2][P];
#pragma GCC unroll 4
    for (int p = 0; p < P; p++) {
      const int second = 2 * p + 1 < R ? 2 * p + 1 : 2 * p;
      const IntVec a = load_bytes(codes + 2 * p * kPieceRowBytes + part), b = load_bytes(codes + second * kPieceRowBytes + part);
      for (int half = 0; half < 2; half++) w[half][p] = pair(a, b, half);
    }
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
#pragma GCC unroll 4
      for (int c = 0; c < 2 * V; c++) {
        const int8x16_t x = reinterpret_cast<int8x16_t>(load_bytes(values + (part + 8 * half) * kPanel + 16 * c));
#pragma GCC unroll 4
        for (int p = 0; p < P; p++) square[p][c] = vmmlaq_s32(square[p][c], w[half][p], x);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; r++) {
    for (int v = 0; v < V; v++) sum[r][v] = reinterpret_cast<IntVec>(pair(square[r / 2][2 * v], square[r / 2][2 * v + 1], r % 2));
  }
#else
#pragma GCC unroll 12
  for (int r = 0; r < R; r++) {
    for (int v = 0; v < V; v++) sum[r][v] = IntVec{};
  }
#if MOE_NEON >= 2
  // 16 codes of a row in one register, multiplied by lane: 12 sums beside 12 totals, 6 registers of codes and 2 of the panel.
#pragma GCC unroll 2
  for (int part = 0; part < G; part += 16) {
    int8x16_t w[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) w[r] = reinterpret_cast<int8x16_t>(load_bytes(codes + r * kPieceRowBytes + part));
#pragma GCC unroll 4
    for (int lane = 0; lane < 4; lane++) {
      for (int v = 0; v < V; v++) {
        const int8x16_t x = reinterpret_cast<int8x16_t>(load_bytes(values + ((part / 4 + lane) * kPanel + v * kWidth) * 4));
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) sum[r][v] = dot_lane(sum[r][v], w[r], x, lane);
      }
    }
  }
#else
#pragma GCC unroll 8
  for (int s = 0; s < G / S; s++) {
    IntVec x[V];
    for (int v = 0; v < V; v++) x[v] = load_bytes(values + (s * kPanel + v * kWidth) * 4);
#pragma GCC unroll 12
    for (int r = 0; r < R; r++) {
      const IntVec code = broadcast_bytes<S>(codes + r * kPieceRowBytes + S * s);
      for (int v = 0; v < V; v++) sum[r][v] = dot_bytes<negative>(sum[r][v], code, x[v]);
    }
  }
#endif
#endif
}

// C[R rows, V vectors] = expanded weights times the panel's lanes from `lane` on; a lane has S of the G values of a group. R V sums
// of a group stay in registers; a step of S values along k is V loads of the panel and R of the weights for R V dot products.
template <int G, bool negative, int R, int V, int S>
void int8_tile(int64_t all_rows, int64_t k, const uint8_t *w, const uint8_t *panel, int64_t lane, Ahead ahead, float *c) {
  Vec total[R][V];
#pragma GCC unroll 12
  for (int r = 0; r < R; r++) {
    for (int v = 0; v < V; v++) total[r][v] = zero();
  }
  const uint8_t *values = panel + lane * kStep;
  const float *token_scale = reinterpret_cast<const float *>(panel + k * kPanel * 4 / S) + lane, *token_sum = token_scale + k / G * kPanel;
  for (int64_t first = 0; first < k; first += kExpandedPiece, w += all_rows * kPieceRowBytes) {
    const int64_t n = k - first < kExpandedPiece ? k - first : kExpandedPiece;
    const uint8_t *codes = w, *factors = w + kExpandedPiece;
    for (int64_t i = 0; i < n; i += G, values += G / S * kPanel * 4, codes += G, factors += 4, token_scale += kPanel, token_sum += kPanel) {
      for (int64_t line = 0; line < ahead.bytes; line += 64) __builtin_prefetch(ahead.at + line);
      ahead.at += ahead.bytes;
      IntVec sum[R][V];
      group_sums<G, negative, R, V, S>(codes, values, sum);
      Vec d[V], low[V];
      for (int v = 0; v < V; v++) {
        d[v] = load(token_scale + v * kWidth);
        low[v] = load(token_sum + v * kWidth);
      }
#pragma GCC unroll 12
      for (int r = 0; r < R; r++) {
        const uint8_t *const factor = factors + r * kPieceRowBytes;
        const Vec s = broadcast(float_at(factor)), offset = broadcast(float_at(factor + kPieceScales * 4));
        for (int v = 0; v < V; v++) total[r][v] = fma(to_float(sum[r][v]), s * d[v], fma(offset, low[v], total[r][v]));
      }
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < R; r++) {
    for (int v = 0; v < V; v++) store(c + r * kPanel + v * kWidth, total[r][v]);
  }
}

template <int G, bool negative, int R, int V, int S>
void int8_rows(int64_t rows, int64_t all_rows, int64_t k, const uint8_t *w, const uint8_t *panel, int64_t lane, Ahead ahead, float *c) {
  if (rows >= R) return int8_tile<G, negative, R, V, S>(all_rows, k, w, panel, lane, ahead, c);
  if constexpr (R > 1) int8_rows<G, negative, R - 1, V, S>(rows, all_rows, k, w, panel, lane, ahead, c);
}

// All rows in tiles of up to R, even parts: two tiles of 4 rows hide more latency than one of 6 and one of 2.
template <int G, bool negative, int R, int V, int S>
void int8_columns(int64_t rows, int64_t k, const uint8_t *w, const uint8_t *panel, int64_t lane, Ahead ahead, float *c) {
  const int64_t tiles_of_all = (rows + R - 1) / R;
  ahead.bytes = (ahead.bytes / tiles_of_all + k / G - 1) / (k / G);
  for (int64_t r = 0, n; r < rows; r += n) {
    const int64_t tiles = (rows - r + R - 1) / R;
    n = (rows - r + tiles - 1) / tiles;
    int8_rows<G, negative, R, V, S>(n, rows, k, w + r * kPieceRowBytes, panel, lane, ahead, c + r * kPanel);
    ahead.at += ahead.bytes * (k / G);
  }
}

template <int G, bool negative>
void int8_panel(int64_t rows, int64_t tokens, int64_t k, const uint8_t *w, const uint8_t *panel, Ahead ahead, float *c) {
#if defined(__AVX512F__)
  if (tokens > 16) return int8_columns<G, negative, 6, 2, 4>(rows, k, w, panel, 0, ahead, c);
  if (tokens > 8) return int8_columns<G, negative, 12, 1, 4>(rows, k, w, panel, 0, ahead, c);
  int8_columns<G, negative, 12, 1, 8>(rows, k, w, panel, 0, ahead, c);
  for (int64_t r = 0; r < rows; r++) {  // the two lanes of each token
    const __m512 x = load(c + r * kPanel), both = x + _mm512_shuffle_ps(x, x, 0xb1);
    store(c + r * kPanel, _mm512_maskz_compress_ps(0x5555, both));
  }
#else
  constexpr int rows_of_tile = kRegisters == 32 ? 6 : 3;
  for (int64_t t = 0; t < (tokens + 15) / 16 * 16; t += 2 * kWidth) int8_columns<G, negative, rows_of_tile, 2, 4>(rows, k, w, panel, t, ahead, c + t);
#endif
}

void tile_i8(DType type, int64_t rows, int64_t tokens, int64_t k, const uint8_t *expanded, const uint8_t *panel, const void *next,
             int64_t next_bytes, float *c) {
  const Ahead ahead = {static_cast<const uint8_t *>(next), next_bytes};
  if (type == DType::q8_0) int8_panel<32, CodeTraits<BlockQ8_0>::negative>(rows, tokens, k, expanded, panel, ahead, c);
  else if (int8_group(type) == 32) int8_panel<32, false>(rows, tokens, k, expanded, panel, ahead, c);
  else int8_panel<16, false>(rows, tokens, k, expanded, panel, ahead, c);
}

}  // namespace

void fill_int8_kernels(Kernels &table);
void fill_int8_kernels(Kernels &table) {
#if defined(__AVX2__) || MOE_NEON >= 2  // without dot products of bytes NEON needs as many instructions as for f32
  table.int8_is_fast = true;
#endif
  table.quantize = quantize;
  table.dequantize = dequantize;
  table.expand_i8 = expand_i8;
  table.panel_i8 = panel_i8;
  table.tile_i8 = tile_i8;
  table.dot_rows_i8 = dot_rows_i8;
}

}  // namespace moe::cpu::MOE_KERNEL_LEVEL
