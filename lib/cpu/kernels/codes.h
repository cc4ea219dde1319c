// Stored weights as small codes for integer products: in a group of 16 or 32 neighbours w = scale code - minimum. Codes are
// unsigned and below 128, except those of Q8_0: signed as they are stored, or 128 higher where the level multiplies unsigned by
// signed bytes (VNNI). A Chunk is what one step along a row reads: 512 values of the types with blocks of 32, one block of 256 of
// the K types. With AVX-512 codes go from the stored bytes to registers; the other levels unpack a chunk into the first-level
// cache. Layouts: ggml's ggml-common.h. Only for lib/cpu/kernels/int8.cpp.
#pragma once
#include "cpu/kernels/blocks.h"

namespace moe::cpu::MOE_KERNEL_LEVEL {
namespace {

// How much the codes of Q8_0 stand above its values.
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
constexpr int kQ8Offset = 128;
#else
constexpr int kQ8Offset = 0;
#endif

// What the integer products need to know of a type: values a group, whether its codes may be negative.
template <class Block> struct CodeTraits { static constexpr int group = 32; static constexpr bool negative = false; };
template <> struct CodeTraits<BlockQ8_0> { static constexpr int group = 32; static constexpr bool negative = kQ8Offset == 0; };
template <> struct CodeTraits<BlockQ2K> { static constexpr int group = 16; static constexpr bool negative = false; };
template <> struct CodeTraits<BlockQ3K> { static constexpr int group = 16; static constexpr bool negative = false; };
template <> struct CodeTraits<BlockQ6K> { static constexpr int group = 16; static constexpr bool negative = false; };

#define MOE_DISPATCH_CODES(type, call) \
  switch (type) {                      \
    MOE_QUANTIZED_CASES(call)          \
    default: break;                    \
  }

constexpr int kGroups = 16;  // of a chunk, at most
constexpr int64_t kChunkValues = 512;
template <class Block> constexpr int64_t chunk_values() { return Block::values == 32 ? kChunkValues : Block::values; }

// Scale i of the 16 of a Q3_K block, without its factor d.
MOE_INLINE int q3_k_scale(const uint8_t *packed, int i) {
  const int low = i < 8 ? packed[i] & 15 : packed[i - 8] >> 4;
  return (low | ((packed[8 + i % 4] >> (2 * (i / 4))) & 3) << 4) - 32;
}

#if defined(__AVX512F__)

MOE_INLINE __m512i twice(__m256i x) { return _mm512_broadcast_i64x4(x); }
MOE_INLINE __m256i half_register(const uint8_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
// 16 bytes of two blocks, each in two lanes of 128 bits
MOE_INLINE __m512i nibble_pair(const uint8_t *first, const uint8_t *second) {
  const __m256i a = _mm256_broadcastsi128_si256(bytes_at(first)), b = _mm256_broadcastsi128_si256(bytes_at(second));
  const __m512i shifts = _mm512_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4, 0, 0, 0, 0, 4, 4, 4, 4);
  return _mm512_and_si512(_mm512_srlv_epi32(_mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1), shifts), _mm512_set1_epi8(15));
}
// bits [low, low + n) of the lower and [high, high + n) of the upper half
MOE_INLINE __m512i bit_fields(__m512i x, int low, int high, int mask) {
  const __m512i shifts = _mm512_setr_epi32(low, low, low, low, low, low, low, low, high, high, high, high, high, high, high, high);
  return _mm512_and_si512(_mm512_srlv_epi32(x, shifts), _mm512_set1_epi8(static_cast<char>(mask)));
}
MOE_INLINE __m512i fifth_pair(__m512i q, const uint8_t *first, const uint8_t *second) {
  const uint64_t bits = load_u32(first) | static_cast<uint64_t>(load_u32(second)) << 32;
  return _mm512_mask_add_epi8(q, bits, q, _mm512_set1_epi8(16));
}

// 64 codes of two neighbouring blocks of 32 values
template <class Block> MOE_INLINE __m512i pair_codes(const uint8_t *a, const uint8_t *b);
template <> MOE_INLINE_SPECIAL __m512i pair_codes<BlockQ4_0>(const uint8_t *a, const uint8_t *b) { return nibble_pair(a + 2, b + 2); }
template <> MOE_INLINE_SPECIAL __m512i pair_codes<BlockQ4_1>(const uint8_t *a, const uint8_t *b) { return nibble_pair(a + 4, b + 4); }
template <> MOE_INLINE_SPECIAL __m512i pair_codes<BlockQ5_0>(const uint8_t *a, const uint8_t *b) {
  return fifth_pair(nibble_pair(a + 6, b + 6), a + 2, b + 2);
}
template <> MOE_INLINE_SPECIAL __m512i pair_codes<BlockQ5_1>(const uint8_t *a, const uint8_t *b) {
  return fifth_pair(nibble_pair(a + 8, b + 8), a + 4, b + 4);
}
template <> MOE_INLINE_SPECIAL __m512i pair_codes<BlockQ8_0>(const uint8_t *a, const uint8_t *b) {
  const __m512i q = _mm512_inserti64x4(_mm512_castsi256_si512(half_register(a + 2)), half_register(b + 2), 1);
  return _mm512_xor_si512(q, _mm512_set1_epi8(static_cast<char>(kQ8Offset)));
}

// Values [64 j, 64 j + 64) of a block of 256.
template <class Block> MOE_INLINE __m512i block_codes(const uint8_t *p, int j);
template <> MOE_INLINE_SPECIAL __m512i block_codes<BlockQ2K>(const uint8_t *p, int j) {
  const int shift = j % 2 * 4;
  return bit_fields(twice(half_register(p + 16 + j / 2 * 32)), shift, shift + 2, 3);
}
template <> MOE_INLINE_SPECIAL __m512i block_codes<BlockQ3K>(const uint8_t *p, int j) {
  const int shift = j % 2 * 4;
  const __m512i low = bit_fields(twice(half_register(p + 32 + j / 2 * 32)), shift, shift + 2, 3);
  const __m512i high = bit_fields(twice(half_register(p)), 2 * j, 2 * j + 1, 1);
  return _mm512_or_si512(low, _mm512_slli_epi16(high, 2));
}
template <> MOE_INLINE_SPECIAL __m512i block_codes<BlockQ4K>(const uint8_t *p, int j) {
  return bit_fields(twice(half_register(p + 16 + 32 * j)), 0, 4, 15);
}
template <> MOE_INLINE_SPECIAL __m512i block_codes<BlockQ5K>(const uint8_t *p, int j) {
  const __m512i low = bit_fields(twice(half_register(p + 48 + 32 * j)), 0, 4, 15);
  const __m512i high = bit_fields(twice(half_register(p + 16)), 2 * j, 2 * j + 1, 1);
  return _mm512_or_si512(low, _mm512_slli_epi16(high, 4));
}
template <> MOE_INLINE_SPECIAL __m512i block_codes<BlockQ6K>(const uint8_t *p, int j) {
  const int shift = j % 2 * 4;
  const __m512i low = bit_fields(_mm512_loadu_si512(p + j / 2 * 64), shift, shift, 15);
  const __m512i high = bit_fields(twice(half_register(p + 128 + j / 2 * 32)), shift, shift + 2, 3);
  return _mm512_or_si512(low, _mm512_slli_epi16(high, 4));
}

MOE_INLINE Vec halves_to_vec(__m512i low_words) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(low_words)); }

