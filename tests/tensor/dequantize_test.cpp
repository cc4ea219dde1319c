// Dequantization against blocks decoded by the reference implementation of the types, and the 16-bit conversions
// against double arithmetic, exhaustively.
#include "tensor/dequantize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "formats/safetensors.h"
#include "support/expect_error.h"

namespace moe {
namespace {

constexpr DType kWeightTypes[] = {DType::f16,  DType::bf16, DType::q4_0, DType::q4_1, DType::q5_0, DType::q5_1,
                                  DType::q8_0, DType::q2_k, DType::q3_k, DType::q4_k, DType::q5_k, DType::q6_k};

std::string golden(const std::string &name) { return std::string(MOE_TESTS_DIR) + "/golden/quant/" + name; }

// Decodes <TYPE>.raw of the file from an address with the given misalignment; returns the number of values compared.
int64_t compare(const Safetensors &file, DType type, size_t misalignment) {
  const DTypeInfo &info = dtype_info(type);
  const TensorInfo *raw = file.find(std::string(info.name) + ".raw");
  if (!raw) return 0;
  const std::vector<float> expected = file.read_floats(file.at(std::string(info.name) + ".values"));
  const auto count = static_cast<int64_t>(expected.size());
  EXPECT_EQ(static_cast<int64_t>(raw->bytes), row_bytes(type, count)) << info.name;
  std::vector<uint8_t> stored(raw->bytes + misalignment);
  file.read(*raw, stored.data() + misalignment);
  std::vector<float> values(expected.size());
  dequantize(type, stored.data() + misalignment, count, values.data());
  EXPECT_EQ(std::memcmp(values.data(), expected.data(), values.size() * sizeof(float)), 0) << info.name;
  return count;
}

TEST(Dequantize, EveryTypeEqualsTheReferenceToTheLastBit) {
  const Safetensors file(golden("blocks.safetensors"));
  for (DType type : kWeightTypes) EXPECT_GT(compare(file, type, 0), 0) << dtype_info(type).name;
}

TEST(Dequantize, AnyAlignmentWorks) {
  const Safetensors file(golden("blocks.safetensors"));
  for (DType type : kWeightTypes) {
    for (size_t misalignment : {1, 2, 3, 5, 7}) compare(file, type, misalignment);
  }
}

TEST(Dequantize, WeightsFromTheReferenceQuantizersDecodeEqually) {
  const Safetensors file(golden("quantized.safetensors"));
  int types = 0;
  for (DType type : kWeightTypes) types += compare(file, type, 0) > 0;
  EXPECT_EQ(types, 7);  // F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0
}

TEST(Dequantize, PlainFloatsAreCopied) {
  const float values[] = {1.5f, -0.0f, std::numeric_limits<float>::denorm_min()};
  float out[3];
  dequantize(DType::f32, values, 3, out);
  EXPECT_EQ(std::memcmp(values, out, sizeof out), 0);
}

TEST(Dequantize, NoValuesTouchNothing) { dequantize(DType::q4_k, nullptr, 0, nullptr); }

TEST(Dequantize, RefusesIntegersAndPartsOfBlocks) {
  float out[64];
  const uint8_t bytes[64] = {};
  EXPECT_FAILS(dequantize(DType::i32, bytes, 2, out), Code::unsupported, "I32");
  EXPECT_FAILS(dequantize(DType::u8, bytes, 2, out), Code::unsupported, "U8");
  EXPECT_FAILS(dequantize(DType::q4_0, bytes, 31, out), Code::invalid, "Q4_0 block of 32");
  EXPECT_FAILS(dequantize(DType::q8_0, bytes, -32, out), Code::invalid, "-32 values");
}

TEST(DTypes, BlockSizesFollowTheFormat) {
  EXPECT_EQ(row_bytes(DType::q4_k, 512), 288);
  EXPECT_EQ(row_bytes(DType::q6_k, 256), 210);
  EXPECT_EQ(row_bytes(DType::f32, 3), 12);
  EXPECT_STREQ(dtype_info(DType::bf16).name, "BF16");
  EXPECT_FALSE(dtype_info(DType::u8).quantized);
  EXPECT_TRUE(dtype_info(DType::q2_k).quantized);
}

// The value of a 16-bit float with the given number of exponent bits, by its definition.
double value_of(uint16_t bits, int exponent_bits) {
  const int fraction_bits = 15 - exponent_bits;
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = (bits & 0x7fff) >> fraction_bits;
  const double fraction = (bits & ((1 << fraction_bits) - 1)) / std::ldexp(1.0, fraction_bits);
  const double magnitude = exponent == 0 ? std::ldexp(fraction, 1 - bias) : std::ldexp(1 + fraction, exponent - bias);
  return bits & 0x8000 ? -magnitude : magnitude;
}
bool is_nan_or_infinity(uint16_t bits, int exponent_bits) {
  const int mask = ((1 << exponent_bits) - 1) << (15 - exponent_bits);
  return (bits & mask) == mask;
}

TEST(HalfFloats, EveryF16HasItsValueAndComesBack) {
  for (uint32_t i = 0; i < 65536; ++i) {
    const auto bits = static_cast<uint16_t>(i);
    const float value = f16_to_float(bits);
    if (is_nan_or_infinity(bits, 5)) {
      if (bits & 0x3ff) ASSERT_TRUE(std::isnan(value) && std::isnan(f16_to_float(float_to_f16(value)))) << i;
      else ASSERT_EQ(value, bits & 0x8000 ? -INFINITY : INFINITY) << i;
    } else {
      ASSERT_EQ(static_cast<double>(value), value_of(bits, 5)) << i;
      ASSERT_EQ(std::signbit(value), (bits & 0x8000) != 0) << i;
    }
    if (!std::isnan(value)) {
      ASSERT_EQ(float_to_f16(value), bits) << i;
    }
  }
}

TEST(HalfFloats, EveryBf16HasItsValueAndComesBack) {
  for (uint32_t i = 0; i < 65536; ++i) {
    const auto bits = static_cast<uint16_t>(i);
    const float value = bf16_to_float(bits);
    if (is_nan_or_infinity(bits, 8)) {
      if (bits & 0x7f) ASSERT_TRUE(std::isnan(value) && std::isnan(bf16_to_float(float_to_bf16(value)))) << i;
      else ASSERT_EQ(value, bits & 0x8000 ? -INFINITY : INFINITY) << i;
    } else {
      ASSERT_EQ(static_cast<double>(value), value_of(bits, 8)) << i;
    }
    if (!std::isnan(value)) {
      ASSERT_EQ(float_to_bf16(value), bits) << i;
    }
  }
}

// Between neighbours a < b of the 16-bit grid: values below the middle go to a, above to b, the middle to the even one.
void check_rounding(uint16_t a, uint16_t b, double low, double high, uint16_t (*round)(float)) {
  const double middle = (low + high) / 2;
  const auto at = static_cast<float>(middle);
  ASSERT_EQ(static_cast<double>(at), middle);
  ASSERT_EQ(round(at), a % 2 == 0 ? a : b) << a;
  ASSERT_EQ(round(std::nextafter(at, -INFINITY)), a) << a;
  ASSERT_EQ(round(std::nextafter(at, INFINITY)), b) << a;
  ASSERT_EQ(round(-at), (a % 2 == 0 ? a : b) | 0x8000) << a;
}

TEST(HalfFloats, EveryGapOfF16RoundsToTheNearestEven) {
  for (uint16_t a = 0; a < 0x7bff; ++a) {
    check_rounding(a, static_cast<uint16_t>(a + 1), value_of(a, 5), value_of(static_cast<uint16_t>(a + 1), 5), float_to_f16);
  }
  check_rounding(0x7bff, 0x7c00, 65504, 65536, float_to_f16);  // the largest value and infinity
}

TEST(HalfFloats, EveryGapOfBf16RoundsToTheNearestEven) {
  for (uint16_t a = 0; a < 0x7f7f; ++a) {
    check_rounding(a, static_cast<uint16_t>(a + 1), value_of(a, 8), value_of(static_cast<uint16_t>(a + 1), 8), float_to_bf16);
  }
}

TEST(HalfFloats, ValuesBeyondTheRangeBecomeInfinityOrZero) {
  EXPECT_EQ(float_to_f16(1e30f), 0x7c00);
  EXPECT_EQ(float_to_f16(-1e30f), 0xfc00);
  EXPECT_EQ(float_to_f16(1e-30f), 0);
  EXPECT_EQ(float_to_f16(std::numeric_limits<float>::denorm_min()), 0);
  EXPECT_EQ(float_to_f16(-1e-30f), 0x8000);
  EXPECT_EQ(float_to_f16(INFINITY), 0x7c00);
  EXPECT_EQ(float_to_bf16(std::numeric_limits<float>::max()), 0x7f80);
}

}  // namespace
}  // namespace moe
