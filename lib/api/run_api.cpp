// moe_trainer_run: see moe.h.
#include "api/training.h"
#include "base/file.h"
#include "eval/report.h"
#include "train/run.h"

namespace moe::api {
namespace {

int32_t event_kind(RunEvent::Kind kind) {
  switch (kind) {
    case RunEvent::Kind::step: return MOE_EVENT_STEP;
    case RunEvent::Kind::evaluation: return MOE_EVENT_EVALUATION;
    case RunEvent::Kind::checkpoint: return MOE_EVENT_CHECKPOINT;
    case RunEvent::Kind::resumed: return MOE_EVENT_RESUMED;
    case RunEvent::Kind::finished: return MOE_EVENT_FINISHED;
  }
  return 0;
}

bool tell(const RunEvent &run_event, const Trainer &trainer, moe_event_callback on_event, void *user) {
  const moe_step step = step_struct(run_event.step);
  moe_event event{};
  event.struct_size = sizeof event;
  event.kind = event_kind(run_event.kind);
  event.done = trainer.steps_done();
  event.total = run_event.steps_planned;
  event.value = run_event.eval_loss;
  if (run_event.kind == RunEvent::Kind::step) event.step = &step;
  if (!run_event.path.empty()) event.text = run_event.path.c_str();
  return on_event(&event, user) == 0;
}

// A page that cannot be written costs a finished run nothing.
void write_report(const RunOptions &run) {
  try {
    write_file_atomic(join_path(run.output_dir, "report.html"), report_html(read_report_input("", {run.output_dir})));
  } catch (const Error &error) {
    log(run.log, LogLevel::warning, "report.html was not written: " + error.message());
  }
}

Json run(TrainerCore &core, const std::shared_ptr<DatasetCore> &eval_data, const Options &options, moe_event_callback on_event,
         void *user) {
  if (!core.data) fail(Code::state, "moe_trainer_run: the trainer has no data set");
  if (eval_data == core.data) fail(Code::invalid, "eval_data: expected another data set than the one trained on");
  const bool router = core.trainer->trains_router();
  RunOptions run;
  run.output_dir = options.required_text("output_dir");
  if (options.has("domain")) run.domain = options.text("domain");
  else if (router) run.domain = "router";
  run.bundle = options.has("moe") ? options.text("moe") : core.bundle_path;
  run.resume = options.flag("resume");
  if (eval_data) run.eval_data = eval_data->data;
  run.about = Json::object({{"options", options.resolved(router ? "router" : "lora")}, {"data", core.data->data->report()}});
  if (eval_data) run.about.set("eval_data", eval_data->data->report());
  run.log = core.base->log();
  const RunCallback callback = [&](const RunEvent &event) {
    core.steps_done = core.trainer->steps_done();
    return !on_event || tell(event, *core.trainer, on_event, user);
  };
  Json summary = run_training(*core.trainer, *core.base, run, callback, cancel_of(core.cancel));
  write_report(run);
  return summary;
}

}  // namespace
}  // namespace moe::api

using namespace moe::api;

extern "C" int32_t moe_trainer_run(moe_trainer *trainer, moe_dataset *eval_data, const moe_options *options,
                                   moe_event_callback on_event, void *user, moe_text **summary, moe_error *error) {
  return fence(error, [&] {
    if (summary) *summary = nullptr;
    const auto core = core_of(trainer, "moe_trainer");
    const auto rows = eval_data ? core_of(eval_data, "moe_dataset") : nullptr;
    const TrainingUse use(*core);
    std::optional<Writing> reading;
    if (rows && rows != core->data) reading.emplace(rows->use, "moe_dataset");
    const moe::Json json = run(*core, rows, *OptionsOf(options), on_event, user);
    if (summary) *summary = new_json(json);
  });
}
