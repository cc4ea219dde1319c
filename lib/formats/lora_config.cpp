#include "formats/lora_config.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <iterator>
#include <type_traits>

#include "base/error.h"
#include "formats/module_pattern.h"

namespace moe {

namespace {

constexpr int64_t kMaxRank = 1 << 20;

// Keys that must be off (absent, null, false or empty), and what they would switch on.
constexpr std::pair<const char *, const char *> kRefused[] = {
    {"use_dora", "DoRA"},
    {"use_qalora", "QALoRA"},
    {"use_bdlora", "block-diagonal LoRA"},
    {"lora_bias", "a bias on lora_B"},
    {"modules_to_save", "whole modules trained beside LoRA"},
    {"trainable_token_indices", "trained embedding rows"},
    {"alora_invocation_tokens", "activated LoRA"},
    {"alora_invocation_string", "activated LoRA"},
    {"layer_replication", "a base model with repeated layers"},
    {"target_parameters", "LoRA on bare parameters"},
    {"fan_in_fan_out", "weights stored as [in, out]"},
    {"megatron_config", "Megatron parallel layers"},
    {"arrow_config", "Arrow routing"},
    {"kasa_config", "KaSA"},
    {"monteclora_config", "Monte Carlo LoRA"},
    {"velora_config", "VeLoRA"},
};
// Keys that are read below or say nothing about the result of the adapter.
constexpr const char *kKnown[] = {
    "peft_type", "r", "lora_alpha", "lora_dropout", "use_rslora", "target_modules", "exclude_modules", "rank_pattern",
    "alpha_pattern", "layers_to_transform", "layers_pattern", "bias", "task_type", "base_model_name_or_path", "inference_mode",
    "init_lora_weights", "auto_mapping", "revision", "peft_version", "megatron_core", "qalora_group_size", "loftq_config",
    "eva_config", "corda_config", "lora_ga_config", "ensure_weight_tying",
};
// Ways to initialise A and B that leave the base model as it is. Others (pissa, olora, loftq, corda, lora_ga) subtract the
// start of B A from the base weights, so their adapters do not fit the published base.
constexpr const char *kInitialisations[] = {"gaussian", "eva", "orthogonal"};

bool is_off(const Json &value) {
  switch (value.kind()) {
    case Json::Kind::null: return true;
    case Json::Kind::boolean: return !value.boolean();
    case Json::Kind::string: return value.string().empty();
    case Json::Kind::array:
    case Json::Kind::object: return value.size() == 0;
    case Json::Kind::number: return false;
  }
  return false;
}

// The members of one object with messages that name file and key.
class Members {
 public:
  Members(const Json &json, const std::string &source) : json_(json), source_(source) {}

  const Json *set(const char *key) const {  // nullptr when absent or null
    const Json *value = json_.find(key);
    return value && !value->is_null() ? value : nullptr;
  }
  template <class... Parts>
  [[noreturn]] void wrong(const char *key, const Parts &...parts) const {
    fail(Code::format, source_, ": key '", key, "': ", parts...);
  }
  std::vector<std::string> strings(const char *key) const {
    std::vector<std::string> out;
    const Json *value = set(key);
    if (!value) return out;
    if (!value->is_array()) wrong(key, "expected a list of strings");
    for (const Json &item : value->items()) {
      if (!item.is_string() || item.string().empty()) wrong(key, "expected a list of names");
      out.push_back(item.string());
    }
    return out;
  }
  ModuleSelection modules(const char *key) const {
    ModuleSelection out;
    const Json *value = set(key);
    if (!value || !value->is_string()) out.names = strings(key);
    else if (value->string() == "all-linear") out.all_linear = true;
    else out.regex = value->string();
    return out;
  }
  int64_t rank(const char *key, const Json &value) const {
    if (!value.is_number() || value.number() != std::floor(value.number()) || value.number() < 1 || value.number() > kMaxRank) {
      wrong(key, "expected a rank of 1 to ", kMaxRank);
    }
    return value.integer();
  }
  double alpha(const char *key, const Json &value) const {
    if (!value.is_number()) wrong(key, "expected a number");
    return value.number();
  }
  // Calls add(pattern, value) for each member of an object.
  template <class Add>
  void patterns(const char *key, Add add) const {
    const Json *value = set(key);
    if (!value) return;
    if (!value->is_object()) wrong(key, "expected an object");
    for (const auto &[pattern, item] : value->members()) add(pattern, item);
  }

