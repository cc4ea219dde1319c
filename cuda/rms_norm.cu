// Root mean square normalization (Zhang & Sennrich 2019) of rows of n, and its backward:
//   r = 1 / sqrt(mean(x^2) + epsilon)      y = x r w
//   dx = r (g - x c),  g = w dy,  c = r^2 mean(x g)
// A block takes a row and reads it twice, the second time from the cache of the multiprocessor.
#include "cuda/cuda_backend.h"
#include "cuda/rows.h"

namespace moe::cuda {
namespace {

constexpr int kThreads = 128;

__global__ void __launch_bounds__(kThreads) rms_norm_kernel(int64_t n, View x, View weight, float epsilon, View y, bool add) {
  const int64_t t = blockIdx.x;
  float squares = 0;
  for (int64_t j = 8 * threadIdx.x; j < n; j += 8 * kThreads) {
    const Eight e = load8(x, t, j, n);
    for (int i = 0; i < 8; i++) squares += e.v[i] * e.v[i];
  }
  const float r = 1 / sqrtf(block_sum<kThreads>(squares) / static_cast<float>(n) + epsilon);
  for (int64_t j = 8 * threadIdx.x; j < n; j += 8 * kThreads) {
    Eight e = load8(x, t, j, n);
    const Eight w = load8(weight, 0, j, n);
    for (int i = 0; i < 8; i++) e.v[i] = e.v[i] * r * w.v[i];
    if (add) {
      const Eight old = load8(y, t, j, n);
      for (int i = 0; i < 8; i++) e.v[i] += old.v[i];
    }
    store8(y, t, j, n, e);
  }
}

__global__ void __launch_bounds__(kThreads)
    rms_norm_backward_kernel(int64_t n, View x, View weight, float epsilon, View dy, View dx, bool add) {
  const int64_t t = blockIdx.x;
  float squares = 0, dots = 0;
  for (int64_t j = 8 * threadIdx.x; j < n; j += 8 * kThreads) {
    const Eight e = load8(x, t, j, n), d = load8(dy, t, j, n), w = load8(weight, 0, j, n);
    for (int i = 0; i < 8; i++) {
      squares += e.v[i] * e.v[i];
      dots += e.v[i] * (w.v[i] * d.v[i]);
    }
  }
  const float count = static_cast<float>(n), r = 1 / sqrtf(block_sum<kThreads>(squares) / count + epsilon);
  const float c = r * r * block_sum<kThreads>(dots) / count;
  for (int64_t j = 8 * threadIdx.x; j < n; j += 8 * kThreads) {
    Eight e = load8(x, t, j, n);
    const Eight d = load8(dy, t, j, n), w = load8(weight, 0, j, n);
    for (int i = 0; i < 8; i++) e.v[i] = r * (w.v[i] * d.v[i] - e.v[i] * c);
    if (add) {
      const Eight old = load8(dx, t, j, n);
      for (int i = 0; i < 8; i++) e.v[i] += old.v[i];
    }
    store8(dx, t, j, n, e);
  }
}

}  // namespace

void CudaBackend::rms_norm(int64_t tokens, int64_t n, Rows x, const float *weight, float epsilon, Rows y, Store store) {
  require_f32_sum("rms_norm", y, store);
  if (tokens == 0) return;
  MOE_LAUNCH((rms_norm_kernel), blocks_for(tokens, 1), kThreads, 0, on(), n, view("rms_norm", x), flat_view(weight, n), epsilon,
             any_view("rms_norm", y), store == Store::add);
}

void CudaBackend::rms_norm_backward(int64_t tokens, int64_t n, Rows x, const float *weight, float epsilon, Rows dy, Rows dx,
                                    Store store) {
  const char *op = "rms_norm_backward";
  require_f32_sum(op, dx, store);
  if (tokens == 0) return;
  MOE_LAUNCH((rms_norm_backward_kernel), blocks_for(tokens, 1), kThreads, 0, on(), n, view(op, x), flat_view(weight, n), epsilon,
             view(op, dy), view(op, dx), store == Store::add);
}

}  // namespace moe::cuda
