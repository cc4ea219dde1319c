// Likelihoods the slow way: every token's logits, softmax in double precision.
#pragma once
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "model/inference_pass.h"

namespace moe::test {

// -log p(tokens[t] | tokens[0, t)) for t >= 1; [0] is 0.
inline std::vector<double> token_nll(const BaseModel &model, const Overlay &overlay, std::span<const int32_t> tokens) {
  const auto v = static_cast<size_t>(model.config().vocabulary);
  KvCache cache(model, static_cast<int64_t>(tokens.size()));
  InferenceScratch scratch;
  std::vector<float> logits(v);
  std::vector<double> nll(tokens.size(), 0);
  for (size_t t = 0; t + 1 < tokens.size(); t++) {
    Segment segment;
    segment.tokens = tokens.subspan(t, 1);
    segment.cache = &cache;
    segment.logits = logits.data();
    inference_pass(model, overlay, {&segment, 1}, scratch);
    double top = -INFINITY, sum = 0;
    for (float z : logits) top = std::max(top, static_cast<double>(z));
    for (float z : logits) sum += std::exp(z - top);
    nll[t + 1] = top + std::log(sum) - logits[static_cast<size_t>(tokens[t + 1])];
  }
  return nll;
}

}  // namespace moe::test
