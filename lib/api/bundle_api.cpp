// moe_bundle_*: see moe.h.
#include "api/handles.h"
#include "base/file.h"

namespace moe::api {
namespace {

// "<dir>/<domain>/" or "<dir>/<domain>/final_adapter/" for every domain, in name order.
std::vector<std::pair<std::string, std::string>> adapters_below(const std::string &folder) {
  std::vector<std::pair<std::string, std::string>> adapters;
  for (const std::string &domain : list_folder(folder)) {
    for (const std::string &path : {join_path(folder, domain), join_path(join_path(folder, domain), "final_adapter")}) {
      if (!file_exists(join_path(path, "adapter_config.json"))) continue;
      adapters.emplace_back(domain, path);
      break;
    }
  }
  if (adapters.empty()) fail(Code::invalid, folder, ": holds no <domain>/ or <domain>/final_adapter with adapter_config.json");
  return adapters;
}

BundleBuild bundle_build(const Options &options) {
  BundleBuild build;
  build.adapters = options.named("adapters");
  for (const auto &[name, path] : build.adapters) {
    if (name.empty()) fail(Code::invalid, "adapters: expected name=folder, found '", path, "'");
  }
  if (build.adapters.empty()) build.adapters = adapters_below(options.required_text("adapters_dir"));
  build.gating = options.text("gating");
  build.router = router_settings(options, RouterConfig());
  build.router_file = options.text("router");
  build.fallback_domain = options.text("fallback_domain");
  build.strict_base = options.flag("strict_base");
  build.seed = static_cast<uint64_t>(options.integer("seed"));
  return build;
}

bool validate(const BaseModel &base, const std::string &folder, moe_event_callback on_event, void *user) {
  return validate_bundle(base, folder, [&](bool good, const std::string &line) {
    moe_event event{};
    event.struct_size = sizeof event;
    event.kind = MOE_EVENT_FINDING;
    event.value = good ? 1 : 0;
    event.text = line.c_str();
    if (on_event && on_event(&event, user) != 0) fail(Code::cancelled, folder, ": validation was cancelled by the caller");
  });
}

}  // namespace
}  // namespace moe::api

using namespace moe::api;

extern "C" {

int32_t moe_bundle_build(const moe_model *base, const moe_options *options, moe_text **summary, moe_error *error) {
  return fence(error, [&] {
    if (summary) *summary = nullptr;
    const auto core = core_of(base, "moe_model");
    const OptionsOf values(options);
    const moe::Json json = moe::build_bundle(*core->base, bundle_build(*values), values->required_text("output_dir"));
    if (summary) *summary = new_json(json);
  });
}

int32_t moe_bundle_validate(const moe_model *base, const char *folder, moe_event_callback on_event, void *user, int32_t *good,
                            moe_error *error) {
  return fence(error, [&] {
    if (!good) moe::fail(moe::Code::invalid, "good: the pointer for the result is NULL");
    *good = 0;
    const auto core = core_of(base, "moe_model");
    *good = validate(*core->base, required_text(folder, "folder"), on_event, user);
  });
}

int32_t moe_bundle_save_router(const char *folder, const moe_router *router, moe_error *error) {
  return fence(error, [&] {
    const auto core = core_of(router, "moe_router");
    const Reading reading(&core->use, "moe_router");
    moe::save_bundle_router(required_text(folder, "folder"), *core->router, moe::Json());
  });
}

}  // extern "C"
