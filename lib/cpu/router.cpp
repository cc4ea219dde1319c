// The per-layer token router: z = W u + b, p = softmax(z / tau) over the base (entry 0) and E experts, the k largest
// entries, and the gates of the four forms. Selection is held fixed in the backward pass.
// With D the sum of p over the entries a form counts:
//   delta, straight_through backward   g_i = p_i
//   renormalised_delta                 g_i = p_i / D, D over the base and the evaluated experts
//   weighted                           g_i = p_i / D, D over the picked entries (the base only if picked)
//   straight_through forward           g_i = 1
// Entries are ranked by z / tau rather than by p, where f32 would round different values into a tie. An expert that
// force_expert evaluates although the base wins takes part with its p, whatever the form's forward value is.
#include <algorithm>
#include <cfloat>
#include <cmath>

#include "base/error.h"
#include "cpu/cpu_backend.h"

namespace moe::cpu {
namespace {

constexpr int64_t kTile = 32;  // tokens of a task

// The routing of one token; entries = E + 1.
struct TokenRouting {
  const RouterShape &shape;
  const float *p;
  int32_t *picked;
  uint8_t *selected;
  float *gates;

  TokenRouting(const RouterShape &s, const RouterState &state, int64_t t)
      : shape(s), p(state.p + t * (s.experts + 1)), picked(state.picked + t * s.top_k), selected(state.selected + t * s.experts),
        gates(state.gates + t * s.experts) {}

