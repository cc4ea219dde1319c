// moe-train lora: one adapter on one domain.
#include "moe-train/experiment.h"
#include "moe-train/training.h"
#include "moe-train/verbs.h"

namespace moe::cli {

int run_lora(Context &context) {
  const Options &options = context.options();
  required(options, "model");
  required(options, "data");
  const std::string domain = get(options, "domain");
  if (!has(options, "output_dir")) {
    if (domain.empty()) throw Failure(kUsage, "option --domain is needed, or --output-dir");
    set(options, "output_dir", "domain_models/" + domain);
  }
  const std::string result = get(options, "output_dir") + "/final_adapter";
  if (const auto done = finished_run(options, "lora", domain.empty() ? "adapter" : domain)) {
    context.console.note(get(options, "output_dir") + ": this run is finished already");
    return print_summary(context, *done, result), kDone;
  }
  const Experiment experiment(context, get(options, "experiment"), get(options, "output_dir"));
  const Model base = load_base(context);
  print_summary(context, train_adapter(context, options, base), result);
  experiment.report("", {get(options, "output_dir")});
  return kDone;
}

}  // namespace moe::cli
