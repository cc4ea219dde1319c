// How the tokens of a text are routed, for people to look at.
#pragma once
#include "base/cancel.h"
#include "eval/evaluation.h"

namespace moe {

// Of at most the first 256 tokens.
RoutingTrace trace_routing(const BaseModel &model, Mixture &mixture, const std::string &id, std::span<const int32_t> tokens,
                           const Cancel *cancel);

}  // namespace moe
