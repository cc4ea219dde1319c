// Stored weights to f32, block by block, written as plain loops of fixed length that the compiler turns into vector code at
// each level. Layouts: ggml's ggml-common.h. tensor/dequantize.cpp is the reference. Only for lib/cpu/kernels/*.cpp.
#pragma once
#include <stdint.h>

#include "cpu/kernels/simd.h"
#include "tensor/dtype.h"

namespace moe::cpu::MOE_KERNEL_LEVEL {
namespace {

// a specialization of a template takes no storage class, nor does a member
#define MOE_INLINE_SPECIAL inline __attribute__((always_inline))
#define MOE_INLINE_MEMBER inline __attribute__((always_inline))

MOE_INLINE uint16_t load_u16(const uint8_t *p) {
  uint16_t x;
  __builtin_memcpy(&x, p, 2);
  return x;
}
MOE_INLINE float half_to_float(uint16_t half) {
#if defined(__F16C__)
  return _cvtsh_ss(half);
#elif MOE_NEON
  __fp16 value;
  __builtin_memcpy(&value, &half, 2);
  return value;
#else
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16, rest = half & 0x7fff;
  uint32_t bits;
  if (rest >= 0x7c00) {
    bits = 0x7f800000u | (rest & 0x3ff) << 13;
  } else if (rest >= 0x400) {
    bits = (rest << 13) + (112u << 23);
  } else {  // zero and subnormals: rest * 2^-24
    const float value = static_cast<float>(rest) * 0x1p-24f;
    __builtin_memcpy(&bits, &value, 4);
  }
  bits |= sign;
  float value;
  __builtin_memcpy(&value, &bits, 4);
  return value;
#endif
}
MOE_INLINE float half_at(const uint8_t *p) { return half_to_float(load_u16(p)); }

// ---- 32 values a block ------------------------------------------------------------------------------------------

MOE_INLINE void block_q4_0(const uint8_t *p, float *y) {  // f16 d, 16 bytes: y = d (q - 8), low nibbles first
  const float d = half_at(p);
  for (int j = 0; j < 16; j++) {
    y[j] = static_cast<float>((p[2 + j] & 15) - 8) * d;
    y[16 + j] = static_cast<float>((p[2 + j] >> 4) - 8) * d;
  }
}
MOE_INLINE void block_q4_1(const uint8_t *p, float *y) {  // f16 d, f16 m: y = d q + m
  const float d = half_at(p), m = half_at(p + 2);
  for (int j = 0; j < 16; j++) {
    y[j] = static_cast<float>(p[4 + j] & 15) * d + m;
    y[16 + j] = static_cast<float>(p[4 + j] >> 4) * d + m;
  }
}
MOE_INLINE void block_q5_0(const uint8_t *p, float *y) {  // f16 d, 32 high bits: y = d (q - 16)
  const float d = half_at(p);
  uint32_t high;
  __builtin_memcpy(&high, p + 2, 4);
  for (int j = 0; j < 16; j++) {
    y[j] = static_cast<float>(static_cast<int32_t>((p[6 + j] & 15u) | ((high >> j) & 1u) << 4) - 16) * d;
    y[16 + j] = static_cast<float>(static_cast<int32_t>((p[6 + j] >> 4) | ((high >> (16 + j)) & 1u) << 4) - 16) * d;
  }
}
MOE_INLINE void block_q5_1(const uint8_t *p, float *y) {  // f16 d, f16 m, 32 high bits: y = d q + m
  const float d = half_at(p), m = half_at(p + 2);
  uint32_t high;
  __builtin_memcpy(&high, p + 4, 4);
  for (int j = 0; j < 16; j++) {
    y[j] = static_cast<float>(static_cast<int32_t>((p[8 + j] & 15u) | ((high >> j) & 1u) << 4)) * d + m;
    y[16 + j] = static_cast<float>(static_cast<int32_t>((p[8 + j] >> 4) | ((high >> (16 + j)) & 1u) << 4)) * d + m;
  }
}
MOE_INLINE void block_q8_0(const uint8_t *p, float *y) {  // f16 d: y = d q
  const float d = half_at(p);
  int8_t q[32];
  __builtin_memcpy(q, p + 2, 32);
  for (int j = 0; j < 32; j++) y[j] = static_cast<float>(q[j]) * d;
}

// ---- 256 values a block -----------------------------------------------------------------------------------------

MOE_INLINE void block_q2_k(const uint8_t *p, float *y) {  // 16 scales (low 4) and minima (high 4), 64 bytes of 2 bits, f16 d, f16 dmin
  const uint8_t *scales = p, *q = p + 16;
  const float d = half_at(p + 80), dmin = half_at(p + 82);
  for (int n = 0; n < 2; n++) {
    for (int shift = 0; shift < 4; shift++) {
      for (int half = 0; half < 2; half++) {
        const uint8_t s = scales[n * 8 + shift * 2 + half];
        const float scale = d * static_cast<float>(s & 15), minimum = dmin * static_cast<float>(s >> 4);
        const uint8_t *from = q + n * 32 + half * 16;
        float *to = y + n * 128 + shift * 32 + half * 16;
        for (int j = 0; j < 16; j++) to[j] = scale * static_cast<float>((from[j] >> (2 * shift)) & 3) - minimum;
      }
    }
  }
}
MOE_INLINE void block_q3_k(const uint8_t *p, float *y) {  // 32 bytes of high bits, 64 of low 2 bits, 12 of 6-bit scales, f16 d
  const uint8_t *high = p, *q = p + 32, *packed = p + 96;
  const float d = half_at(p + 108);
  for (int n = 0; n < 2; n++) {
    for (int shift = 0; shift < 4; shift++) {
      for (int half = 0; half < 2; half++) {
        const int i = n * 8 + shift * 2 + half;
        const int low = i < 8 ? packed[i] & 15 : packed[i - 8] >> 4;
        const int scale = (low | ((packed[8 + i % 4] >> (2 * (i / 4))) & 3) << 4) - 32;
        const float factor = d * static_cast<float>(scale);
        const uint8_t *from = q + n * 32 + half * 16, *bits = high + half * 16;
        float *to = y + n * 128 + shift * 32 + half * 16;
        for (int j = 0; j < 16; j++) {
          const int value = ((from[j] >> (2 * shift)) & 3) - 4 + (((bits[j] >> (n * 4 + shift)) & 1) << 2);
          to[j] = factor * static_cast<float>(value);
        }
      }
    }
  }
}
// scale and minimum i of the 8 packed in 12 bytes (Q4_K, Q5_K)
MOE_INLINE void k_scale(const uint8_t *packed, int i, float *scale, float *minimum) {
  int s, m;
  if (i < 4) {
    s = packed[i] & 63;
    m = packed[i + 4] & 63;
  } else {
    s = (packed[i + 4] & 15) | (packed[i - 4] >> 6) << 4;
    m = (packed[i + 4] >> 4) | (packed[i] >> 6) << 4;
  }
  *scale = static_cast<float>(s);
  *minimum = static_cast<float>(m);
}
MOE_INLINE void block_q4_k(const uint8_t *p, float *y) {  // f16 d, f16 dmin, 12 bytes of scales, 128 bytes of nibbles
  const float d = half_at(p), dmin = half_at(p + 2);
  for (int n = 0; n < 4; n++) {
    float s0, m0, s1, m1;
    k_scale(p + 4, 2 * n, &s0, &m0);
    k_scale(p + 4, 2 * n + 1, &s1, &m1);
    s0 *= d, s1 *= d, m0 *= dmin, m1 *= dmin;
    const uint8_t *q = p + 16 + n * 32;
    float *to = y + n * 64;
    for (int j = 0; j < 32; j++) to[j] = s0 * static_cast<float>(q[j] & 15) - m0;
    for (int j = 0; j < 32; j++) to[32 + j] = s1 * static_cast<float>(q[j] >> 4) - m1;
  }
}
MOE_INLINE void block_q5_k(const uint8_t *p, float *y) {  // as Q4_K with 32 bytes of high bits before the nibbles
  const float d = half_at(p), dmin = half_at(p + 2);
  const uint8_t *high = p + 16;
  for (int n = 0; n < 4; n++) {
    float s0, m0, s1, m1;
    k_scale(p + 4, 2 * n, &s0, &m0);
    k_scale(p + 4, 2 * n + 1, &s1, &m1);
    s0 *= d, s1 *= d, m0 *= dmin, m1 *= dmin;
    const uint8_t *q = p + 48 + n * 32;
    float *to = y + n * 64;
    for (int j = 0; j < 32; j++) to[j] = s0 * static_cast<float>((q[j] & 15) | ((high[j] >> (2 * n)) & 1) << 4) - m0;
    for (int j = 0; j < 32; j++) to[32 + j] = s1 * static_cast<float>((q[j] >> 4) | ((high[j] >> (2 * n + 1)) & 1) << 4) - m1;
  }
}
MOE_INLINE void block_q6_k(const uint8_t *p, float *y) {  // 128 bytes of low nibbles, 64 of high 2 bits, 16 i8 scales, f16 d
  const float d = half_at(p + 208);
  int8_t scales[16];
  __builtin_memcpy(scales, p + 192, 16);
  for (int n = 0; n < 2; n++) {
    const uint8_t *low = p + n * 64, *high = p + 128 + n * 32;
    for (int half = 0; half < 2; half++) {
      float *to = y + n * 128 + half * 16;
      const uint8_t *l0 = low + half * 16, *l1 = low + 32 + half * 16, *h = high + half * 16;
      const float s0 = d * scales[n * 8 + half], s1 = d * scales[n * 8 + 2 + half], s2 = d * scales[n * 8 + 4 + half],
                  s3 = d * scales[n * 8 + 6 + half];
      for (int j = 0; j < 16; j++) to[j] = s0 * static_cast<float>(((l0[j] & 15) | (h[j] & 3) << 4) - 32);
      for (int j = 0; j < 16; j++) to[32 + j] = s1 * static_cast<float>(((l1[j] & 15) | ((h[j] >> 2) & 3) << 4) - 32);
      for (int j = 0; j < 16; j++) to[64 + j] = s2 * static_cast<float>(((l0[j] >> 4) | ((h[j] >> 4) & 3) << 4) - 32);
      for (int j = 0; j < 16; j++) to[96 + j] = s3 * static_cast<float>(((l1[j] >> 4) | (h[j] >> 6) << 4) - 32);
    }
  }
}

// ---- plain numbers, 32 at a time ------------------------------------------------------------------------------------

MOE_INLINE void block_f32(const uint8_t *p, float *y) { __builtin_memcpy(y, p, 128); }
MOE_INLINE void block_bf16(const uint8_t *p, float *y) {
  uint16_t x[32];
  __builtin_memcpy(x, p, 64);
  uint32_t bits[32];
  for (int j = 0; j < 32; j++) bits[j] = static_cast<uint32_t>(x[j]) << 16;
  __builtin_memcpy(y, bits, 128);
}
MOE_INLINE void block_f16(const uint8_t *p, float *y) {
#if defined(__AVX512F__)
  for (int j = 0; j < 2; j++) _mm512_storeu_ps(y + 16 * j, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(p + 32 * j))));
#elif defined(__F16C__)
  for (int j = 0; j < 4; j++) _mm256_storeu_ps(y + 8 * j, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 16 * j))));
