// The per-layer token router: z = W u + b, p = softmax(z / tau), the k largest entries, the gates of the four forms, and the
// backward pass; formulas and the rule for ties are those of lib/cpu/router.cpp. A warp takes a token: its lanes share the dot
// products and the softmax; lane 0, which alone has little to do, selects.
#include <cfloat>

#include "cuda/cuda_backend.h"
#include "cuda/rows.h"

namespace moe::cuda {
namespace {

constexpr int kThreads = 128;

struct TokenRouting {
  RouterShape shape;
  const float *p;
  int32_t *picked;
  uint8_t *selected;
  float *gates;

  __device__ TokenRouting(const RouterShape &s, const RouterState &state, int64_t t)
      : shape(s), p(state.p + t * (s.experts + 1)), picked(state.picked + t * s.top_k), selected(state.selected + t * s.experts),
        gates(state.gates + t * s.experts) {}

  __device__ bool is_picked(int64_t entry, int64_t count) const {
    for (int64_t i = 0; i < count; i++)
      if (picked[i] == entry) return true;
    return false;
  }
  __device__ bool is_picked(int64_t entry) const { return is_picked(entry, shape.top_k); }
  __device__ bool divides() const { return shape.form == GateForm::renormalised_delta || shape.form == GateForm::weighted; }
  __device__ bool counts_base() const { return shape.form == GateForm::renormalised_delta || is_picked(0); }
  __device__ bool takes_part(int64_t entry) const { return selected[entry - 1] || is_picked(entry); }
  __device__ float denominator() const {
    float sum = counts_base() ? p[0] : 0.0f;
    for (int64_t i = 1; i <= shape.experts; i++) sum += takes_part(i) ? p[i] : 0.0f;
    return fmaxf(sum, FLT_MIN);
  }
};

// z / tau + bias, where entries are ranked
__device__ __forceinline__ float score_of(const RouterShape &s, const float *z, int64_t i) {
  const float score = z[i] * (1 / s.temperature);
  return s.bias_for_selection ? score + s.bias_for_selection[i] : score;
}
// The first of the largest scores that is not among the first `count` picked and not below `from`.
__device__ int64_t best_entry(const TokenRouting &token, const float *z, int64_t from, int64_t count) {
  int64_t best = -1;
  for (int64_t i = from; i <= token.shape.experts; i++) {
    if (token.is_picked(i, count)) continue;
    if (best < 0 || score_of(token.shape, z, i) > score_of(token.shape, z, best)) best = i;
  }
  return best;
}

__device__ void select_entries(const TokenRouting &token, const float *z) {
  const int64_t k = token.shape.top_k;
  for (int64_t i = 0; i < k; i++) token.picked[i] = static_cast<int32_t>(best_entry(token, z, 0, i));
  if (token.shape.bias_for_selection) {  // the bias may have changed the order: back to falling z, ties to the lowest index
    for (int64_t i = 1; i < k; i++) {
      const int32_t entry = token.picked[i];
      int64_t at = i;
      for (; at > 0; at--) {
        const int32_t before = token.picked[at - 1];
        if (z[before] > z[entry] || (z[before] == z[entry] && before < entry)) break;
        token.picked[at] = before;
      }
      token.picked[at] = entry;
    }
  }
  for (int64_t i = 0; i < token.shape.experts; i++) token.selected[i] = 0;
  for (int64_t i = 0; i < k; i++)
    if (token.picked[i] > 0) token.selected[token.picked[i] - 1] = 1;
  const bool base_alone = k == 1 && token.picked[0] == 0;
  if (token.shape.force_expert && base_alone && token.shape.experts > 0) token.selected[best_entry(token, z, 1, 0) - 1] = 1;
}

__device__ void set_gates(const TokenRouting &token) {
  const float scale = token.divides() ? 1 / token.denominator() : 1.0f;
  for (int64_t i = 1; i <= token.shape.experts; i++) {
    float gate = 0;
    if (token.selected[i - 1])
      gate = token.shape.form == GateForm::straight_through && token.is_picked(i) ? 1.0f : token.p[i] * scale;
    token.gates[i - 1] = gate;
  }
}

// p = softmax(factor z) of a warp; returns logsumexp
__device__ __forceinline__ float warp_softmax(int64_t entries, const float *z, float factor, float *p) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  float largest = -INFINITY, sum = 0;
  for (int64_t i = lane; i < entries; i += 32) largest = fmaxf(largest, z[i] * factor);
  largest = warp_max(largest);
  for (int64_t i = lane; i < entries; i += 32) sum += expf(z[i] * factor - largest);
  sum = warp_sum(sum);
  for (int64_t i = lane; i < entries; i += 32) p[i] = expf(z[i] * factor - largest) / sum;
  return largest + logf(sum);
}

// (Without the 8 blocks ptxas keeps to 40 registers for sm_100, and spills one.)
__global__ void __launch_bounds__(kThreads, 8)
    router_kernel(RouterShape s, View u, View weight, const float *bias, RouterState state) {
  const int64_t t = static_cast<int64_t>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32, entries = s.experts + 1;
  const int lane = static_cast<int>(threadIdx.x % 32);
  if (t >= s.tokens) return;
  float *z = state.z + t * entries;
  for (int64_t i = 0; i < entries; i++) {
    float sum = 0;
    for (int64_t j = 8 * lane; j < s.hidden; j += 256) {
      const Eight a = load8(u, t, j, s.hidden), b = load8(weight, i, j, s.hidden);
      for (int l = 0; l < 8; l++) sum = fmaf(a.v[l], b.v[l], sum);
    }
    sum = warp_sum(sum);
    if (lane == 0) z[i] = sum + bias[i];
  }
  __syncwarp();
  warp_softmax(entries, z, 1 / s.temperature, state.p + t * entries);
  __syncwarp();
  if (lane != 0) return;
  const TokenRouting token(s, state, t);
  select_entries(token, z);
  set_gates(token);
}

// dp += dL/dp through the gates of one token.
__device__ void add_gate_gradient(const TokenRouting &token, const float *dgates, float *dp) {
  const int64_t experts = token.shape.experts;
  if (!token.divides()) {
    for (int64_t i = 1; i <= experts; i++) dp[i] += token.selected[i - 1] ? dgates[i - 1] : 0.0f;
    return;
  }
  const float inverse = 1 / token.denominator();
  float mean = 0;  // sum_i g_i dg_i
  for (int64_t i = 1; i <= experts; i++) mean += token.selected[i - 1] ? token.p[i] * inverse * dgates[i - 1] : 0.0f;
  if (token.counts_base()) dp[0] -= mean * inverse;
  for (int64_t i = 1; i <= experts; i++)
    if (token.takes_part(i)) dp[i] += ((token.selected[i - 1] ? dgates[i - 1] : 0.0f) - mean) * inverse;
}

// dz holds dp until the end of a token.
__global__ void __launch_bounds__(kThreads) router_backward_kernel(RouterShape s, RouterState state, const float *dgates,
                                                                   RouterLossGradient losses, float *dz, float *plain) {
  const int64_t t = static_cast<int64_t>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32, entries = s.experts + 1;
  const int lane = static_cast<int>(threadIdx.x % 32);
  if (t >= s.tokens) return;
  const float *p = state.p + t * entries;
  float *out = dz + t * entries, *softmax = plain + t * entries;
  if (lane == 0) {
    for (int64_t i = 0; i < entries; i++) out[i] = losses.balance ? losses.balance[i] : 0.0f;
    if (losses.sequences > 0) {
      int64_t sequence = 0;  // the last that starts at or before t
      while (sequence + 1 < losses.sequences && losses.starts[sequence + 1] <= t) sequence++;
      const int32_t entry = losses.supervised_entry[sequence];
      if (entry >= 0) out[entry] += losses.supervised[sequence];
    }
    add_gate_gradient(TokenRouting(s, state, t), dgates + t * s.experts, out);
  }
  __syncwarp();
  // dz = p (dp - <p, dp>) / tau + z-loss
  float mean = 0;
  for (int64_t i = lane; i < entries; i += 32) mean = fmaf(p[i], out[i], mean);
  mean = warp_sum(mean);
  const float z_factor = losses.z != 0 ? losses.z * warp_softmax(entries, state.z + t * entries, 1, softmax) : 0.0f;
  for (int64_t i = lane; i < entries; i += 32)
    out[i] = p[i] * (out[i] - mean) / s.temperature + (losses.z != 0 ? z_factor * softmax[i] : 0.0f);
}

// dbias[i] += sum_t dz[t, i] in double precision; a block takes an entry.
__global__ void __launch_bounds__(kThreads) bias_kernel(int64_t tokens, int64_t entries, const float *dz, float *dbias) {
  double part = 0;
  for (int64_t t = threadIdx.x; t < tokens; t += kThreads) part += static_cast<double>(dz[t * entries + blockIdx.x]);
  const double sum = block_sum<kThreads>(part);
  if (threadIdx.x == 0) dbias[blockIdx.x] += static_cast<float>(sum);
}

void check_shape(const RouterShape &shape) {
  if (shape.top_k < 1 || shape.top_k > shape.experts + 1)
    fail(Code::invalid, "router: top_k must be in 1 .. ", shape.experts + 1, ", found ", shape.top_k);
  if (!(shape.temperature > 0)) fail(Code::invalid, "router: the temperature must be above 0, found ", shape.temperature);
  if (shape.form == GateForm::weighted && shape.top_k == 1) {
    fail(Code::invalid, "router: the weighted form needs top_k of 2 or more: with one entry its gate is constant");
  }
}

}  // namespace

