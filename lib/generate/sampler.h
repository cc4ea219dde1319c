// From logits to the next token. Options as in Hugging Face generate; the chain is: repetition penalty, temperature, top-k, top-p,
// min-p. Sampling is by a counter-based generator: token n of a session depends on (seed, n) only.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace moe {

struct SamplerOptions {
  bool do_sample = false;            // false: greedy (the largest logit, ties to the lowest id)
  double temperature = 1;
  int64_t top_k = 0;                 // 0 = off
  double top_p = 1;                  // 1 = off
  double min_p = 0;                  // 0 = off
  double repetition_penalty = 1;     // 1 = off; divides positive and multiplies negative logits once per distinct earlier token
  uint64_t seed = 0;
  void check() const;                // Code::invalid names the option and its bounds
};

// The distribution after all options, for tests and log-probabilities. Removed tokens have probability 0.
void sampling_distribution(const SamplerOptions &options, std::span<const float> logits, std::span<const int32_t> history,
                           std::vector<double> &probabilities);

struct Sampled {
  int32_t token = 0;
  double log_probability = 0;        // of the token under the model's own distribution (before the options)
};
Sampled sample(const SamplerOptions &options, std::span<const float> logits, std::span<const int32_t> history, uint64_t position);

}  // namespace moe
