// Counts, means, intervals and routing of a result, from its items.
#pragma once
#include "eval/held_out.h"

namespace moe {

// `mixture`: what was evaluated, or nullptr. `seed`: of the bootstrap.
void summarize(EvalResult &result, const HeldOut &task, const Mixture *mixture, uint64_t seed);

}  // namespace moe
