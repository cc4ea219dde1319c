#include "cli/models.h"

namespace moe::cli {
namespace {

Model load(const Context &context, const std::string &path, const Options &options) {
  Model model;
  call(moe_model_load, path.c_str(), options.get(), context.cancel, model.out());
  return model;
}

}  // namespace

Model load_base(const Context &context) { return load(context, required(context.options(), "model"), context.options()); }

std::string base_path_of(const Context &context, const std::string &bundle) {
  if (has(context.options(), "model")) return get(context.options(), "model");
  const Json json = Json::parse(text_of(moe_inspect, bundle.c_str()), bundle);
  const std::string path = json.at("base_model_path").string();
  if (path.empty()) throw Failure(kUsage, bundle + " records no base model: option --model is needed");
  context.console.note("base model: " + path + " (recorded in " + bundle + ")");
  return path;
}

Model load_model(const Context &context) {
  if (!has(context.options(), "moe")) return load_base(context);
  const std::string bundle = get(context.options(), "moe");
  const Options options = context.copied();
  set(options, "model", base_path_of(context, bundle));
  return load(context, bundle, options);
}

Lora load_adapter(const Context &context, const Model &model) {
  Lora lora;
  const auto adapters = named(context.options(), "adapter");
  if (adapters.empty()) return lora;
  if (adapters.size() > 1)
    throw Failure(kUsage, "option --adapter: one adapter can be in force, found " + std::to_string(adapters.size()));
  if (has(context.options(), "moe")) throw Failure(kUsage, "options --adapter and --moe exclude each other");
  call(moe_lora_load, model.get(), adapters[0].second.c_str(), context.options().get(), lora.out());
  return lora;
}

}  // namespace moe::cli
