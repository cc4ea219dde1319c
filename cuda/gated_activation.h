// phi = silu or the tanh form of gelu, and its slope. Both are a s(u) with the sigmoid s: u = a, or 2 sqrt(2/pi) (a + 0.044715
// a^3); the slope is s + a s (1 - s) u'.
#pragma once
#include "cuda/device.h"
#include "tensor/backend.h"

namespace moe::cuda {

struct Gate {
  float value, slope;
};
__device__ __forceinline__ Gate gate(Activation phi, float a) {
  float u = a, du = 1;
  if (phi == Activation::gelu_tanh) {
    constexpr float c = 1.5957691216057308f, cubic = 0.044715f;  // 2 sqrt(2/pi)
    u = c * fmaf(cubic * a * a, a, a);
    du = c * (1 + 3 * cubic * a * a);
  }
  const float s = 1 / (1 + expf(-u)), rest = s * (1 - s);
  return {a * s, s + (rest > 0 ? a * rest * du : 0.0f)};  // far out a * 0 * infinity would not be a number
}
// phi(a) b, rounded here wherever it stands: no compiler joins the product with a sum after it, so equal inputs give equal bits.
__device__ __forceinline__ float gated(Activation phi, float a, float b) { return __fmul_rn(gate(phi, a).value, b); }

}  // namespace moe::cuda
