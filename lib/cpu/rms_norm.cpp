// Root mean square normalization (Zhang & Sennrich 2019) of rows of n, and its backward:
//   r = 1 / sqrt(mean(x^2) + epsilon)      y = x r w
//   dx = r (g - x c),  g = w dy,  c = r^2 mean(x g)
#include <cmath>

#include "cpu/cpu_backend.h"
#include "cpu/rms_norm.h"
#include "cpu/row_tasks.h"

namespace moe::cpu {
namespace {

float inverse_rms(const Kernels &k, int64_t n, const float *x, float epsilon) {
  return 1 / std::sqrt(k.dot(n, x, x) / static_cast<float>(n) + epsilon);
}

}  // namespace

void rms_norm_row(const Kernels &k, int64_t n, const float *x, const float *weight, float epsilon, float *y) {
  k.scale(n, inverse_rms(k, n, x, epsilon), x, y);
  k.multiply(n, y, weight, y);
}

void rms_norm_row_backward(const Kernels &k, int64_t n, const float *x, const float *weight, float epsilon, const float *dy,
                           float *dx) {
  const float r = inverse_rms(k, n, x, epsilon);
  k.multiply(n, weight, dy, dx);
  const float c = r * r * k.dot(n, x, dx) / static_cast<float>(n);
  k.axpy(n, -c, x, dx);
  k.scale(n, r, dx, dx);
}

void CpuBackend::rms_norm(int64_t tokens, int64_t n, Rows x, const float *weight, float epsilon, Rows y, Store store) {
  require_f32_sum("rms_norm", y, store);
  reserve_scratch(static_cast<size_t>(2 * n) * sizeof(float));
  for_each_row(*pool_, tokens, n, [&](int64_t t, int thread) {
    float *space = scratch<float>(thread), *row = store == Store::set ? f32_row_or(y, t, space + n) : space + n;
    rms_norm_row(k_, n, as_f32(x, t, n, space), weight, epsilon, row);
    put_row(row, n, y, t, store);
  });
}

void CpuBackend::rms_norm_backward(int64_t tokens, int64_t n, Rows x, const float *weight, float epsilon, Rows dy, Rows dx,
                                   Store store) {
  require_f32_sum("rms_norm_backward", dx, store);
  reserve_scratch(static_cast<size_t>(3 * n) * sizeof(float));
  for_each_row(*pool_, tokens, n, [&](int64_t t, int thread) {
    float *space = scratch<float>(thread), *row = space + 2 * n;
    rms_norm_row_backward(k_, n, as_f32(x, t, n, space), weight, epsilon, as_f32(dy, t, n, space + n), row);
    put_row(row, n, dx, t, store);
  });
}

}  // namespace moe::cpu
