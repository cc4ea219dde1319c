// One vector register of floats, Vec, of the level this file is compiled for: 16 lanes with AVX-512, 8 with AVX2,
// otherwise 4 (SSE2, NEON). MOE_NEON says what a level of 64-bit Arm has: 1 the base, 2 the dot product of bytes as well,
// 3 the matrix products of int8 and bf16 as well; 0 leaves the processor's vectors to the compiler (scalar).
// Only for lib/cpu/kernels/*.cpp: everything is inlined and internal to the file, so that no code of one level can be
// linked into another. Pointers need no alignment. Tails go through load_part and store_part with the same arithmetic as
// full registers, so a value does not depend on where in a row it stands.
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#if defined(__SSE2__)
// GCC's own header makes "undefined" registers from uninitialized variables and warns about them where inlined.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#pragma GCC diagnostic pop
#elif defined(MOE_NEON)
#include <arm_neon.h>
#else
#define MOE_NEON 0
#endif

#define MOE_INLINE static inline __attribute__((always_inline))

namespace moe::cpu::MOE_KERNEL_LEVEL {

#if defined(__AVX512F__)
constexpr int64_t kWidth = 16;
#elif defined(__AVX2__)
constexpr int64_t kWidth = 8;
#else
constexpr int64_t kWidth = 4;
#endif
#if defined(__AVX512F__) || MOE_NEON
constexpr int kRegisters = 32;
#else
constexpr int kRegisters = 16;
#endif

typedef float Vec __attribute__((vector_size(kWidth * 4)));
typedef int32_t IntVec __attribute__((vector_size(kWidth * 4)));
typedef uint32_t BitVec __attribute__((vector_size(kWidth * 4)));
typedef uint16_t HalfVec __attribute__((vector_size(kWidth * 2)));
typedef Vec UnalignedVec __attribute__((aligned(1), may_alias));
typedef HalfVec UnalignedHalfVec __attribute__((aligned(1), may_alias));

MOE_INLINE Vec load(const float *p) { return *reinterpret_cast<const UnalignedVec *>(p); }
MOE_INLINE void store(float *p, Vec v) { *reinterpret_cast<UnalignedVec *>(p) = v; }
MOE_INLINE Vec broadcast(float x) { return x - Vec{}; }
MOE_INLINE Vec zero() { return Vec{}; }
MOE_INLINE Vec from_bits(BitVec v) { return reinterpret_cast<Vec>(v); }
MOE_INLINE BitVec to_bits(Vec v) { return reinterpret_cast<BitVec>(v); }

#if defined(__AVX512F__)
MOE_INLINE __mmask16 part_mask(int64_t n) { return static_cast<__mmask16>((1u << n) - 1); }
#elif defined(__AVX2__)
MOE_INLINE __m256i part_mask(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
#endif

// The first n lanes (0 <= n <= kWidth) of p; the other lanes are zero and not read.
MOE_INLINE Vec load_part(const float *p, int64_t n) {
#if defined(__AVX512F__)
  return _mm512_maskz_loadu_ps(part_mask(n), p);
#elif defined(__AVX2__)
  return _mm256_maskload_ps(p, part_mask(n));
#else
  if (n >= 4) return load(p);
  Vec v = {};
  if (n > 0) v[0] = p[0];
  if (n > 1) v[1] = p[1];
  if (n > 2) v[2] = p[2];
  return v;
#endif
}
MOE_INLINE void store_part(float *p, Vec v, int64_t n) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, part_mask(n), v);
#elif defined(__AVX2__)
  _mm256_maskstore_ps(p, part_mask(n), v);
#else
  if (n >= 4) return store(p, v);
  if (n > 0) p[0] = v[0];
  if (n > 1) p[1] = v[1];
  if (n > 2) p[2] = v[2];
#endif
}

// The first n lanes of v, the other lanes of rest.
MOE_INLINE Vec choose_part(Vec v, int64_t n, Vec rest) {
#if defined(__AVX512F__)
  return _mm512_mask_mov_ps(rest, part_mask(n), v);
#elif defined(__AVX2__)
  return _mm256_blendv_ps(rest, v, _mm256_castsi256_ps(part_mask(n)));
#else
  return IntVec{0, 1, 2, 3} < static_cast<int32_t>(n) ? v : rest;
#endif
}

// a b + c, in one rounding where the level has it
MOE_INLINE Vec fma(Vec a, Vec b, Vec c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__)
  return _mm256_fmadd_ps(a, b, c);
#elif MOE_NEON
  return vfmaq_f32(c, a, b);
#else
  return a * b + c;
