// A weight matrix of any stored type with random content, and its values as doubles.
#pragma once
#include <cstring>
#include <vector>

#include "support/reference.h"
#include "tensor/dequantize.h"

namespace moe::test {

// A matrix of random stored bytes whose scales are ordinary numbers, with its values as doubles.
struct Stored {
  Stored(DType type, int64_t rows, int64_t columns, uint64_t seed) {
    const DTypeInfo &info = dtype_info(type);
    bytes.resize(static_cast<size_t>(rows * row_bytes(type, columns)));
    if (!info.quantized) {
      for (int64_t i = 0; i < rows * columns; i++) {
        const float value = static_cast<float>(random_normal(seed, static_cast<uint64_t>(i)));
        const uint16_t half = type == DType::f16 ? float_to_f16(value) : float_to_bf16(value);
        if (type == DType::f32) std::memcpy(bytes.data() + 4 * i, &value, 4);
        else std::memcpy(bytes.data() + 2 * i, &half, 2);
      }
    } else {
      for (size_t i = 0; i < bytes.size(); i++) bytes[i] = static_cast<uint8_t>(random_bits(seed, i));
      for (size_t block = 0; block < bytes.size(); block += static_cast<size_t>(info.block_bytes)) set_scales(type, bytes.data() + block, seed + block);
    }
    matrix = {type, rows, columns, bytes.data()};
    std::vector<float> floats(static_cast<size_t>(rows * columns));
    dequantize(type, bytes.data(), rows * columns, floats.data());
    values = to_double(floats);
  }
  static void set_scales(DType type, uint8_t *block, uint64_t seed) {
    const auto put = [&](size_t at, uint64_t i) {
      const uint16_t half = float_to_f16(static_cast<float>(0.01 + 0.02 * random_uniform(seed, i)));
      std::memcpy(block + at, &half, 2);
    };
    switch (type) {
      case DType::q4_1: case DType::q5_1: case DType::q4_k: case DType::q5_k: put(0, 0), put(2, 1); break;
      case DType::q2_k: put(80, 0), put(82, 1); break;
      case DType::q3_k: put(108, 0); break;
      case DType::q6_k: put(208, 0); break;
      default: put(0, 0);
    }
  }
  std::vector<uint8_t> bytes;
  std::vector<double> values;
  Matrix matrix;
};

}  // namespace moe::test
