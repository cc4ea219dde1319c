// A router without a model: for a runtime that has experts of its own and asks which of them a token needs.
#pragma once
#include <memory>
#include <string>

#include "model/router.h"

namespace moe {

// The sizes that a router.safetensors file has; top_k, form and temperature are those of `settings`.
RouterConfig router_sizes(const std::string &path, RouterConfig settings);

// Routes rows [rows, d] of f32, bf16 or f16, row r at hidden + r * row_stride_bytes, any alignment. Into ids [rows, k] go the
// picked entries by falling probability (0 = base), into weights [rows, k] the gate of an expert, and for the base 1 - the sum
// of the row's gates. Allocates nothing. Code::numeric names the first row with NaN or infinity.
void route_rows(const Router &router, int64_t layer, RouterKind kind, const void *hidden, DType dtype, int64_t rows,
                int64_t row_stride_bytes, int32_t *ids, float *weights);

}  // namespace moe
