// AdamW (Loshchilov & Hutter 2019) over one flat array, and the sum of squares for the gradient norm:
//   p = p (1 - lr wd) - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
// The corrections are computed in double precision once; the kernel does the rest in f32.
#include <algorithm>
#include <cmath>

#include "cpu/cpu_backend.h"

namespace moe::cpu {
namespace {

constexpr int64_t kUpdateTile = 16384;
constexpr int64_t kSumTile = 65536, kSumBlock = 4096;

// Four partial sums over every fourth element: neighbouring additions do not wait for each other.
double block_sum_of_squares(int64_t n, const float *x) {
  double sums[4] = {};
  int64_t i = 0;
  for (; i + 4 <= n; i += 4)
    for (int64_t r = 0; r < 4; r++) sums[r] += static_cast<double>(x[i + r]) * static_cast<double>(x[i + r]);
  for (; i < n; i++) sums[0] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

}  // namespace

void CpuBackend::adamw(int64_t n, float *p, const float *g, float *m, float *v, const AdamW &options) {
  const double step = static_cast<double>(options.step), rate = options.learning_rate;
  const double correction1 = 1 - std::pow(static_cast<double>(options.beta1), step);
  const double correction2 = 1 - std::pow(static_cast<double>(options.beta2), step);
  const float decay = static_cast<float>(rate * static_cast<double>(options.weight_decay));
  const float step_size = static_cast<float>(rate / correction1), inverse_sqrt = static_cast<float>(1 / std::sqrt(correction2));
  pool_->run((n + kUpdateTile - 1) / kUpdateTile, [&](int64_t task, int) {
    const int64_t first = task * kUpdateTile, count = std::min(kUpdateTile, n - first);
    k_.adamw(count, p + first, g + first, m + first, v + first, options.gradient_scale, options.beta1, options.beta2, decay,
             step_size, inverse_sqrt, options.epsilon);
  });
}

double CpuBackend::sum_of_squares(int64_t n, const float *x) {
  const int64_t tiles = (n + kSumTile - 1) / kSumTile;
  double *sums = shared<double>(tiles);
  pool_->run(tiles, [&](int64_t task, int) {
    const int64_t end = std::min(n, (task + 1) * kSumTile);
    double sum = 0;
    for (int64_t first = task * kSumTile; first < end; first += kSumBlock)
      sum += block_sum_of_squares(std::min(kSumBlock, end - first), x + first);
    sums[task] = sum;
  });
  double total = 0;
  for (int64_t i = 0; i < tiles; i++) total += sums[i];
  return total;
}

}  // namespace moe::cpu
