// Saving and resuming a trainer: what a checkpoint folder holds (docs/training-output.md).
#include <algorithm>

#include "base/file.h"
#include "formats/safetensors.h"
#include "model/bundle.h"
#include "train/checkpoint.h"
#include "train/trainer.h"

namespace moe {
namespace {

constexpr const char *kFormat = "libmoe.trainer_state";
constexpr const char *kRouterFile = "router.safetensors", *kExpertsFile = "experts.safetensors";

Json numbers(const std::vector<double> &values) {
  Json array = Json::array();
  for (double x : values) array.push(x);
  return array;
}
std::vector<double> numbers(const Json &array) {
  std::vector<double> values;
  for (const Json &x : array.items()) values.push_back(x.number());
  return values;
}

Json statistics_json(const RouterStatistics &s) {
  Json picks = Json::array(), probability = Json::array();
  for (const auto &row : s.picks) picks.push(numbers(row));
  for (const auto &row : s.probability) probability.push(numbers(row));
  Json json = Json::object();
  json.set("tokens", s.tokens).set("top_k", s.top_k).set("picks", std::move(picks)).set("probability", std::move(probability));
  json.set("z_squared", numbers(s.z_squared)).set("supervised", numbers(s.supervised)).set("supervised_samples", s.supervised_samples);
  json.set("lm_gradient_norm", numbers(s.lm_gradient_norm)).set("zero_gradient_tokens", numbers(s.zero_gradient_tokens));
  return json;
}

RouterStatistics read_statistics(const Json &json, const std::string &source) {
  RouterStatistics s;
  s.tokens = json.integer_at("tokens", source);
  s.top_k = json.integer_at("top_k", source);
  for (const Json &row : json.at("picks", source).items()) s.picks.push_back(numbers(row));
  for (const Json &row : json.at("probability", source).items()) s.probability.push_back(numbers(row));
  s.z_squared = numbers(json.at("z_squared", source));
  s.supervised = numbers(json.at("supervised", source));
  s.supervised_samples = json.integer_at("supervised_samples", source);
  s.lm_gradient_norm = numbers(json.at("lm_gradient_norm", source));
  s.zero_gradient_tokens = numbers(json.at("zero_gradient_tokens", source));
  return s;
}

Json router_json(const RouterConfig &config) {
  return Json::object({{"experts", config.experts},
                       {"top_k", config.top_k},
                       {"form", gate_form_name(config.form)},
                       {"temperature", static_cast<double>(config.temperature)}});
}

// Of all experts in one file, as "<domain>.<key of the adapter>".
void save_experts(const Mixture &mixture, const std::string &path) {
  std::vector<TensorToWrite> tensors;
  for (size_t i = 0; i < mixture.experts.size(); i++) {
    const Adapter &expert = *mixture.experts[i];
    const float *parameters = expert.parameters().data();
    for (const Adapter::Entry &entry : expert.entries()) {
      tensors.push_back({text(mixture.domains[i], '.', entry.key), DType::f32, entry.shape, parameters + entry.offset});
    }
  }
  write_safetensors(path, tensors);
}

void read_values(const Safetensors &file, const std::string &name, const std::vector<int64_t> &shape, float *values) {
  const TensorInfo &info = file.at(name);
  if (info.dtype != DType::f32 || info.shape != shape) {
    fail(Code::format, file.path(), ": tensor '", name, "': expected F32 ", shape_text(shape), ", found ", dtype_info(info.dtype).name, " ",
         shape_text(info.shape));
  }
  file.read(info, values);
}

// The values of all experts, one after another.
std::vector<float> read_experts(const Mixture &mixture, const std::string &path) {
  const Safetensors file(path);
  std::vector<float> values;
  for (size_t i = 0; i < mixture.experts.size(); i++) {
    const Adapter &expert = *mixture.experts[i];
    const size_t first = values.size();
    values.resize(first + expert.size());
    for (const Adapter::Entry &entry : expert.entries()) {
      read_values(file, text(mixture.domains[i], '.', entry.key), entry.shape, values.data() + first + entry.offset);
    }
  }
  return values;
}

// What of an adapter's configuration decides the result; the rest are labels.
Json lora_json(const LoraConfig &config) {
  const Json all = lora_config_json(config);
  Json json = Json::object();
  for (const char *key : {"r", "lora_alpha", "lora_dropout", "use_rslora", "target_modules", "exclude_modules", "rank_pattern", "alpha_pattern",
                          "layers_to_transform"}) {
    if (const Json *value = all.find(key)) json.set(key, *value);
  }
  return json;
}

Json experts_json(const Mixture &mixture) {
  Json json = Json::object();
  for (size_t i = 0; i < mixture.experts.size(); i++) json.set(mixture.domains[i], lora_json(mixture.experts[i]->config()));
  return json;
}

void check_same(const Json &now, const Json &then, const std::string &source) {
  for (const auto &[key, value] : now.members()) {
    const Json *saved = then.find(key);
    if (!saved || saved->dump() == value.dump()) continue;
    fail(Code::state, source, ": this run has ", key, " = ", value.dump(), ", the checkpoint was made with ", saved->dump(),
         "; the result would not be that of one run");
  }
}

}  // namespace

void Trainer::save(const std::string &folder) const {
  write_checkpoint(folder, [&](const std::string &path) {
    if (adapter_) adapter_->save(*model_, path);
    else mixture_->router->save(join_path(path, kRouterFile));
    if (what_trains() == Trainable::joint) save_experts(*mixture_, join_path(path, kExpertsFile));
    const int64_t n = static_cast<int64_t>(first_moment_.size());
    const TensorToWrite moments[] = {{"first_moment", DType::f32, {n}, first_moment_.host().data()}, {"second_moment", DType::f32, {n}, second_moment_.host().data()}};
    write_safetensors(join_path(path, "optimizer.safetensors"), moments);
    Json state = Json::object();
    state.set("format", kFormat).set("format_version", 1).set("trains", what());
    state.set("step", step_).set("updates", updates_).set("planned_steps", planned_steps_).set("dead_steps", dead_steps_);
    state.set("skipped_in_a_row", skipped_in_a_row_);
    state.set("architecture_fingerprint", model_->architecture_fingerprint()).set("weights_fingerprint", model_->weights_fingerprint());
    state.set("compute", model_->compute()).set("options", options_.to_json());
    if (data_) state.set("data", data_->cursor());
    if (mixture_) state.set("router", router_json(mixture_->router->config())).set("router_statistics", statistics_json(total_statistics_));
    if (what_trains() == Trainable::joint) state.set("experts", experts_json(*mixture_));
    write_file_atomic(join_path(path, "trainer_state.json"), state.dump(1) + "\n");
  });
}

void Trainer::save_to_bundle(const std::string &folder, const Json &summary) const {
  if (what_trains() == Trainable::joint) save_bundle_mixture(*model_, folder, *mixture_, summary);
  else save_bundle_router(folder, *mixture_->router, summary);
}

void Trainer::resume(const std::string &folder) {
  verify_checkpoint(folder);
  const std::string source = join_path(folder, "trainer_state.json");
  const Json state = read_json(source);
  const std::string format = state.string_at("format", source), trains = state.string_at("trains", source);
  if (format != kFormat) fail(Code::format, source, ": key 'format': expected '", kFormat, "', found '", format, "'");
  const int64_t version = state.integer_at("format_version", source);
  if (version != 1) fail(Code::unsupported, source, ": key 'format_version': expected 1, found ", version);
  if (trains != what()) fail(Code::state, source, ": key 'trains': expected '", what(), "' (this trainer), found '", trains, "'");
  const std::string base = state.string_at("weights_fingerprint", source);
  if (base != model_->weights_fingerprint()) {
    fail(Code::state, source, ": key 'weights_fingerprint': expected ", model_->weights_fingerprint(), " (this base model), found ", base);
  }
  const std::string compute = state.string_at("compute", source);
  if (compute != model_->compute()) fail(Code::state, source, ": key 'compute': expected '", model_->compute(), "', found '", compute, "'");
  check_same(options_.to_json(), state.at("options", source), source);
  if (mixture_) check_same(router_json(mixture_->router->config()), state.at("router", source), source);
  if (what_trains() == Trainable::joint) check_same(experts_json(*mixture_), state.at("experts", source), source);
  const int64_t planned = state.integer_at("planned_steps", source);
  if (planned != planned_steps_) fail(Code::state, source, ": key 'planned_steps': expected ", planned_steps_, ", found ", planned);

  // everything is read before anything of this trainer changes
  const Safetensors optimizer(join_path(folder, "optimizer.safetensors"));
  std::vector<float> first(first_moment_.size()), second(first), values;
  const std::vector<int64_t> shape = {static_cast<int64_t>(first.size())};
  read_values(optimizer, "first_moment", shape, first.data());
  read_values(optimizer, "second_moment", shape, second.data());
  if (adapter_) {
    const auto saved = Adapter::load(*model_, folder, false);
    check_same(lora_json(adapter_->config()), lora_json(saved->config()), folder);
    values.assign(saved->parameters().begin(), saved->parameters().end());
  } else {
    const auto saved = Router::load(join_path(folder, kRouterFile), mixture_->router->config());
    values.assign(saved->parameters().begin(), saved->parameters().end());
  }
  if (what_trains() == Trainable::joint) {
    const std::vector<float> experts = read_experts(*mixture_, join_path(folder, kExpertsFile));
    values.insert(values.end(), experts.begin(), experts.end());
  }
  if (values.size() != first.size()) fail(Code::state, folder, ": expected ", first.size(), " parameters, found ", values.size());
  RouterStatistics statistics;
  if (mixture_) statistics = read_statistics(state.at("router_statistics", source), source);
  if (data_) data_->restore(state.at("data", source));
  step_ = state.integer_at("step", source);
  updates_ = state.integer_at("updates", source);
  dead_steps_ = state.integer_at("dead_steps", source);
  skipped_in_a_row_ = state.integer_at("skipped_in_a_row", source);
  std::copy(first.begin(), first.end(), first_moment_.host().begin());
  std::copy(second.begin(), second.end(), second_moment_.host().begin());
  auto from = values.cbegin();
  for (const Part &part : parts()) {
    std::copy_n(from, part.parameters.size(), part.parameters.host().begin());
    from += static_cast<std::ptrdiff_t>(part.parameters.size());
  }
  total_statistics_ = std::move(statistics);
}

}  // namespace moe
