// moe-eval run, report, perplexity and dump: one call of the library each.
#include "cli/item_progress.h"
#include "cli/models.h"
#include "moe-eval/verbs.h"

namespace moe::cli {
int run_evaluation(Context &context) {
  const Options &options = context.options();
  required(options, "tasks");
  if (has(options, "moe")) set(options, "model", base_path_of(context, get(options, "moe")));
  const Model base = load_base(context);
  ItemProgress progress(context.console);
  Text results, table;
  call(moe_eval_run, base.get(), options.get(), &ItemProgress::on_event, &progress, context.cancel, results.out(), table.out());
  context.console.end_progress();
  if (context.command.json) context.console.print(std::string(view(results)) + "\n");
  else context.console.print(view(table));
  if (has(options, "output_dir")) context.console.note("written: " + get(options, "output_dir") + "/evaluation_results.json, report.html");
  return kDone;
}

int run_report(Context &context) {
  const Options &options = context.options();
  if (!has(options, "results") && list(options, "training").empty())
    throw Failure(kUsage, "option --results or --training is needed");
  if (!has(options, "output")) {
    std::string folder = get(options, "results");
    if (const size_t slash = folder.rfind('/'); folder.ends_with(".json")) folder = slash == std::string::npos ? "." : folder.substr(0, slash);
    if (folder.empty()) folder = list(options, "training").front();
    set(options, "output", folder + "/report.html");
  }
  const std::string output = get(options, "output");
  call(moe_eval_report, options.get(), nullptr);
  context.console.print(context.command.json ? Json::object({{"output", output}}).dump() + "\n" : output + "\n");
  return kDone;
}

int run_perplexity(Context &context) {
  const Options &options = context.options();
  const std::string text = read_file(required(options, "text"));
  const Model model = load_model(context);
  const Lora lora = load_adapter(context, model);
  const std::string json =
      text_of(moe_perplexity, model.get(), lora.get(), text.data(), text.size(), options.get(), context.cancel);
  if (context.command.json) return context.console.print(json + "\n"), kDone;
  const Json result = Json::parse(json, "perplexity");
  context.console.print(format("perplexity     %.4f\n", result.at("perplexity").number()));
  context.console.print(format("mean loss      %.6f nats per token\n", result.at("mean_nll").number()));
  for (const char *key : {"tokens", "tokens_scored", "window", "stride"}) {
    context.console.print(format("%-14s %s\n", key, result.at(key).string().c_str()));
  }
  return kDone;
}

int run_dump(Context &context) {
  const Options &options = context.options();
  required(options, "input");
  const std::string output = required(options, "output");
  const Model model = load_model(context);
  const Lora lora = load_adapter(context, model);
  call(moe_dump, model.get(), lora.get(), options.get(), context.cancel);
  if (context.command.json) context.console.print(Json::object({{"output", output}}).dump() + "\n");
  else context.console.print(output + "\n");
  return kDone;
}

}  // namespace moe::cli
