// The way back through one layer (decoder_layer.h has the forward formulas). Gradients of the residual stream are f32; what goes
// into a product is in the activation type. Norm inputs and h are computed again, the routing is the stored one.
#include "model/decoder_layer.h"

namespace moe {

void DecoderLayer::project_backward(int64_t layer, Module module, Rows x, Rows dy, float *dx, Store store, LayerState &state,
                                    LayerScratch &scratch) {
  const Matrix &w = model_.layer(layer).projection[static_cast<size_t>(module)];
  ops_.projection_backward(tokens_, x, w, state.terms[static_cast<int>(module)], dy, f32_rows(dx, w.columns), store, scratch.projection);
}

void DecoderLayer::backward(int64_t layer, const float *x, LayerState &state, LayerScratch &scratch, const RouterLossGradient &ffn_losses,
                            const RouterLossGradient &attention_losses, float *dx) {
  set_terms(layer, state);
  backward_ffn(layer, state, scratch, ffn_losses, dx);
  backward_attention(layer, x, state, scratch, attention_losses, dx);
}

void DecoderLayer::backward_ffn(int64_t layer, LayerState &state, LayerScratch &scratch, const RouterLossGradient &losses, float *dx) {
  const int64_t d = config_.hidden, f = config_.intermediate;
  const LayerWeights &w = model_.layer(layer);
  const Rows middle = f32_rows(state.middle, d), residual = f32_rows(dx, d), du = f32_rows(scratch.du, d);
  ops_.rms_norm(tokens_, d, middle, w.ffn_norm, config_.norm_epsilon, scratch.normed, Store::set);
  if (config_.sandwich_norms) {
    ops_.rms_norm_backward(tokens_, d, state.ffn_out, w.post_ffn_norm, config_.norm_epsilon, residual, scratch.dy, Store::set);
  } else {
    ops_.copy(tokens_, d, residual, scratch.dy, Store::set);
  }
  if (routes(RouterKind::ffn)) {
    const std::vector<MixtureExpert> experts = experts_of(layer);
    const FfnMixtureShape shape = mixture_shape(state.ffn_router);
    const auto &projection = w.projection;
    ops_.matmul_transposed(tokens_, scratch.dy, projection[static_cast<int>(Module::down_proj)], f32_rows(scratch.wide, f), Store::set);
    ops_.fill(tokens_ * d, 0.0f, scratch.du);
    ops_.ffn_mixture_backward(shape, experts, scratch.normed, state.gate, state.up, f32_rows(scratch.wide, f), scratch.dy, scratch.da, scratch.db,
                              du, state.ffn_gate_gradient);
    ops_.matmul_transposed(tokens_, scratch.da, projection[static_cast<int>(Module::gate_proj)], du, Store::add);
    ops_.matmul_transposed(tokens_, scratch.db, projection[static_cast<int>(Module::up_proj)], du, Store::add);
    const Router::OpPointers router = overlay_.mixture->router->op_pointers(layer, RouterKind::ffn, trains_router());
    ops_.router_backward(router_shape(), scratch.normed, router.weight, state.ffn_router, state.ffn_gate_gradient, losses, scratch.dz,
                         router.weight_gradient, router.bias_gradient, du);
  } else {
    ops_.gated_activation(tokens_, f, config_.activation, state.gate, state.up, scratch.hidden);
    project_backward(layer, Module::down_proj, scratch.hidden, scratch.dy, scratch.wide, Store::set, state, scratch);
    ops_.gated_activation_backward(tokens_, f, config_.activation, state.gate, state.up, f32_rows(scratch.wide, f), scratch.da, scratch.db);
    project_backward(layer, Module::gate_proj, scratch.normed, scratch.da, scratch.du, Store::set, state, scratch);
    project_backward(layer, Module::up_proj, scratch.normed, scratch.db, scratch.du, Store::add, state, scratch);
  }
  ops_.rms_norm_backward(tokens_, d, middle, w.ffn_norm, config_.norm_epsilon, du, residual, Store::add);
}

void DecoderLayer::backward_attention(int64_t layer, const float *x, LayerState &state, LayerScratch &scratch, const RouterLossGradient &losses,
                                      float *dx) {
  const int64_t d = config_.hidden, h = config_.head_dimension, qw = config_.query_width(), kw = config_.kv_width();
  const LayerWeights &w = model_.layer(layer);
  const float epsilon = config_.norm_epsilon;
  const float *table = rotary_tables[static_cast<size_t>(config_.layer[static_cast<size_t>(layer)].rope)];
  const Rows input = f32_rows(x, d), residual = f32_rows(dx, d);
  ops_.rms_norm(tokens_, d, input, w.attention_norm, epsilon, scratch.normed, Store::set);
  if (config_.sandwich_norms) {
    ops_.rms_norm_backward(tokens_, d, state.attention_out, w.post_attention_norm, epsilon, residual, scratch.dy, Store::set);
  } else {
    ops_.copy(tokens_, d, residual, scratch.dy, Store::set);
  }
  const bool routed = routes(RouterKind::attention);
  if (routed) {
    ops_.fill(tokens_ * experts_, 0.0f, state.attention_gate_gradient);
    for (int m = 0; m < 4; m++) {
      for (size_t i = 0; i < state.terms[m].size(); i++) state.terms[m][i].gate_gradient = state.attention_gate_gradient + i;
    }
  }
  // dL/d attended stands in wide, then dq, dk, dv in f32 in wide2, wide3 and (for v) wide again
  project_backward(layer, Module::o_proj, state.attended, scratch.dy, scratch.wide, Store::set, state, scratch);
  ops_.copy(tokens_, qw, f32_rows(scratch.wide, qw), scratch.dq, Store::set);
  const Rows dq = f32_rows(scratch.wide2, qw), dk = f32_rows(scratch.wide3, kw), dv = f32_rows(scratch.wide, kw);
  ops_.attention_backward(attention_shape(layer), sequences, state.q, state.attended, state.log_sum_exp, scratch.dq, dq, dk, dv);
  ops_.copy(tokens_, kw, dv, scratch.dv, Store::set);
  ops_.rotary_backward(tokens_, config_.heads, h, state.raw_q, w.q_norm, epsilon, table, dq, scratch.dq);
  ops_.rotary_backward(tokens_, config_.kv_heads, h, state.raw_k, w.k_norm, epsilon, table, dk, scratch.dk);

  // nothing below the first layer trains, but its routers read n1
  float *du = layer > 0 || routed ? scratch.du : nullptr;
  project_backward(layer, Module::q_proj, scratch.normed, scratch.dq, du, Store::set, state, scratch);
  project_backward(layer, Module::k_proj, scratch.normed, scratch.dk, du, Store::add, state, scratch);
  project_backward(layer, Module::v_proj, scratch.normed, scratch.dv, du, Store::add, state, scratch);
  if (routed) {
    const Router::OpPointers router = overlay_.mixture->router->op_pointers(layer, RouterKind::attention, trains_router());
    ops_.router_backward(router_shape(), scratch.normed, router.weight, state.attention_router, state.attention_gate_gradient, losses,
                         scratch.dz, router.weight_gradient, router.bias_gradient, f32_rows(du, d));
  }
  if (layer > 0) ops_.rms_norm_backward(tokens_, d, input, w.attention_norm, epsilon, f32_rows(du, d), residual, Store::add);
}

}  // namespace moe