void CudaBackend::router(const RouterShape &shape, Rows u, const float *weight, const float *bias, const RouterState &state) {
  check_shape(shape);
  if (shape.tokens == 0) return;
  MOE_LAUNCH((router_kernel), blocks_for(shape.tokens, kThreads / 32), kThreads, 0, on(), shape, view("router", u),
             view("router", f32_rows(weight, shape.hidden)), bias, state);
}

void CudaBackend::router_backward(const RouterShape &shape, Rows u, const float *weight, const RouterState &state,
                                  const float *dgates, const RouterLossGradient &losses, float *dz, float *dweight, float *dbias,
                                  Rows du) {
  check_shape(shape);
  const int64_t entries = shape.experts + 1;
  if (shape.tokens == 0) return;
  float *const plain = losses.z != 0 ? scratch<float>(shape.tokens * entries) : nullptr;
  MOE_LAUNCH((router_backward_kernel), blocks_for(shape.tokens, kThreads / 32), kThreads, 0, on(), shape, state, dgates, losses,
             dz, plain);
  if (dweight) outer_product(shape.tokens, entries, shape.hidden, f32_rows(dz, entries), u, dweight, false);
  if (dbias)
    MOE_LAUNCH((bias_kernel), blocks_for(entries, 1), kThreads, 0, on(), shape.tokens, entries, static_cast<const float *>(dz),
               dbias);
  if (du.data)
    matmul_transposed(shape.tokens, f32_rows(dz, entries), Matrix{DType::f32, entries, shape.hidden, weight}, du, Store::add);
}

}  // namespace moe::cuda
