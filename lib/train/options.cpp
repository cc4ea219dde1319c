#include "train/options.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"

namespace moe {
namespace {

void check_range(const char *name, double value, double low, double high) {
  if (!(value >= low && value <= high)) fail(Code::invalid, name, ": expected ", low, " to ", high, ", found ", value);
}

}  // namespace

const char *schedule_name(ScheduleKind kind) {
  switch (kind) {
    case ScheduleKind::cosine: return "cosine";
    case ScheduleKind::linear: return "linear";
    case ScheduleKind::constant: break;
  }
  return "constant";
}

ScheduleKind parse_schedule(const std::string &name) {
  for (ScheduleKind kind : {ScheduleKind::cosine, ScheduleKind::linear, ScheduleKind::constant}) {
    if (name == schedule_name(kind)) return kind;
  }
  if (name == "constant_with_warmup") return ScheduleKind::constant;
  fail(Code::invalid, "lr_schedule: expected cosine, linear or constant, found '", name, "'");
}

void TrainOptions::check() const {
  check_range("learning_rate", learning_rate, 0, 10);
  check_range("expert_learning_rate", expert_learning_rate, 0, 10);
  check_range("warmup_ratio", warmup_ratio, 0, 1);
  check_range("weight_decay", weight_decay, 0, 10);
  check_range("adam_beta1", adam_beta1, 0, 0.999999);
  check_range("adam_beta2", adam_beta2, 0, 0.999999999);
  check_range("adam_epsilon", adam_epsilon, 1e-20, 1);
  check_range("max_grad_norm", max_grad_norm, 0, 1e9);
  check_range("batch_size", static_cast<double>(batch_size), 1, 1 << 20);
  check_range("gradient_accumulation_steps", static_cast<double>(gradient_accumulation_steps), 1, 1 << 20);
  check_range("epochs", static_cast<double>(epochs), 0, 1e6);
  check_range("max_steps", static_cast<double>(max_steps), 0, 1e12);
  check_range("eval_steps", static_cast<double>(eval_steps), 0, 1e12);
  check_range("save_steps", static_cast<double>(save_steps), 0, 1e12);
  check_range("logging_steps", static_cast<double>(logging_steps), 1, 1e12);
  check_range("save_total_limit", static_cast<double>(save_total_limit), 1, 1e6);
  check_range("balance_loss_weight", balance_loss_weight, 0, 1e6);
  check_range("z_loss_weight", z_loss_weight, 0, 1e6);
  check_range("supervised_weight", supervised_weight, 0, 1e6);
  check_range("supervised_weight_end", supervised_weight_end, 0, 1e6);
  if (epochs == 0 && max_steps == 0) fail(Code::invalid, "epochs: expected at least 1 when max_steps is not given, found 0");
}

Json TrainOptions::to_json() const {
  Json json = Json::object();
  json.set("learning_rate", learning_rate).set("lr_schedule", schedule_name(schedule)).set("warmup_ratio", warmup_ratio);
  json.set("weight_decay", weight_decay).set("adam_beta1", adam_beta1).set("adam_beta2", adam_beta2).set("adam_epsilon", adam_epsilon);
  json.set("max_grad_norm", max_grad_norm).set("batch_size", batch_size).set("gradient_accumulation_steps", gradient_accumulation_steps);
  json.set("epochs", epochs).set("max_steps", max_steps).set("seed", seed);
  json.set("balance_loss_weight", balance_loss_weight).set("z_loss_weight", z_loss_weight);
  json.set("supervised_weight", supervised_weight).set("supervised_weight_end", supervised_weight_end).set("balance_exact", balance_exact);
  Json usage = Json::array();
  for (float x : target_usage) usage.push(static_cast<double>(x));
  json.set("target_usage", usage).set("train_experts", train_experts).set("expert_learning_rate", expert_learning_rate);
  return json;
}

int64_t warmup_steps(double ratio, int64_t steps) { return static_cast<int64_t>(std::ceil(ratio * static_cast<double>(steps))); }

double learning_rate_factor(ScheduleKind kind, int64_t i, int64_t steps, int64_t warmup) {
  if (i < warmup) return static_cast<double>(i) / static_cast<double>(std::max<int64_t>(1, warmup));
  if (kind == ScheduleKind::constant) return 1;
  const double progress = static_cast<double>(i - warmup) / static_cast<double>(std::max<int64_t>(1, steps - warmup));
  return kind == ScheduleKind::linear ? std::max(0.0, 1 - progress) : 0.5 * (1 + std::cos(std::numbers::pi * progress));
}

}  // namespace moe
