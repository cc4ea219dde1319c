#include "moe-train/training.h"

#include <algorithm>

#include "moe-train/step_progress.h"

namespace moe::cli {
namespace {

// "data: 1200 sequences, 345678 tokens (120000 supervised); 3 rows skipped (no answer: 3, first row 17)"
void note_data(const Context &context, const char *what, const Dataset &data) {
  double tokens = 0, supervised = 0;
  std::string skipped;
  const Json report = Json::parse(text_of(moe_dataset_report, data.get()), "data report");
  for (const Json &file : report.items()) {
    tokens += file.at("tokens").number();
    supervised += file.at("supervised_tokens").number();
    for (const auto &[reason, rows] : file.at("skipped").members()) {
      skipped += "; " + file.at("path").string() + ": skipped " + rows.at("count").string() + " (" + reason + ", first row " +
                 rows.at("first_row").string() + ")";
    }
  }
  const std::string line = format("%s: %lld sequences; in its files %.0f tokens, %.0f supervised", what,
                                  static_cast<long long>(moe_dataset_size(data.get())), tokens, supervised);
  if (skipped.empty()) context.console.note(line);
  else context.console.warn(line + skipped);
}

Dataset open(const Context &context, const Options &options, const Model &model) {
  Dataset data;
  call(moe_dataset_open, model.get(), options.get(), context.cancel, data.out());
  return data;
}

Json run(const Context &context, const Options &options, const Trainer &trainer, const TrainingData &data) {
  StepProgress progress(context.console, integer(options, "logging_steps"));
  Text summary;
  moe_error error = MOE_ERROR_INIT;
  const int32_t status = moe_trainer_run(trainer.get(), data.held_out.get(), options.get(), &StepProgress::on_event, &progress,
                                         summary.out(), &error);
  context.console.end_progress();
  if (status == MOE_ERR_CANCELLED && progress.saved()) {
    throw Failure(kCancelled, "cancelled; " + std::string(context.command.verb == "pipeline" ? "the same command" : "--resume") +
                                  " goes on from the checkpoint");
  }
  check(status, error);
  return Json::parse(view(summary), "summary");
}

// Options that leave the result of a run as it is.
bool changes_nothing(const std::string &key) {
  constexpr const char *kKeys[] = {"resume",     "threads",          "memory_limit", "logging_steps", "data_memory",
                                   "save_steps", "save_total_limit", "eval_steps",   "output_dir",   "experiment"};
  return std::any_of(std::begin(kKeys), std::end(kKeys), [&](const char *one) { return key == one; });
}

}  // namespace

TrainingData open_data(const Context &context, const Options &options, const Model &model) {
  TrainingData data;
  data.training = open(context, options, model);
  const double share = resolved(options, nullptr).at("validation_split").number();
  if (has(options, "eval_data")) {
    const Options other = copy(options);
    set(other, "data", get(options, "eval_data"));
    set(other, "max_samples", "0");
    set(other, "data_weights", "");
    data.held_out = open(context, other, model);
  } else if (share > 0) {
    call(moe_dataset_split, data.training.get(), share, data.held_out.out());
  }
  note_data(context, "data", data.training);
  if (data.held_out) note_data(context, "held-out data", data.held_out);
  return data;
}

Json train_adapter(const Context &context, const Options &options, const Model &base) {
  const auto *values = options.get();
  const auto *model = base.get();
  Lora lora;
  const std::string start = get(options, "init_adapter");
  if (start.empty()) call(moe_lora_create, model, values, lora.out());
  else call(moe_lora_load, model, start.c_str(), values, lora.out());
  TrainingData data = open_data(context, options, base);
  Trainer trainer;
  call(moe_trainer_create_lora, lora.get(), data.training.get(), values, context.cancel, trainer.out());
  context.console.note(format("adapter: %lld parameters, %lld steps", static_cast<long long>(moe_lora_parameters(lora.get())),
                              static_cast<long long>(moe_trainer_steps_planned(trainer.get()))));
  return run(context, options, trainer, data);
}

Json train_router(const Context &context, const Options &options, const Model &bundle) {
  const auto *values = options.get();
  const auto *model = bundle.get();
  Router router;
  call(moe_router_load, required(options, "moe").c_str(), values, router.out());
  TrainingData data = open_data(context, options, bundle);
  Trainer trainer;
  call(moe_trainer_create_router, model, router.get(), data.training.get(), values, context.cancel, trainer.out());
  context.console.note(format("router: %d entries%s, %lld steps", moe_router_experts(router.get()) + 1,
                              flag(options, "train_experts") ? ", its experts train with it" : "",
                              static_cast<long long>(moe_trainer_steps_planned(trainer.get()))));
  return run(context, options, trainer, data);
}

std::optional<Json> finished_run(const Options &options, const char *verb, const std::string &domain) {
  const std::string folder = get(options, "output_dir"), path = folder + "/" + domain + "_training_summary.json";
  if (!flag(options, "resume") || !file_exists(path)) return std::nullopt;
  Json summary = Json::parse(read_file(path), path);
  const Json now = resolved(options, verb);
  for (const auto &[key, value] : summary.at("options").members()) {
    if (changes_nothing(key) || now.at(key) == value) continue;
    throw Failure(kFailed, folder + ": holds a finished run with " + key + " " + value.dump() + ", now " + now.at(key).dump() +
                               "; choose another --output-dir, or leave out --resume to replace it");
  }
  return summary;
}

void print_summary(const Context &context, const Json &summary, const std::string &result) {
  Console &console = context.console;
  if (context.command.json) return console.print(summary.dump(2) + "\n");
  const auto number = [&](const char *key) { return summary.at(key).number(); };
  console.print(format("result       %s\n", result.c_str()));
  console.print(format("steps        %.0f, %.0f tokens in %s\n", number("steps"), number("tokens"),
                       duration_text(number("seconds")).c_str()));
  if (!summary.at("train_loss_first").is_null()) {
    console.print(format("train loss   %.4f -> %.4f\n", number("train_loss_first"), number("train_loss_last")));
  }
  if (summary.find("eval_loss"))
    console.print(format("eval loss    %.4f -> %.4f\n", number("eval_loss_first"), number("eval_loss")));
  console.print(format("speed        %.0f tokens/s\n", number("tokens_per_s")));
  console.print(format("peak memory  %s\n", bytes_text(number("peak_memory_bytes")).c_str()));
}

}  // namespace moe::cli
