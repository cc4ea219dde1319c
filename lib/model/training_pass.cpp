#include "model/training_pass.h"

#include <algorithm>
#include <mutex>

#include "model/decoder_layer.h"
#include "model/router_statistics.h"

namespace moe {
namespace {

void check_batch(const BaseModel &model, const PackedBatch &batch) {
  const int64_t vocabulary = model.config().vocabulary;
  const size_t tokens = batch.tokens.size();
  if (tokens == 0) fail(Code::invalid, "batch: expected at least one token, found none");
  if (batch.positions.size() != tokens || batch.labels.size() != tokens) {
    fail(Code::invalid, "batch: expected ", tokens, " positions and labels, found ", batch.positions.size(), " and ", batch.labels.size());
  }
  if (batch.starts.size() < 2 || batch.starts.front() != 0 || batch.starts.back() != static_cast<int32_t>(tokens) ||
      !std::is_sorted(batch.starts.begin(), batch.starts.end(), std::less_equal<>())) {
    fail(Code::invalid, "batch: sequence_starts must rise from 0 to the number of tokens (", tokens, ")");
  }
  for (size_t t = 0; t < tokens; t++) {
    if (batch.tokens[t] < 0 || batch.tokens[t] >= vocabulary) {
      fail(Code::invalid, "batch: token ", t, " is ", batch.tokens[t], ", the vocabulary has ", vocabulary, " entries");
    }
    if (batch.labels[t] != kNoLabel && (batch.labels[t] < 0 || batch.labels[t] >= vocabulary)) {
      fail(Code::invalid, "batch: label ", t, " is ", batch.labels[t], ", expected -100 or less than ", vocabulary);
    }
  }
}

// The memory of one pass, cut from the arena in one place so that planning and running agree.
struct PassMemory {
  std::vector<float *> tables;        // [ropes] rotary tables [T, h]
  std::vector<float *> residual;      // [L + 1] residual streams [T, d]; forward only: two, used in turn
  std::vector<LayerState> states;     // [L], or one when nothing is kept
  LayerScratch scratch;
  float *gradient = nullptr;          // dL/d residual stream [T, d]
  // the supervised rows
  Rows final_rows;                    // [n, d] after the final norm
  float *head_input = nullptr, *head_gradient = nullptr, *input_gradient = nullptr;  // [n, d]
  float *nll = nullptr;               // [n]
};

PassMemory take_memory(const BaseModel &model, const DecoderLayer &layer, const PassRequest &request, int64_t tokens, int64_t supervised,
                       Arena &arena) {
  const DecoderConfig &config = model.config();
  const bool backward = request.train != Trainable::nothing, keep = backward && !request.checkpoint_activations;
  const size_t stream = static_cast<size_t>(tokens * config.hidden), rows = static_cast<size_t>(supervised * config.hidden);
  PassMemory m;
  for (size_t i = 0; i < config.ropes.size(); i++) m.tables.push_back(arena.take<float>(static_cast<size_t>(tokens * config.head_dimension)));
  for (int64_t i = 0; i < (backward ? config.layers + 1 : 2); i++) m.residual.push_back(arena.take<float>(stream));
  for (int64_t i = 0; i < (keep ? config.layers : 1); i++) m.states.push_back(layer.take_state(arena, backward));
  m.scratch = layer.take_scratch(arena, backward);
  const DType type = model.activation_type();
  m.final_rows = {arena.take_bytes(static_cast<size_t>(row_bytes(type, supervised * config.hidden))), type, config.hidden};
  m.head_input = arena.take<float>(rows);
  m.nll = arena.take<float>(static_cast<size_t>(supervised));
  if (backward) {
    m.gradient = arena.take<float>(stream);
    m.head_gradient = arena.take<float>(rows);
    m.input_gradient = arena.take<float>(rows);
  }
  return m;
}

class Pass {
 public:
  Pass(const BaseModel &model, const Overlay &overlay, const PackedBatch &batch, const PassRequest &request, Arena &arena)
      : model_(model), config_(model.config()), overlay_(overlay), batch_(batch), request_(request), ops_(model.backend()),
        tokens_(batch.size()), layer_(model, overlay, request, tokens_) {
    for (int64_t t = 0; t < tokens_; t++) {
      if (batch.labels[static_cast<size_t>(t)] == kNoLabel) continue;
      supervised_rows_.push_back(static_cast<int32_t>(t));
      labels_.push_back(batch.labels[static_cast<size_t>(t)]);
    }
    memory_ = take_memory(model, layer_, request, tokens_, static_cast<int64_t>(labels_.size()), arena);
    for (size_t i = 0; i < config_.ropes.size(); i++) {
      ops_.rotary_table(tokens_, config_.head_dimension, batch.positions.data(), config_.ropes[i].inverse_frequency.data(),
                        config_.ropes[i].factor, memory_.tables[i]);
      layer_.rotary_tables.push_back(memory_.tables[i]);
    }
    if (overlay.mixture && overlay.mixture->router) {
      result_.router = empty_statistics(*overlay.mixture->router);
      result_.router.tokens = tokens_;
      for (int32_t domain : batch.domains) result_.router.supervised_samples += domain >= 0;
    }
  }

