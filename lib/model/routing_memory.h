// What the routers of a pass leave, one state for each router in one block of the backend's memory, so that the host sees all of
// them after one download; on the way back also the gradients of their gates.
#pragma once
#include <vector>

#include "base/arena.h"
#include "model/mixture.h"

namespace moe {

class RoutingMemory {
 public:
  RoutingMemory() = default;  // of a pass without routers
  RoutingMemory(const RouterConfig &config, int64_t tokens) : config_(config), tokens_(tokens) {}

  void take(Arena &arena, bool backward);
  size_t routers() const;
  // By the order of RouterStatistics (router_index).
  RouterState state(size_t router) const { return state_at(states_ + router * state_bytes()); }
  float *gate_gradient(size_t router) const { return gate_gradients_ + router * gate_count(); }  // [T, E]; backward

  // What the host reads after the ops that write it; download... waits for them where they have memory of their own.
  void download_states(Backend &ops);
  RouterState host_state(size_t router) const { return state_at(host_states_ + router * state_bytes()); }
  void download_gate_gradients(Backend &ops);
  const float *host_gate_gradient(size_t router) const { return host_gradients_ + router * gate_count(); }

 private:
  RouterState state_at(std::byte *at) const;
  size_t state_bytes() const;
  size_t gate_count() const { return static_cast<size_t>(tokens_ * config_.experts); }

  RouterConfig config_;
  int64_t tokens_ = 0;
  std::byte *states_ = nullptr, *host_states_ = nullptr;
  float *gate_gradients_ = nullptr;
  const float *host_gradients_ = nullptr;
  std::vector<std::byte> downloaded_states_;
  std::vector<float> downloaded_gradients_;
};

}  // namespace moe
