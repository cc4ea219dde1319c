// moe-train plan: bytes by purpose, steps and tokens of a run, and its time from a probe of two steps.
#include "moe-train/training.h"
#include "moe-train/verbs.h"

namespace moe::cli {
namespace {

// The trainer of the run that is planned, with what it works on.
struct Probe {
  Lora lora;
  Router router;
  TrainingData data;
  Trainer trainer;
};

Probe make_probe(const Context &context, const Model &model) {
  const auto *values = context.options().get();
  const auto *handle = model.get();
  Probe probe;
  probe.data = open_data(context, context.options(), model);
  if (moe_model_experts(handle) > 0) {
    call(moe_router_load, get(context.options(), "moe").c_str(), values, probe.router.out());
    call(moe_trainer_create_router, handle, probe.router.get(), probe.data.training.get(), values, context.cancel,
         probe.trainer.out());
  } else {
    call(moe_lora_create, handle, values, probe.lora.out());
    call(moe_trainer_create_lora, probe.lora.get(), probe.data.training.get(), values, context.cancel, probe.trainer.out());
  }
  return probe;
}

double tokens_in_files(const Dataset &data) {
  double tokens = 0;
  const Json report = Json::parse(text_of(moe_dataset_report, data.get()), "data report");
  for (const Json &file : report.items()) tokens += file.at("tokens").number();
  return tokens;
}

// Steps, tokens and, from two steps (the first one is slower: it allocates), the time.
void add_run(const Context &context, const Model &model, Json &plan) {
  Probe probe = make_probe(context, model);
  const int64_t steps = moe_trainer_steps_planned(probe.trainer.get());
  const int64_t rows_a_step =
      integer(context.options(), "batch_size") * integer(context.options(), "gradient_accumulation_steps");
  const auto sequences = static_cast<double>(moe_dataset_size(probe.data.training.get()));
  const double tokens_a_row = tokens_in_files(probe.data.training) / sequences;
  double epochs = static_cast<double>(integer(context.options(), "epochs"));
  if (integer(context.options(), "max_steps") > 0) epochs = static_cast<double>(steps * rows_a_step) / sequences;
  const double tokens = tokens_a_row * sequences * epochs;
  double seconds = 0, probed = 0;
  for (int64_t i = 0; i < 2 && i < steps; i++) {
    moe_step step = MOE_STEP_INIT;
    if (probe.lora) call(moe_lora_train_step, probe.trainer.get(), nullptr, &step);
    else call(moe_router_train_step, probe.trainer.get(), nullptr, &step);
    seconds = step.seconds, probed = static_cast<double>(step.tokens);
  }
  plan.set("sequences", sequences).set("steps", steps).set("tokens", tokens);
  if (seconds <= 0) return;
  plan.set("tokens_per_s", probed / seconds).set("estimated_seconds", tokens * seconds / probed);
}

void print_plan(Console &console, const Json &plan) {
  for (const auto &[purpose, bytes] : plan.at("bytes").members()) {
    console.print(format("%-28s %12s\n", purpose.c_str(), bytes_text(bytes.number()).c_str()));
  }
  console.print(format("%-28s %12s\n", "total", bytes_text(plan.at("total_bytes").number()).c_str()));
  console.print(format("%-28s %5.0f of %3.0f\n", "checkpointed layers", plan.at("checkpointed_layers").number(), plan.at("layers").number()));
  for (const char *key : {"micro_batch_tokens", "sequences", "steps", "tokens", "tokens_per_s"}) {
    if (plan.find(key)) console.print(format("%-28s %12.0f\n", key, plan.at(key).number()));
  }
  if (plan.find("estimated_seconds")) {
    console.print(format("%-28s %12s\n", "estimated time", duration_text(plan.at("estimated_seconds").number()).c_str()));
  }
}

}  // namespace

int run_plan(Context &context) {
  const Model model = load_model(context);
  Json plan = Json::parse(text_of(moe_plan, model.get(), context.options().get()), "plan");
  if (has(context.options(), "data")) add_run(context, model, plan);
  if (context.command.json) context.console.print(plan.dump(2) + "\n");
  else print_plan(context.console, plan);
  return kDone;
}

}  // namespace moe::cli
