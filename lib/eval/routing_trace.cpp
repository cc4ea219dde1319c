#include "eval/routing_trace.h"

#include "model/inference_pass.h"

namespace moe {

RoutingTrace trace_routing(const BaseModel &model, Mixture &mixture, const std::string &id, std::span<const int32_t> tokens,
                           const Cancel *cancel) {
  constexpr size_t kTokens = 256;
  RoutingTrace trace;
  trace.id = id;
  Segment segment;
  segment.tokens = tokens.first(std::min(kTokens, tokens.size()));
  trace.weights.resize(segment.tokens.size() * (mixture.experts.size() + 1));
  segment.routing = trace.weights.data();
  InferenceScratch scratch;
  inference_pass(model, {nullptr, &mixture}, {&segment, 1}, scratch, cancel);
  StreamDecoder decoder(model.require_tokenizer());
  for (const int32_t token : segment.tokens) trace.texts.push_back(decoder.push(token));
  if (!trace.texts.empty()) trace.texts.back() += decoder.finish();
  return trace;
}

}  // namespace moe
