// The per-layer token router's weights: z = W_r u + b over E + 1 entries, entry 0 = base; one router before every FFN and, where
// attention adapters are mixed, one more per layer before the attention. Flat like an adapter. File: router.safetensors with
// `layers.{i}.router.weight` [E+1, d], `.bias` [E+1] and `layers.{i}.attn_router.*`. (Routing rule: tensor/backend.h, RouterShape.)
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "model/trained_arrays.h"

namespace moe {

enum class RouterKind : int { ffn, attention };

struct RouterConfig {
  int64_t layers = 0, hidden = 0, experts = 0;  // E besides the base
  bool ffn = true, attention = false;           // which routers each layer has
  int64_t top_k = 2;
  GateForm form = GateForm::delta;
  float temperature = 1;
  int64_t entries() const { return experts + 1; }
};
const char *gate_form_name(GateForm form);                  // "delta", "renormalised_delta", "weighted", "straight_through"
GateForm parse_gate_form(const std::string &name);          // Code::invalid lists the four

class Router : public TrainedArrays {
 public:
  // W ~ N(0, 0.02), b = 0. Code::invalid for top_k outside [1, E + 1] and for weighted with k = 1 (constant gate, dead router).
  static std::shared_ptr<Router> create(const RouterConfig &config, uint64_t seed);
  // Shapes and keys are checked against the config; experts/attention must agree with the file.
  static std::shared_ptr<Router> load(const std::string &path, const RouterConfig &config);
  void save(const std::string &path, const std::map<std::string, std::string> &metadata = {}) const;  // atomic
  std::string encode(const std::map<std::string, std::string> &metadata = {}) const;                   // the content of that file

  const RouterConfig &config() const { return config_; }
  bool has(RouterKind kind) const { return kind == RouterKind::ffn ? config_.ffn : config_.attention; }
  const float *weight(int64_t layer, RouterKind kind) const;  // [E + 1, d]
  const float *bias(int64_t layer, RouterKind kind) const;    // [E + 1]
  float *weight_gradient(int64_t layer, RouterKind kind);
  float *bias_gradient(int64_t layer, RouterKind kind);

  // The same in the backend's memory, for ops: after bring() in a pass.
  struct OpPointers {
    const float *weight, *bias;
    float *weight_gradient, *bias_gradient;  // nullptr where it does not train
  };
  OpPointers op_pointers(int64_t layer, RouterKind kind, bool train) const;

  std::vector<Entry> entries() const;

 private:
  size_t offset(int64_t layer, RouterKind kind) const;
  RouterConfig config_;
};

}  // namespace moe