#elif MOE_NEON
  for (int j = 0; j < 8; j++) store(y + 4 * j, vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p + 8 * j))));
#else
  for (int j = 0; j < 32; j++) y[j] = half_at(p + 2 * j);
#endif
}

// One description per stored type: `values` a block, `bytes` a block, expand(block, y).
#define MOE_BLOCK_TYPE(Name, function, number_of_values, number_of_bytes)                     \
  struct Name {                                                                               \
    static constexpr int values = number_of_values, bytes = number_of_bytes;                  \
    MOE_INLINE void expand(const uint8_t *p, float *y) { function(p, y); }                    \
  };
MOE_BLOCK_TYPE(BlockF32, block_f32, 32, 128)
MOE_BLOCK_TYPE(BlockF16, block_f16, 32, 64)
MOE_BLOCK_TYPE(BlockBf16, block_bf16, 32, 64)
MOE_BLOCK_TYPE(BlockQ4_0, block_q4_0, 32, 18)
MOE_BLOCK_TYPE(BlockQ4_1, block_q4_1, 32, 20)
MOE_BLOCK_TYPE(BlockQ5_0, block_q5_0, 32, 22)
MOE_BLOCK_TYPE(BlockQ5_1, block_q5_1, 32, 24)
MOE_BLOCK_TYPE(BlockQ8_0, block_q8_0, 32, 34)
MOE_BLOCK_TYPE(BlockQ2K, block_q2_k, 256, 84)
MOE_BLOCK_TYPE(BlockQ3K, block_q3_k, 256, 110)
MOE_BLOCK_TYPE(BlockQ4K, block_q4_k, 256, 144)
MOE_BLOCK_TYPE(BlockQ5K, block_q5_k, 256, 176)
MOE_BLOCK_TYPE(BlockQ6K, block_q6_k, 256, 210)
#undef MOE_BLOCK_TYPE

