// Kernels of attention for one level: the elementwise backward of softmax, and what a few queries need straight from stored
// keys and values.
#include "cpu/kernels.h"
#include "cpu/kernels/simd.h"

namespace moe::cpu::MOE_KERNEL_LEVEL {
namespace {

// p = exp(s - log_sum_exp), ds = p (dp - d), each of n values. p may be s and ds may be dp.
void softmax_gradient(int64_t n, const float *s, const float *log_sum_exp, const float *dp, const float *d, float *p, float *ds) {
  int64_t i = 0;
  for (; i + kWidth <= n; i += kWidth) {
    const Vec probability = exp(load(s + i) - load(log_sum_exp + i));
    store(ds + i, probability * (load(dp + i) - load(d + i)));
    store(p + i, probability);
  }
  if (i < n) {
    const Vec probability = exp(load_part(s + i, n - i) - load_part(log_sum_exp + i, n - i));
    store_part(ds + i, probability * (load_part(dp + i, n - i) - load_part(d + i, n - i)), n - i);
    store_part(p + i, probability, n - i);
  }
}

MOE_INLINE Vec load_values(const float *x) { return load(x); }
MOE_INLINE Vec load_values(const uint16_t *x) { return load_bf16(x); }
MOE_INLINE Vec load_values_part(const float *x, int64_t n) { return load_part(x, n); }
MOE_INLINE Vec load_values_part(const uint16_t *x, int64_t n) { return load_bf16_part(x, n); }

// out[i] = sum of the lanes of x[i], i < 4
MOE_INLINE void reduce_add_four(const Vec *x, float *out) {
#if defined(__AVX512F__)
  const __m512 ab = _mm512_unpacklo_ps(x[0], x[1]) + _mm512_unpackhi_ps(x[0], x[1]),
               cd = _mm512_unpacklo_ps(x[2], x[3]) + _mm512_unpackhi_ps(x[2], x[3]);
  const __m512d low = _mm512_unpacklo_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd)),
                high = _mm512_unpackhi_pd(_mm512_castps_pd(ab), _mm512_castps_pd(cd));
  const __m512 wide = _mm512_castpd_ps(low) + _mm512_castpd_ps(high);
  const __m256 half = _mm512_castps512_ps256(wide) + _mm512_extractf32x8_ps(wide, 1);
  _mm_storeu_ps(out, _mm256_castps256_ps128(half) + _mm256_extractf128_ps(half, 1));
#elif defined(__AVX2__)
  const __m256 half = _mm256_hadd_ps(_mm256_hadd_ps(x[0], x[1]), _mm256_hadd_ps(x[2], x[3]));
  _mm_storeu_ps(out, _mm256_castps256_ps128(half) + _mm256_extractf128_ps(half, 1));
#elif MOE_NEON
  store(out, vpaddq_f32(vpaddq_f32(x[0], x[1]), vpaddq_f32(x[2], x[3])));
#else
  for (int i = 0; i < 4; i++) out[i] = reduce_add(x[i]);
#endif
}

// Keys and values of one head are short pieces of long rows, of which the processor fetches too few by itself.
constexpr int64_t kRowsAhead = 32;
template <class X>
MOE_INLINE void fetch_row(const X *x, int64_t columns) {
  for (int64_t c = 0; c < columns; c += 64 / static_cast<int64_t>(sizeof(X))) __builtin_prefetch(x + c, 0, 2);
}

// out[m][j] = <q_m, x_j> for M queries, four rows x_j at a time; past the end the last row stands in.
template <int M, class X>
MOE_INLINE void scores_of(int64_t rows, int64_t columns, const float *q, int64_t ldq, const X *x, int64_t ldx, float *out,
                          int64_t ldo) {
  for (int64_t j = 0; j < rows; j += 4) {
    const X *row[4];
    for (int64_t i = 0; i < 4; i++) {
      row[i] = x + (j + i < rows ? j + i : rows - 1) * ldx;
      fetch_row(row[i] + kRowsAhead * ldx, columns);
    }
    Vec sum[M][4];
#pragma GCC unroll 4
    for (int m = 0; m < M; m++) {
#pragma GCC unroll 4
      for (int i = 0; i < 4; i++) sum[m][i] = zero();
    }
    for (int64_t c = 0; c < columns; c += kWidth) {
      const int64_t part = columns - c < kWidth ? columns - c : kWidth;
      Vec value[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; i++) value[i] = part == kWidth ? load_values(row[i] + c) : load_values_part(row[i] + c, part);
#pragma GCC unroll 4
      for (int m = 0; m < M; m++) {
        const Vec query = part == kWidth ? load(q + m * ldq + c) : load_part(q + m * ldq + c, part);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) sum[m][i] = fma(query, value[i], sum[m][i]);
      }
    }
#pragma GCC unroll 4
    for (int m = 0; m < M; m++) {
      float four[4];
      reduce_add_four(sum[m], four);
      if (rows - j >= 4) __builtin_memcpy(out + m * ldo + j, four, sizeof four);
      else __builtin_memcpy(out + m * ldo + j, four, static_cast<size_t>(rows - j) * sizeof(float));
    }
  }
}