  PassResult run() {
    forward();
    head();
    if (request_.train != Trainable::nothing) backward();
    return std::move(result_);
  }

 private:
  bool keeps_states() const { return memory_.states.size() > 1 || config_.layers == 1; }
  LayerState &state(int64_t layer) { return memory_.states[memory_.states.size() > 1 ? static_cast<size_t>(layer) : 0]; }
  float *residual(int64_t layer) { return memory_.residual[static_cast<size_t>(layer) % memory_.residual.size()]; }

  void point_attention(const LayerState &s) {
    layer_.sequences.clear();
    for (int64_t i = 0; i < batch_.sequences(); i++) {
      const int64_t first = batch_.starts[static_cast<size_t>(i)], count = batch_.starts[static_cast<size_t>(i) + 1] - first;
      const auto from = [&](Rows rows) {
        return Rows{static_cast<char *>(rows.data) + row_bytes(rows.dtype, first * rows.stride), rows.dtype, rows.stride};
      };
      layer_.sequences.push_back({first, count, from(s.k), from(s.v), count});
    }
  }

  void run_layer(int64_t i) {
    LayerState &s = state(i);
    point_attention(s);
    layer_.forward(i, residual(i), residual(i + 1), s, memory_.scratch, [] {});
  }

  void forward() {
    ops_.embedding(tokens_, batch_.tokens.data(), model_.embedding(), config_.embedding_scale, f32_rows(residual(0), config_.hidden));
    capture_stream("hidden_states", residual(0));
    for (int64_t i = 0; i < config_.layers; i++) {
      check_cancel(request_.cancel);
      run_layer(i);
      capture_stream("hidden_states", residual(i + 1));
      for (RouterKind kind : {RouterKind::ffn, RouterKind::attention}) {
        if (!layer_.routes(kind)) continue;
        const RouterState &router = kind == RouterKind::ffn ? state(i).ffn_router : state(i).attention_router;
        count_routing(layer_.router_shape(), router, batch_, router_index(overlay_.mixture->router->config(), i, kind), result_.router);
        capture_router(i, kind, router);
      }
    }
    capture_head();
  }

