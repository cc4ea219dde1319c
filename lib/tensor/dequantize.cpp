// Block layouts after ggml-common.h (struct block_*), little endian, fields in the order given; d and m are f16.
//   Q4_0  32 values: d, nibbles[16]                        x = d (q - 8)      value j: low nibble j, value j + 16: high nibble j
//   Q4_1  32 values: d, m, nibbles[16]                     x = d q + m
//   Q5_0  32 values: d, high bits u32, nibbles[16]         x = d (q - 16)     bit j of the u32 is bit 4 of value j
//   Q5_1  32 values: d, m, high bits u32, nibbles[16]      x = d q + m
//   Q8_0  32 values: d, int8[32]                           x = d q
// K types, 256 values, s and m are small integers per group of 16 or 32:
//   Q2_K  s,m nibbles[16], 2-bit[64], d, dm                x = d s q - dm m
//   Q3_K  high bits[32], 2-bit[64], 6-bit s[12], d         x = d (s - 32) (q - 4)
//   Q4_K  d, dm, 6-bit s,m[12], nibbles[128]               x = d s q - dm m
//   Q5_K  d, dm, 6-bit s,m[12], high bits[32], nibbles[128]
//   Q6_K  low nibbles[128], 2 high bits[64], int8 s[16], d x = d s (q - 32)
// The products are formed in this order in f32, as ggml does, so the values are equal to the last bit.
#include "tensor/dequantize.h"

#include <cstring>

#include "base/error.h"

namespace moe {

float f16_to_float(uint16_t x) {
  const uint32_t sign = static_cast<uint32_t>(x & 0x8000) << 16;
  const uint32_t exponent = (x >> 10) & 31;
  const uint32_t fraction = x & 0x3ff;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | fraction << 13);
  if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
  const float magnitude = static_cast<float>(fraction) * 0x1p-24f;  // subnormal or zero: exact
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
}

uint16_t float_to_f16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00 | ((magnitude >> 13) & 0x3ff));
  if (magnitude >= 0x47800000u) return static_cast<uint16_t>(sign | 0x7c00);  // 65536 and above
  if (magnitude < 0x33000000u) return sign;                                   // below half the smallest subnormal
  const uint32_t exponent = magnitude >> 23;
  uint32_t fraction = (magnitude & 0x7fffffu) | 0x800000u;
  uint32_t shift = 13, base = 0;
  if (exponent < 113) {
    shift = 126 - exponent;  // subnormal result in units of 2^-24
  } else {
    base = (exponent - 112) << 10;
    fraction &= 0x7fffffu;
  }
  const uint32_t half = 1u << (shift - 1), rest = fraction & ((1u << shift) - 1);
  uint32_t result = base + (fraction >> shift);
  if (rest > half || (rest == half && (result & 1))) ++result;  // may carry into the exponent, up to infinity
  return static_cast<uint16_t>(sign | result);
}

