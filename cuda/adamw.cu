// AdamW (Loshchilov & Hutter 2019) over one flat array, and the sum of squares for the gradient norm:
//   p = p (1 - lr wd) - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
// The corrections are computed in double precision once. A step reads 4 and writes 3 values an element; the sum reads 1.
#include <cmath>

#include "cuda/cuda_backend.h"
#include "cuda/rows.h"
#include "cuda/scratch.h"

namespace moe::cuda {
namespace {

struct Update {
  View p, g, m, v;
  int64_t n;
  float gradient_scale, beta1, beta2, rest1, rest2, decay, step_size, inverse_sqrt_correction2, epsilon;
  __device__ void operator()(int64_t, int64_t j) const {
    Eight parameter = load8(p, 0, j, n), mean = load8(m, 0, j, n), square = load8(v, 0, j, n);
    const Eight gradient = load8(g, 0, j, n);
    for (int i = 0; i < 8; i++) {
      const float d = gradient_scale * gradient.v[i];
      mean.v[i] = fmaf(beta1, mean.v[i], rest1 * d);
      square.v[i] = fmaf(beta2, square.v[i], rest2 * d * d);
      const float denominator = fmaf(sqrtf(square.v[i]), inverse_sqrt_correction2, epsilon), old = parameter.v[i];
      parameter.v[i] = old - fmaf(decay, old, step_size * mean.v[i] / denominator);  // one rounding at the size of p
    }
    store8(p, 0, j, n, parameter);
    store8(m, 0, j, n, mean);
    store8(v, 0, j, n, square);
  }
};

constexpr int kThreads = 256;
constexpr int64_t kTile = 16 * 8 * kThreads;  // values of a block

// Four sums a thread: neighbouring additions do not wait for each other.
__global__ void __launch_bounds__(kThreads) squares_kernel(int64_t n, View x, double *sums) {
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kTile, end = min(n, first + kTile);
  double parts[4] = {};
  for (int64_t j = first + 8 * threadIdx.x; j < end; j += 8 * kThreads) {
    const Eight e = load8(x, 0, j, n);
    for (int i = 0; i < 8; i++) parts[i % 4] += static_cast<double>(e.v[i]) * static_cast<double>(e.v[i]);
  }
  const double sum = block_sum<kThreads>((parts[0] + parts[1]) + (parts[2] + parts[3]));
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kThreads) total_kernel(unsigned count, const double *sums, double *total) {
  double part = 0;
  for (unsigned i = threadIdx.x; i < count; i += kThreads) part += sums[i];
  const double sum = block_sum<kThreads>(part);
  if (threadIdx.x == 0) *total = sum;
}

}  // namespace

void CudaBackend::adamw(int64_t n, float *p, const float *g, float *m, float *v, const AdamW &options) {
  const double step = static_cast<double>(options.step), rate = options.learning_rate;
  const double correction1 = 1 - std::pow(static_cast<double>(options.beta1), step);
  const double correction2 = 1 - std::pow(static_cast<double>(options.beta2), step);
  for_eights(on(), 1, n,
             Update{flat_view(p, n), flat_view(g, n), flat_view(m, n), flat_view(v, n), n, options.gradient_scale, options.beta1,
                    options.beta2, 1 - options.beta1, 1 - options.beta2,
                    static_cast<float>(rate * static_cast<double>(options.weight_decay)), static_cast<float>(rate / correction1),
                    static_cast<float>(1 / std::sqrt(correction2)), options.epsilon});
}

size_t sum_of_squares_scratch(const PassSize &size) { return (blocks_for(size.trained, kTile) + 1) * sizeof(double); }

double CudaBackend::sum_of_squares(int64_t n, const float *x) {
  if (n == 0) return 0;
  const unsigned blocks = blocks_for(n, kTile);
  double *const sums = scratch<double>(blocks + 1), *const total = sums + blocks;
  MOE_LAUNCH((squares_kernel), blocks, kThreads, 0, on(), n, flat_view(x, n), sums);
  MOE_LAUNCH((total_kernel), 1, kThreads, 0, on(), blocks, static_cast<const double *>(sums), total);
  double result = 0;
  download(&result, total, sizeof result);
  return result;
}

}  // namespace moe::cuda
