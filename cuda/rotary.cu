// Rotary position embedding (Su et al. 2021) in the "half" layout: the pair (x_j, x_{j+h/2}) of each head is rotated by the angle
// position * inverse_frequency[j]. Optionally the head is rms-normalized first (queries and keys of Qwen3, Gemma 3).
// Angles are computed in double precision: at long positions f32 angles lose their last digits.
// A warp takes one head of one token; its lanes hold neighbouring pairs.
#include "cuda/cuda_backend.h"
#include "cuda/rows.h"

namespace moe::cuda {
namespace {

constexpr int kThreads = 128;

__global__ void __launch_bounds__(kThreads) rotary_table_kernel(int64_t count, unsigned half, const int32_t *positions,
                                                                const float *inverse_frequency, float factor, float *table) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const int64_t t = i / half, j = i % half;
  constexpr double kInversePi = 0.31830988618379067154;
  double sine, cosine;  // of multiples of pi: large angles need no reduction of their own
  sincospi(static_cast<double>(positions[t]) * static_cast<double>(inverse_frequency[j]) * kInversePi, &sine, &cosine);
  table[2 * half * t + j] = static_cast<float>(cosine * static_cast<double>(factor));
  table[2 * half * t + half + j] = static_cast<float>(sine * static_cast<double>(factor));
}

struct Heads {
  int64_t count, heads;  // count = tokens * heads
  int half;
  const float *norm_weight;  // [h] or nullptr
  float epsilon;
  const float *table;
};

__global__ void __launch_bounds__(kThreads) rotary_kernel(Heads s, View in, View out) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  const int lane = static_cast<int>(threadIdx.x % 32);
  if (i >= s.count) return;
  const int64_t t = i / s.heads, first = i % s.heads * 2 * s.half;
  const float *cosines = s.table + t * 2 * s.half, *sines = cosines + s.half;
  float r = 1;
  if (s.norm_weight) {
    float squares = 0;
    for (int j = lane; j < 2 * s.half; j += 32) {
      const float x = load1(in, t, first + j);
      squares += x * x;
    }
    r = 1 / sqrtf(warp_sum(squares) / static_cast<float>(2 * s.half) + s.epsilon);
    __syncwarp();  // `out` may be `in`
  }
  for (int j = lane; j < s.half; j += 32) {
    float x = load1(in, t, first + j), y = load1(in, t, first + j + s.half);
    if (s.norm_weight) x *= r * s.norm_weight[j], y *= r * s.norm_weight[j + s.half];
    store1(out, t, first + j, x * cosines[j] - y * sines[j]);
    store1(out, t, first + j + s.half, y * cosines[j] + x * sines[j]);
  }
}

// g = w R^T dout, then the backward of the norm: din = r (g - x c), c = r^2 mean(x g)
__global__ void __launch_bounds__(kThreads) rotary_backward_kernel(Heads s, View in, View dout, View din) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  const int lane = static_cast<int>(threadIdx.x % 32);
  if (i >= s.count) return;
  const int64_t t = i / s.heads, first = i % s.heads * 2 * s.half;
  const float *cosines = s.table + t * 2 * s.half, *sines = cosines + s.half;
  float r = 1, c = 0;
  if (s.norm_weight) {
    float squares = 0, dots = 0;
    for (int j = lane; j < s.half; j += 32) {
      const float x = load1(in, t, first + j), y = load1(in, t, first + j + s.half);
      const float dx = load1(dout, t, first + j), dy = load1(dout, t, first + j + s.half);
      squares += x * x + y * y;
      dots += x * s.norm_weight[j] * (dx * cosines[j] + dy * sines[j]) +
              y * s.norm_weight[j + s.half] * (dy * cosines[j] - dx * sines[j]);
    }
    const float n = static_cast<float>(2 * s.half);
    r = 1 / sqrtf(warp_sum(squares) / n + s.epsilon);
    c = r * r * warp_sum(dots) / n;
    __syncwarp();
  }
  for (int j = lane; j < s.half; j += 32) {
    const float dx = load1(dout, t, first + j), dy = load1(dout, t, first + j + s.half);
    float x = dx * cosines[j] + dy * sines[j], y = dy * cosines[j] - dx * sines[j];
    if (s.norm_weight) {
      x = r * (s.norm_weight[j] * x - load1(in, t, first + j) * c);
      y = r * (s.norm_weight[j + s.half] * y - load1(in, t, first + j + s.half) * c);
    }
    store1(din, t, first + j, x);
    store1(din, t, first + j + s.half, y);
  }
}

}  // namespace

void CudaBackend::rotary_table(int64_t tokens, int64_t head_dimension, const int32_t *positions, const float *inverse_frequency,
                               float factor, float *table) {
  const int64_t half = head_dimension / 2, count = tokens * half;
  if (count == 0) return;
  MOE_LAUNCH((rotary_table_kernel), blocks_for(count, kThreads), kThreads, 0, on(), count, static_cast<unsigned>(half), positions,
             inverse_frequency, factor, table);
}

void CudaBackend::rotary(int64_t tokens, int64_t heads, int64_t head_dimension, Rows in, const float *norm_weight, float epsilon,
                         const float *table, Rows out) {
  const Heads shape{tokens * heads, heads, static_cast<int>(head_dimension / 2), norm_weight, epsilon, table};
  if (shape.count == 0) return;
  MOE_LAUNCH((rotary_kernel), blocks_for(shape.count, kThreads / 32), kThreads, 0, on(), shape, view("rotary", in),
             view("rotary", out));
}

void CudaBackend::rotary_backward(int64_t tokens, int64_t heads, int64_t head_dimension, Rows in, const float *norm_weight,
                                  float epsilon, const float *table, Rows dout, Rows din) {
  const char *op = "rotary_backward";
  const Heads shape{tokens * heads, heads, static_cast<int>(head_dimension / 2), norm_weight, epsilon, table};
  if (shape.count == 0) return;
  MOE_LAUNCH((rotary_backward_kernel), blocks_for(shape.count, kThreads / 32), kThreads, 0, on(), shape, view(op, in),
             view(op, dout), view(op, din));
}

}  // namespace moe::cuda