  // Loss of the supervised rows and, for the way back, the gradient of the residual stream.
  void head() {
    const int64_t d = config_.hidden, n = static_cast<int64_t>(labels_.size());
    const bool backward = request_.train != Trainable::nothing;
    result_.supervised = n;
    result_.token_nll.assign(static_cast<size_t>(tokens_), 0.0f);
    if (backward) ops_.fill(tokens_ * d, 0.0f, memory_.gradient);
    if (n == 0) return;
    const Rows input = f32_rows(memory_.head_input, d), output_gradient = backward ? f32_rows(memory_.head_gradient, d) : Rows{};
    ops_.gather(n, d, f32_rows(residual(config_.layers), d), supervised_rows_.data(), input);
    ops_.rms_norm(n, d, input, model_.final_norm(), config_.norm_epsilon, memory_.final_rows, Store::set);
    ops_.cross_entropy(n, memory_.final_rows, model_.head(), labels_.data(), memory_.nll, request_.gradient_scale, output_gradient);
    for (int64_t i = 0; i < n; i++) {
      result_.nll += memory_.nll[i];
      result_.token_nll[static_cast<size_t>(supervised_rows_[static_cast<size_t>(i)])] = memory_.nll[i];
    }
    if (!backward) return;
    const Rows gradient = f32_rows(memory_.input_gradient, d);
    ops_.rms_norm_backward(n, d, input, model_.final_norm(), config_.norm_epsilon, output_gradient, gradient, Store::set);
    ops_.scatter(n, d, gradient, supervised_rows_.data(), f32_rows(memory_.gradient, d), Store::set);
  }

  void backward() {
    const bool routed = overlay_.mixture && overlay_.mixture->router;
    std::unique_ptr<RouterLossGradients> ffn_losses, attention_losses;
    if (routed) {
      const RouterConfig &config = overlay_.mixture->router->config();
      ffn_losses = std::make_unique<RouterLossGradients>(request_, config, batch_, result_.router);
      attention_losses = std::make_unique<RouterLossGradients>(request_, config, batch_, result_.router);
    }
    for (int64_t i = config_.layers - 1; i >= 0; i--) {
      check_cancel(request_.cancel);
      LayerState &s = state(i);
      if (!keeps_states()) run_layer(i);  // the same kernels on the same input: the routing comes out as it was
      else point_attention(s);
      RouterLossGradient ffn, attention;
      const auto losses = [&](RouterKind kind, RouterLossGradients &from, const RouterState &router) {
        return layer_.routes(kind) ? from.of(router_index(overlay_.mixture->router->config(), i, kind), layer_.router_shape(), router)
                                   : RouterLossGradient{};
      };
      if (routed) {
        ffn = losses(RouterKind::ffn, *ffn_losses, s.ffn_router);
        attention = losses(RouterKind::attention, *attention_losses, s.attention_router);
      }
      layer_.backward(i, residual(i), s, memory_.scratch, ffn, attention, memory_.gradient);
      for (RouterKind kind : {RouterKind::ffn, RouterKind::attention}) {
        if (!layer_.routes(kind)) continue;
        const size_t index = router_index(overlay_.mixture->router->config(), i, kind);
        result_.router.lm_gradient_norm[index] = layer_.gate_gradient_norm[static_cast<int>(kind)];
        result_.router.zero_gradient_tokens[index] += layer_.zero_gradient_tokens[static_cast<int>(kind)];
      }
    }
  }

  // ---- what `dump` wants to see -----------------------------------------------------------------------------------

  void capture_stream(const char *name, const float *values) {
    if (!request_.capture || !request_.capture->hidden_states) return;
    auto &tensors = request_.capture->tensors;
    auto found = std::find_if(tensors.begin(), tensors.end(), [&](const auto &entry) { return entry.first == name; });
    if (found == tensors.end()) found = tensors.insert(found, {name, {{0, tokens_, config_.hidden}, {}, {}}});
    Capture::Tensor &tensor = found->second;
    tensor.shape[0]++;
    tensor.values.insert(tensor.values.end(), values, values + tokens_ * config_.hidden);
  }

