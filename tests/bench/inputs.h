// Random weights and activations that cost little to make: their values do not matter, only that none is special.
#pragma once
#include <cstring>
#include <string>

#include "base/file.h"
#include "support/stored_matrix.h"
#include "tensor/backend.h"

namespace moe::bench {

// Numbers of either sign between 2^-5 and 2^-3.
inline void fill_numbers(DType type, int64_t count, uint64_t seed, std::byte *to) {
  for (int64_t i = 0; i < count; i++) {
    const uint64_t bits = test::random_bits(seed, static_cast<uint64_t>(i));
    const auto half = static_cast<uint16_t>(0x3d00 | (bits & 0x80ff));
    if (type == DType::bf16) {
      std::memcpy(to + 2 * i, &half, 2);
    } else {
      const uint32_t whole = static_cast<uint32_t>(half) << 16 | static_cast<uint16_t>(bits >> 16);
      std::memcpy(to + 4 * i, &whole, 4);
    }
  }
}

// Activations [tokens, n]; i8 ones are rounded by the backend from f32.
class Activations {
 public:
  Activations(Backend &backend, int64_t tokens, int64_t n, DType type, uint64_t seed = 1)
      : bytes_(static_cast<size_t>(tokens * row_bytes(type, n))), type_(type), n_(n) {
    if (type == DType::i8) {
      Activations exact(backend, tokens, n, DType::f32, seed);
      backend.copy(tokens, n, exact.rows(), rows(), Store::set);
    } else {
      fill_numbers(type, tokens * n, seed, bytes_.data());
    }
  }
  Rows rows() { return {bytes_.data(), type_, n_}; }
  float *floats() { return reinterpret_cast<float *>(bytes_.data()); }

 private:
  Buffer bytes_;
  DType type_;
  int64_t n_;
};

// A weight matrix in copies that follow each other in memory: taken in turn, more of them than the caches hold are read from
// memory, as the layers of a model are.
class Weights {
 public:
  Weights(DType type, int64_t out, int64_t in, int64_t copies = 1)
      : copies_(copies), stride_(out * row_bytes(type, in)),
        bytes_(static_cast<size_t>(copies * stride_)), matrix_{type, out, in, nullptr} {
    const DTypeInfo &info = dtype_info(type);
    if (!info.quantized) {
      fill_numbers(type, out * in, 2, bytes_.data());
    } else {
      auto *at = reinterpret_cast<uint8_t *>(bytes_.data());
      for (int64_t i = 0; i < stride_; i += 2) {  // every block has an even size
        const auto two = static_cast<uint16_t>(test::random_bits(2, static_cast<uint64_t>(i)));
        std::memcpy(at + i, &two, 2);
      }
      for (int64_t i = 0; i < stride_; i += info.block_bytes) test::Stored::set_scales(type, at + i, static_cast<uint64_t>(i));
    }
    for (int64_t i = 1; i < copies; i++) std::memcpy(bytes_.data() + i * stride_, bytes_.data(), static_cast<size_t>(stride_));
  }
  static int64_t copies_beyond_caches(DType type, int64_t out, int64_t in) {
    constexpr int64_t kBytes = int64_t{256} << 20;
    return 1 + kBytes / (out * row_bytes(type, in));
  }
  int64_t bytes() const { return stride_; }
  const Matrix &next() {
    matrix_.data = bytes_.data() + next_ * stride_;
    next_ = (next_ + 1) % copies_;
    return matrix_;
  }

 private:
  int64_t copies_, stride_, next_ = 0;
  Buffer bytes_;
  Matrix matrix_;
};

inline std::string shape_name(const char *op, const std::string &model, const std::string &what, int64_t tokens, int threads) {
  return std::string(op) + "/" + model + "/" + what + "/tokens:" + std::to_string(tokens) + "/threads:" + std::to_string(threads);
}

}  // namespace moe::bench
