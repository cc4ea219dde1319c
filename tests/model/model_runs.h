// What the invariants run: a golden model with adapters or mixtures of any kind on it, one pass over its batch of three
// sequences, and the numbers that the pass leaves.
#pragma once
#include <string>
#include <vector>

#include "model/training_pass.h"
#include "support/golden.h"
#include "support/reference.h"
#include "support/tiny_model.h"

namespace moe::test {

inline constexpr const char *kModels[] = {"llama", "qwen3", "gemma3_text"};
inline constexpr GateForm kForms[] = {GateForm::delta, GateForm::renormalised_delta, GateForm::weighted,
                                      GateForm::straight_through};

// Which projections the experts of a mixture change, and so which routers it has.
enum class Place { ffn, attention, both };
inline constexpr Place kPlaces[] = {Place::ffn, Place::attention, Place::both};
inline const char *place_name(Place place) {
  return place == Place::ffn ? "ffn" : place == Place::attention ? "attention" : "both";
}

inline PackedBatch golden_batch(const std::string &model) {
  return read_packed_batch(golden_path("models/" + model + "/expected.safetensors"));
}

// Sequence `s` of a batch alone.
inline PackedBatch sequence_of(const PackedBatch &batch, int64_t s) {
  const int32_t begin = batch.starts[static_cast<size_t>(s)], end = batch.starts[static_cast<size_t>(s) + 1];
  const auto cut = [&](const std::vector<int32_t> &all) { return std::vector<int32_t>(all.begin() + begin, all.begin() + end); };
  return {cut(batch.tokens), cut(batch.positions), {0, end - begin}, cut(batch.labels), {}};
}

// An adapter of the given place; size 0: B = 0, as training starts.
inline std::shared_ptr<Adapter> adapter_on(const BaseModel &model, Place place, int64_t rank, uint64_t seed, float size) {
  LoraConfig config;
  config.r = rank;
  config.alpha = 2 * static_cast<double>(rank);
  if (place != Place::ffn) config.target_modules.names = {"q_proj", "k_proj", "v_proj", "o_proj"};
  if (place != Place::attention) {
    for (const char *name : {"gate_proj", "up_proj", "down_proj"}) config.target_modules.names.push_back(name);
  }
  auto adapter = Adapter::create(model, config, seed);
  if (size > 0) fill_noise(adapter->parameters(), seed, size);
  return adapter;
}

// Three experts of ranks 2, 3 and 5 and a router that prefers different ones for different tokens.
inline Mixture mixture_on(const BaseModel &model, Place place, GateForm form, int64_t top_k, float size = 0.2f) {
  Mixture mixture;
  for (int64_t i = 0; i < 3; i++) {
    mixture.domains.push_back(text("domain", i));
    mixture.experts.push_back(adapter_on(model, place, i == 2 ? 5 : 2 + i, static_cast<uint64_t>(11 + i), size));
  }
  RouterConfig config;
  config.layers = model.config().layers;
  config.hidden = model.config().hidden;
  config.experts = 3;
  config.ffn = place != Place::attention;
  config.attention = place != Place::ffn;
  config.form = form;
  config.top_k = top_k;
  mixture.router = Router::create(config, 5);
  fill_noise(mixture.router->parameters(), 17, 0.4f);
  return mixture;
}

// Calls use(place, form, k) for every mixture that the router accepts.
template <class Use>
void for_each_routing(Use use) {
  for (Place place : kPlaces) {
    for (GateForm form : kForms) {
      for (int64_t k : {1, 2, 4}) {
        if (form == GateForm::weighted && k == 1) continue;
        SCOPED_TRACE(text(place_name(place), " ", gate_form_name(form), " k=", k));
        use(place, form, k);
      }
    }
  }
}

inline void set_bias(Router &router, int64_t entry, float value) {
  for (const Router::Entry &e : router.entries()) {
    if (e.key.ends_with(".bias")) router.parameters()[e.offset + static_cast<size_t>(entry)] = value;
  }
}

struct Numbers {
  PassResult result;
  Capture capture;

  std::vector<float> of(const std::string &name) const {
    for (const auto &[key, tensor] : capture.tensors) {
      if (key == name)
        return tensor.integers.empty() ? tensor.values : std::vector<float>(tensor.integers.begin(), tensor.integers.end());
    }
    throw std::runtime_error("not captured: " + name);
  }
  std::vector<float> logits() const { return of("logits"); }
  double loss() const { return result.nll / static_cast<double>(result.supervised); }
};

inline Numbers run_pass(const BaseModel &model, const Overlay &overlay, const PackedBatch &batch, PassRequest request = {}) {
  Numbers numbers;
  numbers.capture.logits = numbers.capture.hidden_states = numbers.capture.router = true;
  request.capture = &numbers.capture;
  request.gradient_scale = 1.0f / static_cast<float>(batch.supervised());
  Arena arena = pass_arena(model, training_pass_bytes(model, overlay, request, batch.size(), batch.supervised()));
  numbers.result = training_pass(model, overlay, batch, request, arena);
  return numbers;
}
inline Numbers run_pass(const BaseModel &model, Mixture &mixture, const PackedBatch &batch, PassRequest request = {}) {
  return run_pass(model, {nullptr, &mixture}, batch, request);
}
inline Numbers run_pass(const BaseModel &model, Adapter &adapter, const PackedBatch &batch, PassRequest request = {}) {
  return run_pass(model, {&adapter, nullptr}, batch, request);
}

// Router, then expert gradients of a mixture, one after another.
inline std::vector<float> gradients_of(Mixture &mixture) {
  std::vector<float> all(mixture.router->gradients().begin(), mixture.router->gradients().end());
  for (const auto &expert : mixture.experts) all.insert(all.end(), expert->gradients().begin(), expert->gradients().end());
  return all;
}
inline void clear_gradients(Mixture &mixture) {
  std::fill(mixture.router->gradients().begin(), mixture.router->gradients().end(), 0.0f);
  for (const auto &expert : mixture.experts) std::fill(expert->gradients().begin(), expert->gradients().end(), 0.0f);
}

}  // namespace moe::test
