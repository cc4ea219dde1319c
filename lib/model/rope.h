// Inverse frequencies of rotary embeddings (Su et al. 2021) and the published ways to stretch them to longer contexts.
// They are formed in double precision and rounded once.
#pragma once
#include <cstdint>
#include <vector>

#include "model/config.h"

namespace moe {

// What a config says about the rotation of one kind of layer.
struct RopeSettings {
  enum class Scaling { none, linear, llama3 };
  double theta = 10000;
  Scaling scaling = Scaling::none;
  double factor = 1;                                                                      // linear and llama3
  double low_frequency_factor = 1, high_frequency_factor = 4, original_positions = 8192;  // llama3
  std::vector<float> divisors;  // [h / 2] or empty: each frequency is divided by its own (GGUF)
};

// inverse_frequency[j] = theta^(-2 j / h), then
//   linear: divided by factor
//   llama3 (Llama 3.1): with r = original_positions * inverse_frequency / (2 pi) turns over the original context:
//     r < low: divided by factor;  r > high: unchanged;  between: smooth = (r - low) / (high - low),
//     inverse_frequency * ((1 - smooth) / factor + smooth)
Rope make_rope(const RopeSettings &settings, int64_t head_dimension);

// Reads `rope_scaling` (transformers 4) or `rope_parameters` (transformers 5) into `settings`; null leaves it as it is. The
// kind is under `rope_type` or the older `type`. Kinds that are not known are Code::unsupported by name.
void read_rope_settings(const Json &json, const std::string &source, const std::string &key, RopeSettings &settings);

}  // namespace moe
