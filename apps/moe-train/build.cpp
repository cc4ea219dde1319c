// moe-train build: a bundle from adapters, or with --validate-only the check of one.
#include "cli/models.h"
#include "moe-train/verbs.h"

namespace moe::cli {
namespace {

// Collects the findings in a JSON array, `user`.
int32_t on_finding(const moe_event *event, void *user) {
  if (event->kind != MOE_EVENT_FINDING) return 0;
  static_cast<Json *>(user)->push(Json::object({{"good", event->value != 0}, {"finding", event->text}}));
  return 0;
}

int validate(const Context &context, const std::string &folder) {
  const Options options = context.copied();
  set(options, "model", base_path_of(context, folder));
  Model base;
  call(moe_model_load, get(options, "model").c_str(), options.get(), context.cancel, base.out());
  Json findings = Json::array();
  int32_t good = 0;
  call(moe_bundle_validate, base.get(), folder.c_str(), &on_finding, &findings, &good);
  if (context.command.json) {
    context.console.print(Json::object({{"path", folder}, {"good", good != 0}, {"findings", findings}}).dump(2) + "\n");
  } else {
    for (const Json &one : findings.items()) {
      context.console.print((one.at("good").boolean() ? "good  " : "BAD   ") + one.at("finding").string() + "\n");
    }
  }
  if (!good) throw Failure(kFailed, folder + ": the bundle is not good");
  return kDone;
}

}  // namespace

int run_build(Context &context) {
  const Options &options = context.options();
  if (!has(options, "output_dir")) set(options, "output_dir", "moe_model");
  const std::string folder = get(options, "output_dir");
  if (flag(options, "validate_only")) return validate(context, folder);
  if (!has(options, "adapters")) required(options, "adapters_dir");
  const Model base = load_base(context);
  const std::string text = text_of(moe_bundle_build, base.get(), options.get());
  const Json summary = Json::parse(text, "build summary");
  if (context.command.json) return context.console.print(summary.dump(2) + "\n"), kDone;
  for (const Json &check : summary.at("checks").items()) {
    context.console.print((check.at("good").boolean() ? "good  " : "BAD   ") + check.at("check").string() + ": " +
                          check.at("detail").string() + "\n");
  }
  context.console.print("bundle " + folder + "\n");
  return kDone;
}

}  // namespace moe::cli
