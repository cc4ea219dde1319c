// No step sorts the vocabulary: top-k finds its threshold with a heap of k, top-p sorts only tokens that can be in the kept part.
#include "generate/sampler.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>

#include "base/error.h"
#include "base/random.h"

namespace moe {
namespace {

constexpr uint64_t kSamplingStream = 0x746F6B656E73;  // apart from the other users of a seed

struct Candidate {
  int32_t id;
  double weight;  // exp((logit - max) / temperature): the largest has 1
};

// exp(x) for x in [-87, 0]; relative error below 2e-7: 2^n from the exponent bits, exp of the remainder by its series.
inline float exp_of_negative(float x) {
  constexpr float kLog2E = 1.44269504f, kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f, kRounding = 12582912.0f;  // 1.5 * 2^23
  const float n = (x * kLog2E + kRounding) - kRounding;
  const float r = (x - n * kLn2High) - n * kLn2Low;
  const float series =
      1.0f + r * (1.0f + r * (0.5f + r * (1.66666672e-1f + r * (4.16666679e-2f + r * (8.33333377e-3f + r * 1.38888892e-3f)))));
  return series * std::bit_cast<float>((static_cast<int32_t>(n) + 127) << 23);
}

size_t largest(std::span<const float> logits) {
  if (logits.empty()) fail(Code::invalid, "there are no logits to sample from");
  return static_cast<size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// Computed from the given logits, so a token that occurs twice is penalised once.
std::vector<float> penalised(std::span<const float> logits, std::span<const int32_t> history, double penalty) {
  std::vector<float> result(logits.begin(), logits.end());
  for (const int32_t id : history) {
    if (id < 0 || static_cast<size_t>(id) >= logits.size()) fail(Code::invalid, "token ", id, " of the history is not in the vocabulary");
    const double z = logits[static_cast<size_t>(id)];
    result[static_cast<size_t>(id)] = static_cast<float>(z > 0 ? z / penalty : z * penalty);
  }
  return result;
}

float kth_largest(std::span<const float> logits, size_t k) {
  constexpr size_t kLargestHeap = 1024;  // beyond, selecting in a copy is faster
  if (k <= kLargestHeap) {
    std::vector<float> heap(k);
    std::partial_sort_copy(logits.begin(), logits.end(), heap.begin(), heap.end(), std::greater<>());
    return heap.back();
  }
  std::vector<float> copy(logits.begin(), logits.end());
  const auto kth = copy.begin() + static_cast<ptrdiff_t>(k - 1);
  std::nth_element(copy.begin(), kth, copy.end(), std::greater<>());
  return *kth;
}

double total_of(const std::vector<Candidate> &candidates) {
  double total = 0;
  for (const Candidate &candidate : candidates) total += candidate.weight;
  return total;
}

// By rising probability tokens are dropped while their sum is at most 1 - p; so, by falling probability, a token stays while the sum
// of those before it is below p. What lies under a stayer is at most V times its weight: lighter ones need no sorting.
void keep_top_p(std::vector<Candidate> &candidates, double p) {
  const double total = total_of(candidates), lightest = total * (1 - p) / static_cast<double>(candidates.size());
  std::erase_if(candidates, [&](const Candidate &candidate) { return candidate.weight < lightest * (1 - 1e-9); });
  std::stable_sort(candidates.begin(), candidates.end(), [](const Candidate &a, const Candidate &b) { return a.weight > b.weight; });
  double before = 0;
  size_t kept = 0;
  while (kept < candidates.size() && (kept == 0 || before < total * p)) before += candidates[kept++].weight;
  candidates.resize(kept);
  std::sort(candidates.begin(), candidates.end(), [](const Candidate &a, const Candidate &b) { return a.id < b.id; });
}

// What may be drawn, by rising id.
std::vector<Candidate> candidates_of(const SamplerOptions &options, std::span<const float> logits) {
  const float top = logits[largest(logits)];
  const bool cut = options.top_k > 0 && static_cast<size_t>(options.top_k) < logits.size();
  const float threshold = cut ? kth_largest(logits, static_cast<size_t>(options.top_k)) : -std::numeric_limits<float>::infinity();
  std::vector<Candidate> candidates;
  if (!cut) candidates.reserve(logits.size());
  for (size_t i = 0; i < logits.size(); i++) {
    if (logits[i] < threshold) continue;
    const double weight = std::exp((static_cast<double>(logits[i]) - top) / options.temperature);
    candidates.push_back({static_cast<int32_t>(i), weight});
  }
  if (options.top_p < 1) keep_top_p(candidates, options.top_p);
  if (options.min_p > 0) std::erase_if(candidates, [&](const Candidate &candidate) { return candidate.weight < options.min_p; });
  return candidates;
}

int32_t draw(const std::vector<Candidate> &candidates, double uniform) {
  const double target = uniform * total_of(candidates);
  double sum = 0;
  int32_t last = candidates.front().id;
  for (const Candidate &candidate : candidates) {
    if (candidate.weight <= 0) continue;
    sum += candidate.weight;
    last = candidate.id;
    if (sum > target) break;
  }
  return last;  // the heaviest ones make the sum; rounding at its end falls to the last
}

void in_bounds(const char *name, double value, bool good, const char *bounds) {
  if (!good) fail(Code::invalid, name, " is ", value, ", expected ", bounds);
}

}  // namespace

void SamplerOptions::check() const {
  in_bounds("temperature", temperature, temperature > 0 && std::isfinite(temperature), "more than 0 (do_sample off is greedy)");
  in_bounds("top_k", static_cast<double>(top_k), top_k >= 0, "0 (off) or more");
  in_bounds("top_p", top_p, top_p > 0 && top_p <= 1, "more than 0 and at most 1");
  in_bounds("min_p", min_p, min_p >= 0 && min_p <= 1, "0 to 1");
  in_bounds("repetition_penalty", repetition_penalty, repetition_penalty > 0 && std::isfinite(repetition_penalty), "more than 0");
}

double log_sum_exp(std::span<const float> logits) {
  constexpr size_t kLanes = 16, kBlock = 4096;  // f32 sums stay short
  constexpr float kSmallest = -87.0f;           // beyond, exp(x) is no normal f32 number
  const float top = logits[largest(logits)];
  double total = 0;
  for (size_t begin = 0; begin < logits.size(); begin += kBlock) {
    const std::span<const float> block = logits.subspan(begin, std::min(kBlock, logits.size() - begin));
    std::array<float, kLanes> sums{}, broken{};  // broken: 0 * x, which is 0 or NaN
    size_t i = 0;
    for (; i + kLanes <= block.size(); i += kLanes) {
      for (size_t lane = 0; lane < kLanes; lane++) {
        const float x = block[i + lane] - top, bounded = x > kSmallest ? x : kSmallest;
        broken[lane] += 0.0f * x;
        sums[lane] += exp_of_negative(bounded);
      }
    }
    for (; i < block.size(); i++) {
      const float x = block[i] - top;
      broken[0] += 0.0f * x;
      sums[0] += exp_of_negative(std::max(x, kSmallest));
    }
    for (size_t lane = 0; lane < kLanes; lane++) total += sums[lane] + broken[lane];
  }
  if (!std::isfinite(total)) fail(Code::numeric, "the logits hold a NaN or an infinity");
  return top + std::log(total);
}

void sampling_distribution(const SamplerOptions &options, std::span<const float> logits, std::span<const int32_t> history,
                           std::vector<double> &probabilities) {
  options.check();
  log_sum_exp(logits);  // refuses what is no distribution
  std::vector<float> changed;
  if (options.repetition_penalty != 1) logits = changed = penalised(logits, history, options.repetition_penalty);
  probabilities.assign(logits.size(), 0);
  if (!options.do_sample) {
    probabilities[largest(logits)] = 1;
    return;
  }
  const std::vector<Candidate> candidates = candidates_of(options, logits);
  const double total = total_of(candidates);
  for (const Candidate &candidate : candidates) probabilities[static_cast<size_t>(candidate.id)] = candidate.weight / total;
}

Sampled sample(const SamplerOptions &options, std::span<const float> logits, std::span<const int32_t> history, uint64_t position) {
  options.check();
  const double normaliser = log_sum_exp(logits);
  std::vector<float> changed;
  std::span<const float> used = logits;
  if (options.repetition_penalty != 1) used = changed = penalised(logits, history, options.repetition_penalty);
  const int32_t token = options.do_sample ? draw(candidates_of(options, used), Random(options.seed, kSamplingStream).uniform(position))
                                          : static_cast<int32_t>(largest(used));
  return {token, static_cast<double>(logits[static_cast<size_t>(token)]) - normaliser};
}

}  // namespace moe
