// The numbers of one pass on a packed batch as a safetensors file, for comparison with another engine (layout: docs/dump.md).
#pragma once
#include <string>
#include <vector>

#include "model/training_pass.h"

namespace moe {

struct DumpRequest {
  bool logits = false, hidden_states = false, token_nll = false, router = false, gradients = false;
  Trainable trainable = Trainable::nothing;  // whose gradients
  RouterLosses losses;                       // weights of the router losses in the gradients
};

void dump_pass(const BaseModel &model, const Overlay &overlay, const PackedBatch &batch, const DumpRequest &request,
               const std::string &path, const Cancel *cancel);

}  // namespace moe
