// What the routers of a pass did: counts, probabilities and the values of the router losses (formulas: training_pass.h).
#pragma once
#include <cstdint>
#include <vector>

#include "model/training_pass.h"

namespace moe {

RouterStatistics empty_statistics(const Router &router);
// Index of a router in RouterStatistics: FFN routers of all layers first, then the attention routers.
size_t router_index(const RouterConfig &config, int64_t layer, RouterKind kind);
// Adds what one router did with a packed batch.
void count_routing(const RouterShape &shape, const RouterState &state, const PackedBatch &batch, size_t index, RouterStatistics &statistics);

// Gradients of the router losses of one router, filled for Backend::router_backward (pointers into this object).
class RouterLossGradients {
 public:
  RouterLossGradients(const PassRequest &request, const RouterConfig &config, const PackedBatch &batch, const RouterStatistics &statistics);
  // For the router `index`; valid until the next call.
  const RouterLossGradient &of(size_t index, const RouterShape &shape, const RouterState &state);

 private:
  const PassRequest &request_;
  const PackedBatch &batch_;
  const RouterStatistics &statistics_;
  double routers_, step_tokens_, step_samples_;
  std::vector<float> balance_, supervised_;
  std::vector<int32_t> entries_;
  RouterLossGradient gradient_;
};

}  // namespace moe
