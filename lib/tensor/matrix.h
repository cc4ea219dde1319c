// Plain views that the backend ops take. Nothing here owns memory.
#pragma once
#include <cstdint>

#include "tensor/dtype.h"

namespace moe {

// A weight `[rows, columns]` = [out, in] in its stored type; row-major, rows without padding. y = W x.
struct Matrix {
  DType dtype = DType::f32;
  int64_t rows = 0, columns = 0;
  const void *data = nullptr;
};

// Activations `[T, n]`, row-major with `stride` elements from row to row; f32, bf16 or, as input of products with quantized
// weights and nothing else, i8 (stride = n, a multiple of 32).
struct Rows {
  void *data = nullptr;
  DType dtype = DType::f32;
  int64_t stride = 0;
};
inline Rows f32_rows(const float *data, int64_t stride) { return {const_cast<float *>(data), DType::f32, stride}; }

// One LoRA factor pair on a projection: delta W = scale * B A (Hu et al. 2021). rank 0 = no delta.
struct LowRank {
  int64_t rank = 0;
  float scale = 0;             // alpha / r, or alpha / sqrt(r) with rsLoRA
  const float *a = nullptr;    // [rank, in]
  const float *b = nullptr;    // [out, rank]
};
struct LowRankGradient {       // accumulated into; nullptr = not wanted
  float *a = nullptr;          // [rank, in]
  float *b = nullptr;          // [out, rank]
};

}  // namespace moe
