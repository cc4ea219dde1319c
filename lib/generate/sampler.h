// From logits to the next token. Options as in Hugging Face generate; the chain is: repetition penalty, temperature, top-k,
// top-p, min-p. Sampling is by a counter-based generator: the token at a position depends on (seed, position) and the logits
// only.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace moe {

struct SamplerOptions {
  bool do_sample = false;  // false: greedy (the largest logit, ties to the lowest id)
  double temperature = 1;
  int64_t top_k = 0;              // 0 = off; ties of the k-th stay
  double top_p = 1;               // 1 = off; the token that crosses p stays
  double min_p = 0;               // 0 = off; keeps p >= min_p * max p
  double repetition_penalty = 1;  // 1 = off; divides positive and multiplies negative logits once per distinct earlier token
  uint64_t seed = 0;
  void check() const;  // Code::invalid names the option and its bounds
};

// The distribution after all options, for tests and log-probabilities. Removed tokens have probability 0. [V]
void sampling_distribution(const SamplerOptions &options, std::span<const float> logits, std::span<const int32_t> history,
                           std::vector<double> &probabilities);

struct Sampled {
  int32_t token = 0;
  double log_probability = 0;  // of the token under the model's own distribution (before the options)
};
// logits [V]; history: all earlier tokens (read with a repetition penalty only). Code::numeric when the logits hold a NaN or
// +infinity; -infinity is a token that never comes.
Sampled sample(const SamplerOptions &options, std::span<const float> logits, std::span<const int32_t> history, uint64_t position);

// log sum exp of [n] logits with a relative error of the sum below 1e-7. Code::numeric as above.
double log_sum_exp(std::span<const float> logits);

}  // namespace moe
