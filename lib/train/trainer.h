// A trainer: what is trained (an adapter, or the router of a mixture, alone or with its experts), its optimizer and the state that a checkpoint holds. The
// caller owns the loop; step() is one whole optimizer step. Bit-equal for any number of threads and across save/resume.
#pragma once
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/arena.h"
#include "base/cancel.h"
#include "data/dataset.h"
#include "model/mixture.h"
#include "model/training_pass.h"
#include "train/memory_plan.h"
#include "train/options.h"

namespace moe {

struct StepReport {
  int64_t step = 0;                 // steps done, this one included
  double loss = 0;                  // language-model loss before the update, nats per supervised token
  double total_loss = 0;            // with the router losses
  double balance_loss = 0, z_loss = 0, supervised_loss = 0;  // unweighted values
  double supervised_weight = 0;     // in force at this step
  double gradient_norm = 0;         // before clipping
  double learning_rate = 0;
  int64_t tokens = 0, supervised_tokens = 0, rows = 0;
  double seconds = 0;
  bool skipped = false;             // NaN or infinity in the loss or the gradient: nothing was updated
};

// What a router training watches (alarms of the design): each is a line for the log; `dead` stops the run with Code::numeric.
struct RouterAlarms {
  std::vector<std::string> warnings;  // of this step, already worded
  double usage_entropy = 0;           // of the mean usage over routers, nats
  double zero_gradient_share = 0;     // share of tokens without gate gradient, mean over routers
};

class Trainer {
 public:
  // planned_steps: length of the run, for the schedule. The plan is made and checked against memory_limit before anything is allocated.
  static std::unique_ptr<Trainer> for_lora(std::shared_ptr<const BaseModel> model, std::shared_ptr<Adapter> adapter,
                                           std::shared_ptr<Dataset> data, const TrainOptions &options);
  // Experts run without dropout; they stay frozen, or with options.train_experts the trainer trains copies of them, so that whoever
  // shares the mixture keeps his. k = 1 needs a supervised term or evaluates the best expert (force_expert).
  static std::unique_ptr<Trainer> for_router(std::shared_ptr<const BaseModel> model, std::shared_ptr<Mixture> mixture,
                                             std::shared_ptr<Dataset> data, const TrainOptions &options);

  bool trains_router() const { return mixture_ != nullptr; }
  const char *what() const;                              // "adapter", "router", "router and experts"
  const Adapter *adapter() const { return adapter_.get(); }  // what is trained: one of the two, else nullptr
  const Mixture *mixture() const { return mixture_.get(); }
  int64_t steps_done() const { return step_; }
  int64_t steps_planned() const { return planned_steps_; }
  const TrainOptions &options() const { return options_; }
  const MemoryPlan &plan() const { return plan_; }
  const Dataset *data() const { return data_.get(); }  // nullptr: every step is given its batch

  // One optimizer step on `batch` (the whole step; cut into micro-batches of options.batch_size rows), or on the next batch of the
  // dataset when null. Code::state when there is neither; Code::cancelled leaves the state as before the step.
  StepReport step(const PackedBatch *batch, const Cancel *cancel);
  // Mean nll per supervised token over a dataset, dropout off; does not touch the training state.
  double evaluate(Dataset &data, const Cancel *cancel);

  // Checkpoint folder: adapter (PEFT), or router.safetensors and where they train experts.safetensors; optimizer.safetensors,
  // trainer_state.json, manifest.json (length and sha256 per file). Atomic. resume() verifies every byte against the manifest; other options than those of the checkpoint that change
  // the result are refused by name (Code::state).
  void save(const std::string &folder) const;
  void resume(const std::string &folder);

  // Puts the trained router, and experts that trained with it, into a bundle (model/bundle.h). Router training only.
  void save_to_bundle(const std::string &folder, const Json &summary) const;

  const RouterStatistics &router_statistics() const { return statistics_; }  // of the last step
  const RouterAlarms &alarms() const { return alarms_; }
  // [router][entry] share of picks since training began (router training).
  std::vector<std::vector<double>> usage() const;
  const std::vector<float> &target_usage() const { return losses_.target_usage; }

 private:
  Trainer() = default;
  void open(std::shared_ptr<Dataset> data, const TrainOptions &options);
  Overlay overlay() const;
  Trainable what_trains() const;
  int64_t rows_per_step() const;
  // What an optimizer step changes, in the order of the moments; each part has a learning rate of its own.
  struct Part {
    SharedArray &parameters, &gradients;
    double learning_rate = 0;
  };
  std::vector<Part> parts() const;
  void allocate(int64_t tokens, int64_t supervised);
  void make_arena(int64_t tokens, int64_t supervised);
  double supervised_weight() const;
  StepReport run_step(const PackedBatch &batch, const Cancel *cancel);
  void zero_gradients();
  RouterStatistics count_step(const std::vector<PackedBatch> &parts, PassRequest request);
  void update(StepReport &report);
  void watch_router(const RouterStatistics &statistics);

  std::shared_ptr<const BaseModel> model_;
  std::shared_ptr<Adapter> adapter_;
  std::shared_ptr<Mixture> mixture_;
  std::shared_ptr<Dataset> data_;
  TrainOptions options_;
  RouterLosses losses_;
  MemoryPlan plan_;
  std::unique_ptr<Arena> arena_;
  SharedArray first_moment_, second_moment_;
  int64_t step_ = 0, updates_ = 0, planned_steps_ = 0, dead_steps_ = 0, skipped_in_a_row_ = 0;
  RouterStatistics statistics_, total_statistics_;
  RouterAlarms alarms_;
};

}  // namespace moe