// A block in registers. Through memory the compiler may store halves of a register and load the whole, which stalls; so the
// common types of AVX-512 go straight.
template <class Block>
MOE_INLINE void expand_vectors(const uint8_t *p, Vec *w) {
  float values[Block::values];
  Block::expand(p, values);
  for (int64_t i = 0; i < Block::values / kWidth; i++) w[i] = load(values + i * kWidth);
}
#if defined(__AVX512F__)
MOE_INLINE Vec from_u8(__m128i q) { return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(q)); }
MOE_INLINE Vec from_i8(__m128i q) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q)); }
MOE_INLINE __m128i bytes_at(const uint8_t *p) { return _mm_loadu_si128((const __m128i *)p); }
MOE_INLINE __m128i low_nibbles(__m128i q) { return _mm_and_si128(q, _mm_set1_epi8(15)); }
MOE_INLINE __m128i high_nibbles(__m128i q) { return low_nibbles(_mm_srli_epi16(q, 4)); }
// bit i of `bits` at 16 in byte i
MOE_INLINE __m128i fifth_bits(uint32_t bits) { return _mm_maskz_set1_epi8(static_cast<__mmask16>(bits), 16); }
MOE_INLINE uint32_t load_u32(const uint8_t *p) {
  uint32_t x;
  __builtin_memcpy(&x, p, 4);
  return x;
}

