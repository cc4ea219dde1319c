// Stored values to f32, one value at a time in plain C++: the definition of each type, used at load time and
// as the reference of the vectorized kernels in lib/cpu.
#pragma once
#include <bit>
#include <cstdint>

#include "tensor/dtype.h"

namespace moe {

inline float bf16_to_float(uint16_t x) { return std::bit_cast<float>(static_cast<uint32_t>(x) << 16); }
// Round to nearest even; NaN stays NaN.
inline uint16_t float_to_bf16(float x) {
  uint32_t bits = std::bit_cast<uint32_t>(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
float f16_to_float(uint16_t x);       // IEEE binary16, subnormals and NaN included
uint16_t float_to_f16(float x);       // round to nearest even

// `count` values (a multiple of the block size) from `source` (any alignment) to `destination`.
// Code::unsupported for i32, i64, u8.
void dequantize(DType type, const void *source, int64_t count, float *destination);

}  // namespace moe
