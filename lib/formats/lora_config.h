// adapter_config.json of a LoRA adapter as PEFT (huggingface.co/docs/peft) writes and reads it: which modules are adapted,
// with which rank and scale. A module path is the module's name in the base model ("model.layers.0.self_attn.q_proj").
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"

namespace moe {

// A list of names (each matches itself and every path that ends in "." + name), or one regular expression that matches the
// whole path, or all linear modules except the output head. At most one of the three is set.
struct ModuleSelection {
  std::vector<std::string> names;
  std::string regex;
  bool all_linear = false;

  bool empty() const { return names.empty() && regex.empty() && !all_linear; }
};

struct LoraConfig {
  int64_t r = 8;
  double alpha = 8;                                            // "lora_alpha"
  double dropout = 0;                                          // "lora_dropout"
  bool use_rslora = false;                                     // scale alpha / sqrt(r) instead of alpha / r
  ModuleSelection target_modules, exclude_modules;
  // The first pattern that matches the end of a path (after a dot) replaces r or alpha there. In the order of the file.
  std::vector<std::pair<std::string, int64_t>> rank_pattern;
  std::vector<std::pair<std::string, double>> alpha_pattern;
  std::vector<int64_t> layers_to_transform;                    // empty = every layer
  std::vector<std::string> layers_pattern;                     // names of the list of layers; empty = any
  std::string task_type = "CAUSAL_LM";
  std::string base_model_name_or_path;
  bool inference_mode = true;
  Json init_lora_weights = true;                               // how training started; does not change the result

  Json original;                          // the object as read, so that keys unknown here survive; null for a new adapter
  std::vector<std::string> unknown_keys;  // keys of `original` that were ignored: to be logged
  std::string source = "adapter_config.json";  // opens error messages
};

// Keys that change the mathematics and are not supported (DoRA, trained biases, ...) are Code::unsupported by name.
LoraConfig parse_lora_config(const Json &json, std::string source);
Json lora_config_json(const LoraConfig &config);  // every key of PEFT 0.10, which later versions also read

// Whether PEFT adapts the module. With all_linear true for every path that is not excluded: the caller asks only for
// linear modules of the decoder.
bool matches(const LoraConfig &config, std::string_view module_path);
int64_t rank_of(const LoraConfig &config, std::string_view module_path);
double alpha_of(const LoraConfig &config, std::string_view module_path);
double scale_of(const LoraConfig &config, std::string_view module_path);  // of B A

}  // namespace moe
