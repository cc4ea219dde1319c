// The normalization of one contiguous row, for the ops that have it inside.
#pragma once
#include "cpu/kernels.h"

namespace moe::cpu {

// y = x / sqrt(mean(x^2) + epsilon) * weight; y may be x
void rms_norm_row(const Kernels &k, int64_t n, const float *x, const float *weight, float epsilon, float *y);
// dx of the same; dx may be dy but not x
void rms_norm_row_backward(const Kernels &k, int64_t n, const float *x, const float *weight, float epsilon, const float *dy,
                           float *dx);

}  // namespace moe::cpu