template <>
MOE_INLINE_SPECIAL void expand_vectors<BlockQ8_0>(const uint8_t *p, Vec *w) {
  const Vec d = broadcast(half_at(p));
  w[0] = from_i8(bytes_at(p + 2)) * d;
  w[1] = from_i8(bytes_at(p + 18)) * d;
}
template <>
MOE_INLINE_SPECIAL void expand_vectors<BlockQ4_0>(const uint8_t *p, Vec *w) {
  const Vec d = broadcast(half_at(p));
  const __m128i q = bytes_at(p + 2), eight = _mm_set1_epi8(8);
  w[0] = from_i8(_mm_sub_epi8(low_nibbles(q), eight)) * d;
  w[1] = from_i8(_mm_sub_epi8(high_nibbles(q), eight)) * d;
}
template <>
MOE_INLINE_SPECIAL void expand_vectors<BlockQ4_1>(const uint8_t *p, Vec *w) {
  const Vec d = broadcast(half_at(p)), m = broadcast(half_at(p + 2));
  const __m128i q = bytes_at(p + 4);
  w[0] = fma(from_u8(low_nibbles(q)), d, m);
  w[1] = fma(from_u8(high_nibbles(q)), d, m);
}
template <>
MOE_INLINE_SPECIAL void expand_vectors<BlockQ5_0>(const uint8_t *p, Vec *w) {
  const Vec d = broadcast(half_at(p));
  const uint32_t high = load_u32(p + 2);
  const __m128i q = bytes_at(p + 6), sixteen = _mm_set1_epi8(16);
  w[0] = from_i8(_mm_sub_epi8(_mm_or_si128(low_nibbles(q), fifth_bits(high)), sixteen)) * d;
  w[1] = from_i8(_mm_sub_epi8(_mm_or_si128(high_nibbles(q), fifth_bits(high >> 16)), sixteen)) * d;
}
template <>
MOE_INLINE_SPECIAL void expand_vectors<BlockQ5_1>(const uint8_t *p, Vec *w) {
  const Vec d = broadcast(half_at(p)), m = broadcast(half_at(p + 2));
  const uint32_t high = load_u32(p + 4);
  const __m128i q = bytes_at(p + 8);
  w[0] = fma(from_u8(_mm_or_si128(low_nibbles(q), fifth_bits(high))), d, m);
  w[1] = fma(from_u8(_mm_or_si128(high_nibbles(q), fifth_bits(high >> 16))), d, m);
}
template <>
MOE_INLINE_SPECIAL void expand_vectors<BlockQ4K>(const uint8_t *p, Vec *w) {
  const float d = half_at(p), dmin = half_at(p + 2);
#pragma GCC unroll 4
  for (int n = 0; n < 4; n++) {
    float s0, m0, s1, m1;
    k_scale(p + 4, 2 * n, &s0, &m0);
    k_scale(p + 4, 2 * n + 1, &s1, &m1);
    const Vec low = broadcast(s0 * d), low_minimum = broadcast(m0 * -dmin), high = broadcast(s1 * d), high_minimum = broadcast(m1 * -dmin);
    const __m128i q0 = bytes_at(p + 16 + n * 32), q1 = bytes_at(p + 32 + n * 32);
    w[4 * n] = fma(low, from_u8(low_nibbles(q0)), low_minimum);
    w[4 * n + 1] = fma(low, from_u8(low_nibbles(q1)), low_minimum);
    w[4 * n + 2] = fma(high, from_u8(high_nibbles(q0)), high_minimum);
    w[4 * n + 3] = fma(high, from_u8(high_nibbles(q1)), high_minimum);
  }
}
template <>
MOE_INLINE_SPECIAL void expand_vectors<BlockQ6K>(const uint8_t *p, Vec *w) {
  const float d = half_at(p + 208);
  const __m128i two = _mm_set1_epi8(3), offset = _mm_set1_epi8(32);
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {  // (half of the block, half of 32 values)
    const int n = i / 2, half = i % 2;
    const int8_t *scales = reinterpret_cast<const int8_t *>(p + 192) + n * 8 + half;
    const __m128i l0 = bytes_at(p + n * 64 + half * 16), l1 = bytes_at(p + n * 64 + 32 + half * 16), h = bytes_at(p + 128 + n * 32 + half * 16);
    const auto value = [&](__m128i low, int shift, int scale) {
      const __m128i high = _mm_slli_epi16(_mm_and_si128(_mm_srli_epi16(h, shift), two), 4);
      return from_i8(_mm_sub_epi8(_mm_or_si128(low, high), offset)) * broadcast(d * static_cast<float>(scales[scale]));
    };
    w[8 * n + half] = value(low_nibbles(l0), 0, 0);
    w[8 * n + 2 + half] = value(low_nibbles(l1), 2, 2);
    w[8 * n + 4 + half] = value(high_nibbles(l0), 4, 4);
    w[8 * n + 6 + half] = value(high_nibbles(l1), 6, 6);
  }
}
#endif

