// Element types of stored tensors: plain numbers and the block-quantized types of GGUF.
// Block layouts: ggml's ggml-common.h (struct block_*) and docs/gguf.md; see tensor/dequantize.h.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace moe {

enum class DType : uint8_t {
  f32, f16, bf16, i32, i64, u8,
  q4_0, q4_1, q5_0, q5_1, q8_0,
  q2_k, q3_k, q4_k, q5_k, q6_k,
  i8,  // activations of integer products, never in files: a row of k (a multiple of 32) takes 1.5 k bytes, see cpu/kernels/activations.h
};

struct DTypeInfo {
  const char *name;       // as GGUF and safetensors spell it: "F32", "BF16", "Q4_K"
  int64_t block_values;   // values in one block (1 for plain numbers)
  int64_t block_bytes;    // bytes of one block
  bool quantized;
};

const DTypeInfo &dtype_info(DType type);
inline int64_t row_bytes(DType type, int64_t columns) {  // columns must be a multiple of block_values
  const DTypeInfo &info = dtype_info(type);
  return columns / info.block_values * info.block_bytes;
}

}  // namespace moe