namespace {

using Bytes = const uint8_t *;

template <class T>
T load(Bytes source) {
  T value;
  std::memcpy(&value, source, sizeof value);
  return value;
}
float half_at(Bytes source) { return f16_to_float(load<uint16_t>(source)); }

void block_q4_0(Bytes block, float *out) {
  const float d = half_at(block);
  for (int j = 0; j < 16; ++j) {
    out[j] = static_cast<float>((block[2 + j] & 15) - 8) * d;
    out[j + 16] = static_cast<float>((block[2 + j] >> 4) - 8) * d;
  }
}

void block_q4_1(Bytes block, float *out) {
  const float d = half_at(block), m = half_at(block + 2);
  for (int j = 0; j < 16; ++j) {
    out[j] = static_cast<float>(block[4 + j] & 15) * d + m;
    out[j + 16] = static_cast<float>(block[4 + j] >> 4) * d + m;
  }
}

// The j-th and (j+16)-th 5-bit values of a block.
struct FiveBits {
  int low, high;
};
FiveBits five_bits(uint32_t high_bits, uint8_t nibbles, int j) {
  return {static_cast<int>((nibbles & 15) | ((high_bits >> j) & 1) << 4),
          static_cast<int>((nibbles >> 4) | ((high_bits >> (j + 16)) & 1) << 4)};
}

void block_q5_0(Bytes block, float *out) {
  const float d = half_at(block);
  const auto high_bits = load<uint32_t>(block + 2);
  for (int j = 0; j < 16; ++j) {
    const FiveBits q = five_bits(high_bits, block[6 + j], j);
    out[j] = static_cast<float>(q.low - 16) * d;
    out[j + 16] = static_cast<float>(q.high - 16) * d;
  }
}

void block_q5_1(Bytes block, float *out) {
  const float d = half_at(block), m = half_at(block + 2);
  const auto high_bits = load<uint32_t>(block + 4);
  for (int j = 0; j < 16; ++j) {
    const FiveBits q = five_bits(high_bits, block[8 + j], j);
    out[j] = static_cast<float>(q.low) * d + m;
    out[j + 16] = static_cast<float>(q.high) * d + m;
  }
}

void block_q8_0(Bytes block, float *out) {
  const float d = half_at(block);
  for (int j = 0; j < 32; ++j) out[j] = static_cast<float>(static_cast<int8_t>(block[2 + j])) * d;
}

// Two halves of 128 values; in each, the 2-bit fields of 32 bytes give four groups of 32 values.
void block_q2_k(Bytes block, float *out) {
  const Bytes scales = block, quants = block + 16;
  const float d = half_at(block + 80), dm = half_at(block + 82);
  for (int group = 0; group < 16; ++group) {
    const int half = group / 8, shift = 2 * (group % 8 / 2), first = 32 * half + 16 * (group % 2);
    const float s = d * static_cast<float>(scales[group] & 15), m = dm * static_cast<float>(scales[group] >> 4);
    for (int j = 0; j < 16; ++j) *out++ = s * static_cast<float>((quants[first + j] >> shift) & 3) - m;
  }
}

// 16 scales of 6 bits in 12 bytes: low nibbles in bytes 0-7, two high bits in bytes 8-11.
int scale_q3_k(Bytes packed, int group) {
  const int low = group < 8 ? packed[group] & 15 : packed[group - 8] >> 4;
  const int high = (packed[8 + group % 4] >> (2 * (group / 4))) & 3;
  return (low | high << 4) - 32;
}

void block_q3_k(Bytes block, float *out) {
  const Bytes high_bits = block, quants = block + 32, scales = block + 96;
  const float d = half_at(block + 108);
  for (int group = 0; group < 16; ++group) {
    const int half = group / 8, field = group % 8 / 2, lane = 16 * (group % 2);
    const float s = d * static_cast<float>(scale_q3_k(scales, group));
    for (int j = 0; j < 16; ++j) {
      const int low = (quants[32 * half + lane + j] >> (2 * field)) & 3;
      const int high = (high_bits[lane + j] >> (4 * half + field)) & 1;
      *out++ = s * static_cast<float>((low | high << 2) - 4);
    }
  }
}

// 8 scales and 8 minimums of 6 bits in 12 bytes: the first four of each in the low 6 bits of bytes 0-3 and 4-7; of the
// others the low nibbles are in bytes 8-11 and the two high bits on top of bytes 0-7.
struct ScaleMinimum {
  float scale, minimum;
};
ScaleMinimum scale_minimum(Bytes packed, int group) {
  if (group < 4) return {static_cast<float>(packed[group] & 63), static_cast<float>(packed[group + 4] & 63)};
  return {static_cast<float>((packed[group + 4] & 15) | (packed[group - 4] >> 6) << 4),
          static_cast<float>((packed[group + 4] >> 4) | (packed[group] >> 6) << 4)};
}

void block_q4_k(Bytes block, float *out) {
  const Bytes scales = block + 4, quants = block + 16;
  const float d = half_at(block), dm = half_at(block + 2);
  for (int group = 0; group < 8; ++group) {
    const ScaleMinimum packed = scale_minimum(scales, group);
    const float s = d * packed.scale, m = dm * packed.minimum;
    const int shift = 4 * (group % 2);
    for (int j = 0; j < 32; ++j) *out++ = s * static_cast<float>((quants[32 * (group / 2) + j] >> shift) & 15) - m;
  }
}

void block_q5_k(Bytes block, float *out) {
  const Bytes scales = block + 4, high_bits = block + 16, quants = block + 48;
  const float d = half_at(block), dm = half_at(block + 2);
  for (int group = 0; group < 8; ++group) {
    const ScaleMinimum packed = scale_minimum(scales, group);
    const float s = d * packed.scale, m = dm * packed.minimum;
    const int shift = 4 * (group % 2);
    for (int j = 0; j < 32; ++j) {
      const int low = (quants[32 * (group / 2) + j] >> shift) & 15, high = (high_bits[j] >> group) & 1;
      *out++ = s * static_cast<float>(low | high << 4) - m;
    }
  }
}

// In each half of 128 values, quarter r (32 values) takes nibble r / 2 of low[32 (r % 2) + j] and bits 2r of high[j].
void block_q6_k(Bytes block, float *out) {
  const Bytes low_bits = block, high_bits = block + 128, scales = block + 192;
  const float d = half_at(block + 208);
  for (int quarter = 0; quarter < 8; ++quarter) {
    const int half = quarter / 4, r = quarter % 4;
    for (int j = 0; j < 32; ++j) {
      const int low = (low_bits[64 * half + 32 * (r % 2) + j] >> (4 * (r / 2))) & 15;
      const int high = (high_bits[32 * half + j] >> (2 * r)) & 3;
      const float s = d * static_cast<float>(static_cast<int8_t>(scales[2 * quarter + j / 16]));
      *out++ = s * static_cast<float>((low | high << 4) - 32);
    }
  }
}

template <void (*block)(Bytes, float *)>
void blocks(DType type, Bytes source, int64_t count, float *destination) {
  const DTypeInfo &info = dtype_info(type);
  for (int64_t i = 0; i < count; i += info.block_values, source += info.block_bytes) block(source, destination + i);
}

}  // namespace

