// Transposes of blocks of 32-bit values, through registers where whole squares fit. Values are only moved, so bytes may travel
// as floats. Only for lib/cpu/kernels/*.cpp.
#pragma once
#include "cpu/kernels/simd.h"

namespace moe::cpu::MOE_KERNEL_LEVEL {
namespace {

#if defined(__AVX512F__)
// out[i][j] = in[j][i] for 16 x 16 values
MOE_INLINE void transpose_square(const float *in, int64_t ldi, float *out, int64_t ldo) {
  __m512 r[16], t[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; i++) r[i] = _mm512_loadu_ps(in + i * ldi);
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++) {
    t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    const __m512d a = _mm512_castps_pd(t[4 * i]), b = _mm512_castps_pd(t[4 * i + 1]), c = _mm512_castps_pd(t[4 * i + 2]),
                  d = _mm512_castps_pd(t[4 * i + 3]);
    r[4 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
    r[4 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
    r[4 * i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
    r[4 * i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
  }
  // r[4 g + c] holds, in its lane l of four values, column 4 l + c of the rows 4 g .. 4 g + 3
#pragma GCC unroll 4
  for (int c = 0; c < 4; c++) {
    const __m512 low01 = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x88), high01 = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xdd);
    const __m512 low23 = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0x88), high23 = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0xdd);
    _mm512_storeu_ps(out + c * ldo, _mm512_shuffle_f32x4(low01, low23, 0x88));
    _mm512_storeu_ps(out + (4 + c) * ldo, _mm512_shuffle_f32x4(high01, high23, 0x88));
    _mm512_storeu_ps(out + (8 + c) * ldo, _mm512_shuffle_f32x4(low01, low23, 0xdd));
    _mm512_storeu_ps(out + (12 + c) * ldo, _mm512_shuffle_f32x4(high01, high23, 0xdd));
  }
}
constexpr int64_t kSquare = 16;
#elif defined(__AVX2__)
MOE_INLINE void transpose_square(const float *in, int64_t ldi, float *out, int64_t ldo) {
  __m256 r[8], t[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++) r[i] = _mm256_loadu_ps(in + i * ldi);
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; i++) {
    r[4 * i] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
    r[4 * i + 1] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0xee);
    r[4 * i + 2] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
    r[4 * i + 3] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xee);
  }
#pragma GCC unroll 4
  for (int c = 0; c < 4; c++) {
    _mm256_storeu_ps(out + c * ldo, _mm256_permute2f128_ps(r[c], r[4 + c], 0x20));
    _mm256_storeu_ps(out + (4 + c) * ldo, _mm256_permute2f128_ps(r[c], r[4 + c], 0x31));
  }
}
constexpr int64_t kSquare = 8;
#else
MOE_INLINE void transpose_square(const float *in, int64_t ldi, float *out, int64_t ldo) { transpose_4x4(in, ldi, out, ldo); }
constexpr int64_t kSquare = 4;
#endif

// not cloned: for constant shapes the compiler warns of loops that they never enter
#if defined(__clang__)
__attribute__((noinline))
#else
__attribute__((noinline, noclone))
#endif
void transpose(int64_t rows, int64_t columns, const float *in, int64_t ldi, float *out, int64_t ldo) {
  const int64_t whole = rows / kSquare * kSquare;
  for (int64_t i = 0; i < whole; i += kSquare) {
    int64_t j = 0;
    for (; j + kSquare <= columns; j += kSquare) transpose_square(in + i * ldi + j, ldi, out + j * ldo + i, ldo);
    for (; j < columns; j++) {
      for (int64_t r = i; r < i + kSquare; r++) out[j * ldo + r] = in[r * ldi + j];
    }
  }
  for (int64_t j = 0; j < columns; j++) {
    for (int64_t r = whole; r < rows; r++) out[j * ldo + r] = in[r * ldi + j];
  }
}

}  // namespace
}  // namespace moe::cpu::MOE_KERNEL_LEVEL
