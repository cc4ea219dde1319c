// What a run will allocate, by purpose, before it allocates it. The same code that takes the memory measures it.
#pragma once
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "model/training_pass.h"

namespace moe {

struct MemoryPlan {
  std::vector<std::pair<std::string, uint64_t>> bytes;  // "weights", "adapter", "gradients", "optimizer", "activations", "kernel scratch"
  int64_t layers = 0, checkpointed_layers = 0;           // as few as fit: each is computed twice
  int64_t micro_batch_tokens = 0, micro_batch_supervised = 0;
  uint64_t total() const;
  std::string text() const;  // "123 bytes: 100 weights, 23 ..."
  Json to_json() const;
};

// Experts that train are copies (Trainer::for_router): they count beside those of the bundle.
// Plans micro-batches of at most `tokens` tokens. With a limit that the plain plan exceeds, as many layers are checkpointed as it
// takes; when all of them are too few: Code::no_memory with both figures.
MemoryPlan plan_training(const BaseModel &model, const Overlay &overlay, Trainable train, int64_t tokens, int64_t supervised, uint64_t memory_limit);

}  // namespace moe