void dequantize(DType type, const void *source, int64_t count, float *destination) {
  const DTypeInfo &info = dtype_info(type);
  if (count < 0 || count % info.block_values != 0) {
    fail(Code::invalid, "dequantize: ", count, " values are not a multiple of the ", info.name, " block of ", info.block_values);
  }
  if (count == 0) return;
  const auto bytes = static_cast<Bytes>(source);
  switch (type) {
    case DType::f32: std::memcpy(destination, source, static_cast<size_t>(count) * sizeof(float)); return;
    case DType::f16:
      for (int64_t i = 0; i < count; ++i) destination[i] = half_at(bytes + 2 * i);
      return;
    case DType::bf16:
      for (int64_t i = 0; i < count; ++i) destination[i] = bf16_to_float(load<uint16_t>(bytes + 2 * i));
      return;
    case DType::q4_0: return blocks<block_q4_0>(type, bytes, count, destination);
    case DType::q4_1: return blocks<block_q4_1>(type, bytes, count, destination);
    case DType::q5_0: return blocks<block_q5_0>(type, bytes, count, destination);
    case DType::q5_1: return blocks<block_q5_1>(type, bytes, count, destination);
    case DType::q8_0: return blocks<block_q8_0>(type, bytes, count, destination);
    case DType::q2_k: return blocks<block_q2_k>(type, bytes, count, destination);
    case DType::q3_k: return blocks<block_q3_k>(type, bytes, count, destination);
    case DType::q4_k: return blocks<block_q4_k>(type, bytes, count, destination);
    case DType::q5_k: return blocks<block_q5_k>(type, bytes, count, destination);
    case DType::q6_k: return blocks<block_q6_k>(type, bytes, count, destination);
    case DType::i32:
    case DType::i64:
    case DType::u8:
    case DType::i8: break;
  }
  fail(Code::unsupported, "dequantize: ", info.name, " holds integers, not weights");
}

}  // namespace moe