#endif
}
// a < b ? a : b and a > b ? a : b; where a or b is NaN the result is b
MOE_INLINE Vec min(Vec a, Vec b) {
#if defined(__AVX512F__)
  return _mm512_min_ps(a, b);
#elif defined(__AVX2__)
  return _mm256_min_ps(a, b);
#elif defined(__SSE2__)
  return _mm_min_ps(a, b);
#else
  return a < b ? a : b;
#endif
}
MOE_INLINE Vec max(Vec a, Vec b) {
#if defined(__AVX512F__)
  return _mm512_max_ps(a, b);
#elif defined(__AVX2__)
  return _mm256_max_ps(a, b);
#elif defined(__SSE2__)
  return _mm_max_ps(a, b);
#else
  return a > b ? a : b;
#endif
}
// `mask` is the result of a comparison of vectors
MOE_INLINE Vec select(IntVec mask, Vec a, Vec b) { return mask ? a : b; }
MOE_INLINE Vec square_root(Vec x) {
#if defined(__AVX512F__)
  return _mm512_sqrt_ps(x);
#elif defined(__AVX2__)
  return _mm256_sqrt_ps(x);
#elif defined(__SSE2__)
  return _mm_sqrt_ps(x);
#elif MOE_NEON
  return vsqrtq_f32(x);
#else
  for (int64_t i = 0; i < kWidth; i++) x[i] = __builtin_sqrtf(x[i]);
  return x;
#endif
}

// Asks for the cache lines that stand 4 KiB behind `bytes` bytes from p on. Rows that are read once come twice as fast from memory as
// with the processor's own prefetching.
MOE_INLINE void fetch_ahead(const uint8_t *p, int64_t bytes) {
  for (int64_t line = 0; line < bytes; line += 64) __builtin_prefetch(p + 4096 + line);
}

// Reductions fold the upper half of the lanes onto the lower half until one is left.
#if defined(__AVX2__)
MOE_INLINE float reduce_add(__m256 v) {
  __m128 x = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
MOE_INLINE float reduce_max(__m256 v) {
  __m128 x = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  x = _mm_max_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}
#if defined(__AVX512F__)
MOE_INLINE float reduce_add(Vec v) { return reduce_add(_mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1))); }
MOE_INLINE float reduce_max(Vec v) { return reduce_max(_mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1))); }
#endif
#elif MOE_NEON
MOE_INLINE float reduce_add(Vec v) { return vpadds_f32(vadd_f32(vget_low_f32(v), vget_high_f32(v))); }
MOE_INLINE float reduce_max(Vec v) {
  const float32x2_t two = vmax_f32(vget_low_f32(v), vget_high_f32(v));
  return vpmaxs_f32(two);
}
#else
MOE_INLINE float reduce_add(Vec v) { return (v[0] + v[2]) + (v[1] + v[3]); }
MOE_INLINE float reduce_max(Vec v) {
  const float a = v[0] > v[2] ? v[0] : v[2], b = v[1] > v[3] ? v[1] : v[3];
  return a > b ? a : b;
}
#endif

// kWidth bf16 numbers to f32 and back (round to nearest even, NaN stays NaN)
MOE_INLINE Vec widen(HalfVec v) {
#if defined(__AVX512F__)
  return from_bits(reinterpret_cast<BitVec>(_mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(v))) << 16);
#elif defined(__AVX2__)
  return from_bits(reinterpret_cast<BitVec>(_mm256_cvtepu16_epi32(reinterpret_cast<__m128i>(v))) << 16);
#elif MOE_NEON
  return vreinterpretq_f32_u32(vshll_n_u16(v, 16));
#else
  return from_bits(__builtin_convertvector(v, BitVec) << 16);
#endif
}
MOE_INLINE HalfVec narrow(Vec x) {
#if MOE_NEON >= 3
  return reinterpret_cast<HalfVec>(vcvt_bf16_f32(x));
#else
  const BitVec bits = to_bits(x);
  const BitVec rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
#if defined(__AVX512F__)
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  const __m512i kept = _mm512_or_si512(_mm512_srli_epi32(reinterpret_cast<__m512i>(bits), 16), _mm512_set1_epi32(0x40));
  return reinterpret_cast<HalfVec>(_mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(reinterpret_cast<__m512i>(rounded), nan, kept)));
#else
  const BitVec nan = reinterpret_cast<BitVec>(x != x);
  const BitVec result = (nan & ((bits >> 16) | 0x40)) | (~nan & rounded);
#if defined(__AVX2__)
  const __m256i r = reinterpret_cast<__m256i>(result);
  return reinterpret_cast<HalfVec>(_mm_packus_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1)));
