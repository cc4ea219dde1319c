#include "model/routing_memory.h"

#include "tensor/host_arrays.h"

namespace moe {
namespace {

constexpr size_t kAlignment = 64;

// Cuts arrays one after another from a block; without one it only counts.
struct Cut {
  std::byte *block;
  size_t used = 0;
  template <class T>
  T *take(int64_t count) {
    std::byte *at = block ? block + used : nullptr;
    used += (static_cast<size_t>(count) * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
    return reinterpret_cast<T *>(at);
  }
};

RouterState cut_state(const RouterConfig &config, int64_t tokens, Cut &cut) {
  RouterState state;
  state.z = cut.take<float>(tokens * config.entries());
  state.p = cut.take<float>(tokens * config.entries());
  state.picked = cut.take<int32_t>(tokens * config.top_k);
  state.selected = cut.take<uint8_t>(tokens * config.experts);
  state.gates = cut.take<float>(tokens * config.experts);
  return state;
}

}  // namespace

size_t RoutingMemory::routers() const {
  return static_cast<size_t>(config_.layers) * static_cast<size_t>(int{config_.ffn} + int{config_.attention});
}

size_t RoutingMemory::state_bytes() const {
  Cut cut{nullptr};
  cut_state(config_, tokens_, cut);
  return cut.used;
}

RouterState RoutingMemory::state_at(std::byte *at) const {
  Cut cut{at};
  return cut_state(config_, tokens_, cut);
}

void RoutingMemory::take(Arena &arena, bool backward) {
  if (routers() == 0) return;
  states_ = arena.take<std::byte>(routers() * state_bytes());
  if (backward) gate_gradients_ = arena.take<float>(routers() * gate_count());
}

void RoutingMemory::download_states(Backend &ops) {
  host_states_ = states_;
  if (ops.host_memory() || routers() == 0) return;
  downloaded_states_ = downloaded(ops, states_, routers() * state_bytes());
  host_states_ = downloaded_states_.data();
}

void RoutingMemory::download_gate_gradients(Backend &ops) {
  host_gradients_ = gate_gradients_;
  if (ops.host_memory() || routers() == 0) return;
  downloaded_gradients_ = downloaded(ops, gate_gradients_, routers() * gate_count());
  host_gradients_ = downloaded_gradients_.data();
}

}  // namespace moe
