#include "train/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "base/file.h"
#include "base/json.h"
#include "formats/safetensors.h"
#include "model/router_statistics.h"
#include "train/checkpoint.h"
#include "train/target_usage.h"

namespace moe {
namespace {

constexpr int64_t kDeadSteps = 20;     // steps without language-model gradient in the router before it is called dead
constexpr int64_t kSkippedSteps = 5;   // steps in a row with NaN before training stops

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Sequences [first, last) of a batch as a batch of their own.
PackedBatch micro_batch(const PackedBatch &batch, int64_t first, int64_t last) {
  const int32_t begin = batch.starts[static_cast<size_t>(first)], end = batch.starts[static_cast<size_t>(last)];
  const auto cut = [&](const std::vector<int32_t> &all) { return std::vector<int32_t>(all.begin() + begin, all.begin() + end); };
  PackedBatch part{cut(batch.tokens), cut(batch.positions), {}, cut(batch.labels), {}};
  for (int64_t s = first; s <= last; s++) part.starts.push_back(batch.starts[static_cast<size_t>(s)] - begin);
  if (!batch.domains.empty()) part.domains.assign(batch.domains.begin() + first, batch.domains.begin() + last);
  return part;
}

std::vector<PackedBatch> micro_batches(const PackedBatch &batch, int64_t rows) {
  std::vector<PackedBatch> parts;
  for (int64_t s = 0; s < batch.sequences(); s += rows) parts.push_back(micro_batch(batch, s, std::min(batch.sequences(), s + rows)));
  return parts;
}

}  // namespace

std::unique_ptr<Trainer> Trainer::for_lora(std::shared_ptr<const BaseModel> model, std::shared_ptr<Adapter> adapter,
                                           std::shared_ptr<Dataset> data, const TrainOptions &options) {
  std::unique_ptr<Trainer> trainer(new Trainer());
  trainer->model_ = std::move(model);
  trainer->adapter_ = std::move(adapter);
  trainer->open(std::move(data), options);
  return trainer;
}

std::unique_ptr<Trainer> Trainer::for_router(std::shared_ptr<const BaseModel> model, std::shared_ptr<Mixture> mixture,
                                             std::shared_ptr<Dataset> data, const TrainOptions &options) {
  if (!mixture->router) fail(Code::state, "router training: this mixture has no trainable router (gating is by domain)");
  if (options.train_experts) {
    mixture = std::make_shared<Mixture>(*mixture);
    for (auto &expert : mixture->experts) expert = std::make_shared<Adapter>(*expert);
  }
  std::unique_ptr<Trainer> trainer(new Trainer());
  trainer->model_ = std::move(model);
  trainer->mixture_ = std::move(mixture);
  const RouterConfig &router = trainer->mixture_->router->config();
  std::vector<int64_t> domain_tokens(static_cast<size_t>(router.experts));
  if (data) domain_tokens = data->tokens_by_domain(router.experts);
  trainer->losses_.balance = static_cast<float>(options.balance_loss_weight);
  trainer->losses_.z = static_cast<float>(options.z_loss_weight);
  trainer->losses_.target_usage =
      options.target_usage.empty() ? default_target_usage(domain_tokens, router.top_k) : checked_target_usage(options.target_usage, router);
  trainer->open(std::move(data), options);
  return trainer;
}

void Trainer::open(std::shared_ptr<Dataset> data, const TrainOptions &options) {
  options.check();
  options_ = options;
  data_ = std::move(data);
  planned_steps_ = options.max_steps;
  int64_t tokens = 0, supervised = 0;
  if (data_) {
    if (planned_steps_ == 0) planned_steps_ = options.epochs * data_->batches_per_epoch(rows_per_step());
    data_->largest_batch(options.batch_size, &tokens, &supervised);
  }
  plan_ = plan_training(*model_, overlay(), what_trains(), tokens, supervised, options.memory_limit);
  allocate(tokens, supervised);
}

// What the plan counts, before the first step, where the model computes.
void Trainer::allocate(int64_t tokens, int64_t supervised) {
  const std::lock_guard<std::mutex> lock(model_->pass_mutex());
  const std::shared_ptr<Backend> &backend = model_->shared_backend();
  try {
    size_t n = 0;
    for (const Part &part : parts()) {
      part.parameters.bring(backend, false);
      part.gradients.bring(backend, true);
      n += part.parameters.size();
    }
    for (SharedArray *moment : {&first_moment_, &second_moment_}) {
      *moment = SharedArray(n);
      moment->bring(backend, true);
    }
    make_arena(tokens, supervised);
  } catch (const Error &error) {
    if (error.code() != Code::no_memory) throw;
    fail(Code::no_memory, error.message(), "; the run needs ", plan_.text());
  }
}

Overlay Trainer::overlay() const { return {adapter_.get(), mixture_.get()}; }
Trainable Trainer::what_trains() const {
  if (!mixture_) return Trainable::adapter;
  return options_.train_experts ? Trainable::joint : Trainable::router;
}
const char *Trainer::what() const {
  if (!mixture_) return "adapter";
  return options_.train_experts ? "router and experts" : "router";
}
int64_t Trainer::rows_per_step() const { return options_.batch_size * options_.gradient_accumulation_steps; }

std::vector<Trainer::Part> Trainer::parts() const {
  if (adapter_) return {{adapter_->shared_parameters(), adapter_->shared_gradients(), options_.learning_rate}};
  std::vector<Part> parts{{mixture_->router->shared_parameters(), mixture_->router->shared_gradients(), options_.learning_rate}};
  if (!options_.train_experts) return parts;
  for (const auto &expert : mixture_->experts) {
    parts.push_back({expert->shared_parameters(), expert->shared_gradients(), options_.expert_learning_rate});
  }
  return parts;
}

// The arena grows only when a caller's own batch is larger than the plan's.
void Trainer::make_arena(int64_t tokens, int64_t supervised) {
  PassRequest request;
  request.train = what_trains();
  request.checkpointed_layers = plan_.checkpointed_layers;
  const size_t bytes = training_pass_bytes(*model_, overlay(), request, tokens, supervised);
  if (arena_ && arena_->capacity() >= bytes) return;
  arena_.reset();
  arena_ = std::make_unique<Arena>(model_->backend().allocate(bytes), bytes);
}

double Trainer::supervised_weight() const {
  if (!mixture_) return 0;
  const double progress = planned_steps_ > 1 ? std::min(1.0, static_cast<double>(step_) / static_cast<double>(planned_steps_ - 1)) : 0;
  return options_.supervised_weight + (options_.supervised_weight_end - options_.supervised_weight) * progress;
}

StepReport Trainer::step(const PackedBatch *batch, const Cancel *cancel) {
  if (batch) return run_step(*batch, cancel);
  if (!data_) fail(Code::state, "train step: neither a batch nor a dataset was given");
  const Json before = data_->cursor();
  try {
    return run_step(data_->next(rows_per_step()), cancel);
  } catch (...) {
    data_->restore(before);
    throw;
  }
}

StepReport Trainer::run_step(const PackedBatch &batch, const Cancel *cancel) {
  const auto start = std::chrono::steady_clock::now();
  StepReport report;
  report.tokens = batch.size();
  report.supervised_tokens = batch.supervised();
  report.rows = batch.sequences();
  if (report.supervised_tokens == 0) fail(Code::invalid, "train step: the batch has no supervised token");

  PassRequest request;
  request.train = what_trains();
  request.gradient_scale = 1.0f / static_cast<float>(report.supervised_tokens);
  request.losses = losses_;
  request.losses.supervised = static_cast<float>(supervised_weight());
  request.step_tokens = batch.size();
  for (int32_t domain : batch.domains) request.step_samples += domain >= 0;
  request.force_expert = mixture_ && mixture_->router->config().top_k == 1;
  request.training = true;
  request.dropout_seed = options_.seed;
  request.checkpointed_layers = plan_.checkpointed_layers;
  request.cancel = cancel;

  const std::vector<PackedBatch> micro = micro_batches(batch, options_.batch_size);
  zero_gradients();
  RouterStatistics exact, sum;
  if (mixture_ && options_.balance_exact && micro.size() > 1) exact = count_step(micro, request);
  double nll = 0;
  for (size_t i = 0; i < micro.size(); i++) {
    request.dropout_step = static_cast<uint64_t>(step_) * 4096 + i;  // masks of their own for each micro-batch
    request.earlier = mixture_ ? &sum : nullptr;
    request.exact = exact.picks.empty() ? nullptr : &exact;
    make_arena(micro[i].size(), micro[i].supervised());
    const PassResult result = training_pass(*model_, overlay(), micro[i], request, *arena_);
    nll += result.nll;
    if (mixture_) sum.add(result.router);
  }
  report.loss = report.total_loss = nll / static_cast<double>(report.supervised_tokens);
  if (mixture_) {
    report.balance_loss = sum.balance(losses_.target_usage);
    report.z_loss = sum.z();
    report.supervised_loss = sum.supervised_loss();
    report.supervised_weight = supervised_weight();
    report.total_loss += losses_.balance * report.balance_loss + losses_.z * report.z_loss + report.supervised_weight * report.supervised_loss;
    statistics_ = sum;
    total_statistics_.add(sum);
    watch_router(sum);
  }
  update(report);
  report.seconds = seconds_since(start);
  return report;
}

void Trainer::zero_gradients() {
  const std::lock_guard<std::mutex> lock(model_->pass_mutex());
  for (const Part &part : parts()) {
    model_->backend().fill(static_cast<int64_t>(part.gradients.size()), 0.0f, part.gradients.bring(model_->shared_backend(), true));
  }
}

// A forward-only pass over the whole step, for the exact load f (balance_exact).
RouterStatistics Trainer::count_step(const std::vector<PackedBatch> &parts, PassRequest request) {
  RouterStatistics statistics;
  request.train = Trainable::nothing;
  request.training = false;
  for (const PackedBatch &part : parts) {
    make_arena(part.size(), part.supervised());
    statistics.add(training_pass(*model_, overlay(), part, request, *arena_).router);
  }
  return statistics;
}

// Clipping and AdamW. A step with NaN or infinity changes nothing.
void Trainer::update(StepReport &report) {
  const std::shared_ptr<Backend> &ops = model_->shared_backend();
  const std::lock_guard<std::mutex> lock(model_->pass_mutex());
  const std::vector<Part> all = parts();
  double squares = 0;
  for (const Part &part : all) squares += ops->sum_of_squares(static_cast<int64_t>(part.gradients.size()), part.gradients.bring(ops, false));
  report.gradient_norm = std::sqrt(squares);
  const double factor = learning_rate_factor(options_.schedule, step_, planned_steps_, warmup_steps(options_.warmup_ratio, planned_steps_));
  report.learning_rate = options_.learning_rate * factor;
  report.skipped = !std::isfinite(report.total_loss) || !std::isfinite(report.gradient_norm);
  report.step = ++step_;
  if (report.skipped) {
    if (++skipped_in_a_row_ >= kSkippedSteps) {
      fail(Code::numeric, "training: the loss or its gradient was not finite in ", skipped_in_a_row_, " steps in a row, last at step ", step_,
           " (learning_rate ", options_.learning_rate, " may be too high)");
    }
    return;
  }
  skipped_in_a_row_ = 0;
  AdamW adamw;
  adamw.beta1 = static_cast<float>(options_.adam_beta1);
  adamw.beta2 = static_cast<float>(options_.adam_beta2);
  adamw.epsilon = static_cast<float>(options_.adam_epsilon);
  adamw.weight_decay = static_cast<float>(options_.weight_decay);
  adamw.step = ++updates_;
  if (options_.max_grad_norm > 0) {
    adamw.gradient_scale = static_cast<float>(std::min(1.0, options_.max_grad_norm / (report.gradient_norm + 1e-6)));
  }
  size_t at = 0;
  for (const Part &part : all) {
    adamw.learning_rate = static_cast<float>(part.learning_rate * factor);
    ops->adamw(static_cast<int64_t>(part.parameters.size()), part.parameters.bring(ops, true), part.gradients.bring(ops, false),
               first_moment_.bring(ops, true) + at, second_moment_.bring(ops, true) + at, adamw);
    at += part.parameters.size();
  }
}

// Warnings while the router gets no language-model gradient; Code::numeric when that lasts although the experts differ from the base.
void Trainer::watch_router(const RouterStatistics &statistics) {
  alarms_ = {};
  const double routers = static_cast<double>(statistics.picks.size());
  double gradient = 0;
  for (size_t r = 0; r < statistics.picks.size(); r++) {
    gradient += statistics.lm_gradient_norm[r];
    alarms_.zero_gradient_share += statistics.zero_gradient_tokens[r] / (static_cast<double>(statistics.tokens) * routers);
    for (double share : statistics.usage(r)) {
      if (share > 0) alarms_.usage_entropy -= share * std::log(share) / routers;
    }
  }
  dead_steps_ = gradient == 0 ? dead_steps_ + 1 : 0;
  if (gradient != 0) return;
  if (std::all_of(mixture_->experts.begin(), mixture_->experts.end(), [](const auto &e) { return e->delta_is_zero(); })) {
    alarms_.warnings.push_back("the router gets no language-model gradient: every expert's delta is zero (untrained adapters)");
    return;
  }
  alarms_.warnings.push_back(text("the router gets no language-model gradient (", dead_steps_, " steps in a row): the picked experts are the base"));
  if (dead_steps_ >= kDeadSteps) {
    fail(Code::numeric, "dead router: no language-model gradient reached it for ", dead_steps_, " steps in a row although experts differ from the base");
  }
}

std::vector<std::vector<double>> Trainer::usage() const {
  std::vector<std::vector<double>> shares;
  for (size_t r = 0; r < total_statistics_.picks.size(); r++) shares.push_back(total_statistics_.usage(r));
  return shares;
}

double Trainer::evaluate(Dataset &data, const Cancel *cancel) {
  double nll = 0;
  int64_t supervised = 0;
  PassRequest request;
  request.cancel = cancel;
  data.rewind();
  for (int64_t i = 0, batches = data.batches_per_epoch(options_.batch_size); i < batches; i++) {
    const PackedBatch batch = data.next(options_.batch_size);
    make_arena(batch.size(), batch.supervised());
    const PassResult result = training_pass(*model_, overlay(), batch, request, *arena_);
    nll += result.nll;
    supervised += result.supervised;
  }
  if (supervised == 0) fail(Code::invalid, "evaluation data: no supervised token");
  return nll / static_cast<double>(supervised);
}

}  // namespace moe
