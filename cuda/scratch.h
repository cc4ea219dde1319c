// How many bytes an op takes for itself at most in training passes of a size, each beside its op.
#pragma once
#include <cstddef>

#include "tensor/backend.h"

namespace moe::cuda {

size_t mixture_scratch(const PassSize &size);         // ffn_mixture.cu: of its backward pass
size_t terms_scratch(const PassSize &size);           // projection.cu: of gated terms, their backward pass
size_t outer_product_scratch(const PassSize &size);   // matmul.cu
size_t sum_of_squares_scratch(const PassSize &size);  // adamw.cu
size_t cross_entropy_scratch(const PassSize &size);   // logits that exist at a time

}  // namespace moe::cuda