 private:
  const Json &json_;
  const std::string &source_;
};

void refuse_unsupported(const Json &json, const Members &members, const std::string &source) {
  for (const auto &[key, meaning] : kRefused) {
    const Json *value = json.find(key);
    if (value && !is_off(*value)) fail(Code::unsupported, source, ": key '", key, "' (", meaning, ") is not supported");
  }
  const std::string bias = json.string_or("bias", "none", source);
  if (bias != "none") fail(Code::unsupported, source, ": key 'bias': '", bias, "' (trained biases) is not supported");
  if (const Json *init = members.set("init_lora_weights"); init && init->is_string()) {
    const auto known = std::find(std::begin(kInitialisations), std::end(kInitialisations), init->string());
    if (known == std::end(kInitialisations)) {
      fail(Code::unsupported, source, ": key 'init_lora_weights': '", init->string(),
           "' belongs to a changed base model; save the adapter converted to plain LoRA");
    }
  }
}

// A key of a later PEFT is kept and ignored, unless it is a switch that is on: that would be a different method.
std::vector<std::string> unknown_keys(const Json &json, const std::string &source) {
  std::vector<std::string> unknown;
  for (const auto &[key, value] : json.members()) {
    const auto same = [&key = key](const auto &known) {
      if constexpr (std::is_convertible_v<decltype(known), const char *>) return key == known;
      else return key == known.first;
    };
    if (std::any_of(std::begin(kKnown), std::end(kKnown), same)) continue;
    if (std::any_of(std::begin(kRefused), std::end(kRefused), same)) continue;
    if (key.starts_with("use_") && !is_off(value)) fail(Code::unsupported, source, ": key '", key, "' is not known and is on");
    unknown.push_back(key);
  }
  return unknown;
}

bool selects(const ModuleSelection &selection, std::string_view path, const std::string &source) {
  if (!selection.regex.empty()) return pattern_matches(selection.regex, PatternPlace::whole, path, source);
  return std::any_of(selection.names.begin(), selection.names.end(), [&](const std::string &name) {
    return path == name || (path.size() > name.size() && path.ends_with(name) && path[path.size() - name.size() - 1] == '.');
  });
}

// The number of the layer of a path: the last number that is followed by a dot and preceded by a name that itself follows a
// dot; with layers_pattern the name must match. -1 when there is none.
int64_t layer_of(const LoraConfig &config, std::string_view path) {
  const std::string source = config.source + ": key 'layers_pattern'";
  const auto layer_by = [&](const std::string *pattern) -> int64_t {
    for (size_t end = path.rfind('.'); end != std::string_view::npos && end > 0; end = path.rfind('.', end - 1)) {
      const size_t dot = path.rfind('.', end - 1);
      if (dot == std::string_view::npos || path.find('.') == dot) break;
      int64_t layer = 0;
      const auto [stop, error] = std::from_chars(path.data() + dot + 1, path.data() + end, layer);
      if (error != std::errc() || stop != path.data() + end || layer < 0) continue;
      if (!pattern || pattern_matches(*pattern, PatternPlace::after_dot, path.substr(0, dot), source)) return layer;
    }
    return -1;
  };
  if (config.layers_pattern.empty()) return layer_by(nullptr);
  for (const std::string &pattern : config.layers_pattern) {
    if (const int64_t layer = layer_by(&pattern); layer >= 0) return layer;
  }
  return -1;
}

Json selection_json(const ModuleSelection &selection) {
  if (selection.all_linear) return "all-linear";
  if (!selection.regex.empty()) return selection.regex;
  if (selection.names.empty()) return {};
  Json list = Json::array();
  for (const std::string &name : selection.names) list.push(name);
  return list;
}

template <class Items>
Json list_or_null(const Items &items) {
  if (items.empty()) return {};
  Json list = Json::array();
  for (const auto &item : items) list.push(item);
  return list;
}

template <class Patterns>
Json patterns_json(const Patterns &patterns) {
  Json object = Json::object();
  for (const auto &[pattern, value] : patterns) object.set(pattern, value);
  return object;
}

}  // namespace

LoraConfig parse_lora_config(const Json &json, std::string source) {
  if (!json.is_object()) fail(Code::format, source, ": expected an object");
  const std::string type = json.string_at("peft_type", source);
  if (type != "LORA") fail(Code::unsupported, source, ": key 'peft_type': expected LORA, found ", type);

  LoraConfig config;
  config.source = source;
  config.original = json;
  const Members members(json, config.source);
  refuse_unsupported(json, members, source);
  config.unknown_keys = unknown_keys(json, source);

  config.r = members.rank("r", json.at("r", source));
  config.alpha = members.alpha("lora_alpha", json.at("lora_alpha", source));
  config.dropout = json.number_or("lora_dropout", 0, source);
  if (!(config.dropout >= 0 && config.dropout < 1)) {
    members.wrong("lora_dropout", "expected 0 to below 1, found ", config.dropout);
  }
  config.use_rslora = json.bool_or("use_rslora", false, source);
  config.target_modules = members.modules("target_modules");
  if (config.target_modules.empty()) members.wrong("target_modules", "names no module");
  config.exclude_modules = members.modules("exclude_modules");
  if (config.exclude_modules.all_linear) config.exclude_modules = {{}, "all-linear", false};
  members.patterns("rank_pattern", [&](const std::string &pattern, const Json &value) {
    config.rank_pattern.emplace_back(pattern, members.rank("rank_pattern", value));
  });
  members.patterns("alpha_pattern", [&](const std::string &pattern, const Json &value) {
    config.alpha_pattern.emplace_back(pattern, members.alpha("alpha_pattern", value));
  });
  if (const Json *layers = members.set("layers_to_transform")) {
    const std::vector<Json> one{*layers};
    for (const Json &layer : layers->is_array() ? layers->items() : one) {
      if (!layer.is_number() || layer.number() != std::floor(layer.number()) || std::abs(layer.number()) > kMaxRank) {
        members.wrong("layers_to_transform", "expected layer numbers");
      }
      config.layers_to_transform.push_back(layer.integer());
    }
    if (!config.layers_to_transform.empty() && config.target_modules.names.empty()) {
      members.wrong("layers_to_transform", "cannot be combined with a pattern in target_modules");
    }
  }
  if (const Json *pattern = members.set("layers_pattern"); pattern && pattern->is_string()) {
    if (!pattern->string().empty()) config.layers_pattern = {pattern->string()};
  } else {
    config.layers_pattern = members.strings("layers_pattern");
  }
  config.task_type = json.string_or("task_type", "", source);
  config.base_model_name_or_path = json.string_or("base_model_name_or_path", "", source);
  config.inference_mode = json.bool_or("inference_mode", true, source);
  if (const Json *init = members.set("init_lora_weights")) config.init_lora_weights = *init;
  return config;
}

Json lora_config_json(const LoraConfig &config) {
  Json json = config.original.is_object() ? config.original : Json::object();
  const auto keep_or_set = [&](const char *key, Json value) {
    if (!json.find(key)) json.set(key, std::move(value));
  };
  json.set("alpha_pattern", patterns_json(config.alpha_pattern));
  keep_or_set("auto_mapping", {});
  json.set("base_model_name_or_path", config.base_model_name_or_path.empty() ? Json() : Json(config.base_model_name_or_path));
  json.set("bias", "none");
  if (!config.exclude_modules.empty()) json.set("exclude_modules", selection_json(config.exclude_modules));
  keep_or_set("fan_in_fan_out", false);
  json.set("inference_mode", config.inference_mode);
  json.set("init_lora_weights", config.init_lora_weights);
  keep_or_set("layer_replication", {});
  json.set("layers_pattern", list_or_null(config.layers_pattern));
  json.set("layers_to_transform", list_or_null(config.layers_to_transform));
  keep_or_set("loftq_config", Json::object());
  json.set("lora_alpha", config.alpha);
  json.set("lora_dropout", config.dropout);
  keep_or_set("megatron_config", {});
  keep_or_set("megatron_core", "megatron.core");
  keep_or_set("modules_to_save", {});
  json.set("peft_type", "LORA");
  json.set("r", config.r);
  json.set("rank_pattern", patterns_json(config.rank_pattern));
  keep_or_set("revision", {});
  json.set("target_modules", selection_json(config.target_modules));
  json.set("task_type", config.task_type.empty() ? Json() : Json(config.task_type));
  keep_or_set("use_dora", false);
  json.set("use_rslora", config.use_rslora);
  return json;
}

bool matches(const LoraConfig &config, std::string_view module_path) {
  if (selects(config.exclude_modules, module_path, config.source + ": key 'exclude_modules'")) return false;
  if (config.target_modules.all_linear) return true;
  if (!selects(config.target_modules, module_path, config.source + ": key 'target_modules'")) return false;
  // A name that is the whole path is adapted whatever its layer.
  const auto &names = config.target_modules.names;
  if (config.layers_to_transform.empty() || std::find(names.begin(), names.end(), module_path) != names.end()) return true;
  const auto &layers = config.layers_to_transform;
  const int64_t layer = layer_of(config, module_path);
  return layer >= 0 && std::find(layers.begin(), layers.end(), layer) != layers.end();
}

int64_t rank_of(const LoraConfig &config, std::string_view module_path) {
  for (const auto &[pattern, rank] : config.rank_pattern) {
    if (pattern_matches(pattern, PatternPlace::end, module_path, config.source + ": key 'rank_pattern'")) return rank;
  }
  return config.r;
}

double alpha_of(const LoraConfig &config, std::string_view module_path) {
  for (const auto &[pattern, alpha] : config.alpha_pattern) {
    if (pattern_matches(pattern, PatternPlace::end, module_path, config.source + ": key 'alpha_pattern'")) return alpha;
  }
  return config.alpha;
}

double scale_of(const LoraConfig &config, std::string_view module_path) {
  const auto rank = static_cast<double>(rank_of(config, module_path));
  return alpha_of(config, module_path) / (config.use_rslora ? std::sqrt(rank) : rank);
}

}  // namespace moe