template <class X>
void scores(int64_t m, int64_t rows, int64_t columns, const float *q, int64_t ldq, const X *x, int64_t ldx, float *out,
            int64_t ldo) {
  for (int64_t i = 0; i < m;) {
    const float *const first = q + i * ldq;
    float *const to = out + i * ldo;
    if (kRegisters == 32 && m - i >= 4) scores_of<4>(rows, columns, first, ldq, x, ldx, to, ldo), i += 4;
    else if (kRegisters == 32 && m - i == 3) scores_of<3>(rows, columns, first, ldq, x, ldx, to, ldo), i += 3;
    else if (m - i >= 2) scores_of<2>(rows, columns, first, ldq, x, ldx, to, ldo), i += 2;
    else scores_of<1>(rows, columns, first, ldq, x, ldx, to, ldo), i += 1;
  }
}

void row_scores(DType type, int64_t m, int64_t rows, int64_t columns, const float *q, int64_t ldq, const void *x, int64_t ldx,
                float *out, int64_t ldo) {
  if (type == DType::bf16) scores(m, rows, columns, q, ldq, static_cast<const uint16_t *>(x), ldx, out, ldo);
  else scores(m, rows, columns, q, ldq, static_cast<const float *>(x), ldx, out, ldo);
}

// out[M][V vectors] = sum_j weights[M][j] x[j][V vectors], in the order of j. `part` lanes of the last vector exist.
template <int M, int V, class X>
MOE_INLINE void weighted_tile(int64_t rows, const float *weights, int64_t ldw, const X *x, int64_t ldx, float *out, int64_t ldo,
                              int64_t part) {
  Vec sum[M][V];
  for (int m = 0; m < M; m++) {
    for (int v = 0; v < V; v++) sum[m][v] = zero();
  }
  for (int64_t j = 0; j < rows; j++) {
    fetch_row(x + (j + kRowsAhead) * ldx, V * kWidth);
    Vec value[V];
    for (int v = 0; v < V; v++) {
      const X *from = x + j * ldx + v * kWidth;
      value[v] = V == 1 && part < kWidth ? load_values_part(from, part) : load_values(from);
    }
    for (int m = 0; m < M; m++) {
      const Vec weight = broadcast(weights[m * ldw + j]);
      for (int v = 0; v < V; v++) sum[m][v] = fma(weight, value[v], sum[m][v]);
    }
  }
  for (int m = 0; m < M; m++) {
    for (int v = 0; v < V; v++) {
      if (V == 1 && part < kWidth) store_part(out + m * ldo, sum[m][v], part);
      else store(out + m * ldo + v * kWidth, sum[m][v]);
    }
  }
}

template <int M, class X>
void weighted_columns(int64_t rows, int64_t columns, const float *weights, int64_t ldw, const X *x, int64_t ldx, float *out,
                      int64_t ldo) {
  constexpr int kVectors = kRegisters == 32 ? 4 : 2;  // 16 accumulators of 32 registers, 8 of 16
  int64_t c = 0;
  for (; c + kVectors * kWidth <= columns; c += kVectors * kWidth) {
    weighted_tile<M, kVectors>(rows, weights, ldw, x + c, ldx, out + c, ldo, kWidth);
  }
  for (; c < columns; c += kWidth) {
    weighted_tile<M, 1>(rows, weights, ldw, x + c, ldx, out + c, ldo, columns - c < kWidth ? columns - c : kWidth);
  }
}

template <class X>
void weighted(int64_t m, int64_t rows, int64_t columns, const float *weights, int64_t ldw, const X *x, int64_t ldx, float *out,
              int64_t ldo) {
  int64_t i = 0;
  for (; i + 4 <= m; i += 4) weighted_columns<4>(rows, columns, weights + i * ldw, ldw, x, ldx, out + i * ldo, ldo);
  if (m - i == 3) weighted_columns<3>(rows, columns, weights + i * ldw, ldw, x, ldx, out + i * ldo, ldo);
  if (m - i == 2) weighted_columns<2>(rows, columns, weights + i * ldw, ldw, x, ldx, out + i * ldo, ldo);
  if (m - i == 1) weighted_columns<1>(rows, columns, weights + i * ldw, ldw, x, ldx, out + i * ldo, ldo);
}

void weighted_rows(DType type, int64_t m, int64_t rows, int64_t columns, const float *weights, int64_t ldw, const void *x,
                   int64_t ldx, float *out, int64_t ldo) {
  if (type == DType::bf16) weighted(m, rows, columns, weights, ldw, static_cast<const uint16_t *>(x), ldx, out, ldo);
  else weighted(m, rows, columns, weights, ldw, static_cast<const float *>(x), ldx, out, ldo);
}

}  // namespace

void fill_attention_kernels(Kernels &table);
void fill_attention_kernels(Kernels &table) {
  table.softmax_gradient = softmax_gradient;
  table.row_scores = row_scores;
  table.weighted_rows = weighted_rows;
}

}  // namespace moe::cpu::MOE_KERNEL_LEVEL
