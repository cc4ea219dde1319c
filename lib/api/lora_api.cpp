// moe_lora_*: see moe.h.
#include <algorithm>

#include "api/handles.h"
#include "base/file.h"

namespace moe::api {

LoraConfig lora_config(const Options &options, const BaseModel &model) {
  LoraConfig config;
  config.r = options.integer("rank");
  config.alpha = options.number("alpha");
  config.dropout = options.number("dropout");
  config.use_rslora = options.flag("rslora");
  config.base_model_name_or_path = model.name();
  const std::vector<std::string> targets = options.list("target_modules");
  if (targets.empty()) fail(Code::invalid, "target_modules: expected all-linear, names or one regular expression");
  const bool is_pattern = targets.size() == 1 && targets[0].find_first_of("\\*+?()[]{}^$|") != std::string::npos;
  if (targets.size() == 1 && targets[0] == "all-linear") config.target_modules.all_linear = true;
  else if (is_pattern) config.target_modules.regex = targets[0];
  else config.target_modules.names = targets;
  return config;
}

namespace {

std::shared_ptr<LoraCore> lora_core(std::shared_ptr<const BaseModel> base, std::shared_ptr<Adapter> adapter) {
  auto core = std::make_shared<LoraCore>();
  core->base = std::move(base);
  core->adapter = std::move(adapter);
  return core;
}

void save(LoraCore &core, const std::string &folder) {
  const Reading reading(&core.use, "moe_lora");
  if (folder_exists(folder) && !list_folder(folder).empty() && !file_exists(join_path(folder, "adapter_config.json"))) {
    fail(Code::invalid, folder, ": exists and is no adapter; it would be replaced");
  }
  AtomicFolder target(folder);
  core.adapter->save(*core.base, target.path());
  target.commit();
}

}  // namespace
}  // namespace moe::api

using namespace moe::api;

extern "C" {

int32_t moe_lora_create(const moe_model *model, const moe_options *options, moe_lora **out, moe_error *error) {
  return fence(error, [&] {
    required_out(out, "out");
    const auto core = core_of(model, "moe_model");
    const OptionsOf values(options);
    const auto seed = static_cast<uint64_t>(values->integer("seed"));
    *out =
        make_handle<moe_lora>(lora_core(core->base, moe::Adapter::create(*core->base, lora_config(*values, *core->base), seed)));
  });
}

int32_t moe_lora_load(const moe_model *model, const char *folder, const moe_options *options, moe_lora **out, moe_error *error) {
  return fence(error, [&] {
    required_out(out, "out");
    const auto core = core_of(model, "moe_model");
    const bool strict = OptionsOf(options)->flag("strict_base");
    *out = make_handle<moe_lora>(lora_core(core->base, moe::Adapter::load(*core->base, required_text(folder, "folder"), strict)));
  });
}

int32_t moe_lora_save(const moe_lora *lora, const char *folder, moe_error *error) {
  return fence(error, [&] {
    const auto core = core_of(lora, "moe_lora");
    save(*core, required_text(folder, "folder"));
  });
}

int64_t moe_lora_parameters(const moe_lora *lora) {
  const LoraCore *core = peek(lora);
  return core ? static_cast<int64_t>(core->adapter->size()) : 0;
}

int32_t moe_lora_is_zero(const moe_lora *lora) {
  const LoraCore *core = peek(lora);
  return core && core->adapter->delta_is_zero();
}

void moe_lora_free(moe_lora **lora) { free_handle(lora); }

}  // extern "C"
