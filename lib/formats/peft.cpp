#include "formats/peft.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/error.h"
#include "base/file.h"
#include "formats/safetensors.h"

namespace moe {

namespace {

constexpr const char *kConfigName = "adapter_config.json", *kWeightsName = "adapter_model.safetensors";
constexpr const char *kArchitectureKey = "libmoe.architecture_fingerprint", *kWeightsKey = "libmoe.weights_fingerprint";
constexpr std::string_view kPrefix = "base_model.model.";

struct Factor {
  std::string module;
  bool is_a = false;
};

// "base_model.model.<module>.lora_A.weight" taken apart.
Factor parse_key(const std::string &file, const std::string &key) {
  if (key.find(".lora_magnitude_vector") != std::string::npos) {
    fail(Code::unsupported, file, ": key '", key, "' belongs to DoRA, which is not supported");
  }
  if (key.find(".lora_embedding_") != std::string::npos) {
    fail(Code::unsupported, file, ": key '", key, "': LoRA on an embedding is not supported");
  }
  constexpr std::pair<std::string_view, bool> endings[] = {{".lora_A.weight", true},
                                                           {".lora_B.weight", false},
                                                           {".lora_A.default.weight", true},
                                                           {".lora_B.default.weight", false}};
  for (const auto &[ending, is_a] : endings) {
    if (key.starts_with(kPrefix) && key.ends_with(ending) && key.size() > kPrefix.size() + ending.size()) {
      return {key.substr(kPrefix.size(), key.size() - kPrefix.size() - ending.size()), is_a};
    }
  }
  fail(Code::format, file, ": key '", key, "' is not a LoRA factor");
}

void check_finite(const std::string &file, const std::string &key, const std::vector<float> &values) {
  for (float value : values) {
    if (!std::isfinite(value)) fail(Code::numeric, file, ": key '", key, "' holds ", value);
  }
}

// Row k of A or column k of B is zero for every k. The usual case is B before the first step of training.
bool is_zero_delta(const LoraModule &module) {
  for (int64_t k = 0; k < module.rank; ++k) {
    const float *row = module.a.data() + k * module.in;
    const bool a_zero = std::all_of(row, row + module.in, [](float value) { return value == 0; });
    bool b_zero = true;
    for (int64_t o = 0; o < module.out && b_zero; ++o) b_zero = module.b[static_cast<size_t>(o * module.rank + k)] == 0;
    if (!a_zero && !b_zero) return false;
  }
  return true;
}

struct FactorPair {
  const TensorInfo *a = nullptr, *b = nullptr;
};

std::map<std::string, FactorPair> pair_factors(const Safetensors &file, const LoraConfig &config) {
  std::map<std::string, FactorPair> pairs;
  for (const TensorInfo &tensor : file.tensors()) {
    const Factor factor = parse_key(file.path(), tensor.name);
    if (!matches(config, factor.module)) {
      fail(Code::format, file.path(), ": key '", tensor.name, "': '", factor.module, "' is not a target of ", config.source);
    }
    const TensorInfo *&slot = factor.is_a ? pairs[factor.module].a : pairs[factor.module].b;
    if (slot) fail(Code::format, file.path(), ": keys '", slot->name, "' and '", tensor.name, "' are the same factor");
    slot = &tensor;
  }
  return pairs;
}

LoraModule read_module(const Safetensors &file, const LoraConfig &config, const std::string &path, const FactorPair &pair) {
  if (!pair.a || !pair.b) {
    const TensorInfo *present = pair.a ? pair.a : pair.b;
    fail(Code::format, file.path(), ": '", path, "' has no lora_", pair.a ? "B" : "A", " beside '", present->name, "'");
  }
  for (const TensorInfo *factor : {pair.a, pair.b}) {
    if (factor->shape.size() != 2 || factor->elements() == 0) {
      fail(Code::format, file.path(), ": key '", factor->name, "': expected a matrix, found shape ", shape_text(factor->shape));
    }
  }
  LoraModule module;
  module.path = path;
  module.rank = rank_of(config, path);
  module.scale = scale_of(config, path);
  module.in = pair.a->shape[1];
  module.out = pair.b->shape[0];
  if (pair.a->shape[0] != module.rank || pair.b->shape[1] != module.rank) {
    const TensorInfo *wrong = pair.a->shape[0] != module.rank ? pair.a : pair.b;
    fail(Code::format, file.path(), ": key '", wrong->name, "': expected rank ", module.rank, " as ", config.source,
         " says, found shape ", shape_text(wrong->shape));
  }
  module.a = file.read_floats(*pair.a);
  module.b = file.read_floats(*pair.b);
  check_finite(file.path(), pair.a->name, module.a);
  check_finite(file.path(), pair.b->name, module.b);
  return module;
}

}  // namespace

const LoraModule *PeftAdapter::find(std::string_view path) const {
  const auto found = std::find_if(modules.begin(), modules.end(), [&](const LoraModule &module) { return module.path == path; });
  return found == modules.end() ? nullptr : &*found;
}

PeftAdapter read_peft_adapter(const std::string &folder) {
  const std::string config_path = join_path(folder, kConfigName), weights_path = join_path(folder, kWeightsName);
  PeftAdapter adapter;
  adapter.config = parse_lora_config(read_json(config_path), config_path);
  if (!file_exists(weights_path) && file_exists(join_path(folder, "adapter_model.bin"))) {
    fail(Code::unsupported, folder, ": holds adapter_model.bin, a pickle that is never read; save it as ", kWeightsName);
  }
  const Safetensors file(weights_path);
  adapter.architecture_fingerprint = file.metadata_or(kArchitectureKey, "");
  adapter.weights_fingerprint = file.metadata_or(kWeightsKey, "");
  for (const auto &[path, pair] : pair_factors(file, adapter.config)) {
    adapter.modules.push_back(read_module(file, adapter.config, path, pair));
  }
  if (adapter.modules.empty()) fail(Code::format, weights_path, ": holds no LoRA factor");
  adapter.is_zero = std::all_of(adapter.modules.begin(), adapter.modules.end(), [](const LoraModule &module) {
    return module.scale == 0 || is_zero_delta(module);
  });
  return adapter;
}

void write_peft_adapter(const std::string &folder, const PeftAdapter &adapter) {
  std::vector<TensorToWrite> tensors;
  for (const LoraModule &module : adapter.modules) {
    if (!matches(adapter.config, module.path) || rank_of(adapter.config, module.path) != module.rank) {
      fail(Code::invalid, folder, ": '", module.path, "' with rank ", module.rank, " is not what its configuration says");
    }
    if (std::abs(scale_of(adapter.config, module.path) - module.scale) > 1e-6 * std::abs(module.scale)) {
      fail(Code::invalid, folder, ": '", module.path, "' with scale ", module.scale, "; its configuration gives ",
           scale_of(adapter.config, module.path));
    }
    if (module.a.size() != static_cast<size_t>(module.rank * module.in) ||
        module.b.size() != static_cast<size_t>(module.out * module.rank)) {
      fail(Code::invalid, folder, ": '", module.path, "': expected factors of shape ",
           shape_text({module.rank, module.in}), " and ", shape_text({module.out, module.rank}));
    }
    const std::string key = text(kPrefix, module.path);
    tensors.push_back({key + ".lora_A.weight", DType::f32, {module.rank, module.in}, module.a.data()});
    tensors.push_back({key + ".lora_B.weight", DType::f32, {module.out, module.rank}, module.b.data()});
  }
  SafetensorsMetadata metadata{{"format", "pt"}};
  if (!adapter.architecture_fingerprint.empty()) metadata[kArchitectureKey] = adapter.architecture_fingerprint;
  if (!adapter.weights_fingerprint.empty()) metadata[kWeightsKey] = adapter.weights_fingerprint;
  write_safetensors(join_path(folder, kWeightsName), tensors, metadata);
  write_file_atomic(join_path(folder, kConfigName), lora_config_json(adapter.config).dump(2) + "\n");
}

}  // namespace moe
