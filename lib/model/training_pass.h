// One forward (and backward) pass of the decoder over a packed batch: loss, gradients into the adapter, the router or the experts,
// router statistics, and on request the numbers inside (for `dump`). Gradients accumulate; the caller zeroes them.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/arena.h"
#include "base/cancel.h"
#include "model/mixture.h"
#include "tensor/packed_batch.h"

namespace moe {

// Weights of the router losses (means over the routers of all layers; every token of the packed batch counts).
struct RouterLosses {
  float balance = 0;                  // alpha
  float z = 0;                        // beta
  float supervised = 0;
  std::vector<float> target_usage;    // pi [E + 1]; empty = uniform
};

// What the routers did, summed over the micro-batches of a step. Index [router][entry]; routers are the FFN routers of all layers,
// then the attention routers of all layers, as far as they exist.
struct RouterStatistics {
  int64_t tokens = 0, top_k = 0;
  std::vector<std::vector<double>> picks;         // times entry i was picked
  std::vector<std::vector<double>> probability;   // sum over tokens of p_i
  std::vector<double> z_squared;                  // [router] sum over tokens of logsumexp(z)^2
  std::vector<double> supervised;                 // [router] sum over samples of -log(mean p[domain])
  std::vector<double> lm_gradient_norm;           // [router] norm of the language-model gradient reaching dz (last micro-batch); for alarms
  std::vector<double> zero_gradient_tokens;       // [router] tokens whose gate gradient is zero for every expert
  int64_t supervised_samples = 0;
  void add(const RouterStatistics &other);
  // mean over routers of sum_i f_i P_i / pi_i (times alpha = the loss), with f_i = picks / (k tokens), P_i = probability / tokens
  double balance(const std::vector<float> &target_usage) const;
  double z() const;                               // mean over routers and tokens
  double supervised_loss() const;                 // mean over routers and samples
  std::vector<double> usage(size_t router) const; // share of picks per entry
};

// Tensors of a pass for `dump` and tests, by the names of the dump layout (hidden_states, logits, layers.i.router.probs, ...).
struct Capture {
  bool logits = false, hidden_states = false, router = false;
  struct Tensor {
    std::vector<int64_t> shape;
    std::vector<float> values;
    std::vector<int32_t> integers;  // instead of values for I32 tensors
  };
  std::vector<std::pair<std::string, Tensor>> tensors;
};

enum class Trainable : uint8_t { nothing, adapter, router, experts, joint };  // joint = router and experts

struct PassRequest {
  Trainable train = Trainable::nothing;  // nothing: forward only
  float gradient_scale = 1;              // dL/d(nll of a supervised token): 1 / supervised tokens of the whole step
  // router losses (train router or joint)
  RouterLosses losses;
  int64_t step_tokens = 0;               // tokens of the whole optimizer step; 0 = of this batch
  int64_t step_samples = 0;              // sequences with a domain in the whole step; 0 = of this batch
  const RouterStatistics *earlier = nullptr;  // of the step's earlier micro-batches: f counts them too
  const RouterStatistics *exact = nullptr;    // of a forward-only pass over the whole step (balance_exact): f is taken from here
  bool force_expert = false;             // k = 1 training of a router
  // dropout of adapters (training only): masks are a function of (dropout_seed, dropout_step, layer, module, token, column)
  bool training = false;
  uint64_t dropout_seed = 0, dropout_step = 0;
  int64_t checkpointed_layers = 0;       // of these, the first ones, only the input is kept; they are computed again on the way back
  Capture *capture = nullptr;
  const Cancel *cancel = nullptr;
};

struct PassResult {
  double nll = 0;            // sum over supervised tokens, nats
  int64_t supervised = 0;
  std::vector<float> token_nll;  // [T], 0 where not supervised
  RouterStatistics router;
};

// Bytes of arena that a batch of `tokens` tokens with `supervised` labels needs, measured by the code that takes them.
size_t training_pass_bytes(const BaseModel &model, const Overlay &overlay, const PassRequest &request, int64_t tokens, int64_t supervised);

// Memory of a pass, where the model computes.
inline Arena pass_arena(const BaseModel &model, size_t bytes) { return Arena(model.backend().allocate(bytes), bytes); }

// The arena must hold training_pass_bytes of the batch, in memory of the model's backend. Labels and ids are checked against the vocabulary (Code::invalid).
PassResult training_pass(const BaseModel &model, const Overlay &overlay, const PackedBatch &batch, const PassRequest &request, Arena &arena);

}  // namespace moe
