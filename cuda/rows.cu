// Moving and scaling rows: fill, copy, gather, scatter, scale_rows, add_bias. Between equal types a copy is exact; f32 to bf16
// rounds to nearest even; adding needs f32 at the destination.
// Each value is read once and written once (added: read twice, written once).
#include "cuda/rows.h"

#include "cuda/cuda_backend.h"

namespace moe::cuda {
namespace {

struct Fill {
  View x;
  float value;
  int64_t n;
  __device__ void operator()(int64_t, int64_t j) const {
    store8(x, 0, j, n, {{value, value, value, value, value, value, value, value}});
  }
};

// y[to[t]] (=|+=) x[from[t]] * factor[t * factor_stride] * constant; nullptr = t itself, 1
struct Move {
  View x, y;
  int64_t n;
  const int32_t *from = nullptr, *to = nullptr;
  const float *factor = nullptr;
  int64_t factor_stride = 0;
  float constant = 1;
  bool add = false;
  __device__ void operator()(int64_t t, int64_t j) const {
    const int64_t source = from ? from[t] : t, target = to ? to[t] : t;
    Eight e = load8(x, source, j, n);
    if (factor || constant != 1) {
      const float f = (factor ? factor[t * factor_stride] : 1.0f) * constant;
      for (int i = 0; i < 8; i++) e.v[i] *= f;
    }
    if (add) {
      const Eight old = load8(y, target, j, n);
      for (int i = 0; i < 8; i++) e.v[i] += old.v[i];
    }
    store8(y, target, j, n, e);
  }
};

struct AddBias {
  View y;
  int64_t n;
  View bias;
  __device__ void operator()(int64_t t, int64_t j) const {
    Eight e = load8(y, t, j, n);
    const Eight b = load8(bias, 0, j, n);
    for (int i = 0; i < 8; i++) e.v[i] += b.v[i];
    store8(y, t, j, n, e);
  }
};

}  // namespace

void CudaBackend::fill(int64_t n, float value, float *x) { for_eights(on(), 1, n, Fill{flat_view(x, n), value, n}); }

void CudaBackend::copy(int64_t tokens, int64_t n, Rows x, Rows y, Store store) {
  require_f32_sum("copy", y, store);
  Move move{any_view("copy", x), any_view("copy", y), n};
  move.add = store == Store::add;
  for_eights(on(), tokens, n, move);
}

void CudaBackend::gather(int64_t rows, int64_t n, Rows x, const int32_t *index, Rows y) {
  Move move{view("gather", x), view("gather", y), n};
  move.from = index;
  for_eights(on(), rows, n, move);
}

void CudaBackend::scatter(int64_t rows, int64_t n, Rows x, const int32_t *index, Rows y, Store store) {
  require_f32_sum("scatter", y, store);
  Move move{view("scatter", x), view("scatter", y), n};
  move.to = index;
  move.add = store == Store::add;
  for_eights(on(), rows, n, move);
}

void CudaBackend::scale_rows(int64_t tokens, int64_t n, Rows x, const float *factor, int64_t stride, float constant, Rows y) {
  Move move{view("scale_rows", x), view("scale_rows", y), n};
  move.factor = factor;
  move.factor_stride = stride;
  move.constant = constant;
  for_eights(on(), tokens, n, move);
}

void CudaBackend::add_bias(int64_t tokens, int64_t n, const float *bias, Rows y) {
  for_eights(on(), tokens, n, AddBias{view("add_bias", y), n, flat_view(bias, n)});
}

}  // namespace moe::cuda
