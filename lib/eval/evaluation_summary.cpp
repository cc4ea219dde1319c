#include "eval/evaluation_summary.h"

#include <algorithm>
#include <cmath>

namespace moe {
namespace {

void summarize_f1(EvalResult &result, uint64_t seed) {
  const auto mean_f1 = [&](const Draw &draw) {
    double sum = 0;
    for (const int32_t i : draw[0]) sum += result.items[static_cast<size_t>(i)].f1;
    return sum / static_cast<double>(draw[0].size());
  };
  double sum = 0;
  for (const EvalItem &item : result.items) sum += item.f1;
  const Interval interval = bootstrap({&result.total_samples, 1}, mean_f1, seed).interval;
  result.has_f1 = true;
  result.f1 = sum / static_cast<double>(result.total_samples);
  result.f1_low = interval.low;
  result.f1_high = interval.high;
}

void summarize_losses(EvalResult &result, uint64_t seed) {
  double nll = 0;
  for (const EvalItem &item : result.items) {
    nll += item.nll;
    result.loss_tokens += item.nll_tokens;
  }
  result.mean_loss = nll / static_cast<double>(result.loss_tokens);
  result.perplexity = std::exp(result.mean_loss);
  const int64_t samples = result.total_samples;
  const auto mean_loss = [&](const Draw &draw) {
    double sum = 0, tokens = 0;
    for (const int32_t i : draw[0]) {
      sum += result.items[static_cast<size_t>(i)].nll;
      tokens += static_cast<double>(result.items[static_cast<size_t>(i)].nll_tokens);
    }
    return sum / tokens;
  };
  const Interval interval = bootstrap({&samples, 1}, mean_loss, seed).interval;
  result.loss_low = interval.low;
  result.loss_high = interval.high;
}

// Mean over the tokens of all items.
std::vector<double> mean_routing(const std::vector<EvalItem> &items, std::vector<float> EvalItem::*part) {
  std::vector<double> shares;
  double tokens = 0;
  for (const EvalItem &item : items) {
    const std::vector<float> &own = item.*part;
    if (own.empty()) continue;
    shares.resize(own.size());
    for (size_t i = 0; i < own.size(); i++) shares[i] += own[i] * static_cast<double>(item.routing_tokens);
    tokens += static_cast<double>(item.routing_tokens);
  }
  for (double &share : shares) share /= std::max(1.0, tokens);
  return shares;
}

void summarize_routing(EvalResult &result, const Mixture &mixture) {
  result.entries = {"base"};
  const std::vector<std::string> &domains = mixture.domains;
  result.entries.insert(result.entries.end(), domains.begin(), domains.end());
  const auto found = std::find(domains.begin(), domains.end(), result.domain);
  if (found != domains.end()) result.domain_entry = static_cast<int32_t>(found - domains.begin()) + 1;
  result.usage = mean_routing(result.items, &EvalItem::routing);
  result.layer_usage = mean_routing(result.items, &EvalItem::layer_routing);
}

}  // namespace

void summarize(EvalResult &result, const HeldOut &task, const Mixture *mixture, uint64_t seed) {
  const auto samples = static_cast<int64_t>(result.items.size());
  int64_t correct_mutual_info = 0;
  result.total_samples = samples;
  for (const EvalItem &item : result.items) {
    result.correct += item.correct;
    result.correct_norm += item.correct_norm;
    correct_mutual_info += item.correct_mutual_info;
    result.unparsed += item.unparsed;
  }
  if (result.evaluation_type != "loss") {
    const Interval interval = wilson(result.correct, samples), norm = wilson(result.correct_norm, samples);
    result.accuracy = static_cast<double>(result.correct) / static_cast<double>(samples);
    result.acc_norm = static_cast<double>(result.correct_norm) / static_cast<double>(samples);
    result.accuracy_low = interval.low;
    result.accuracy_high = interval.high;
    result.acc_norm_low = norm.low;
    result.acc_norm_high = norm.high;
  }
  if (result.evaluation_type == "multiple_choice") {
    std::vector<Confidence> predictions;
    for (const EvalItem &item : result.items) predictions.push_back({confidence(item.choice_log_likelihood), item.correct});
    result.calibration = calibration(predictions);
    std::vector<Classified> classified;
    for (const EvalItem &item : result.items) classified.push_back({item.prediction, item.gold});
    result.has_macro_f1 = task.macro_f1;
    result.macro_f1 = macro_f1(classified);
  }
  if (result.evaluation_type == "code_tests")
    for (const EvalItem &item : result.items) result.code_outcomes[static_cast<size_t>(item.code.outcome)]++;
  if (result.evaluation_type == "exact_match" && task.token_f1) summarize_f1(result, seed);
  if (result.has_mutual_info) {
    const Interval interval = wilson(correct_mutual_info, samples);
    result.acc_mutual_info = static_cast<double>(correct_mutual_info) / static_cast<double>(samples);
    result.acc_mutual_info_low = interval.low;
    result.acc_mutual_info_high = interval.high;
  }
  if (result.has_loss) summarize_losses(result, seed);
  if (mixture) summarize_routing(result, *mixture);
}

}  // namespace moe
