// Activation rows of integer products. A row of k values (k a multiple of 32) takes 1.5 k bytes: [k] int8 q, then f32:
// [k/32] scale d = max|x| / 127 of 32 values, [k/32] d * sum of 32 q, [k/16] d * sum of 16 q. Only for lib/cpu/kernels/int8.cpp.
#pragma once
#include "cpu/kernels/simd.h"

namespace moe::cpu::MOE_KERNEL_LEVEL {
namespace {

struct ActivationRow {
  const int8_t *q;
  const float *scale, *sum32, *sum16;
};
MOE_INLINE ActivationRow activation_row(const uint8_t *row, int64_t k) {
  const float *scale = reinterpret_cast<const float *>(row + k);
  return {reinterpret_cast<const int8_t *>(row), scale, scale + k / 32, scale + k / 16};
}
template <int G>
MOE_INLINE const float *sums(const ActivationRow &row) { return G == 32 ? row.sum32 : row.sum16; }

// The largest magnitude as bits: infinity and not-a-number stand above all numbers.
MOE_INLINE float largest_magnitude(const float *x) {
  BitVec largest = {};
  for (int64_t j = 0; j < 32; j += kWidth) {
    const BitVec bits = to_bits(load(x + j)) & 0x7fffffff;
#if defined(__AVX512F__)
    largest = reinterpret_cast<BitVec>(_mm512_max_epu32(reinterpret_cast<__m512i>(largest), reinterpret_cast<__m512i>(bits)));
#elif defined(__AVX2__)
    largest = reinterpret_cast<BitVec>(_mm256_max_epu32(reinterpret_cast<__m256i>(largest), reinterpret_cast<__m256i>(bits)));
#elif MOE_NEON
    largest = vmaxq_u32(largest, bits);
#else
    largest = largest > bits ? largest : bits;
#endif
  }
#if defined(__AVX512F__)
  const uint32_t bits = _mm512_reduce_max_epu32(reinterpret_cast<__m512i>(largest));
#elif MOE_NEON
  const uint32_t bits = vmaxvq_u32(largest);
#else
  uint32_t bits = 0;
  for (int l = 0; l < kWidth; l++) bits = largest[l] > bits ? largest[l] : bits;
#endif
  float value;
  __builtin_memcpy(&value, &bits, 4);
  return value;
}

// The sums of the bytes [0, 16) and [16, 32).
MOE_INLINE void byte_sums(const int8_t *q, int32_t *low, int32_t *high) {
#if defined(__AVX2__)
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), _mm256_loadu_si256((const __m256i *)q));
  __m256i sum = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
  sum = _mm256_add_epi32(sum, _mm256_shuffle_epi32(sum, 0x4e));
  sum = _mm256_add_epi32(sum, _mm256_shuffle_epi32(sum, 0xb1));
  *low = _mm256_cvtsi256_si32(sum);
  *high = _mm_cvtsi128_si32(_mm256_extracti128_si256(sum, 1));
#elif MOE_NEON
  *low = vaddlvq_s8(vld1q_s8(q));
  *high = vaddlvq_s8(vld1q_s8(q + 16));
#else
  *low = *high = 0;
  for (int j = 0; j < 16; j++) {
    *low += q[j];
    *high += q[16 + j];
  }
#endif
}

// Values [first, first + n) of a row of k; both multiples of 32. Not-a-number and infinity make the scale such.
void quantize(int64_t first, int64_t n, int64_t k, const float *x, uint8_t *row) {
  constexpr float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer in the low bits
  float *scale = reinterpret_cast<float *>(row + k), *sum32 = scale + k / 32, *sum16 = scale + k / 16;
  for (int64_t i = 0; i < n; i += 32) {
    const float largest = largest_magnitude(x + i), d = largest / 127;
    const Vec inverse = broadcast(largest > 0x1p-100f ? 127 / largest : 0.0f);
    int8_t q[32];
    for (int64_t j = 0; j < 32; j += kWidth) {
      const IntVec rounded = reinterpret_cast<IntVec>(fma(load(x + i + j), inverse, broadcast(magic))) - reinterpret_cast<IntVec>(broadcast(magic));
#if defined(__AVX512F__)
      _mm_storeu_si128((__m128i *)(q + j), _mm512_cvtepi32_epi8(reinterpret_cast<__m512i>(rounded)));
#elif MOE_NEON
      const int16x4_t words = vmovn_s32(rounded);
      vst1_lane_s32(reinterpret_cast<int32_t *>(q + j), vreinterpret_s32_s8(vmovn_s16(vcombine_s16(words, words))), 0);
#else
      typedef int8_t ByteVec __attribute__((vector_size(kWidth)));
      const ByteVec bytes = __builtin_convertvector(rounded, ByteVec);
      __builtin_memcpy(q + j, &bytes, sizeof bytes);
#endif
    }
    __builtin_memcpy(row + first + i, q, 32);
    int32_t low, high;
    byte_sums(q, &low, &high);
    const int64_t g = (first + i) / 32;
    scale[g] = d;
    sum16[2 * g] = d * static_cast<float>(low);
    sum16[2 * g + 1] = d * static_cast<float>(high);
    sum32[g] = d * static_cast<float>(low + high);
  }
}

void dequantize(int64_t k, const uint8_t *row, float *x) {
  const ActivationRow a = activation_row(row, k);
  for (int64_t i = 0; i < k; i += 32) {
    for (int64_t j = 0; j < 32; j++) x[i + j] = static_cast<float>(a.q[i + j]) * a.scale[i / 32];
  }
}

}  // namespace
}  // namespace moe::cpu::MOE_KERNEL_LEVEL
