// The gate of a feed-forward layer (Shazeer 2020): h = phi(a) b with phi = silu or the tanh form of gelu, and its backward
// da = dh b phi'(a), db = dh phi(a). Both activations are a s(u) with the sigmoid s: u = a, or 2 sqrt(2/pi) (a + 0.044715 a^3);
// the slope is s + a s (1 - s) u'. Forward reads 2 and writes 1 value, backward 3 and 2.
#include "cuda/cuda_backend.h"
#include "cuda/rows.h"

namespace moe::cuda {
namespace {

struct Gate {
  float value, slope;
};
__device__ __forceinline__ Gate gate(Activation phi, float a) {
  float u = a, du = 1;
  if (phi == Activation::gelu_tanh) {
    constexpr float c = 1.5957691216057308f, cubic = 0.044715f;  // 2 sqrt(2/pi)
    u = c * (a + cubic * a * a * a);
    du = c * (1 + 3 * cubic * a * a);
  }
  const float s = 1 / (1 + expf(-u)), rest = s * (1 - s);
  return {a * s, s + (rest > 0 ? a * rest * du : 0.0f)};  // far out a * 0 * infinity would not be a number
}

struct Forward {
  View a, b, h;
  int64_t n;
  Activation phi;
  __device__ void operator()(int64_t t, int64_t j) const {
    Eight x = load8(a, t, j, n);
    const Eight y = load8(b, t, j, n);
    for (int i = 0; i < 8; i++) x.v[i] = gate(phi, x.v[i]).value * y.v[i];
    store8(h, t, j, n, x);
  }
};
struct Backward {
  View a, b, dh, da, db;
  int64_t n;
  Activation phi;
  __device__ void operator()(int64_t t, int64_t j) const {
    Eight x = load8(a, t, j, n), y = load8(b, t, j, n);
    const Eight d = load8(dh, t, j, n);
    for (int i = 0; i < 8; i++) {
      const Gate g = gate(phi, x.v[i]);
      x.v[i] = d.v[i] * y.v[i] * g.slope;
      y.v[i] = d.v[i] * g.value;
    }
    store8(da, t, j, n, x);
    store8(db, t, j, n, y);
  }
};

}  // namespace

void CudaBackend::gated_activation(int64_t tokens, int64_t f, Activation phi, Rows a, Rows b, Rows h) {
  const char *op = "gated_activation";
  for_eights(on(), tokens, f, Forward{view(op, a), view(op, b), any_view(op, h), f, phi});
}

void CudaBackend::gated_activation_backward(int64_t tokens, int64_t f, Activation phi, Rows a, Rows b, Rows dh, Rows da,
                                            Rows db) {
  const char *op = "gated_activation_backward";
  for_eights(on(), tokens, f, Backward{view(op, a), view(op, b), view(op, dh), view(op, da), view(op, db), f, phi});
}

}  // namespace moe::cuda