  // final_norm [T, d] and logits [T, V] of all tokens
  void capture_head() {
    Capture *capture = request_.capture;
    if (!capture || (!capture->hidden_states && !capture->logits)) return;
    const int64_t d = config_.hidden, v = config_.vocabulary;
    Capture::Tensor norm{{tokens_, d}, std::vector<float>(static_cast<size_t>(tokens_ * d)), {}};
    ops_.rms_norm(tokens_, d, f32_rows(residual(config_.layers), d), model_.final_norm(), config_.norm_epsilon, f32_rows(norm.values.data(), d),
                  Store::set);
    if (capture->logits) {
      Capture::Tensor logits{{tokens_, v}, std::vector<float>(static_cast<size_t>(tokens_ * v)), {}};
      ops_.matmul(tokens_, f32_rows(norm.values.data(), d), model_.head(), f32_rows(logits.values.data(), v), Store::set);
      capture->tensors.push_back({"logits", std::move(logits)});
    }
    if (capture->hidden_states) capture->tensors.push_back({"final_norm", std::move(norm)});
  }

  void capture_router(int64_t layer, RouterKind kind, const RouterState &s) {
    if (!request_.capture || !request_.capture->router) return;
    const RouterShape shape = layer_.router_shape();
    const std::string prefix = text("layers.", layer, kind == RouterKind::ffn ? ".router." : ".attn_router.");
    const int64_t entries = shape.experts + 1, e = shape.experts;
    const auto add = [&](const char *name, std::vector<int64_t> dims, std::vector<float> values, std::vector<int32_t> integers) {
      request_.capture->tensors.push_back({prefix + name, {std::move(dims), std::move(values), std::move(integers)}});
    };
    add("logits", {tokens_, entries}, {s.z, s.z + tokens_ * entries}, {});
    add("probs", {tokens_, entries}, {s.p, s.p + tokens_ * entries}, {});
    add("experts", {tokens_, shape.top_k}, {}, {s.picked, s.picked + tokens_ * shape.top_k});
    // [T, E + 1]: column 0 has the base's share: always with renormalised_delta, else where the base was picked (the delta forms
    // do not use it)
    std::vector<float> gates(static_cast<size_t>(tokens_ * entries));
    for (int64_t t = 0; t < tokens_; t++) {
      float *row = gates.data() + t * entries;
      double sum = 0;
      for (int64_t i = 0; i < e; i++) sum += row[i + 1] = s.gates[t * e + i];
      const int32_t *picked = s.picked + t * shape.top_k;
      const bool base = shape.form == GateForm::renormalised_delta || std::find(picked, picked + shape.top_k, 0) != picked + shape.top_k;
      if (!base) continue;
      if (shape.form == GateForm::delta) row[0] = s.p[t * entries];
      else row[0] = shape.form == GateForm::straight_through ? 1.0f : static_cast<float>(1 - sum);
    }
    add("gates", {tokens_, entries}, std::move(gates), {});
  }

  const BaseModel &model_;
  const DecoderConfig &config_;
  const Overlay &overlay_;
  const PackedBatch &batch_;
  const PassRequest &request_;
  Backend &ops_;
  int64_t tokens_;
  DecoderLayer layer_;
  PassMemory memory_;
  std::vector<int32_t> supervised_rows_, labels_;
  PassResult result_;
};

}  // namespace

size_t training_pass_bytes(const BaseModel &model, const Overlay &overlay, const PassRequest &request, int64_t tokens, int64_t supervised) {
  Arena measuring;
  const DecoderLayer layer(model, overlay, request, tokens);
  take_memory(model, layer, request, tokens, supervised, measuring);
  return measuring.peak();
}

PassResult training_pass(const BaseModel &model, const Overlay &overlay, const PackedBatch &batch, const PassRequest &request, Arena &arena) {
  check_batch(model, batch);
  const std::lock_guard<std::mutex> one_pass(model.pass_mutex());
  const size_t mark = arena.mark();
  struct Release {
    Arena &arena;
    size_t mark;
    ~Release() { arena.release(mark); }
  } release{arena, mark};
  return Pass(model, overlay, batch, request, arena).run();
}

}  // namespace moe
