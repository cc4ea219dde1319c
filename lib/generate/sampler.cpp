// No step sorts the vocabulary: top-k finds its threshold with a heap of k, top-p sorts only as many tokens as it keeps.
#include "generate/sampler.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>

#include "base/error.h"
#include "base/random.h"
#include "cpu/kernels.h"

namespace moe {
namespace {

constexpr uint64_t kSamplingStream = 0x746F6B656E73;  // apart from the other users of a seed

struct Candidate {
  int32_t id;
  double weight;  // exp((logit - max) / temperature): the largest has 1
};

// The logits are on the host, whatever device computed them.
const cpu::Kernels &host_kernels() {
  static const cpu::Kernels &kernels = cpu::best_kernels();
  return kernels;
}

// The first of the largest. `logits` hold no NaN.
size_t largest(std::span<const float> logits) {
  const float top = host_kernels().max(static_cast<int64_t>(logits.size()), logits.data());
  return static_cast<size_t>(std::find(logits.begin(), logits.end(), top) - logits.begin());
}

// Computed from the given logits, so a token that occurs twice is penalised once.
std::vector<float> penalised(std::span<const float> logits, std::span<const int32_t> history, double penalty) {
  std::vector<float> result(logits.begin(), logits.end());
  for (const int32_t id : history) {
    if (id < 0 || static_cast<size_t>(id) >= logits.size())
      fail(Code::invalid, "token ", id, " of the history is not in the vocabulary");
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

bool heavier(const Candidate &a, const Candidate &b) { return a.weight != b.weight ? a.weight > b.weight : a.id < b.id; }

// By rising probability tokens are dropped while their sum is at most 1 - p; so, by falling probability, a token stays while the
// sum of those before it is below p. Sorted from the heaviest on, no further than that.
void keep_top_p(std::vector<Candidate> &candidates, double p) {
  const double wanted = total_of(candidates) * p;
  const auto at = [&](size_t index) { return candidates.begin() + static_cast<ptrdiff_t>(index); };
  double before = 0;
  size_t kept = 0;
  for (size_t sorted = 0; kept == sorted && sorted < candidates.size();) {
    const size_t end = std::min(candidates.size(), std::max<size_t>(256, 4 * sorted));
    if (end < candidates.size()) std::nth_element(at(sorted), at(end), candidates.end(), heavier);
    std::sort(at(sorted), at(end), heavier);
    while (kept < end && (kept == 0 || before < wanted)) before += candidates[kept++].weight;
    sorted = end;
  }
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
    if (candidate.weight == 0) continue;
    sum += candidate.weight;
    last = candidate.id;
    if (sum > target) break;
  }
  return last;
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
  if (logits.empty()) fail(Code::invalid, "there are no logits to sample from");
  constexpr size_t kBlock = 2048;  // sums in f32 stay short
  std::array<float, kBlock> terms;
  const cpu::Kernels &kernels = host_kernels();
  const float top = kernels.max(static_cast<int64_t>(logits.size()), logits.data());
  double total = 0;
  for (size_t begin = 0; begin < logits.size(); begin += kBlock) {
    const auto count = static_cast<int64_t>(std::min(kBlock, logits.size() - begin));
    total += kernels.exp_shifted(count, logits.data() + begin, top, terms.data());
  }
  if (!std::isfinite(total) || !std::isfinite(top)) fail(Code::numeric, "the logits hold a NaN or an infinity");
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

Sampled sample(const SamplerOptions &options, std::span<const float> logits, std::span<const int32_t> history,
               uint64_t position) {
  options.check();
  const double normaliser = log_sum_exp(logits);
  std::vector<float> changed;
  std::span<const float> used = logits;
  if (options.repetition_penalty != 1) used = changed = penalised(logits, history, options.repetition_penalty);
  const int32_t token = options.do_sample
                            ? draw(candidates_of(options, used), Random(options.seed, kSamplingStream).uniform(position))
                            : static_cast<int32_t>(largest(used));
  return {token, static_cast<double>(logits[static_cast<size_t>(token)]) - normaliser};
}

}  // namespace moe
