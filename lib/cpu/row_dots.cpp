// Dot products of the rows of two arrays, added to out (the gradient of a per-token gate).
#include <algorithm>

#include "cpu/cpu_backend.h"

namespace moe::cpu {

void CpuBackend::row_dots(int64_t tokens, int64_t n, Rows x, Rows y, float constant, float *out, int64_t stride) {
  constexpr int64_t kTile = 32;
  reserve_scratch(static_cast<size_t>(2 * n) * sizeof(float));
  pool_->run((tokens + kTile - 1) / kTile, [&](int64_t tile, int thread) {
    float *space = scratch<float>(thread);
    const int64_t end = std::min(tokens, (tile + 1) * kTile);
    for (int64_t t = tile * kTile; t < end; t++) {
      const float *left = as_f32(x, t, n, space), *right = as_f32(y, t, n, space + n);
      out[t * stride] += constant * k_.dot(n, left, right);
    }
  });
}

}  // namespace moe::cpu
