#include "model/router_statistics.h"

#include <algorithm>
#include <cmath>

namespace moe {
namespace {

double log_sum_exp(const float *z, int64_t n) {
  const double top = *std::max_element(z, z + n);
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += std::exp(z[i] - top);
  return top + std::log(sum);
}

// Sum of p[entry] over the tokens of sequence s.
double domain_probability(const RouterShape &shape, const RouterState &state, const PackedBatch &batch, size_t s, int32_t entry) {
  double sum = 0;
  for (int32_t t = batch.starts[s]; t < batch.starts[s + 1]; t++) sum += state.p[t * (shape.experts + 1) + entry];
  return sum;
}

bool has_domain(const PackedBatch &batch, size_t s) { return s < batch.domains.size() && batch.domains[s] >= 0; }

void add_to(std::vector<double> &sum, const std::vector<double> &other) {
  for (size_t i = 0; i < sum.size(); i++) sum[i] += other[i];
}

}  // namespace

RouterStatistics empty_statistics(const Router &router) {
  const RouterConfig &config = router.config();
  const size_t count = static_cast<size_t>(config.layers) * static_cast<size_t>(int{config.ffn} + int{config.attention});
  RouterStatistics s;
  s.top_k = config.top_k;
  s.picks.assign(count, std::vector<double>(static_cast<size_t>(config.entries())));
  s.probability = s.picks;
  s.z_squared.assign(count, 0);
  s.supervised = s.lm_gradient_norm = s.zero_gradient_tokens = s.z_squared;
  return s;
}

size_t router_index(const RouterConfig &config, int64_t layer, RouterKind kind) {
  return static_cast<size_t>(kind == RouterKind::attention && config.ffn ? config.layers + layer : layer);
}

void count_routing(const RouterShape &shape, const RouterState &state, const PackedBatch &batch, size_t index, RouterStatistics &statistics) {
  const int64_t entries = shape.experts + 1;
  for (int64_t t = 0; t < shape.tokens; t++) {
    for (int64_t k = 0; k < shape.top_k; k++) statistics.picks[index][static_cast<size_t>(state.picked[t * shape.top_k + k])] += 1;
    for (int64_t i = 0; i < entries; i++) statistics.probability[index][static_cast<size_t>(i)] += state.p[t * entries + i];
    const double lse = log_sum_exp(state.z + t * entries, entries);
    statistics.z_squared[index] += lse * lse;
  }
  for (size_t s = 0; s + 1 < batch.starts.size(); s++) {
    if (!has_domain(batch, s)) continue;
    const double mean = domain_probability(shape, state, batch, s, batch.domains[s]) / (batch.starts[s + 1] - batch.starts[s]);
    statistics.supervised[index] -= std::log(std::max(mean, 1e-30));
  }
}

void count_gate_gradients(const RouterShape &shape, const RouterState &state, const float *gradients, size_t index, RouterStatistics &statistics) {
  double squares = 0;
  for (int64_t t = 0; t < shape.tokens; t++) {
    bool any = false;
    for (int64_t i = t * shape.experts; i < (t + 1) * shape.experts; i++) {
      const double g = state.selected[i] ? gradients[i] : 0.0;
      squares += g * g;
      any = any || g != 0;
    }
    statistics.zero_gradient_tokens[index] += !any;
  }
  statistics.lm_gradient_norm[index] = std::sqrt(squares);
}

void RouterStatistics::add(const RouterStatistics &other) {
  if (picks.empty()) {
    *this = other;
    return;
  }
  tokens += other.tokens;
  supervised_samples += other.supervised_samples;
  for (size_t r = 0; r < picks.size(); r++) {
    add_to(picks[r], other.picks[r]);
    add_to(probability[r], other.probability[r]);
  }
  add_to(z_squared, other.z_squared);
  add_to(supervised, other.supervised);
  add_to(zero_gradient_tokens, other.zero_gradient_tokens);
  lm_gradient_norm = other.lm_gradient_norm;
}

std::vector<double> RouterStatistics::usage(size_t router) const {
  std::vector<double> share = picks[router];
  for (double &x : share) x /= std::max<double>(1, static_cast<double>(top_k * tokens));
  return share;
}

double RouterStatistics::balance(const std::vector<float> &target_usage) const {
  if (picks.empty() || tokens == 0) return 0;
  double sum = 0;
  for (size_t r = 0; r < picks.size(); r++) {
    const std::vector<double> f = usage(r);
    for (size_t i = 0; i < f.size(); i++) {
      const double target = target_usage.empty() ? 1.0 / static_cast<double>(f.size()) : target_usage[i];
      sum += f[i] * probability[r][i] / static_cast<double>(tokens) / target;
    }
  }
  return sum / static_cast<double>(picks.size());
}

double RouterStatistics::z() const {
  double sum = 0;
  for (double x : z_squared) sum += x;
  return z_squared.empty() || tokens == 0 ? 0 : sum / static_cast<double>(z_squared.size()) / static_cast<double>(tokens);
}

double RouterStatistics::supervised_loss() const {
  double sum = 0;
  for (double x : supervised) sum += x;
  return supervised.empty() || supervised_samples == 0 ? 0 : sum / static_cast<double>(supervised.size()) / static_cast<double>(supervised_samples);
}

RouterLossGradients::RouterLossGradients(const PassRequest &request, const RouterConfig &config, const PackedBatch &batch,
                                         const RouterStatistics &statistics)
    : request_(request), batch_(batch), statistics_(statistics), routers_(static_cast<double>(statistics.picks.size())),
      step_tokens_(static_cast<double>(request.step_tokens ? request.step_tokens : batch.size())),
      step_samples_(static_cast<double>(request.step_samples ? request.step_samples : statistics.supervised_samples)),
      entries_(static_cast<size_t>(config.entries())), sequences_(static_cast<size_t>(batch.sequences())) {
  for (size_t s = 0; s < sequences_; s++) supervised_entry_.push_back(has_domain(batch, s) ? batch.domains[s] : -1);
}

size_t RouterLossGradients::words(const RouterConfig &config, size_t routers, size_t sequences) {
  return routers * (static_cast<size_t>(config.entries()) + sequences) + 2 * sequences + 1;
}

void RouterLossGradients::add(size_t index, const RouterShape &shape, const RouterState &state) {
  const RouterLosses &losses = request_.losses;
  if (losses.balance != 0) {
    // dL/dp_i = alpha f_i / (pi_i R T): f is a count and has no gradient
    std::vector<double> f = statistics_.picks[index];
    double tokens = static_cast<double>(statistics_.tokens);
    if (request_.exact) {
      f = request_.exact->picks[index];
      tokens = static_cast<double>(request_.exact->tokens);
    } else if (request_.earlier && !request_.earlier->picks.empty()) {
      add_to(f, request_.earlier->picks[index]);
      tokens += static_cast<double>(request_.earlier->tokens);
    }
    for (size_t i = 0; i < f.size(); i++) {
      const double target = losses.target_usage.empty() ? 1.0 / static_cast<double>(f.size()) : losses.target_usage[i];
      balance_.push_back(
          static_cast<float>(losses.balance * f[i] / (static_cast<double>(shape.top_k) * tokens * target * routers_ * step_tokens_)));
    }
  }
  if (!supervises()) return;
  // d/dp of -log(mean p) = -1 / sum p for every token of the sample
  for (size_t s = 0; s < sequences_; s++) {
    const int32_t entry = supervised_entry_[s];
    const double sum = entry < 0 ? 1 : domain_probability(shape, state, batch_, s, entry);
    supervised_.push_back(static_cast<float>(-losses.supervised / (routers_ * step_samples_ * std::max(sum, 1e-30))));
  }
}

void RouterLossGradients::bring(Backend &ops, void *memory) {
  for (const auto &floats : {std::span<const float>(balance_), std::span<const float>(supervised_)}) arrays_.add(floats);
  for (const auto &integers : {std::span<const int32_t>(supervised_entry_), std::span<const int32_t>(batch_.starts)}) arrays_.add(integers);
  arrays_.bring(ops, memory);
}

RouterLossGradient RouterLossGradients::of(size_t index) const {
  RouterLossGradient gradient;
  if (request_.losses.balance != 0) gradient.balance = arrays_.at<float>(0) + index * entries_;
  gradient.z = static_cast<float>(2.0 * request_.losses.z / (routers_ * step_tokens_));
  if (!supervises()) return gradient;
  gradient.supervised = arrays_.at<float>(1) + index * sequences_;
  gradient.supervised_entry = arrays_.at<int32_t>(2);
  gradient.starts = arrays_.at<int32_t>(3);
  gradient.sequences = batch_.sequences();
  return gradient;
}

}  // namespace moe
