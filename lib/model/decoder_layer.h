// One decoder layer, forward and backward, for training (packed batch) and for cached inference alike. With residual stream x:
//   n1 = norm(x);  q, k, v = rotary(W_q n1), rotary(W_k n1), W_v n1;  m = x + [norm](W_o attention(q, k, v))
//   n2 = norm(m);  y = m + [norm](W_down (phi(W_gate n2) * W_up n2))              (the inner norms only with sandwich_norms)
// Adapters stand inside every projection; a mixture routes n1 (attention deltas) and n2 (whole FFNs).
#pragma once
#include <initializer_list>
#include <utility>
#include <vector>

#include "base/arena.h"
#include "model/mixture.h"
#include "model/routing_memory.h"
#include "model/training_pass.h"

namespace moe {

// What a layer keeps for the way back. Activations in the model's activation type unless noted.
struct LayerState {
  Rows q, k, v;                 // as attention reads them, after norm and rotation
  Rows raw_q, raw_k;            // before them, only with query_key_norm
  Rows attended;                // [T, H h]
  float *log_sum_exp = nullptr; // [T, H]
  Rows attention_out, ffn_out;  // [T, d] before the inner norms, only with sandwich_norms
  float *middle = nullptr;      // [T, d] residual stream after attention
  Rows gate, up;                // [T, f] of the base (with one adapter: of the adapted projections)
  std::vector<LowRankTerm> terms[kModules];  // with their u
  // Of routing_memory.h, where the layer routes: pointed at before it runs.
  RouterState attention_router, ffn_router;
  float *attention_gate_gradient = nullptr, *ffn_gate_gradient = nullptr;  // [T, E]; backward
};

// Buffers that all layers of a pass share, and what the pass is about.
struct LayerScratch {
  Rows normed;                  // [T, d]
  Rows hidden;                  // [T, f] h or hbar
  void *int8 = nullptr;         // [T, max(d, H h, f)] i8 rows; inference with int8 products
  float *wide = nullptr;        // [T, max(H h, G h, d, f)]
  float *wide2 = nullptr;       // [T, max(H h, f)]; backward
  float *wide3 = nullptr;       // [T, G h]; backward
  float *projection = nullptr;  // scratch of Backend::projection
  // backward
  float *du = nullptr;          // [T, d]
  Rows dy;                      // [T, d]
  Rows da, db;                  // [T, f]
  Rows dq, dk, dv;              // [T, H h], [T, G h]
  float *dz = nullptr;          // [T, E + 1]
};

class DecoderLayer {
 public:
  DecoderLayer(const BaseModel &model, const Overlay &overlay, const PassRequest &request, int64_t tokens);

  // Before the layers run: what the overlay holds, brought to where ops read it.
  void bring_overlay() const;

  // Sizes depend on the model, the overlay and the token count only. `backward` also takes what only the way back needs.
  LayerState take_state(Arena &arena, bool backward) const;
  LayerScratch take_scratch(Arena &arena, bool backward) const;

  bool inference = false;  // forward only, products may take int8 activations; set before take_scratch

  // Where keys and values go and what each query sees: set before the layers run.
  std::vector<AttentionSequence> sequences;
  std::vector<const float *> rotary_tables;  // by index into config.ropes

  // y = layer(x), both f32 [T, d]. After keys and values stand in state.k and state.v, `store_keys` may move them (cache).
  template <class StoreKeys>
  void forward(int64_t layer, const float *x, float *y, LayerState &state, LayerScratch &scratch, StoreKeys &&store_keys) {
    project_keys(layer, x, state, scratch);
    store_keys();
    attend(layer, x, state, scratch);
    feed_forward(layer, y, state, scratch);
  }
  // dx: on entry dL/dy, on return dL/dx (f32 [T, d]); gradients of what trains are accumulated. The routers' losses come in by
  // `ffn_losses` and `attention_losses`.
  void backward(int64_t layer, const float *x, LayerState &state, LayerScratch &scratch, const RouterLossGradient &ffn_losses,
                const RouterLossGradient &attention_losses, float *dx);

  bool routes(RouterKind kind) const { return overlay_.mixture && overlay_.mixture->router && overlay_.mixture->router->has(kind); }
  RouterShape router_shape() const;
  // The states of the layer's routers, in the memory of all.
  void point_routers(int64_t layer, const RoutingMemory &routing, LayerState &state) const;

 private:
  Rows normalize(int64_t layer, std::initializer_list<Module> modules, RouterKind kind, const float *x, const float *weight, RouterState &state,
                 LayerScratch &scratch);
  void project_keys(int64_t layer, const float *x, LayerState &state, LayerScratch &scratch);
  void attend(int64_t layer, const float *x, LayerState &state, LayerScratch &scratch);
  void feed_forward(int64_t layer, float *y, LayerState &state, LayerScratch &scratch);
  void backward_ffn(int64_t layer, LayerState &state, LayerScratch &scratch, const RouterLossGradient &losses, float *dx);
  void backward_attention(int64_t layer, const float *x, LayerState &state, LayerScratch &scratch, const RouterLossGradient &losses, float *dx);
  void project(int64_t layer, Module module, Rows x, Rows y, Store store, LayerState &state, LayerScratch &scratch);
  void project(int64_t layer, Rows x, std::initializer_list<std::pair<Module, Rows>> outputs, LayerState &state, LayerScratch &scratch);
  void project_backward(int64_t layer, Module module, Rows x, Rows dy, float *dx, Store store, LayerState &state, LayerScratch &scratch);
  void set_terms(int64_t layer, LayerState &state) const;
  std::vector<MixtureExpert> experts_of(int64_t layer) const;
  bool trains_experts() const { return request_.train == Trainable::experts || request_.train == Trainable::joint; }
  bool trains_router() const { return request_.train == Trainable::router || request_.train == Trainable::joint; }
  AttentionShape attention_shape(int64_t layer) const;
  FfnMixtureShape mixture_shape(const RouterState &router) const;
  Rows activations(Arena &arena, int64_t columns) const;
  // What the projections of one input read: i8 rows in the scratch where all their weights take them, else `rows` itself.
  Rows product_input(int64_t layer, std::initializer_list<Module> modules, Rows rows, const LayerScratch &scratch) const;

  const BaseModel &model_;
  const DecoderConfig &config_;
  const Overlay &overlay_;
  const PassRequest &request_;
  Backend &ops_;
  int64_t tokens_, experts_;
};

}  // namespace moe
