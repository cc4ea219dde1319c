#include "model/decoder_layer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "model/router_statistics.h"

namespace moe {
namespace {

// A stream of random numbers of its own for each (step, layer, module).
uint64_t dropout_stream(uint64_t step, int64_t layer, Module module) {
  return (step << 20) | static_cast<uint64_t>(layer * kModules + static_cast<int>(module));
}

}  // namespace

DecoderLayer::DecoderLayer(const BaseModel &model, const Overlay &overlay, const PassRequest &request, int64_t tokens)
    : model_(model), config_(model.config()), overlay_(overlay), request_(request), ops_(model.backend()), tokens_(tokens),
      experts_(overlay.mixture ? static_cast<int64_t>(overlay.mixture->experts.size()) : 0) {}

void DecoderLayer::bring_overlay() const {
  const std::shared_ptr<Backend> &backend = model_.shared_backend();
  if (overlay_.adapter) overlay_.adapter->bring(backend, request_.train == Trainable::adapter);
  if (!overlay_.mixture) return;
  for (const auto &expert : overlay_.mixture->experts) expert->bring(backend, trains_experts());
  if (overlay_.mixture->router) overlay_.mixture->router->bring(backend, trains_router());
}

void DecoderLayer::point_routers(int64_t layer, const RoutingMemory &routing, LayerState &state) const {
  const auto point = [&](RouterKind kind, RouterState &router, float *&gate_gradient) {
    if (!routes(kind)) return;
    const size_t index = router_index(overlay_.mixture->router->config(), layer, kind);
    router = routing.state(index);
    gate_gradient = routing.gate_gradient(index);
  };
  point(RouterKind::attention, state.attention_router, state.attention_gate_gradient);
  point(RouterKind::ffn, state.ffn_router, state.ffn_gate_gradient);
}

Rows DecoderLayer::activations(Arena &arena, int64_t columns) const {
  const DType type = model_.activation_type();
  return {arena.take_bytes(static_cast<size_t>(row_bytes(type, tokens_ * columns))), type, columns};
}

LayerState DecoderLayer::take_state(Arena &arena, bool backward) const {
  LayerState state;
  const size_t t = static_cast<size_t>(tokens_);
  state.q = activations(arena, config_.query_width());
  state.k = activations(arena, config_.kv_width());
  state.v = activations(arena, config_.kv_width());
  if (config_.query_key_norm && backward) {
    state.raw_q = activations(arena, config_.query_width());
    state.raw_k = activations(arena, config_.kv_width());
  }
  state.attended = activations(arena, config_.query_width());
  if (backward) state.log_sum_exp = arena.take<float>(t * static_cast<size_t>(config_.heads));
  if (config_.sandwich_norms && backward) {
    state.attention_out = activations(arena, config_.hidden);
    state.ffn_out = activations(arena, config_.hidden);
  }
  state.middle = arena.take<float>(t * static_cast<size_t>(config_.hidden));
  state.gate = activations(arena, config_.intermediate);
  state.up = activations(arena, config_.intermediate);

  for (int m = 0; m < kModules; m++) {
    const auto take_term = [&](const Adapter &adapter) {
      LowRankTerm term;
      int64_t rank = 0;
      for (int64_t l = 0; l < config_.layers; l++) rank = std::max(rank, adapter.rank(l, static_cast<Module>(m)));
      term.u = arena.take<float>(t * static_cast<size_t>(rank));
      state.terms[m].push_back(term);
    };
    if (overlay_.adapter) take_term(*overlay_.adapter);
    if (overlay_.mixture && is_attention(static_cast<Module>(m))) {
      for (const auto &expert : overlay_.mixture->experts) take_term(*expert);
    }
  }
  return state;
}

LayerScratch DecoderLayer::take_scratch(Arena &arena, bool backward) const {
  LayerScratch s;
  const size_t t = static_cast<size_t>(tokens_);
  const int64_t widest = std::max({config_.query_width(), config_.kv_width(), config_.hidden, config_.intermediate});
  s.normed = activations(arena, config_.hidden);
  s.hidden = activations(arena, config_.intermediate);
  s.wide = arena.take<float>(t * static_cast<size_t>(std::max(widest, config_.query_width() + config_.kv_width())));
  if (inference) s.int8 = arena.take_bytes(t * static_cast<size_t>(row_bytes(DType::i8, (widest + 31) / 32 * 32)));
  int64_t projection = 0;
  const auto measure = [&](const Adapter &adapter) {
    for (int m = 0; m < kModules; m++) {
      const ModuleShape shape = module_shape(config_, static_cast<Module>(m));
      LowRankTerm term;
      term.factors.rank = adapter.largest_rank();
      term.dropout = static_cast<float>(adapter.config().dropout);
      projection = std::max(projection, Backend::projection_scratch(tokens_, shape.in, shape.out, std::span(&term, 1)));
    }
  };
  if (overlay_.adapter) measure(*overlay_.adapter);
  if (overlay_.mixture) {
    for (const auto &expert : overlay_.mixture->experts) measure(*expert);
  }
  s.projection = arena.take<float>(static_cast<size_t>(projection));
  if (!backward) return s;
  s.wide2 = arena.take<float>(t * static_cast<size_t>(std::max(config_.query_width(), config_.intermediate)));
  s.wide3 = arena.take<float>(t * static_cast<size_t>(config_.kv_width()));
  s.du = arena.take<float>(t * static_cast<size_t>(config_.hidden));
  s.dy = activations(arena, config_.hidden);
  s.da = activations(arena, config_.intermediate);
  s.db = activations(arena, config_.intermediate);
  s.dq = activations(arena, config_.query_width());
  s.dk = activations(arena, config_.kv_width());
  s.dv = activations(arena, config_.kv_width());
  s.dz = arena.take<float>(t * static_cast<size_t>(experts_ + 1));
  return s;
}

RouterShape DecoderLayer::router_shape() const {
  const RouterConfig &router = overlay_.mixture->router->config();
  RouterShape shape;
  shape.tokens = tokens_;
  shape.hidden = config_.hidden;
  shape.experts = experts_;
  shape.top_k = router.top_k;
  shape.temperature = router.temperature;
  shape.form = router.form;
  shape.force_expert = request_.force_expert && router.top_k == 1;
  return shape;
}

FfnMixtureShape DecoderLayer::mixture_shape(const RouterState &router) const {
  return {tokens_,         config_.hidden, config_.intermediate, experts_, config_.activation,
          router.selected, router.gates,   overlay_.mixture->router->config().top_k};
}

AttentionShape DecoderLayer::attention_shape(int64_t layer) const {
  return {config_.heads, config_.kv_heads, config_.head_dimension, config_.layer[static_cast<size_t>(layer)].window, config_.attention_scale};
}

// The low-rank terms of this layer's projections; u stays where take_state put it.
void DecoderLayer::set_terms(int64_t layer, LayerState &state) const {
  for (int m = 0; m < kModules; m++) {
    const Module module = static_cast<Module>(m);
    for (size_t i = 0; i < state.terms[m].size(); i++) {
      LowRankTerm &term = state.terms[m][i];
      Adapter &adapter = overlay_.adapter ? *overlay_.adapter : *overlay_.mixture->experts[i];
      term.factors = adapter.op_factors(layer, module);
      term.gradient = {};
      if (overlay_.adapter ? request_.train == Trainable::adapter : trains_experts()) term.gradient = adapter.op_gradient(layer, module);
      const bool drops = request_.training && overlay_.adapter && term.gradient.a;  // experts train without dropout, as in the FFN
      term.dropout = drops ? static_cast<float>(adapter.config().dropout) : 0.0f;
      term.dropout_seed = request_.dropout_seed + i;
      term.dropout_stream = dropout_stream(request_.dropout_step, layer, module);
      if (overlay_.mixture) {
        term.gate = state.attention_router.gates + i;
        term.gate_stride = experts_;
      }
    }
  }
}

std::vector<MixtureExpert> DecoderLayer::experts_of(int64_t layer) const {
  std::vector<MixtureExpert> experts;
  for (const auto &adapter : overlay_.mixture->experts) {
    MixtureExpert expert;
    expert.gate = adapter->op_factors(layer, Module::gate_proj);
    expert.up = adapter->op_factors(layer, Module::up_proj);
    expert.down = adapter->op_factors(layer, Module::down_proj);
    if (trains_experts()) {
      expert.gate_gradient = adapter->op_gradient(layer, Module::gate_proj);
      expert.up_gradient = adapter->op_gradient(layer, Module::up_proj);
      expert.down_gradient = adapter->op_gradient(layer, Module::down_proj);
    }
    experts.push_back(expert);
  }
  return experts;
}

Rows DecoderLayer::product_input(int64_t layer, std::initializer_list<Module> modules, Rows rows, const LayerScratch &scratch) const {
  if (!scratch.int8) return rows;
  for (const Module module : modules) {
    if (!model_.takes_int8(model_.layer(layer).projection[static_cast<size_t>(module)], tokens_)) return rows;
  }
  return {scratch.int8, DType::i8, rows.stride};
}

void DecoderLayer::project(int64_t layer, Module module, Rows x, Rows y, Store store, LayerState &state, LayerScratch &scratch) {
  const Matrix &w = model_.layer(layer).projection[static_cast<size_t>(module)];
  ops_.projection(tokens_, x, w, nullptr, state.terms[static_cast<int>(module)], y, store, scratch.projection);
}

void DecoderLayer::project(int64_t layer, Rows x, std::initializer_list<std::pair<Module, Rows>> outputs, LayerState &state,
                           LayerScratch &scratch) {
  std::array<ProjectionPart, 3> parts;
  size_t count = 0;
  for (const auto &[module, y] : outputs) {
    const auto m = static_cast<size_t>(module);
    parts[count++] = {&model_.layer(layer).projection[m], state.terms[m], y};
  }
  ops_.projections(tokens_, x, {parts.data(), count}, scratch.projection);
}

// norm(x) as the modules read it. A router reads it before it is rounded to int8, and so do the experts of an FFN mixture; low-rank
// terms of a projection read what the projection reads.
Rows DecoderLayer::normalize(int64_t layer, std::initializer_list<Module> modules, RouterKind kind, const float *x, const float *weight,
                             RouterState &state, LayerScratch &scratch) {
  const Rows input = product_input(layer, modules, scratch.normed, scratch);
  const bool routed = routes(kind);
  ops_.rms_norm(tokens_, config_.hidden, f32_rows(x, config_.hidden), weight, config_.norm_epsilon, routed ? scratch.normed : input, Store::set);
  if (!routed) return input;
  const Router::OpPointers router = overlay_.mixture->router->op_pointers(layer, kind, false);
  ops_.router(router_shape(), scratch.normed, router.weight, router.bias, state);
  if (input.dtype == DType::i8) ops_.copy(tokens_, config_.hidden, scratch.normed, input, Store::set);
  return input;
}

// Queries, keys and values of the layer into state.q, state.k, state.v.
void DecoderLayer::project_keys(int64_t layer, const float *x, LayerState &state, LayerScratch &scratch) {
  const LayerWeights &w = model_.layer(layer);
  const float epsilon = config_.norm_epsilon;
  const float *table = rotary_tables[static_cast<size_t>(config_.layer[static_cast<size_t>(layer)].rope)];
  set_terms(layer, state);
  const Rows input = normalize(layer, {Module::q_proj, Module::k_proj, Module::v_proj}, RouterKind::attention, x, w.attention_norm,
                               state.attention_router, scratch);
  const Rows q = f32_rows(scratch.wide, config_.query_width());
  const Rows k = f32_rows(scratch.wide + tokens_ * config_.query_width(), config_.kv_width());
  project(layer, input, {{Module::q_proj, q}, {Module::k_proj, k}, {Module::v_proj, state.v}}, state, scratch);
  const auto rotate = [&](int64_t heads, Rows projected, const float *norm, Rows raw, Rows out) {
    if (raw.data) ops_.copy(tokens_, projected.stride, projected, raw, Store::set);
    ops_.rotary(tokens_, heads, config_.head_dimension, projected, norm, epsilon, table, out);
  };
  rotate(config_.heads, q, w.q_norm, state.raw_q, state.q);
  rotate(config_.kv_heads, k, w.k_norm, state.raw_k, state.k);
}

// middle = x + [norm](W_o attention)
void DecoderLayer::attend(int64_t layer, const float *x, LayerState &state, LayerScratch &scratch) {
  const int64_t d = config_.hidden;
  const LayerWeights &w = model_.layer(layer);
  ops_.attention(attention_shape(layer), sequences, state.q, state.attended, state.log_sum_exp);
  const Rows middle = f32_rows(state.middle, d);
  ops_.copy(tokens_, d, f32_rows(x, d), middle, Store::set);
  const Rows input = product_input(layer, {Module::o_proj}, state.attended, scratch);
  if (input.dtype == DType::i8) ops_.copy(tokens_, input.stride, state.attended, input, Store::set);
  if (!config_.sandwich_norms) {
    project(layer, Module::o_proj, input, middle, Store::add, state, scratch);
    return;
  }
  project(layer, Module::o_proj, input, f32_rows(scratch.wide, d), Store::set, state, scratch);
  if (state.attention_out.data) ops_.copy(tokens_, d, f32_rows(scratch.wide, d), state.attention_out, Store::set);
  ops_.rms_norm(tokens_, d, f32_rows(scratch.wide, d), w.post_attention_norm, config_.norm_epsilon, middle, Store::add);
}

// y = middle + [norm](FFN(norm(middle)))
void DecoderLayer::feed_forward(int64_t layer, float *y, LayerState &state, LayerScratch &scratch) {
  const int64_t d = config_.hidden, f = config_.intermediate;
  const LayerWeights &w = model_.layer(layer);
  const Rows input =
      normalize(layer, {Module::gate_proj, Module::up_proj}, RouterKind::ffn, state.middle, w.ffn_norm, state.ffn_router, scratch);
  project(layer, input, {{Module::gate_proj, state.gate}, {Module::up_proj, state.up}}, state, scratch);

  const Rows hidden = product_input(layer, {Module::down_proj}, scratch.hidden, scratch);
  float *sum = config_.sandwich_norms ? scratch.wide : y;
  ops_.copy(tokens_, d, f32_rows(state.middle, d), f32_rows(y, d), Store::set);
  if (routes(RouterKind::ffn)) {
    if (config_.sandwich_norms) ops_.fill(tokens_ * d, 0.0f, sum);
    const std::vector<MixtureExpert> experts = experts_of(layer);
    const FfnMixtureShape shape = mixture_shape(state.ffn_router);
    ops_.ffn_mixture(shape, experts, scratch.normed, state.gate, state.up, scratch.hidden, f32_rows(sum, d));
    if (hidden.dtype == DType::i8) ops_.copy(tokens_, f, scratch.hidden, hidden, Store::set);
    project(layer, Module::down_proj, hidden, f32_rows(sum, d), Store::add, state, scratch);
  } else {
    ops_.gated_activation(tokens_, f, config_.activation, state.gate, state.up, hidden);
    project(layer, Module::down_proj, hidden, f32_rows(sum, d), config_.sandwich_norms ? Store::set : Store::add, state, scratch);
  }
  if (!config_.sandwich_norms) return;
  if (state.ffn_out.data) ops_.copy(tokens_, d, f32_rows(sum, d), state.ffn_out, Store::set);
  ops_.rms_norm(tokens_, d, f32_rows(sum, d), w.post_ffn_norm, config_.norm_epsilon, f32_rows(y, d), Store::add);
}

}  // namespace moe