#else
  return __builtin_convertvector(result, HalfVec);
#endif
#endif
#endif
}
MOE_INLINE Vec load_bf16(const uint16_t *p) { return widen(*reinterpret_cast<const UnalignedHalfVec *>(p)); }
MOE_INLINE void store_bf16(uint16_t *p, Vec x) { *reinterpret_cast<UnalignedHalfVec *>(p) = narrow(x); }
MOE_INLINE Vec load_bf16_part(const uint16_t *p, int64_t n) {
#if defined(__AVX512BW__) && defined(__AVX512VL__)
  return widen(reinterpret_cast<HalfVec>(_mm256_maskz_loadu_epi16(part_mask(n), p)));
#else
  HalfVec v = {};
  __builtin_memcpy(&v, p, static_cast<size_t>(n) * 2);
  return widen(v);
#endif
}
MOE_INLINE void store_bf16_part(uint16_t *p, Vec x, int64_t n) {
  const HalfVec v = narrow(x);
#if defined(__AVX512BW__) && defined(__AVX512VL__)
  _mm256_mask_storeu_epi16(p, part_mask(n), reinterpret_cast<__m256i>(v));
#else
  __builtin_memcpy(p, &v, static_cast<size_t>(n) * 2);
#endif
}

// out[j][i] = in[i][j] for 4 x 4 values
MOE_INLINE void transpose_4x4(const float *in, int64_t ldi, float *out, int64_t ldo) {
  typedef float Four __attribute__((vector_size(16)));
  typedef Four UnalignedFour __attribute__((aligned(1), may_alias));
  Four r[4];
  for (int64_t i = 0; i < 4; i++) r[i] = *reinterpret_cast<const UnalignedFour *>(in + i * ldi);
  const Four a = __builtin_shufflevector(r[0], r[1], 0, 4, 1, 5), b = __builtin_shufflevector(r[0], r[1], 2, 6, 3, 7);
  const Four c = __builtin_shufflevector(r[2], r[3], 0, 4, 1, 5), d = __builtin_shufflevector(r[2], r[3], 2, 6, 3, 7);
  *reinterpret_cast<UnalignedFour *>(out) = __builtin_shufflevector(a, c, 0, 1, 4, 5);
  *reinterpret_cast<UnalignedFour *>(out + ldo) = __builtin_shufflevector(a, c, 2, 3, 6, 7);
  *reinterpret_cast<UnalignedFour *>(out + 2 * ldo) = __builtin_shufflevector(b, d, 0, 1, 4, 5);
  *reinterpret_cast<UnalignedFour *>(out + 3 * ldo) = __builtin_shufflevector(b, d, 2, 3, 6, 7);
}

// exp(x) within 1.5 units in the last place; 0 at -inf and far below, inf above 88.73, NaN at NaN, subnormal results kept.
// x = n ln 2 + r with |r| <= ln 2 / 2 (ln 2 in two parts, the first exact in products with n); exp(r) by its minimax
// polynomial of degree 6; 2^n in two factors, so that neither leaves the range of exponents.
MOE_INLINE Vec exp(Vec x) {
  x = max(broadcast(-105.0f), x);
  x = min(broadcast(89.0f), x);
  const Vec shifter = broadcast(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer in the low mantissa bits
  const Vec shifted = fma(x, broadcast(1.44269502f), shifter);
  const Vec n = shifted - shifter;
  Vec r = fma(n, broadcast(-0.693145751953125f), x);
  r = fma(n, broadcast(-1.42860677e-6f), r);
  Vec p = broadcast(1.39261759e-3f);
  p = fma(p, r, broadcast(8.36317334e-3f));
  p = fma(p, r, broadcast(4.16665561e-2f));
  p = fma(p, r, broadcast(1.66665778e-1f));
  p = fma(p, r, broadcast(0.5f));
  p = fma(p, r, broadcast(1.0f));
  p = fma(p, r, broadcast(1.0f));
#if defined(__AVX512F__)
  return _mm512_scalef_ps(p, n);
#else
  const BitVec whole = to_bits(shifted) - to_bits(shifter);
  const BitVec half = reinterpret_cast<BitVec>(reinterpret_cast<IntVec>(whole) >> 1);
  return p * from_bits((half + 127) << 23) * from_bits((whole - half + 127) << 23);
#endif
}
// 1 / (1 + exp(-x))
MOE_INLINE Vec sigmoid(Vec x) { return broadcast(1.0f) / (broadcast(1.0f) + exp(-x)); }

}  // namespace moe::cpu::MOE_KERNEL_LEVEL
