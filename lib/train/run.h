// A whole training run in an output folder: steps, metrics.jsonl, periodic validation loss, checkpoints, resume, and at the end the
// trained weights and a summary. What a run leaves is in docs/training-output.md.
#pragma once
#include <functional>
#include <string>

#include "base/json.h"
#include "train/trainer.h"

namespace moe {

struct RunOptions {
  std::string output_dir;              // <output_dir>/checkpoints, metrics.jsonl, <domain>_training_summary.json, final_adapter
  std::string domain = "adapter";
  std::string bundle;                  // router runs: the trained router, and experts that trained with it, go into this bundle
  bool resume = false;                 // continue from the newest good checkpoint; without one the run starts at step 0
  std::shared_ptr<Dataset> eval_data;  // or nullptr
  Json about = Json::object();         // stored in the summary: model, options in force, data report
  Log log;
};

struct RunEvent {
  enum class Kind { step, evaluation, checkpoint, resumed, finished } kind = Kind::step;
  StepReport step;                     // kind step
  double eval_loss = 0;                // kind evaluation
  std::string path;                    // kind checkpoint, resumed, finished
  int64_t steps_planned = 0;
};
using RunCallback = std::function<bool(const RunEvent &)>;  // false: save a checkpoint and stop (Code::cancelled)

// Only one run at a time writes to a folder (Code::busy). A checkpoint or a line of the metrics that cannot be written is logged and
// training goes on; a failed final write is an error. Cancelled at any point, a checkpoint is saved first. Returns the summary.
Json run_training(Trainer &trainer, const BaseModel &model, const RunOptions &options, const RunCallback &callback, const Cancel *cancel);

}  // namespace moe
