// What the routers of a pass did: counts, probabilities and the values of the router losses (formulas: training_pass.h).
#pragma once
#include <cstdint>
#include <vector>

#include "model/training_pass.h"
#include "tensor/host_arrays.h"

namespace moe {

RouterStatistics empty_statistics(const Router &router);
// Index of a router in RouterStatistics: FFN routers of all layers first, then the attention routers.
size_t router_index(const RouterConfig &config, int64_t layer, RouterKind kind);
// Adds what one router did with a packed batch.
void count_routing(const RouterShape &shape, const RouterState &state, const PackedBatch &batch, size_t index, RouterStatistics &statistics);

// What one router's gate gradients [T, E] tell: their norm, and the tokens where none of a selected expert is left.
void count_gate_gradients(const RouterShape &shape, const RouterState &state, const float *gradients, size_t index, RouterStatistics &statistics);

// Gradients of the router losses of all routers, for Backend::router_backward. They are made on the host, from the states of all
// routers of the batch.
class RouterLossGradients {
 public:
  RouterLossGradients(const PassRequest &request, const RouterConfig &config, const PackedBatch &batch, const RouterStatistics &statistics);
  void add(size_t index, const RouterShape &shape, const RouterState &state);  // by rising index

  static size_t words(const RouterConfig &config, size_t routers, size_t sequences);
  void bring(Backend &ops, void *memory);  // after the last add; HostArrays::bytes of words()
  RouterLossGradient of(size_t index) const;

 private:
  const PassRequest &request_;
  const PackedBatch &batch_;
  const RouterStatistics &statistics_;
  double routers_, step_tokens_, step_samples_;
  size_t entries_, sequences_;
  std::vector<float> balance_, supervised_;  // [router][entry], [router][sequence]
  std::vector<int32_t> supervised_entry_;    // [sequence]
  HostArrays arrays_;
  bool supervises() const { return request_.losses.supervised != 0 && step_samples_ > 0; }
};

}  // namespace moe
