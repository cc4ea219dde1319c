// Dot products of the rows of two arrays, added to out (the gradient of a per-token gate). A warp takes a row.
#include "cuda/cuda_backend.h"
#include "cuda/rows.h"

namespace moe::cuda {
namespace {

constexpr int kThreads = 128;

__global__ void __launch_bounds__(kThreads)
    row_dots_kernel(int64_t tokens, int64_t n, View x, View y, float constant, float *out, int64_t stride) {
  const int64_t t = static_cast<int64_t>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  const int lane = static_cast<int>(threadIdx.x % 32);
  if (t >= tokens) return;
  float sum = 0;
  for (int64_t j = 8 * lane; j < n; j += 256) {
    const Eight a = load8(x, t, j, n), b = load8(y, t, j, n);
    for (int i = 0; i < 8; i++) sum += a.v[i] * b.v[i];
  }
  sum = warp_sum(sum);
  if (lane == 0) out[t * stride] += constant * sum;
}

}  // namespace

void CudaBackend::row_dots(int64_t tokens, int64_t n, Rows x, Rows y, float constant, float *out, int64_t stride) {
  if (tokens == 0) return;
  MOE_LAUNCH((row_dots_kernel), blocks_for(tokens, kThreads / 32), kThreads, 0, on(), tokens, n, view("row_dots", x),
             view("row_dots", y), constant, out, stride);
}

}  // namespace moe::cuda
