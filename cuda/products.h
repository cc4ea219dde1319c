// The own products with stored weights. y (=|+=) x W^T, or with `transposed` x W; x f32 or bf16, W of any type, y f32 or bf16.
#pragma once
#include "cuda/weights.h"

namespace moe::cuda {

constexpr int64_t kFewTokens = 8;

struct Product {
  int64_t tokens;
  View x, y;
  Stored w;
  DType type;
  bool transposed, add;
  int64_t inner() const { return transposed ? w.rows : w.columns; }
  int64_t outer() const { return transposed ? w.columns : w.rows; }
};

void few_tokens_product(cudaStream_t stream,
                        const Product &p);                 // tokens <= kFewTokens, not transposed: dot products with each row
void f32_product(cudaStream_t stream, const Product &p);   // exact operands
void bf16_product(cudaStream_t stream, const Product &p);  // both operands rounded to bf16; tensor cores, from sm_80 on

}  // namespace moe::cuda
