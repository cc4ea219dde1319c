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
  std::vector<LayerState> states;     // of the layers that are not checkpointed, before them one for all that are
  LayerScratch scratch;
  float *gradient = nullptr;          // dL/d residual stream [T, d]
  // the supervised rows
  Rows final_rows;                    // [n, d] after the final norm
  float *head_input = nullptr, *head_gradient = nullptr, *input_gradient = nullptr;  // [n, d]
  float *nll = nullptr;               // [n]
  RoutingMemory routing;
  void *inputs = nullptr, *loss_inputs = nullptr;  // what the host gives a backend with memory of its own: HostArrays
};

// Token ids and positions of all tokens, row and label of the supervised ones.
size_t input_words(int64_t tokens, int64_t supervised) { return static_cast<size_t>(2 * tokens + 2 * supervised); }

// The first layers, which use one state in turn.
int64_t layers_with_one_state(const DecoderConfig &config, const PassRequest &request) {
  return request.train == Trainable::nothing ? config.layers : std::min(request.checkpointed_layers, config.layers);
}

PassMemory take_memory(const BaseModel &model, const Overlay &overlay, const DecoderLayer &layer, const PassRequest &request, int64_t tokens,
                       int64_t supervised, Arena &arena) {
  const DecoderConfig &config = model.config();
  const bool backward = request.train != Trainable::nothing;
  const size_t stream = static_cast<size_t>(tokens * config.hidden), rows = static_cast<size_t>(supervised * config.hidden);
  PassMemory m;
  for (size_t i = 0; i < config.ropes.size(); i++) m.tables.push_back(arena.take<float>(static_cast<size_t>(tokens * config.head_dimension)));
  for (int64_t i = 0; i < (backward ? config.layers + 1 : 2); i++) m.residual.push_back(arena.take<float>(stream));
  const int64_t once = layers_with_one_state(config, request);
  for (int64_t i = 0; i < config.layers - once + (once > 0 ? 1 : 0); i++) m.states.push_back(layer.take_state(arena, backward));
  m.scratch = layer.take_scratch(arena, backward);
  const Backend &ops = model.backend();
  m.inputs = arena.take_bytes(HostArrays::bytes(ops, input_words(tokens, supervised)));
  if (const Mixture *mixture = overlay.mixture; mixture && mixture->router) {
    const RouterConfig &router = mixture->router->config();
    m.routing = RoutingMemory(router, tokens);
    m.routing.take(arena, backward);
    const size_t most = RouterLossGradients::words(router, m.routing.routers(), static_cast<size_t>(tokens));  // a sequence has a token
    m.loss_inputs = arena.take_bytes(HostArrays::bytes(ops, backward ? most : 0));
  }
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
        tokens_(batch.size()), with_one_state_(layers_with_one_state(config_, request)), layer_(model, overlay, request, tokens_) {
    for (int64_t t = 0; t < tokens_; t++) {
      if (batch.labels[static_cast<size_t>(t)] == kNoLabel) continue;
      supervised_rows_.push_back(static_cast<int32_t>(t));
      labels_.push_back(batch.labels[static_cast<size_t>(t)]);
    }
    memory_ = take_memory(model, overlay, layer_, request, tokens_, static_cast<int64_t>(labels_.size()), arena);
    layer_.bring_overlay();
    bring_inputs();
    for (size_t i = 0; i < config_.ropes.size(); i++) {
      ops_.rotary_table(tokens_, config_.head_dimension, op_positions_, model.rope_frequencies(i), config_.ropes[i].factor, memory_.tables[i]);
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
    read_loss();
    return std::move(result_);
  }

 private:
  void bring_inputs() {
    HostArrays arrays;
    for (const std::span<const int32_t> array : {std::span(batch_.tokens), std::span(batch_.positions), std::span<const int32_t>(supervised_rows_),
                                                 std::span<const int32_t>(labels_)}) {
      arrays.add(array);
    }
    arrays.bring(ops_, memory_.inputs);
    op_tokens_ = arrays.at<int32_t>(0);
    op_positions_ = arrays.at<int32_t>(1);
    op_supervised_rows_ = arrays.at<int32_t>(2);
    op_labels_ = arrays.at<int32_t>(3);
  }

  LayerState &state(int64_t layer) {
    return memory_.states[static_cast<size_t>(layer < with_one_state_ ? 0 : layer - with_one_state_ + (with_one_state_ > 0 ? 1 : 0))];
  }
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
    layer_.point_routers(i, memory_.routing, s);
    layer_.forward(i, residual(i), residual(i + 1), s, memory_.scratch, [] {});
  }

  // visit(layer, kind, index of the router), by rising index
  template <class Visit>
  void for_each_router(Visit visit) {
    for (RouterKind kind : {RouterKind::ffn, RouterKind::attention}) {
      for (int64_t i = 0; i < config_.layers && layer_.routes(kind); i++) {
        visit(i, kind, router_index(overlay_.mixture->router->config(), i, kind));
      }
    }
  }

  void forward() {
    ops_.embedding(tokens_, op_tokens_, model_.embedding(), config_.embedding_scale, f32_rows(residual(0), config_.hidden));
    capture_stream("hidden_states", residual(0));
    for (int64_t i = 0; i < config_.layers; i++) {
      check_cancel(request_.cancel);
      run_layer(i);
      capture_stream("hidden_states", residual(i + 1));
    }
    memory_.routing.download_states(ops_);
    for_each_router([&](int64_t layer, RouterKind kind, size_t index) {
      count_routing(layer_.router_shape(), memory_.routing.host_state(index), batch_, index, result_.router);
      capture_router(layer, kind, memory_.routing.host_state(index));
    });
    capture_head();
  }

  // The first wait for a device since the forward pass of the routers, or without them since the pass began.
  void read_loss() {
    result_.supervised = static_cast<int64_t>(labels_.size());
    result_.token_nll.assign(static_cast<size_t>(tokens_), 0.0f);
    const std::vector<float> nll = downloaded(ops_, static_cast<const float *>(memory_.nll), labels_.size());
    for (size_t i = 0; i < nll.size(); i++) {
      result_.nll += nll[i];
      result_.token_nll[static_cast<size_t>(supervised_rows_[i])] = nll[i];
    }
  }

  // Loss of the supervised rows and, for the way back, the gradient of the residual stream.
  void head() {
    const int64_t d = config_.hidden, n = static_cast<int64_t>(labels_.size());
    const bool backward = request_.train != Trainable::nothing;
    if (backward) ops_.fill(tokens_ * d, 0.0f, memory_.gradient);
    if (n == 0) return;
    const Rows input = f32_rows(memory_.head_input, d), output_gradient = backward ? f32_rows(memory_.head_gradient, d) : Rows{};
    ops_.gather(n, d, f32_rows(residual(config_.layers), d), op_supervised_rows_, input);
    ops_.rms_norm(n, d, input, model_.final_norm(), config_.norm_epsilon, memory_.final_rows, Store::set);
    ops_.cross_entropy(n, memory_.final_rows, model_.head(), op_labels_, memory_.nll, request_.gradient_scale, output_gradient);
    if (!backward) return;
    const Rows gradient = f32_rows(memory_.input_gradient, d);
    ops_.rms_norm_backward(n, d, input, model_.final_norm(), config_.norm_epsilon, output_gradient, gradient, Store::set);
    ops_.scatter(n, d, gradient, op_supervised_rows_, f32_rows(memory_.gradient, d), Store::set);
  }

  void backward() {
    const std::unique_ptr<RouterLossGradients> losses = router_losses();
    const auto losses_of = [&](int64_t layer, RouterKind kind) {
      return layer_.routes(kind) ? losses->of(router_index(overlay_.mixture->router->config(), layer, kind)) : RouterLossGradient{};
    };
    for (int64_t i = config_.layers - 1; i >= 0; i--) {
      check_cancel(request_.cancel);
      if (i < with_one_state_ - 1) run_layer(i);  // the same kernels on the same input: the routing comes out as it was
      else point_attention(state(i));
      layer_.backward(i, residual(i), state(i), memory_.scratch, losses_of(i, RouterKind::ffn), losses_of(i, RouterKind::attention),
                      memory_.gradient);
    }
    memory_.routing.download_gate_gradients(ops_);
    for_each_router([&](int64_t, RouterKind, size_t index) {
      count_gate_gradients(layer_.router_shape(), memory_.routing.host_state(index), memory_.routing.host_gate_gradient(index), index,
                           result_.router);
    });
  }

  std::unique_ptr<RouterLossGradients> router_losses() {
    if (!overlay_.mixture || !overlay_.mixture->router) return nullptr;
    auto losses = std::make_unique<RouterLossGradients>(request_, overlay_.mixture->router->config(), batch_, result_.router);
    for_each_router([&](int64_t, RouterKind, size_t index) { losses->add(index, layer_.router_shape(), memory_.routing.host_state(index)); });
    losses->bring(ops_, memory_.loss_inputs);
    return losses;
  }

  // ---- what `dump` wants to see -----------------------------------------------------------------------------------

  void capture_stream(const char *name, const float *values) {
    if (!request_.capture || !request_.capture->hidden_states) return;
    auto &tensors = request_.capture->tensors;
    auto found = std::find_if(tensors.begin(), tensors.end(), [&](const auto &entry) { return entry.first == name; });
    if (found == tensors.end()) found = tensors.insert(found, {name, {{0, tokens_, config_.hidden}, {}, {}}});
    Capture::Tensor &tensor = found->second;
    tensor.shape[0]++;
    const std::vector<float> stream = downloaded(ops_, values, static_cast<size_t>(tokens_ * config_.hidden));
    tensor.values.insert(tensor.values.end(), stream.begin(), stream.end());
  }

  // final_norm [T, d] and logits [T, V] of all tokens
  void capture_head() {
    Capture *capture = request_.capture;
    if (!capture || (!capture->hidden_states && !capture->logits)) return;
    const int64_t d = config_.hidden, v = config_.vocabulary;
    const Rows norm = f32_rows(memory_of(tokens_ * d), d);
    ops_.rms_norm(tokens_, d, f32_rows(residual(config_.layers), d), model_.final_norm(), config_.norm_epsilon, norm, Store::set);
    if (capture->logits) {
      const Rows logits = f32_rows(memory_of(tokens_ * v), v);
      ops_.matmul(tokens_, norm, model_.head(), logits, Store::set);
      capture_rows("logits", logits);
    }
    if (capture->hidden_states) capture_rows("final_norm", norm);
  }

  // Memory of a capture, which no plan counts.
  float *memory_of(int64_t count) {
    captured_.push_back(ops_.allocate(static_cast<size_t>(count) * sizeof(float)));
    return reinterpret_cast<float *>(captured_.back().get());
  }
  void capture_rows(const char *name, Rows rows) {
    std::vector<float> values = downloaded(ops_, static_cast<const float *>(rows.data), static_cast<size_t>(tokens_ * rows.stride));
    request_.capture->tensors.push_back({name, {{tokens_, rows.stride}, std::move(values), {}}});
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
  int64_t tokens_, with_one_state_;
  DecoderLayer layer_;
  PassMemory memory_;
  std::vector<int32_t> supervised_rows_, labels_;
  const int32_t *op_tokens_ = nullptr, *op_positions_ = nullptr, *op_supervised_rows_ = nullptr, *op_labels_ = nullptr;
  std::vector<Memory> captured_;
  PassResult result_;
};

}  // namespace

size_t training_pass_bytes(const BaseModel &model, const Overlay &overlay, const PassRequest &request, int64_t tokens, int64_t supervised) {
  Arena measuring;
  const DecoderLayer layer(model, overlay, request, tokens);
  take_memory(model, overlay, layer, request, tokens, supervised, measuring);
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
