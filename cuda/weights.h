// Stored weights in kernels: eight neighbouring values of a row at a time, expanded from the type they are stored in. The layouts
// are those of lib/tensor/dequantize.cpp. A matrix begins at a multiple of 16 bytes; inside it blocks stand as in the file,
// so the bytes of a block are read in words as wide as the size of the block allows.
#pragma once
#include "cuda/rows.h"

namespace moe::cuda {

__device__ __forceinline__ float half_value(uint16_t bits) { return __half2float(__ushort_as_half(bits)); }
__device__ __forceinline__ uint16_t read16(const uint8_t *p) { return *reinterpret_cast<const uint16_t *>(p); }

// Eight bytes at an address that is a multiple of kAlignment.
template <int kAlignment>
__device__ __forceinline__ uint64_t read64(const uint8_t *p) {
  if constexpr (kAlignment >= 8) {
    return *reinterpret_cast<const uint64_t *>(p);
  } else if constexpr (kAlignment == 4) {
    return *reinterpret_cast<const uint32_t *>(p) | static_cast<uint64_t>(*reinterpret_cast<const uint32_t *>(p + 4)) << 32;
  } else {
    return read16(p) | static_cast<uint64_t>(read16(p + 2)) << 16 | static_cast<uint64_t>(read16(p + 4)) << 32 |
           static_cast<uint64_t>(read16(p + 6)) << 48;
  }
}
__device__ __forceinline__ int byte_of(uint64_t bytes, int i) { return static_cast<int>(bytes >> (8 * i)) & 255; }

template <DType kType>
struct Block;
template <>
struct Block<DType::q4_0> {
  static constexpr int kValues = 32, kBytes = 18;
  __device__ static void expand(const uint8_t *b, int v, float *out) {
    const float d = half_value(read16(b));
    const uint64_t q = read64<2>(b + 2 + v % 16) >> (v / 16 * 4);
#pragma unroll
    for (int i = 0; i < 8; i++) out[i] = static_cast<float>((byte_of(q, i) & 15) - 8) * d;
  }
};
template <>
struct Block<DType::q4_1> {
  static constexpr int kValues = 32, kBytes = 20;
  __device__ static void expand(const uint8_t *b, int v, float *out) {
    const float d = half_value(read16(b)), m = half_value(read16(b + 2));
    const uint64_t q = read64<4>(b + 4 + v % 16) >> (v / 16 * 4);
#pragma unroll
    for (int i = 0; i < 8; i++) out[i] = static_cast<float>(byte_of(q, i) & 15) * d + m;
  }
};
template <>
struct Block<DType::q5_0> {
  static constexpr int kValues = 32, kBytes = 22;
  __device__ static void expand(const uint8_t *b, int v, float *out) {
    const float d = half_value(read16(b));
    const unsigned high = (read16(b + 2) | static_cast<unsigned>(read16(b + 4)) << 16) >> v;
    const uint64_t q = read64<2>(b + 6 + v % 16) >> (v / 16 * 4);
#pragma unroll
    for (int i = 0; i < 8; i++)
      out[i] = static_cast<float>(((byte_of(q, i) & 15) | static_cast<int>(high >> i & 1) << 4) - 16) * d;
  }
};
template <>
struct Block<DType::q5_1> {
  static constexpr int kValues = 32, kBytes = 24;
  __device__ static void expand(const uint8_t *b, int v, float *out) {
    const float d = half_value(read16(b)), m = half_value(read16(b + 2));
    const unsigned high = *reinterpret_cast<const uint32_t *>(b + 4) >> v;
    const uint64_t q = read64<8>(b + 8 + v % 16) >> (v / 16 * 4);
#pragma unroll
    for (int i = 0; i < 8; i++) out[i] = static_cast<float>((byte_of(q, i) & 15) | static_cast<int>(high >> i & 1) << 4) * d + m;
  }
};
template <>
struct Block<DType::q8_0> {
  static constexpr int kValues = 32, kBytes = 34;
  __device__ static void expand(const uint8_t *b, int v, float *out) {
    const float d = half_value(read16(b));
    const uint64_t q = read64<2>(b + 2 + v);
#pragma unroll
    for (int i = 0; i < 8; i++) out[i] = static_cast<float>(static_cast<int8_t>(byte_of(q, i))) * d;
  }
};
template <>
struct Block<DType::q2_k> {
  static constexpr int kValues = 256, kBytes = 84;
  __device__ static void expand(const uint8_t *b, int v, float *out) {
    const int group = v / 16, scales = b[group];
    const float s = half_value(read16(b + 80)) * static_cast<float>(scales & 15),
                m = half_value(read16(b + 82)) * static_cast<float>(scales >> 4);
    const uint64_t q = read64<4>(b + 16 + v / 128 * 32 + v % 32) >> (2 * (v % 128 / 32));
#pragma unroll
    for (int i = 0; i < 8; i++) out[i] = s * static_cast<float>(byte_of(q, i) & 3) - m;
  }
};
template <>
struct Block<DType::q3_k> {
  static constexpr int kValues = 256, kBytes = 110;
  __device__ static void expand(const uint8_t *b, int v, float *out) {
    const int group = v / 16, field = v % 128 / 32;
    const uint8_t *packed = b + 96;
    const int low = group < 8 ? packed[group] & 15 : packed[group - 8] >> 4,
              high = (packed[8 + group % 4] >> (2 * (group / 4))) & 3;
    const float s = half_value(read16(b + 108)) * static_cast<float>((low | high << 4) - 32);
    const uint64_t highs = read64<2>(b + v % 32) >> (v / 128 * 4 + field),
                   q = read64<2>(b + 32 + v / 128 * 32 + v % 32) >> (2 * field);
#pragma unroll
    for (int i = 0; i < 8; i++) out[i] = s * static_cast<float>(((byte_of(q, i) & 3) | (byte_of(highs, i) & 1) << 2) - 4);
  }
};
// Scale and minimum of a group of 32, 6 bits each in 12 bytes.
__device__ __forceinline__ void scale_minimum(const uint8_t *packed, int group, int &scale, int &minimum) {
  if (group < 4) {
    scale = packed[group] & 63, minimum = packed[group + 4] & 63;
  } else {
    scale = (packed[group + 4] & 15) | (packed[group - 4] >> 6) << 4, minimum = (packed[group + 4] >> 4) | (packed[group] >> 6)
                                                                                                               << 4;
  }
}
template <>
struct Block<DType::q4_k> {
  static constexpr int kValues = 256, kBytes = 144;
  __device__ static void expand(const uint8_t *b, int v, float *out) {
    int scale, minimum;
    scale_minimum(b + 4, v / 32, scale, minimum);
    const float s = half_value(read16(b)) * static_cast<float>(scale),
                m = half_value(read16(b + 2)) * static_cast<float>(minimum);
    const uint64_t q = read64<8>(b + 16 + v / 64 * 32 + v % 32) >> (4 * (v / 32 % 2));
#pragma unroll
    for (int i = 0; i < 8; i++) out[i] = s * static_cast<float>(byte_of(q, i) & 15) - m;
  }
};
template <>
struct Block<DType::q5_k> {
  static constexpr int kValues = 256, kBytes = 176;
  __device__ static void expand(const uint8_t *b, int v, float *out) {
    int scale, minimum;
    scale_minimum(b + 4, v / 32, scale, minimum);
    const float s = half_value(read16(b)) * static_cast<float>(scale),
                m = half_value(read16(b + 2)) * static_cast<float>(minimum);
    const uint64_t highs = read64<8>(b + 16 + v % 32) >> (v / 32),
                   q = read64<8>(b + 48 + v / 64 * 32 + v % 32) >> (4 * (v / 32 % 2));
#pragma unroll
    for (int i = 0; i < 8; i++) out[i] = s * static_cast<float>((byte_of(q, i) & 15) | (byte_of(highs, i) & 1) << 4) - m;
  }
};
template <>
struct Block<DType::q6_k> {
  static constexpr int kValues = 256, kBytes = 210;
  __device__ static void expand(const uint8_t *b, int v, float *out) {
    const int half = v / 128, r = v % 128 / 32;
    const float s = half_value(read16(b + 208)) * static_cast<float>(static_cast<int8_t>(b[192 + v / 16]));
    const uint64_t q = read64<2>(b + 64 * half + 32 * (r % 2) + v % 32) >> (4 * (r / 2)),
                   highs = read64<2>(b + 128 + 32 * half + v % 32) >> (2 * r);
#pragma unroll
    for (int i = 0; i < 8; i++) out[i] = s * static_cast<float>(((byte_of(q, i) & 15) | (byte_of(highs, i) & 3) << 4) - 32);
  }
};

// Columns [j, j + 8) of a row of n stored values, j a multiple of 8; those from n on are 0.
template <DType kType>
__device__ __forceinline__ void load_weights8(const uint8_t *row, int64_t j, int64_t n, float *out) {
  if constexpr (kType == DType::f32 || kType == DType::f16 || kType == DType::bf16) {
    constexpr int kSize = kType == DType::f32 ? 4 : 2;
    const uint8_t *from = row + j * kSize;
    if (j + 8 <= n && reinterpret_cast<uintptr_t>(from) % 16 == 0) {
      const uint4 a = *reinterpret_cast<const uint4 *>(from);
      if constexpr (kType == DType::bf16) {
        unpack_bf16(a, out);
      } else if constexpr (kType == DType::f16) {
        const unsigned w[4] = {a.x, a.y, a.z, a.w};
#pragma unroll
        for (int i = 0; i < 8; i++) out[i] = half_value(static_cast<uint16_t>(w[i / 2] >> (16 * (i % 2))));
      } else {
        const uint4 b = *reinterpret_cast<const uint4 *>(from + 16);
        const unsigned w[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
        for (int i = 0; i < 8; i++) out[i] = __uint_as_float(w[i]);
      }
      return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++) {
      if (j + i >= n) out[i] = 0;
      else if constexpr (kType == DType::f32) out[i] = reinterpret_cast<const float *>(from)[i];
      else if constexpr (kType == DType::bf16) out[i] = bf16_value(reinterpret_cast<const uint16_t *>(from)[i]);
      else out[i] = half_value(reinterpret_cast<const uint16_t *>(from)[i]);
    }
  } else {
    using B = Block<kType>;
    if (j < n) {
      B::expand(row + j / B::kValues * B::kBytes, static_cast<int>(j % B::kValues), out);
    } else {
#pragma unroll
      for (int i = 0; i < 8; i++) out[i] = 0;
    }
  }
}

struct Stored {  // a matrix on the device
  const uint8_t *data;
  int64_t rows, columns, row_bytes;
  __device__ const uint8_t *row(int64_t i) const { return data + i * row_bytes; }
};
inline Stored stored(const Matrix &w) {
  return {static_cast<const uint8_t *>(w.data), w.rows, w.columns, row_bytes(w.dtype, w.columns)};
}

// Calls body with the type as a template argument: body.template operator()<DType::q4_0>().
template <class Body>
void with_weight_type(const char *op, DType type, Body &&body) {
  switch (type) {
#define MOE_WEIGHT_TYPE(name) \
  case DType::name: return body.template operator()<DType::name>();
    MOE_WEIGHT_TYPE(f32)
    MOE_WEIGHT_TYPE(f16) MOE_WEIGHT_TYPE(bf16) MOE_WEIGHT_TYPE(q4_0) MOE_WEIGHT_TYPE(q4_1) MOE_WEIGHT_TYPE(q5_0)
        MOE_WEIGHT_TYPE(q5_1) MOE_WEIGHT_TYPE(q8_0) MOE_WEIGHT_TYPE(q2_k) MOE_WEIGHT_TYPE(q3_k) MOE_WEIGHT_TYPE(q4_k)
            MOE_WEIGHT_TYPE(q5_k) MOE_WEIGHT_TYPE(q6_k)
#undef MOE_WEIGHT_TYPE
                default : fail(Code::unsupported, "cuda: ", op, ": weights of type ", dtype_info(type).name);
  }
}

}  // namespace moe::cuda
