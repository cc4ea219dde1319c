// The gate of a feed-forward layer (Shazeer 2020): h = phi(a) b, and its backward da = dh b phi'(a), db = dh phi(a). Forward reads 2
// and writes 1 value, backward 3 and 2.
#include "cuda/gated_activation.h"

#include "cuda/cuda_backend.h"
#include "cuda/rows.h"

namespace moe::cuda {
namespace {

struct Forward {
  View a, b, h;
  int64_t n;
  Activation phi;
  __device__ void operator()(int64_t t, int64_t j) const {
    Eight x = load8(a, t, j, n);
    const Eight y = load8(b, t, j, n);
    for (int i = 0; i < 8; i++) x.v[i] = gated(phi, x.v[i], y.v[i]);
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
