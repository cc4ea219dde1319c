#include "moe-train/step_progress.h"

#include <algorithm>

#include "cli/format.h"

namespace moe::cli {

int32_t StepProgress::on_event(const moe_event *event, void *user) {
  static_cast<StepProgress *>(user)->tell(*event);
  return 0;
}

void StepProgress::tell(const moe_event &event) {
  const auto done = static_cast<long long>(event.done);
  saved_ = event.kind == MOE_EVENT_CHECKPOINT;
  switch (event.kind) {
    case MOE_EVENT_STEP: return step(event);
    case MOE_EVENT_EVALUATION: return console_.note(format("step %lld: eval loss %.4f", done, event.value));
    case MOE_EVENT_CHECKPOINT: return console_.note(format("step %lld: checkpoint %s", done, event.text));
    case MOE_EVENT_RESUMED: return console_.note(format("resumed after step %lld from %s", done, event.text));
    default: return;
  }
}

void StepProgress::step(const moe_event &event) {
  const moe_step &step = *event.step;
  steps_++;
  const bool last = event.done >= event.total;
  const double per_step = (seconds_now() - started_) / static_cast<double>(steps_);
  std::string line =
      format("step %lld/%lld  loss %.4f", static_cast<long long>(step.step), static_cast<long long>(event.total), step.loss);
  if (step.total_loss != step.loss) line += format("  total %.4f", step.total_loss);
  line += format("  norm %.3g  lr %.2e  %.0f tokens/s  eta %s", step.gradient_norm, step.learning_rate,
                 step.seconds > 0 ? static_cast<double>(step.tokens) / step.seconds : 0.0,
                 duration_text(per_step * static_cast<double>(event.total - event.done)).c_str());
  if (step.flags & MOE_STEP_SKIPPED) line += "  SKIPPED";
  console_.progress(line, last || step.step % std::max<int64_t>(1, logging_steps_) == 0);
}

}  // namespace moe::cli