// Scales and minima of the blocks of 32: the f16 at the start of each block, and for Q4_1 and Q5_1 the one behind it.
template <class Block>
MOE_INLINE void pair_scales(const uint8_t *p, int64_t groups, Vec *scale, Vec *minimum) {
  const __m512i index = _mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), _mm512_set1_epi32(Block::bytes));
  const __m512i words = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), part_mask(groups), index, p, 1);
  *scale = halves_to_vec(words);
  if constexpr (Block::bytes == BlockQ4_1::bytes || Block::bytes == BlockQ5_1::bytes) *minimum = -halves_to_vec(_mm512_srli_epi32(words, 16));
  else *minimum = *scale * broadcast(Block::bytes == BlockQ8_0::bytes ? kQ8Offset : Block::bytes == BlockQ5_0::bytes ? 16.0f : 8.0f);
}
MOE_INLINE Vec bytes_to_vec(uint64_t low, uint64_t high) { return from_u8(_mm_set_epi64x(static_cast<int64_t>(high), static_cast<int64_t>(low))); }

// Scales and minima of a block of 256.
template <class Block>
MOE_INLINE void block_scales(const uint8_t *p, Vec *scale, Vec *minimum) {
  if constexpr (Block::bytes == BlockQ2K::bytes) {
    const __m128i packed = bytes_at(p);
    *scale = from_u8(low_nibbles(packed)) * broadcast(half_at(p + 80));
    *minimum = from_u8(high_nibbles(packed)) * broadcast(half_at(p + 82));
  } else if constexpr (Block::bytes == BlockQ3K::bytes) {
    int8_t scales[16];
    for (int i = 0; i < 16; i++) scales[i] = static_cast<int8_t>(q3_k_scale(p + 96, i));
    *scale = from_i8(bytes_at(reinterpret_cast<const uint8_t *>(scales))) * broadcast(half_at(p + 108));
    *minimum = *scale * broadcast(4.0f);
  } else if constexpr (Block::bytes == BlockQ6K::bytes) {
    *scale = from_i8(bytes_at(p + 192)) * broadcast(half_at(p + 208));
    *minimum = *scale * broadcast(32.0f);
  } else {  // Q4_K, Q5_K: 8 scales and 8 minima of 6 bits in 12 bytes, as k_scale reads them
    const uint32_t s = load_u32(p + 4), m = load_u32(p + 8), rest = load_u32(p + 12);
    const uint32_t s_high = (rest & 0x0f0f0f0fu) | ((s >> 2) & 0x30303030u), m_high = ((rest >> 4) & 0x0f0f0f0fu) | ((m >> 2) & 0x30303030u);
    *scale = bytes_to_vec((s & 0x3f3f3f3fu) | static_cast<uint64_t>(s_high) << 32, 0) * broadcast(half_at(p));
    *minimum = bytes_to_vec((m & 0x3f3f3f3fu) | static_cast<uint64_t>(m_high) << 32, 0) * broadcast(half_at(p + 2));
  }
}