  bool is_picked(int64_t entry) const { return std::find(picked, picked + shape.top_k, entry) != picked + shape.top_k; }
  bool divides() const { return shape.form == GateForm::renormalised_delta || shape.form == GateForm::weighted; }
  bool counts_base() const { return shape.form == GateForm::renormalised_delta || is_picked(0); }
  // Evaluated, or picked and dropped later by a capacity limit.
  bool takes_part(int64_t entry) const { return selected[entry - 1] || is_picked(entry); }
  float denominator() const {
    float sum = counts_base() ? p[0] : 0;
    for (int64_t i = 1; i <= shape.experts; i++) sum += takes_part(i) ? p[i] : 0;
    return std::max(sum, FLT_MIN);
  }
};

// The first of the largest scores that is not picked yet and not below `from`.
int32_t best_entry(const float *score, int64_t entries, int64_t from, const int32_t *picked, int64_t count) {
  int64_t best = -1;
  for (int64_t i = from; i < entries; i++) {
    if (std::find(picked, picked + count, i) != picked + count) continue;
    if (best < 0 || score[i] > score[best]) best = i;
  }
  return static_cast<int32_t>(best);
}

void select_entries(const TokenRouting &token, const float *score, const float *z) {
  const int64_t entries = token.shape.experts + 1, k = token.shape.top_k;
  for (int64_t i = 0; i < k; i++) token.picked[i] = best_entry(score, entries, 0, token.picked, i);
  // A selection bias may have changed the order.
  if (token.shape.bias_for_selection) {
    std::sort(token.picked, token.picked + k, [z](int32_t a, int32_t b) { return z[a] > z[b] || (z[a] == z[b] && a < b); });
  }
  std::fill_n(token.selected, token.shape.experts, uint8_t{0});
  for (int64_t i = 0; i < k; i++) {
    if (token.picked[i] > 0) token.selected[token.picked[i] - 1] = 1;
  }
  const bool base_alone = k == 1 && token.picked[0] == 0;
  if (token.shape.force_expert && base_alone && entries > 1) token.selected[best_entry(score, entries, 1, nullptr, 0) - 1] = 1;
}

void set_gates(const TokenRouting &token) {
  const float scale = token.divides() ? 1 / token.denominator() : 1;
  for (int64_t i = 1; i <= token.shape.experts; i++) {
    float &gate = token.gates[i - 1];
    if (!token.selected[i - 1]) gate = 0;
    else if (token.shape.form == GateForm::straight_through && token.is_picked(i)) gate = 1;
    else gate = token.p[i] * scale;
  }
}

// dp += dL/dp through the gates of one token.
void add_gate_gradient(const TokenRouting &token, const float *dgates, float *dp) {
  const int64_t experts = token.shape.experts;
  if (!token.divides()) {
    for (int64_t i = 1; i <= experts; i++) dp[i] += token.selected[i - 1] ? dgates[i - 1] : 0;
    return;
  }
  const float inverse = 1 / token.denominator();
  float mean = 0;  // sum_i g_i dg_i
  for (int64_t i = 1; i <= experts; i++) mean += token.selected[i - 1] ? token.p[i] * inverse * dgates[i - 1] : 0;
  if (token.counts_base()) dp[0] -= mean * inverse;
  for (int64_t i = 1; i <= experts; i++) {
    if (token.takes_part(i)) dp[i] += ((token.selected[i - 1] ? dgates[i - 1] : 0) - mean) * inverse;
  }
}

void check(const RouterShape &shape) {
  if (shape.top_k < 1 || shape.top_k > shape.experts + 1) {
    fail(Code::invalid, "router: top_k must be in 1 .. ", shape.experts + 1, ", found ", shape.top_k);
  }
  if (!(shape.temperature > 0)) fail(Code::invalid, "router: the temperature must be above 0, found ", shape.temperature);
  if (shape.form == GateForm::weighted && shape.top_k == 1) {
    fail(Code::invalid, "router: the weighted form needs top_k of 2 or more: with one entry its gate is constant");
  }
}

}  // namespace

void CpuBackend::router(const RouterShape &shape, Rows u, const float *weight, const float *bias, const RouterState &state) {
  check(shape);
  const int64_t entries = shape.experts + 1, d = shape.hidden;
  reserve_scratch(static_cast<size_t>(d + entries) * sizeof(float));
  pool_->run((shape.tokens + kTile - 1) / kTile, [&](int64_t tile, int thread) {
    float *score = scratch<float>(thread), *space = score + entries;
    const int64_t end = std::min(shape.tokens, (tile + 1) * kTile);
    for (int64_t t = tile * kTile; t < end; t++) {
      const float *row = as_f32(u, t, d, space);
      float *z = state.z + t * entries, *p = state.p + t * entries;
      for (int64_t i = 0; i < entries; i++) z[i] = k_.dot(d, weight + i * d, row) + bias[i];
      k_.scale(entries, 1 / shape.temperature, z, score);
      const float sum = k_.exp_shifted(entries, score, k_.max(entries, score), p);
      k_.scale(entries, 1 / sum, p, p);
      if (shape.bias_for_selection) k_.add(entries, shape.bias_for_selection, score);
      const TokenRouting token(shape, state, t);
      select_entries(token, score, z);
      set_gates(token);
    }
  });
}

void CpuBackend::router_backward(const RouterShape &shape, Rows u, const float *weight, const RouterState &state,
                                 const float *dgates, const RouterLossGradient &losses, float *dz, float *dweight, float *dbias,
                                 Rows du) {
  check(shape);
  const int64_t entries = shape.experts + 1, d = shape.hidden;
  reserve_scratch(static_cast<size_t>(2 * entries) * sizeof(float));
  pool_->run((shape.tokens + kTile - 1) / kTile, [&](int64_t tile, int thread) {
    float *dp = scratch<float>(thread), *plain = dp + entries;
    const int64_t first = tile * kTile, end = std::min(shape.tokens, first + kTile);
    int64_t sequence = 0;  // the last that starts at or before t
    for (int64_t t = first; t < end; t++) {
      const float *p = state.p + t * entries, *z = state.z + t * entries;
      float *out = dz + t * entries;
      if (losses.balance) std::copy_n(losses.balance, entries, dp);
      else std::fill_n(dp, entries, 0.0f);
      if (losses.sequences > 0) {
        while (sequence + 1 < losses.sequences && losses.starts[sequence + 1] <= t) sequence++;
        const int32_t entry = losses.supervised_entry[sequence];
        if (entry >= 0) dp[entry] += losses.supervised[sequence];
      }
      add_gate_gradient(TokenRouting(shape, state, t), dgates + t * shape.experts, dp);
      // dz = p (dp - <p, dp>) / tau
      const float mean = k_.dot(entries, p, dp);
      for (int64_t i = 0; i < entries; i++) out[i] = p[i] * (dp[i] - mean) / shape.temperature;
      if (losses.z != 0) {
        const float largest = k_.max(entries, z);
        const float sum = k_.exp_shifted(entries, z, largest, plain);
        k_.axpy(entries, losses.z * (largest + std::log(sum)) / sum, plain, out);
      }
    }
  });
  if (dweight) outer_product(shape.tokens, entries, d, f32_rows(dz, entries), u, dweight, false);
  if (dbias) {
    for (int64_t i = 0; i < entries; i++) {
      double sum = 0;
      for (int64_t t = 0; t < shape.tokens; t++) sum += static_cast<double>(dz[t * entries + i]);
      dbias[i] += static_cast<float>(sum);
    }
  }
  if (du.data) matmul_transposed(shape.tokens, f32_rows(dz, entries), Matrix{DType::f32, entries, d, weight}, du, Store::add);
}

}  // namespace moe::cpu
