#include "eval/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "base/random.h"

namespace moe {
namespace {

constexpr double kNormal975 = 1.959963984540054;  // of the standard normal distribution

// The q-quantile of sorted values, linear between neighbours.
double quantile(const std::vector<double> &sorted, double q) {
  const double at = q * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(at);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (at - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

}  // namespace

Interval wilson(int64_t successes, int64_t samples) {
  if (samples <= 0) return {0, 1};
  const double n = static_cast<double>(samples), p = static_cast<double>(successes) / n, z2 = kNormal975 * kNormal975;
  const double middle = (p + z2 / (2 * n)) / (1 + z2 / n);
  const double half = kNormal975 / (1 + z2 / n) * std::sqrt(p * (1 - p) / n + z2 / (4 * n * n));
  return {std::max(0.0, middle - half), std::min(1.0, middle + half)};
}

McNemar mcnemar(int64_t first_only, int64_t second_only) {
  McNemar result{first_only, second_only, 1, 1};
  const int64_t n = first_only + second_only, k = std::min(first_only, second_only);
  if (n == 0) return result;
  const double log_half_n = static_cast<double>(n) * std::log(0.5), log_factorial = std::lgamma(static_cast<double>(n) + 1);
  const auto probability = [&](int64_t i) {
    return std::exp(log_factorial - std::lgamma(static_cast<double>(i) + 1) - std::lgamma(static_cast<double>(n - i) + 1) +
                    log_half_n);
  };
  double tail = 0;
  for (int64_t i = 0; i <= k; i++) tail += probability(i);
  result.p_exact = std::min(1.0, 2 * tail);
  result.p_mid = std::min(1.0, 2 * tail - probability(k));
  return result;
}

Bootstrap bootstrap(std::span<const int64_t> sizes, const std::function<double(const Draw &)> &statistic, uint64_t seed,
                    int64_t draws) {
  Draw draw(sizes.size());
  for (size_t g = 0; g < sizes.size(); g++) draw[g].resize(static_cast<size_t>(sizes[g]));
  std::vector<double> values;
  for (int64_t n = 0; n < draws; n++) {
    const Random random(seed, static_cast<uint64_t>(n));
    uint64_t counter = 0;
    for (std::vector<int32_t> &group : draw) {
      for (int32_t &index : group) index = static_cast<int32_t>(random.below(counter++, group.size()));
    }
    const double value = statistic(draw);
    if (std::isfinite(value)) values.push_back(value);
  }
  constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  if (values.empty()) return {{kNone, kNone}, 0};
  std::sort(values.begin(), values.end());
  return {{quantile(values, 0.025), quantile(values, 0.975)}, static_cast<int64_t>(values.size())};
}

double macro_f1(std::span<const Classified> items) {
  struct Counts {
    int64_t predicted = 0, gold = 0, both = 0;
  };
  std::map<int32_t, Counts> classes;
  for (const auto &[predicted, gold] : items) {
    classes[predicted].predicted++;
    classes[gold].gold++;
    classes[gold].both += predicted == gold;
  }
  double sum = 0;
  for (const auto &[name, counts] : classes)
    sum += 2 * static_cast<double>(counts.both) / static_cast<double>(counts.predicted + counts.gold);
  return classes.empty() ? 0 : sum / static_cast<double>(classes.size());
}

Calibration calibration(std::span<const Confidence> predictions) {
  constexpr size_t kBins = 10;
  Calibration result;
  result.bins.resize(kBins);
  for (const Confidence &one : predictions) {
    CalibrationBin &bin = result.bins[std::min(kBins - 1, static_cast<size_t>(one.value * kBins))];
    bin.samples++;
    bin.correct += one.correct;
    bin.confidence += one.value;
  }
  for (CalibrationBin &bin : result.bins) {
    if (bin.samples == 0) continue;
    result.error += std::fabs(static_cast<double>(bin.correct) - bin.confidence) / static_cast<double>(predictions.size());
    bin.confidence /= static_cast<double>(bin.samples);
  }
  return result;
}

}  // namespace moe