// Calls the template for the block description of a weight type.
#define MOE_QUANTIZED_CASES(call)                    \
  case DType::q4_0: call(BlockQ4_0); break;          \
  case DType::q4_1: call(BlockQ4_1); break;          \
  case DType::q5_0: call(BlockQ5_0); break;          \
  case DType::q5_1: call(BlockQ5_1); break;          \
  case DType::q8_0: call(BlockQ8_0); break;          \
  case DType::q2_k: call(BlockQ2K); break;           \
  case DType::q3_k: call(BlockQ3K); break;           \
  case DType::q4_k: call(BlockQ4K); break;           \
  case DType::q5_k: call(BlockQ5K); break;           \
  case DType::q6_k: call(BlockQ6K); break;
#define MOE_DISPATCH_BLOCK(type, call)               \
  switch (type) {                                    \
    case DType::f32: call(BlockF32); break;          \
    case DType::f16: call(BlockF16); break;          \
    case DType::bf16: call(BlockBf16); break;        \
    MOE_QUANTIZED_CASES(call)                        \
    default: break;                                  \
  }

// Values [first, first + count) of a row; first is a multiple of the block, count may end inside a plain-number row.
template <class Block>
MOE_INLINE void expand_values(const uint8_t *row, int64_t first, int64_t count, float *y) {
  const uint8_t *p = row + first / Block::values * Block::bytes;
  int64_t j = 0;
  for (; j + Block::values <= count; j += Block::values, p += Block::bytes) {
    Vec w[Block::values / kWidth];
    expand_vectors<Block>(p, w);
    for (int64_t i = 0; i < Block::values / kWidth; i++) store(y + j + i * kWidth, w[i]);
  }
  if (j < count) {  // only rows of plain numbers end inside 32 values
    uint8_t tail[Block::bytes];
    float values[Block::values];
    const int64_t left = count - j;
    __builtin_memset(tail, 0, sizeof tail);
    __builtin_memcpy(tail, p, static_cast<size_t>(left * Block::bytes / Block::values));
    Block::expand(tail, values);
    __builtin_memcpy(y + j, values, static_cast<size_t>(left) * 4);
  }
}

}  // namespace
}  // namespace moe::cpu::MOE_KERNEL_LEVEL
