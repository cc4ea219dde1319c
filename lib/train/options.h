// Options of a training run, with the names of the flags and of HF Trainer. Ranges are checked by check().
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"

namespace moe {

enum class ScheduleKind : uint8_t { cosine, linear, constant };
const char *schedule_name(ScheduleKind kind);
ScheduleKind parse_schedule(const std::string &name);  // Code::invalid lists the three

struct TrainOptions {
  double learning_rate = 2e-4;
  ScheduleKind schedule = ScheduleKind::cosine;
  double warmup_ratio = 0.03;          // warm-up steps = ceil(ratio x steps)
  double weight_decay = 0.01;
  double adam_beta1 = 0.9, adam_beta2 = 0.999, adam_epsilon = 1e-8;
  double max_grad_norm = 1;            // 0 = no clipping
  int64_t batch_size = 8;              // rows of a micro-batch
  int64_t gradient_accumulation_steps = 1;  // an optimizer step takes batch_size x this many rows
  int64_t epochs = 1, max_steps = 0;   // max_steps > 0 wins
  int64_t eval_steps = 0, save_steps = 0, logging_steps = 1;  // 0 = at the end only
  int64_t save_total_limit = 2;
  uint64_t seed = 0;
  uint64_t memory_limit = 0;           // bytes for everything the run allocates; 0 = no limit
  // router training
  double balance_loss_weight = 0.01, z_loss_weight = 0.001;
  double supervised_weight = 1.0, supervised_weight_end = 0.1;  // falls linearly over the run, where rows have a domain
  std::vector<float> target_usage;     // pi [E + 1]; empty = default from the domains' token shares
  bool balance_exact = false;
  bool train_experts = false;          // the experts train with their router, at a rate of their own and the same schedule
  double expert_learning_rate = 2e-4;

  void check() const;                  // Code::invalid names the option, its bounds and what was found
  Json to_json() const;                // as stored with every result and in checkpoints
};

// Learning-rate factor of optimizer step i (from 0) of `steps`: linear warm-up i / warmup (so the first rate is 0), then
// constant, linear to 0 and then 0, or 0.5 (1 + cos(pi (i - warmup) / (steps - warmup))), which rises again past the end (as HF).
double learning_rate_factor(ScheduleKind kind, int64_t i, int64_t steps, int64_t warmup);
int64_t warmup_steps(double ratio, int64_t steps);

}  // namespace moe
