// Target usage pi of the router's entries for the balance loss: pi_0 = 1 / (E + 1), the rest by each domain's share of the training
// tokens. An entry can be picked once a token of k picks, so none may exceed 1 / k: what exceeds it goes to the others in proportion.
#pragma once
#include <cstdint>
#include <vector>

#include "model/router.h"

namespace moe {

// domain_tokens [E]; without any tokens the domains share evenly. Returns [E + 1], sum 1.
std::vector<float> default_target_usage(const std::vector<int64_t> &domain_tokens, int64_t top_k);
// A user's target: E + 1 entries, each > 0 and <= 1 / k, sum 1 (within 1e-3, then scaled to 1). Code::invalid names the entry and the range.
std::vector<float> checked_target_usage(const std::vector<float> &target, const RouterConfig &router);

}  // namespace moe
