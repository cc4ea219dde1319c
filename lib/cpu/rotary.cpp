// Rotary position embedding (Su et al. 2021) in the "half" layout: the pair (x_j, x_{j+h/2}) of each head is rotated by the
// angle position * inverse_frequency[j]. Optionally the head is rms-normalized first (queries and keys of Qwen3, Gemma 3).
// Angles are computed in double precision: at long positions f32 angles lose their last digits.
#include <cmath>

#include "cpu/cpu_backend.h"
#include "cpu/rms_norm.h"
#include "cpu/row_tasks.h"

namespace moe::cpu {

void CpuBackend::rotary_table(int64_t tokens, int64_t head_dimension, const int32_t *positions, const float *inverse_frequency,
                              float factor, float *table) {
  const int64_t half = head_dimension / 2;
  for_each_row(*pool_, tokens, 64 * head_dimension, [&](int64_t t, int) {
    float *cosines = table + t * head_dimension, *sines = cosines + half;
    for (int64_t j = 0; j < half; j++) {
      const double angle = static_cast<double>(positions[t]) * static_cast<double>(inverse_frequency[j]);
      cosines[j] = static_cast<float>(std::cos(angle) * static_cast<double>(factor));
      sines[j] = static_cast<float>(std::sin(angle) * static_cast<double>(factor));
    }
  });
}

void CpuBackend::rotary(int64_t tokens, int64_t heads, int64_t head_dimension, Rows in, const float *norm_weight, float epsilon,
                        const float *table, Rows out) {
  const int64_t h = head_dimension, n = heads * h;
  reserve_scratch(static_cast<size_t>(n + h) * sizeof(float));
  for_each_row(*pool_, tokens, n, [&](int64_t t, int thread) {
    float *space = scratch<float>(thread), *normed = space + n, *to = f32_row_or(out, t, space);
    const float *from = as_f32(in, t, n, space);
    for (int64_t head = 0; head < heads; head++) {
      const float *x = from + head * h;
      if (norm_weight) {
        rms_norm_row(k_, h, x, norm_weight, epsilon, normed);
        x = normed;
      }
      k_.rotate(h, x, table + t * h, 1, to + head * h);
    }
    put_row(to, n, out, t, Store::set);
  });
}

void CpuBackend::rotary_backward(int64_t tokens, int64_t heads, int64_t head_dimension, Rows in, const float *norm_weight,
                                 float epsilon, const float *table, Rows dout, Rows din) {
  const int64_t h = head_dimension, n = heads * h;
  reserve_scratch(static_cast<size_t>(2 * n + h) * sizeof(float));
  for_each_row(*pool_, tokens, n, [&](int64_t t, int thread) {
    float *space = scratch<float>(thread), *turned = space + 2 * n, *to = f32_row_or(din, t, space);
    const float *from = as_f32(dout, t, n, space);
    const float *x = norm_weight ? as_f32(in, t, n, space + n) : nullptr;
    for (int64_t head = 0; head < heads; head++) {
      if (norm_weight) {
        k_.rotate(h, from + head * h, table + t * h, -1, turned);
        rms_norm_row_backward(k_, h, x + head * h, norm_weight, epsilon, turned, turned);
        k_.scale(h, 1, turned, to + head * h);
      } else {
        k_.rotate(h, from + head * h, table + t * h, -1, to + head * h);
      }
    }
    put_row(to, n, din, t, Store::set);
  });
}

}  // namespace moe::cpu