template <class Block>
struct Chunk {
  const uint8_t *p;
  Vec scale, minimum;  // of its groups; 0 behind the last

  MOE_INLINE_MEMBER void read(const uint8_t *stored, int64_t groups) {
    p = stored;
    if constexpr (Block::values == 32) pair_scales<Block>(p, groups, &scale, &minimum);
    else block_scales<Block>(p, &scale, &minimum);
  }
  // Codes [64 j, 64 j + 64); `half`: only the first 32 exist, the others are any codes.
  MOE_INLINE_MEMBER IntVec codes(int j, bool half) const {
    if constexpr (Block::values == 32) {
      const uint8_t *first = p + 2 * j * Block::bytes;
      return reinterpret_cast<IntVec>(pair_codes<Block>(first, half ? first : first + Block::bytes));
    } else {
      return reinterpret_cast<IntVec>(block_codes<Block>(p, j));
    }
  }
  // negative minima: what is added, without a change of sign for each group of each tile
  MOE_INLINE_MEMBER void store_scales(float *scales, float *offsets) const {
    store(scales, scale);
    store(offsets, -minimum);
  }
};

#else

typedef uint8_t Bytes16 __attribute__((vector_size(16)));
typedef uint8_t Bytes32 __attribute__((vector_size(32)));
template <class Bytes>
MOE_INLINE void load_into(Bytes *v, const uint8_t *p) { __builtin_memcpy(v, p, sizeof *v); }
template <class Bytes>
MOE_INLINE void store_from(uint8_t *p, const Bytes &v) { __builtin_memcpy(p, &v, sizeof v); }

// Bits [0, 16) of `bits`, each as 16 in a byte.
MOE_INLINE Bytes16 fifth_bits(uint32_t bits) {
  typedef uint64_t Pair __attribute__((vector_size(16)));
  const Pair spread = {(bits & 255) * 0x0101010101010101u, (bits >> 8 & 255) * 0x0101010101010101u};
  const Bytes16 each = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  return reinterpret_cast<Bytes16>((reinterpret_cast<Bytes16>(spread) & each) != 0) & 16;
}

// One block of 32: codes, scale and minimum.
template <class Block>
MOE_INLINE void unpack_small(const uint8_t *p, uint8_t *code, float *scale, float *minimum) {
  constexpr int bytes = Block::bytes;
  const float d = half_at(p);
  *scale = d;
  if constexpr (bytes == BlockQ8_0::bytes) {
    Bytes32 q;
    load_into(&q, p + 2);
    store_from(code, q ^ kQ8Offset);
    *minimum = kQ8Offset * d;
  } else {
    constexpr bool five = bytes == BlockQ5_0::bytes || bytes == BlockQ5_1::bytes, two = bytes == BlockQ4_1::bytes || bytes == BlockQ5_1::bytes;
    *minimum = two ? -half_at(p + 2) : d * (five ? 16.0f : 8.0f);
    Bytes16 q, low_bits = {}, high_bits = {};
    load_into(&q, p + bytes - 16);
    if constexpr (five) {
      uint32_t high;
      __builtin_memcpy(&high, p + bytes - 20, 4);
      low_bits = fifth_bits(high);
      high_bits = fifth_bits(high >> 16);
    }
    store_from(code, (q & 15) | low_bits);
    store_from(code + 16, (q >> 4) | high_bits);
  }
}

