#include "train/target_usage.h"

#include <cmath>

#include "base/error.h"

namespace moe {
namespace {

// Cuts entries above `cap` and hands the excess to the entries below it in proportion, until none exceeds it.
void cap_entries(std::vector<double> &share, double cap) {
  for (size_t round = 0; round < share.size(); round++) {
    double excess = 0, below = 0;
    for (double &x : share) {
      if (x > cap) {
        excess += x - cap;
        x = cap;
      } else if (x < cap) {
        below += x;
      }
    }
    if (excess <= 0 || below <= 0) return;
    for (double &x : share) {
      if (x < cap) x += excess * x / below;
    }
  }
}

}  // namespace

std::vector<float> default_target_usage(const std::vector<int64_t> &domain_tokens, int64_t top_k) {
  const size_t experts = domain_tokens.size();
  double total = 0;
  for (int64_t tokens : domain_tokens) total += static_cast<double>(tokens);
  std::vector<double> share(experts + 1, 1.0 / static_cast<double>(experts + 1));
  for (size_t i = 0; i < experts && total > 0; i++) {
    share[i + 1] = (1 - share[0]) * std::max(static_cast<double>(domain_tokens[i]) / total, 1e-3);
  }
  cap_entries(share, 1.0 / static_cast<double>(top_k));
  double sum = 0;
  for (double x : share) sum += x;
  std::vector<float> target;
  for (double x : share) target.push_back(static_cast<float>(x / sum));
  return target;
}

std::vector<float> checked_target_usage(const std::vector<float> &target, const RouterConfig &router) {
  if (static_cast<int64_t>(target.size()) != router.entries()) {
    fail(Code::invalid, "target_usage: expected ", router.entries(), " entries (the base, then each expert), found ", target.size());
  }
  const double cap = 1.0 / static_cast<double>(router.top_k);
  double sum = 0;
  for (size_t i = 0; i < target.size(); i++) {
    if (!(target[i] > 0 && target[i] <= cap + 1e-6)) {
      fail(Code::invalid, "target_usage: entry ", i, ": expected above 0 and at most 1/k = ", cap, ", found ", target[i]);
    }
    sum += target[i];
  }
  if (std::abs(sum - 1) > 1e-3) fail(Code::invalid, "target_usage: expected entries that sum to 1, found ", sum);
  std::vector<float> scaled;
  for (float x : target) scaled.push_back(static_cast<float>(x / sum));
  return scaled;
}

}  // namespace moe
