// moe-train router: the router of a bundle.
#include "moe-train/experiment.h"
#include "moe-train/training.h"
#include "moe-train/verbs.h"

namespace moe::cli {
namespace {

// Mean share of picks of each entry over all routers, and what it was to be.
void print_usage(const Context &context, const Json &summary, const Model &bundle) {
  const Json &rows = summary.at("usage"), &target = summary.at("target_usage");
  if (context.command.json || rows.size() == 0) return;
  context.console.print("usage        entry: share of picks (target)\n");
  for (size_t entry = 0; entry < target.size(); entry++) {
    double share = 0;
    for (const Json &row : rows.items()) share += row.items()[entry].number() / static_cast<double>(rows.size());
    context.console.print(format("             %s: %.3f (%.3f)\n", moe_model_domain(bundle.get(), static_cast<int64_t>(entry)),
                                 share, target.items()[entry].number()));
  }
}

}  // namespace

int run_router(Context &context) {
  const Options &options = context.options();
  const std::string folder = required(options, "moe");
  required(options, "data");
  if (!has(options, "output_dir")) set(options, "output_dir", folder + "_router");
  if (const auto done = finished_run(options, "router", "router")) {
    context.console.note(get(options, "output_dir") + ": this run is finished already");
    return print_summary(context, *done, folder), kDone;
  }
  const Experiment experiment(context, get(options, "experiment"), get(options, "output_dir"));
  const Model bundle = load_model(context);
  const Json summary = train_router(context, options, bundle);
  print_summary(context, summary, folder);
  print_usage(context, summary, bundle);
  experiment.report("", {get(options, "output_dir")});
  return kDone;
}

}  // namespace moe::cli
