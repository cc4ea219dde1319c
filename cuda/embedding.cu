// Rows of the embedding matrix, expanded from its stored type: out[t] = scale * W[ids[t]].
#include "cuda/check_index.h"
#include "cuda/cuda_backend.h"
#include "cuda/weights.h"

namespace moe::cuda {
namespace {

template <DType kType>
struct Expand {
  const int32_t *ids;
  Stored w;
  float scale;
  View out;
  BadIndex *bad;
  __device__ void operator()(int64_t t, int64_t j) const {
    Eight e;
    load_weights8<kType>(w.row(checked_index(ids[t], w.rows, t, bad, IndexOf::embedding)), j, w.columns, e.v);
    for (int i = 0; i < 8; i++) e.v[i] *= scale;
    store8(out, t, j, w.columns, e);
  }
};

}  // namespace

void CudaBackend::embedding(int64_t tokens, const int32_t *ids, const Matrix &w, float scale, Rows out) {
  index_limits_[static_cast<int>(IndexOf::embedding)] = w.rows;
  with_weight_type("embedding", w.dtype, [&]<DType kType>() {
    for_eights(on(), tokens, w.columns,
               Expand<kType>{ids, stored(w), scale, view("embedding", out), static_cast<BadIndex *>(bad_index_.data())});
  });
}

}  // namespace moe::cuda
