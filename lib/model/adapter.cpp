#include "model/adapter.h"

#include <algorithm>
#include <cmath>

#include "base/checked.h"
#include "base/error.h"
#include "base/random.h"

namespace moe {
namespace {

// Random stream of the start of A: one for each layer and module.
constexpr uint64_t kFirstStream = uint64_t{'A'} << 56;

// Names that Hugging Face classes give to the decoder that holds "layers".
constexpr std::string_view kDecoderPrefixes[] = {"model.", "model.language_model.", "language_model.model.", ""};

// The prefix of an adapter's module paths, by the first of them.
std::string prefix_of(const std::string &path) {
  for (std::string_view prefix : kDecoderPrefixes) {
    if (path.starts_with(text(prefix, "layers."))) return std::string(prefix);
  }
  return "model.";
}

template <class Visit>
void for_each_module(const DecoderConfig &config, Visit visit) {
  for (int64_t layer = 0; layer < config.layers; layer++) {
    for (int i = 0; i < kModules; i++) visit(layer, static_cast<Module>(i));
  }
}

// Names of target_modules that no projection of the base has; a pattern stands for itself.
std::vector<std::string> unmatched_targets(const LoraConfig &config, const std::vector<std::string> &paths) {
  const auto matches_any = [&](const LoraConfig &one) {
    return std::any_of(paths.begin(), paths.end(), [&](const std::string &path) { return matches(one, path); });
  };
  std::vector<std::string> unmatched;
  for (const std::string &name : config.target_modules.names) {
    LoraConfig one = config;
    one.target_modules.names = {name};
    if (!matches_any(one)) unmatched.push_back(name);
  }
  if (config.target_modules.names.empty() && !matches_any(config)) {
    unmatched.push_back(config.target_modules.all_linear ? "all-linear" : config.target_modules.regex);
  }
  return unmatched;
}

bool is_zero(std::span<const float> values) {
  return std::all_of(values.begin(), values.end(), [](float x) { return x == 0; });
}

// B A is zero when for every k row k of A or column k of B is.
bool product_is_zero(std::span<const float> a, std::span<const float> b, size_t rank) {
  const size_t in = a.size() / rank, out = b.size() / rank;
  for (size_t k = 0; k < rank; k++) {
    bool column_is_zero = true;
    for (size_t o = 0; o < out && column_is_zero; o++) column_is_zero = b[o * rank + k] == 0;
    if (!column_is_zero && !is_zero(a.subspan(k * in, in))) return false;
  }
  return true;
}

void check_base(const PeftAdapter &file, const BaseModel &model, const std::string &folder, bool strict_base) {
  if (!file.architecture_fingerprint.empty() && file.architecture_fingerprint != model.architecture_fingerprint()) {
    fail(Code::format, folder, ": belongs to a base model of another architecture: expected fingerprint ",
         model.architecture_fingerprint(), " (", model.path(), "), found ", file.architecture_fingerprint);
  }
  if (file.weights_fingerprint.empty() || file.weights_fingerprint == model.weights_fingerprint()) return;
  const std::string message = text(folder, ": was made on other weights of this architecture: expected fingerprint ",
                                   model.weights_fingerprint(), " (", model.path(), "), found ", file.weights_fingerprint);
  if (strict_base) fail(Code::format, message);
  log(model.log(), LogLevel::warning, message);
}

}  // namespace

std::string Adapter::path_of(int64_t layer, Module module) const {
  return text(prefix_, "layers.", layer, ".", kModulePaths[static_cast<size_t>(module)]);
}

// Which modules are adapted, with which rank, and where their factors stand. config_ and prefix_ are set.
void Adapter::lay_out(const BaseModel &model) {
  const DecoderConfig &base = model.config();
  slots_.assign(static_cast<size_t>(base.layers), {});
  size_t size = 0;
  for_each_module(base, [&](int64_t layer, Module module) {
    const std::string path = path_of(layer, module);
    if (!matches(config_, path)) return;
    const ModuleShape shape = module_shape(base, module);
    Slot slot{rank_of(config_, path), shape.in, shape.out, static_cast<float>(scale_of(config_, path)), 0, 0};
    slot.a = size;
    slot.b = checked_add(slot.a, checked_multiply(static_cast<uint64_t>(slot.rank), static_cast<uint64_t>(slot.in), path), path);
    size = checked_add(slot.b, checked_multiply(static_cast<uint64_t>(slot.rank), static_cast<uint64_t>(slot.out), path), path);
    slots_[static_cast<size_t>(layer)][static_cast<size_t>(module)] = slot;
    largest_rank_ = std::max(largest_rank_, slot.rank);
    (is_attention(module) ? targets_attention_ : targets_ffn_) = true;
  });
  resize(size);
}

std::shared_ptr<Adapter> Adapter::create(const BaseModel &model, const LoraConfig &config, uint64_t seed) {
  const auto adapter = std::make_shared<Adapter>();
  adapter->config_ = config;
  if (adapter->config_.base_model_name_or_path.empty()) adapter->config_.base_model_name_or_path = model.name();
  std::vector<std::string> paths;
  for_each_module(model.config(), [&](int64_t layer, Module module) { paths.push_back(adapter->path_of(layer, module)); });
  if (const auto unmatched = unmatched_targets(config, paths); !unmatched.empty()) {
    fail(Code::invalid, "target_modules: '", unmatched.front(), "' matches no projection of ", model.path());
  }
  adapter->lay_out(model);
  const std::span<float> values = adapter->parameters();
  for_each_module(model.config(), [&](int64_t layer, Module module) {
    const Slot &slot = adapter->slot(layer, module);
    if (slot.rank == 0) return;
    const Random random(seed, kFirstStream | static_cast<uint64_t>(layer * kModules + static_cast<int>(module)));
    const double bound = 1 / std::sqrt(static_cast<double>(slot.in));
    for (size_t i = slot.a; i < slot.b; i++)
      values[i] = static_cast<float>((2 * random.uniform(i - slot.a) - 1) * bound);
  });
  return adapter;
}

std::shared_ptr<Adapter> Adapter::load(const BaseModel &model, const std::string &folder, bool strict_base) {
  const PeftAdapter file = read_peft_adapter(folder);
  check_base(file, model, folder, strict_base);
  const auto adapter = std::make_shared<Adapter>();
  adapter->config_ = file.config;
  if (!file.modules.empty()) adapter->prefix_ = prefix_of(file.modules.front().path);
  adapter->lay_out(model);

  const std::span<float> values = adapter->parameters();
  size_t taken = 0;
  for_each_module(model.config(), [&](int64_t layer, Module module) {
    const Slot &slot = adapter->slot(layer, module);
    if (slot.rank == 0) return;
    const std::string path = adapter->path_of(layer, module);
    const LoraModule *found = file.find(path);
    if (!found)
      fail(Code::format, folder, ": '", path, "' is a target of ", file.config.source, " but has no factors in the file");
    if (found->in != slot.in || found->out != slot.out || found->rank != slot.rank) {
      fail(Code::format, folder, ": '", path, "': expected lora_A [", slot.rank, ", ", slot.in, "] and lora_B [", slot.out, ", ",
           slot.rank, "] as the base model ", model.path(), " needs, found [", found->rank, ", ", found->in, "] and [",
           found->out, ", ", found->rank, "]");
    }
    std::copy(found->a.begin(), found->a.end(), values.begin() + static_cast<std::ptrdiff_t>(slot.a));
    std::copy(found->b.begin(), found->b.end(), values.begin() + static_cast<std::ptrdiff_t>(slot.b));
    taken++;
  });
  if (taken != file.modules.size()) {
    std::vector<std::string> known;
    for_each_module(model.config(), [&](int64_t layer, Module module) { known.push_back(adapter->path_of(layer, module)); });
    for (const LoraModule &module : file.modules) {
      if (std::find(known.begin(), known.end(), module.path) != known.end()) continue;
      fail(Code::format, folder, ": '", module.path, "' is no projection of the base model ", model.path());
    }
  }
  for (const std::string &key : file.config.unknown_keys) {
    log(model.log(), LogLevel::info, text(file.config.source, ": key '", key, "' is not known and ignored"));
  }
  if (adapter->delta_is_zero())
    log(model.log(), LogLevel::warning, text(folder, ": the adapter changes nothing: its delta is zero"));
  return adapter;
}

void Adapter::save(const BaseModel &model, const std::string &folder) const {
  PeftAdapter file;
  file.config = config_;
  file.architecture_fingerprint = model.architecture_fingerprint();
  file.weights_fingerprint = model.weights_fingerprint();
  const std::span<const float> values = parameters();
  for_each_module(model.config(), [&](int64_t layer, Module module) {
    const Slot &slot = this->slot(layer, module);
    if (slot.rank == 0) return;
    const auto at = [&](size_t offset) { return values.begin() + static_cast<std::ptrdiff_t>(offset); };
    const size_t end = slot.b + static_cast<size_t>(slot.out * slot.rank);
    file.modules.push_back(
        {path_of(layer, module), slot.rank, slot.in, slot.out, slot.scale, {at(slot.a), at(slot.b)}, {at(slot.b), at(end)}});
  });
  write_peft_adapter(folder, file);
}

LowRank Adapter::factors_at(const Slot &slot, const float *parameters) {
  if (slot.rank == 0) return {};
  return {slot.rank, slot.scale, parameters + slot.a, parameters + slot.b};
}
LowRankGradient Adapter::gradient_at(const Slot &slot, float *gradients) {
  if (slot.rank == 0) return {};
  return {gradients + slot.a, gradients + slot.b};
}

LowRank Adapter::factors(int64_t layer, Module module) const { return factors_at(slot(layer, module), parameters().data()); }
LowRankGradient Adapter::gradient_of(int64_t layer, Module module) {
  return gradient_at(slot(layer, module), gradients().data());
}

LowRank Adapter::op_factors(int64_t layer, Module module) const {
  return factors_at(slot(layer, module), parameters_.brought());
}
LowRankGradient Adapter::op_gradient(int64_t layer, Module module) const {
  return gradient_at(slot(layer, module), gradients_.brought());
}

bool Adapter::delta_is_zero() const {
  const std::span<const float> all = parameters();
  for (const auto &layer : slots_) {
    for (const Slot &slot : layer) {
      if (slot.rank == 0 || slot.scale == 0) continue;
      const size_t a = static_cast<size_t>(slot.rank * slot.in), b = static_cast<size_t>(slot.out * slot.rank);
      if (!product_is_zero(all.subspan(slot.a, a), all.subspan(slot.b, b), static_cast<size_t>(slot.rank))) return false;
    }
  }
  return true;
}

std::vector<Adapter::Entry> Adapter::entries() const {
  std::vector<Entry> entries;
  for (size_t layer = 0; layer < slots_.size(); layer++) {
    for (int i = 0; i < kModules; i++) {
      const Slot &slot = slots_[layer][static_cast<size_t>(i)];
      if (slot.rank == 0) continue;
      const std::string key = text("base_model.model.", path_of(static_cast<int64_t>(layer), static_cast<Module>(i)));
      entries.push_back({key + ".lora_A.weight", {slot.rank, slot.in}, slot.a});
      entries.push_back({key + ".lora_B.weight", {slot.out, slot.rank}, slot.b});
    }
  }
  return entries;
}

}  // namespace moe