// 32 codes at `part` of the 8 of a block of 256; offsets and shifts as in block_q2_k to block_q6_k.
template <class Block>
MOE_INLINE void part_codes(const uint8_t *p, int part, uint8_t *code) {
  constexpr int bytes = Block::bytes;
  Bytes32 low, high = {};
  if constexpr (bytes == BlockQ2K::bytes) {
    load_into(&low, p + 16 + part / 4 * 32);
    low = (low >> static_cast<uint8_t>(part % 4 * 2)) & 3;
  } else if constexpr (bytes == BlockQ3K::bytes) {
    load_into(&low, p + 32 + part / 4 * 32);
    load_into(&high, p);
    low = ((low >> static_cast<uint8_t>(part % 4 * 2)) & 3) | (((high >> static_cast<uint8_t>(part)) & 1) << 2);
  } else if constexpr (bytes == BlockQ6K::bytes) {
    load_into(&low, p + part / 4 * 64 + part % 2 * 32);
    load_into(&high, p + 128 + part / 4 * 32);
    low = ((low >> static_cast<uint8_t>(part % 4 / 2 * 4)) & 15) | (((high >> static_cast<uint8_t>(part % 4 * 2)) & 3) << 4);
  } else {
    load_into(&low, p + (bytes == BlockQ5K::bytes ? 48 : 16) + part / 2 * 32);
    low = (low >> static_cast<uint8_t>(part % 2 * 4)) & 15;
    if constexpr (bytes == BlockQ5K::bytes) {
      load_into(&high, p + 16);
      low |= ((high >> static_cast<uint8_t>(part)) & 1) << 4;
    }
  }
  store_from(code, low);
}
template <class Block>
MOE_INLINE void unpack_large(const uint8_t *p, uint8_t *code, float *scale, float *minimum) {
  constexpr int bytes = Block::bytes;
#pragma GCC unroll 8
  for (int part = 0; part < 8; part++) part_codes<Block>(p, part, code + 32 * part);
  const float d = half_at(p + (bytes == BlockQ2K::bytes ? 80 : bytes == BlockQ3K::bytes ? 108 : bytes == BlockQ6K::bytes ? 208 : 0));
  if constexpr (bytes == BlockQ4K::bytes || bytes == BlockQ5K::bytes) {
    const float dmin = half_at(p + 2);
    for (int i = 0; i < 8; i++) {
      k_scale(p + 4, i, &scale[i], &minimum[i]);
      scale[i] *= d;
      minimum[i] *= dmin;
    }
    return;
  }
  const float dmin = bytes == BlockQ2K::bytes ? half_at(p + 82) : 0;
  for (int i = 0; i < 16; i++) {
    if constexpr (bytes == BlockQ2K::bytes) {
      scale[i] = d * static_cast<float>(p[i] & 15);
      minimum[i] = dmin * static_cast<float>(p[i] >> 4);
    } else {
      scale[i] = d * static_cast<float>(bytes == BlockQ3K::bytes ? q3_k_scale(p + 96, i) : static_cast<int8_t>(p[192 + i]));
      minimum[i] = scale[i] * (bytes == BlockQ3K::bytes ? 4 : 32);
    }
  }
}

template <class Block>
struct Chunk {
  uint8_t code[kChunkValues];
  float scale[kGroups], minimum[kGroups];

  MOE_INLINE_MEMBER void read(const uint8_t *stored, int64_t groups) {
    constexpr int64_t in_block = Block::values / CodeTraits<Block>::group;
    for (int64_t g = 0; g < groups; g += in_block, stored += Block::bytes) {
      if constexpr (Block::values == 32) unpack_small<Block>(stored, code + g * 32, scale + g, minimum + g);
      else unpack_large<Block>(stored, code, scale, minimum);
    }
    for (int64_t g = groups; g < kGroups; g++) scale[g] = minimum[g] = 0;
  }
  MOE_INLINE_MEMBER IntVec codes(int j, bool) const {
    IntVec v;
    __builtin_memcpy(&v, code + j * 4 * kWidth, sizeof v);
    return v;
  }
  MOE_INLINE_MEMBER void store_scales(float *scales, float *offsets) const {
    __builtin_memcpy(scales, scale, sizeof scale);
    for (int g = 0; g < kGroups; g++) offsets[g] = -minimum[g];
  }
};

#endif

}  // namespace
}  // namespace moe::cpu::MOE_KERNEL_LEVEL
