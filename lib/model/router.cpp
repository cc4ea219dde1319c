#include "model/router.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "base/checked.h"
#include "base/error.h"
#include "base/file.h"
#include "base/random.h"
#include "formats/safetensors.h"

namespace moe {
namespace {

constexpr uint64_t kFirstStream = uint64_t{'R'} << 56;  // random stream of the start of W: one for each router
constexpr double kStartDeviation = 0.02;
constexpr int64_t kMaxExperts = 1023;

constexpr std::pair<GateForm, const char *> kForms[] = {{GateForm::delta, "delta"},
                                                        {GateForm::renormalised_delta, "renormalised_delta"},
                                                        {GateForm::weighted, "weighted"},
                                                        {GateForm::straight_through, "straight_through"}};
constexpr std::array kKinds = {RouterKind::ffn, RouterKind::attention};

void check_router_config(const RouterConfig &config) {
  if (config.layers < 1 || config.hidden < 1 || !(config.ffn || config.attention)) {
    fail(Code::invalid, "router: expected layers, a hidden size and at least one router a layer");
  }
  if (config.experts < 1 || config.experts > kMaxExperts)
    fail(Code::invalid, "router: expected 1 to ", kMaxExperts, " experts, found ", config.experts);
  if (config.top_k < 1 || config.top_k > config.entries()) {
    fail(Code::invalid, "top_k: expected 1 to ", config.entries(), " (", config.experts, " experts and the base), found ",
         config.top_k);
  }
  if (config.form == GateForm::weighted && config.top_k == 1) {
    fail(Code::invalid,
         "form: 'weighted' with top_k 1 has a constant gate, so the router could not learn; take delta or top_k 2");
  }
  if (!(config.temperature > 0) || !std::isfinite(config.temperature)) {
    fail(Code::invalid, "temperature: expected more than 0, found ", config.temperature);
  }
}

size_t router_size(const RouterConfig &config) {
  return static_cast<size_t>(config.entries()) * (static_cast<size_t>(config.hidden) + 1);
}

}  // namespace

const char *gate_form_name(GateForm form) {
  for (const auto &[value, name] : kForms) {
    if (value == form) return name;
  }
  fail(Code::internal, "gate form ", static_cast<int>(form), " does not exist");
}

GateForm parse_gate_form(const std::string &name) {
  for (const auto &[value, known] : kForms) {
    if (name == known) return value;
  }
  fail(Code::invalid, "form: expected delta, renormalised_delta, weighted or straight_through, found '", name, "'");
}

// The FFN routers of all layers, then the attention routers of all layers; each W [E + 1, d], then b [E + 1].
size_t Router::offset(int64_t layer, RouterKind kind) const {
  if (!has(kind) || layer < 0 || layer >= config_.layers) fail(Code::internal, "router of layer ", layer, " does not exist");
  const int64_t before = kind == RouterKind::attention && config_.ffn ? config_.layers : 0;
  return static_cast<size_t>(before + layer) * router_size(config_);
}

std::shared_ptr<Router> Router::create(const RouterConfig &config, uint64_t seed) {
  check_router_config(config);
  const auto router = std::make_shared<Router>();
  router->config_ = config;
  const int64_t routers = config.layers * ((config.ffn ? 1 : 0) + (config.attention ? 1 : 0));
  router->resize(checked_multiply(static_cast<uint64_t>(routers), router_size(config), "router"));
  const std::span<float> values = router->parameters();
  for (RouterKind kind : kKinds) {
    if (!router->has(kind)) continue;
    for (int64_t layer = 0; layer < config.layers; layer++) {
      const Random random(seed, kFirstStream | static_cast<uint64_t>(2 * layer + static_cast<int>(kind)));
      float *w = values.data() + router->offset(layer, kind);
      for (int64_t i = 0; i < config.entries() * config.hidden; i++) {
        w[i] = static_cast<float>(kStartDeviation * random.normal(static_cast<uint64_t>(i)));
      }
    }
  }
  return router;
}

std::shared_ptr<Router> Router::load(const std::string &path, const RouterConfig &config) {
  const std::shared_ptr<Router> router = create(config, 0);
  const Safetensors file(path);
  const std::vector<Entry> entries = router->entries();
  const std::span<float> all = router->parameters();
  for (const Entry &entry : entries) {
    const TensorInfo &tensor = file.at(entry.key);
    if (tensor.shape != entry.shape) {
      fail(Code::format, path, ": tensor '", entry.key, "': expected shape ", shape_text(entry.shape), " (", config.experts,
           " experts and the base), found ", shape_text(tensor.shape));
    }
    const std::vector<float> values = file.read_floats(tensor);
    for (size_t i = 0; i < values.size(); i++) {
      if (!std::isfinite(values[i])) fail(Code::numeric, path, ": tensor '", entry.key, "' holds ", values[i]);
      all[entry.offset + i] = values[i];
    }
  }
  for (const TensorInfo &tensor : file.tensors()) {
    const auto same = [&](const Entry &entry) { return entry.key == tensor.name; };
    if (std::none_of(entries.begin(), entries.end(), same)) {
      fail(Code::format, path, ": tensor '", tensor.name, "' is no part of a router of ", config.layers, " layers",
           config.attention ? "" : " without attention routers", config.ffn ? "" : " without FFN routers");
    }
  }
  return router;
}

std::string Router::encode(const std::map<std::string, std::string> &metadata) const {
  SafetensorsMetadata all{{"format", "pt"}};
  all.insert(metadata.begin(), metadata.end());
  std::vector<TensorToWrite> tensors;
  const float *values = parameters().data();
  for (const Entry &entry : entries()) tensors.push_back({entry.key, DType::f32, entry.shape, values + entry.offset});
  return encode_safetensors(tensors, all);
}

void Router::save(const std::string &path, const std::map<std::string, std::string> &metadata) const {
  write_file_atomic(path, encode(metadata));
}

const float *Router::weight(int64_t layer, RouterKind kind) const { return parameters().data() + offset(layer, kind); }
const float *Router::bias(int64_t layer, RouterKind kind) const {
  return weight(layer, kind) + config_.entries() * config_.hidden;
}
float *Router::weight_gradient(int64_t layer, RouterKind kind) { return gradients().data() + offset(layer, kind); }
float *Router::bias_gradient(int64_t layer, RouterKind kind) {
  return weight_gradient(layer, kind) + config_.entries() * config_.hidden;
}

Router::OpPointers Router::op_pointers(int64_t layer, RouterKind kind, bool train) const {
  const size_t weight = offset(layer, kind), bias = weight + static_cast<size_t>(config_.entries() * config_.hidden);
  const float *parameters = parameters_.brought();
  float *gradients = train ? gradients_.brought() : nullptr;
  return {parameters + weight, parameters + bias, train ? gradients + weight : nullptr, train ? gradients + bias : nullptr};
}

std::vector<Router::Entry> Router::entries() const {
  std::vector<Entry> entries;
  for (RouterKind kind : kKinds) {
    if (!has(kind)) continue;
    for (int64_t layer = 0; layer < config_.layers; layer++) {
      const std::string key = text("layers.", layer, kind == RouterKind::ffn ? ".router" : ".attn_router");
      const size_t weight = offset(layer, kind);
      entries.push_back({key + ".weight", {config_.entries(), config_.hidden}, weight});
      entries.push_back({key + ".bias", {config_.entries()}, weight + static_cast<size_t>(config_.entries() * config_.hidden)});
    }
  }
  return entries;
}

}  // namespace moe
