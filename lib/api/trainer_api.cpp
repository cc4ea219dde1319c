// moe_trainer_*, the train steps and moe_plan: see moe.h.
#include <algorithm>

#include "api/dataset_open.h"
#include "api/training.h"

namespace moe::api {

constexpr double kRouterLearningRate = 1e-2;  // small rates leave the gates timid: they matter more than the number of steps

TrainOptions train_options(const Options &options, bool router) {
  TrainOptions result;
  result.learning_rate = router && !options.has("learning_rate") ? kRouterLearningRate : options.number("learning_rate");
  result.schedule = parse_schedule(options.text("lr_schedule"));
  result.warmup_ratio = options.number("warmup_ratio");
  result.weight_decay = options.number("weight_decay");
  result.adam_beta1 = options.number("adam_beta1");
  result.adam_beta2 = options.number("adam_beta2");
  result.adam_epsilon = options.number("adam_epsilon");
  result.max_grad_norm = options.number("max_grad_norm");
  result.batch_size = options.integer("batch_size");
  result.gradient_accumulation_steps = options.integer("gradient_accumulation_steps");
  result.epochs = options.integer("epochs");
  result.max_steps = options.integer("max_steps");
  result.eval_steps = options.integer("eval_steps");
  result.save_steps = options.integer("save_steps");
  result.logging_steps = std::max<int64_t>(1, options.integer("logging_steps"));
  result.save_total_limit = options.integer("save_total_limit");
  result.seed = static_cast<uint64_t>(options.integer("seed"));
  result.memory_limit = static_cast<uint64_t>(options.integer("memory_limit"));
  result.balance_loss_weight = options.number("balance_loss_weight");
  result.z_loss_weight = options.number("z_loss_weight");
  result.supervised_weight = options.number("supervised_weight");
  result.supervised_weight_end = options.number("supervised_weight_end");
  result.target_usage = options.numbers("target_usage");
  result.balance_exact = options.flag("balance_exact");
  result.train_experts = router && options.flag("train_experts");
  result.expert_learning_rate = options.number("expert_learning_rate");
  return result;
}

moe_step step_struct(const StepReport &report) {
  moe_step step = MOE_STEP_INIT;
  step.flags = report.skipped ? MOE_STEP_SKIPPED : 0;
  step.step = report.step;
  step.tokens = report.tokens;
  step.supervised_tokens = report.supervised_tokens;
  step.rows = report.rows;
  step.loss = report.loss;
  step.total_loss = report.total_loss;
  step.balance_loss = report.balance_loss;
  step.z_loss = report.z_loss;
  step.supervised_loss = report.supervised_loss;
  step.supervised_weight = report.supervised_weight;
  step.gradient_norm = report.gradient_norm;
  step.learning_rate = report.learning_rate;
  step.seconds = report.seconds;
  return step;
}

TrainingUse::TrainingUse(TrainerCore &core)
    : trainer_(core.use, "moe_trainer"),
      weights_(core.lora ? core.lora->use : core.router->use, core.lora ? "moe_lora" : "moe_router") {
  if (core.data) data_.emplace(core.data->use, "moe_dataset");
}

namespace {

std::shared_ptr<DatasetCore> claim_data(moe_dataset *data) {
  if (!data) return nullptr;
  auto core = core_of(data, "moe_dataset");
  if (core->in_training.exchange(true)) fail(Code::state, "moe_dataset: another trainer uses it already");
  return core;
}

std::shared_ptr<TrainerCore> trainer_core(moe_dataset *data, moe_cancel_token *cancel) {
  auto core = std::make_shared<TrainerCore>();
  core->cancel = cancel_core(cancel);
  core->data = claim_data(data);
  return core;
}

std::shared_ptr<Dataset> dataset_of(const TrainerCore &core) { return core.data ? core.data->data : nullptr; }

std::shared_ptr<TrainerCore> lora_trainer(const std::shared_ptr<LoraCore> &lora, moe_dataset *data, const Options &options,
                                          moe_cancel_token *cancel) {
  auto core = trainer_core(data, cancel);
  core->base = lora->base;
  core->lora = lora;
  const Writing weights(lora->use, "moe_lora");
  core->trainer = Trainer::for_lora(lora->base, lora->adapter, dataset_of(*core), train_options(options, false));
  return core;
}

std::shared_ptr<TrainerCore> router_trainer(const ModelCore &bundle, const std::shared_ptr<RouterCore> &router, moe_dataset *data,
                                            const Options &options, moe_cancel_token *cancel) {
  if (!bundle.mixture || !bundle.mixture->router)
    fail(Code::state, "moe_trainer_create_router: the model is no bundle with token routing");
  check_router_fits(*router->router, *bundle.mixture->router);
  auto core = trainer_core(data, cancel);
  core->base = bundle.base;
  core->router = router;
  core->bundle_path = bundle.bundle_path;
  core->mixture = std::make_shared<Mixture>(*bundle.mixture);
  core->mixture->router = router->router;
  const Writing weights(router->use, "moe_router");
  core->trainer = Trainer::for_router(bundle.base, core->mixture, dataset_of(*core), train_options(options, true));
  return core;
}

template <class Function>
std::vector<int32_t> checked_array(const int32_t *values, int64_t count, const char *name, Function check) {
  if (!values) fail(Code::invalid, "batch: ", name, " is NULL");
  for (int64_t i = 0; i < count; i++) {
    if (!check(values[i])) fail(Code::invalid, "batch: ", name, "[", i, "] is ", values[i]);
  }
  return {values, values + count};
}

PackedBatch packed_batch(const moe_batch &batch, const TrainerCore &core) {
  const int64_t tokens = batch.n_tokens, sequences = batch.n_sequences, vocabulary = core.base->config().vocabulary;
  if (tokens < 1 || tokens > INT32_MAX) fail(Code::invalid, "batch: n_tokens: expected 1 to ", INT32_MAX, ", found ", tokens);
  if (sequences < 1 || sequences > tokens)
    fail(Code::invalid, "batch: n_sequences: expected 1 to ", tokens, ", found ", sequences);
  const auto is_token = [&](int32_t id) { return id >= 0 && id < vocabulary; };
  const int64_t entries = core.mixture ? static_cast<int64_t>(core.mixture->experts.size()) + 1 : INT32_MAX;
  PackedBatch packed;
  packed.tokens = checked_array(batch.tokens, tokens, "tokens", is_token);
  packed.labels = checked_array(batch.labels, tokens, "labels", [&](int32_t id) { return id == kNoLabel || is_token(id); });
  packed.starts =
      checked_array(batch.sequence_starts, sequences + 1, "sequence_starts", [&](int32_t t) { return t >= 0 && t <= tokens; });
  for (int64_t s = 0; s < sequences; s++) {
    const int32_t begin = packed.starts[static_cast<size_t>(s)], end = packed.starts[static_cast<size_t>(s + 1)];
    if (end <= begin || (s == 0 && begin != 0) || (s + 1 == sequences && end != tokens)) {
      fail(Code::invalid, "batch: sequence_starts: expected 0 to ", tokens, " and rising, found ", begin, ", ", end,
           " at sequence ", s);
    }
    for (int32_t position = 0; position < end - begin; position++) packed.positions.push_back(position);
  }
  if (batch.positions && !std::equal(packed.positions.begin(), packed.positions.end(), batch.positions)) {
    fail(Code::invalid, "batch: positions: expected a restart at 0 in every sequence");
  }
  if (batch.domains)
    packed.domains = checked_array(batch.domains, sequences, "domains", [&](int32_t d) { return d >= -1 && d < entries; });
  return packed;
}

void train_step(moe_trainer *trainer, bool router, const moe_batch *batch, moe_step *out) {
  const auto core = core_of(trainer, "moe_trainer");
  if (core->trainer->trains_router() != router) {
    fail(Code::state, "the trainer trains ",
         router ? "an adapter: use moe_lora_train_step" : "a router: use moe_router_train_step");
  }
  if (out) check_struct(out, "out");
  if (batch) check_struct(batch, "batch");
  const TrainingUse use(*core);
  StepReport report;
  if (batch) {
    const PackedBatch packed = packed_batch(*batch, *core);
    report = core->trainer->step(&packed, cancel_of(core->cancel));
  } else {
    report = core->trainer->step(nullptr, cancel_of(core->cancel));
  }
  core->steps_done = core->trainer->steps_done();
  for (const std::string &warning : core->trainer->alarms().warnings) log(core->base->log(), LogLevel::warning, warning);
  if (out) give_struct(step_struct(report), out);
}

// Sizes for the plan: those of the data where it is named, otherwise the largest that the options allow.
Json plan(const ModelCore &model, const Options &options) {
  const TrainOptions train = train_options(options, model.mixture != nullptr);
  int64_t tokens = train.batch_size * options.integer("max_length"), supervised = tokens;
  if (options.has("data")) open_dataset(model, options, nullptr)->largest_batch(train.batch_size, &tokens, &supervised);
  Overlay overlay;
  std::shared_ptr<Adapter> adapter;
  Mixture mixture;
  if (model.mixture) {
    if (!model.mixture->router) fail(Code::state, "moe_plan: the bundle has no router to train");
    mixture = *model.mixture;
    mixture.router = std::make_shared<Router>(*mixture.router);  // the model's own stays as it is
    overlay.mixture = &mixture;
  } else {
    adapter = Adapter::create(*model.base, lora_config(options, *model.base), train.seed);
    overlay.adapter = adapter.get();
  }
  const Trainable what = !model.mixture ? Trainable::adapter : train.train_experts ? Trainable::joint : Trainable::router;
  return plan_training(*model.base, overlay, what, tokens, supervised, train.memory_limit).to_json();
}

std::vector<double> usage(const TrainerCore &core) {
  if (!core.trainer->trains_router()) fail(Code::state, "moe_trainer_usage: the trainer trains an adapter, not a router");
  std::vector<double> shares;
  for (const std::vector<double> &router : core.trainer->usage()) shares.insert(shares.end(), router.begin(), router.end());
  return shares;
}

}  // namespace

void check_router_fits(const Router &router, const Router &other) {
  const RouterConfig &a = router.config(), &b = other.config();
  if (a.layers == b.layers && a.hidden == b.hidden && a.experts == b.experts && a.ffn == b.ffn && a.attention == b.attention)
    return;
  fail(Code::invalid, "moe_router: expected ", b.layers, " layers, hidden size ", b.hidden, " and ", b.experts,
       " experts, found ", a.layers, ", ", a.hidden, " and ", a.experts,
       a.ffn != b.ffn || a.attention != b.attention ? ", with routers in other places" : "");
}

}  // namespace moe::api

using namespace moe::api;

extern "C" {

int32_t moe_trainer_create_lora(moe_lora *lora, moe_dataset *data, const moe_options *options, moe_cancel_token *cancel,
                                moe_trainer **out, moe_error *error) {
  return fence(error, [&] {
    required_out(out, "out");
    *out = make_handle<moe_trainer>(lora_trainer(core_of(lora, "moe_lora"), data, *OptionsOf(options), cancel));
  });
}

int32_t moe_trainer_create_router(const moe_model *bundle, moe_router *router, moe_dataset *data, const moe_options *options,
                                  moe_cancel_token *cancel, moe_trainer **out, moe_error *error) {
  return fence(error, [&] {
    required_out(out, "out");
    const auto model = core_of(bundle, "moe_model");
    *out = make_handle<moe_trainer>(router_trainer(*model, core_of(router, "moe_router"), data, *OptionsOf(options), cancel));
  });
}

int32_t moe_trainer_set_cancel(moe_trainer *trainer, moe_cancel_token *cancel, moe_error *error) {
  return fence(error, [&] {
    const auto core = core_of(trainer, "moe_trainer");
    const Writing writing(core->use, "moe_trainer");
    core->cancel = cancel_core(cancel);
  });
}

int32_t moe_lora_train_step(moe_trainer *trainer, const moe_batch *batch, moe_step *out, moe_error *error) {
  return fence(error, [&] { train_step(trainer, false, batch, out); });
}

int32_t moe_router_train_step(moe_trainer *trainer, const moe_batch *batch, moe_step *out, moe_error *error) {
  return fence(error, [&] { train_step(trainer, true, batch, out); });
}

int32_t moe_trainer_evaluate(moe_trainer *trainer, moe_dataset *data, double *loss, moe_error *error) {
  return fence(error, [&] {
    if (!loss) moe::fail(moe::Code::invalid, "loss: the pointer for the result is NULL");
    *loss = 0;
    const auto core = core_of(trainer, "moe_trainer");
    const auto rows = core_of(data, "moe_dataset");
    if (rows == core->data)
      moe::fail(moe::Code::invalid, "moe_trainer_evaluate: expected another data set than the one trained on");
    const TrainingUse use(*core);
    const Writing reading(rows->use, "moe_dataset");
    *loss = core->trainer->evaluate(*rows->data, cancel_of(core->cancel));
  });
}

int64_t moe_trainer_steps_done(const moe_trainer *trainer) {
  const TrainerCore *core = peek(trainer);
  return core ? core->steps_done.load() : 0;
}

int64_t moe_trainer_steps_planned(const moe_trainer *trainer) {
  const TrainerCore *core = peek(trainer);
  return core ? core->trainer->steps_planned() : 0;
}

int32_t moe_trainer_usage(const moe_trainer *trainer, double *buffer, size_t capacity, size_t *needed, moe_error *error) {
  return fence(error, [&] {
    if (needed) *needed = 0;
    const auto core = core_of(trainer, "moe_trainer");
    const Writing writing(core->use, "moe_trainer");
    const std::vector<double> shares = usage(*core);
    copy_out(std::span<const double>(shares), buffer, capacity, needed);
  });
}

int32_t moe_trainer_plan(const moe_trainer *trainer, moe_text **out, moe_error *error) {
  return fence(error, [&] {
    required_out(out, "out");
    *out = new_json(core_of(trainer, "moe_trainer")->trainer->plan().to_json());
  });
}

int32_t moe_trainer_save(const moe_trainer *trainer, const char *folder, moe_error *error) {
  return fence(error, [&] {
    const auto core = core_of(trainer, "moe_trainer");
    const TrainingUse use(*core);
    core->trainer->save(required_text(folder, "folder"));
  });
}

int32_t moe_trainer_save_bundle(const moe_trainer *trainer, const char *folder, moe_error *error) {
  return fence(error, [&] {
    const auto core = core_of(trainer, "moe_trainer");
    const TrainingUse use(*core);
    if (!core->trainer->trains_router())
      moe::fail(moe::Code::state, "moe_trainer_save_bundle: the trainer trains an adapter: use moe_lora_save");
    core->trainer->save_to_bundle(required_text(folder, "folder"), moe::Json());
  });
}

int32_t moe_trainer_resume(moe_trainer *trainer, const char *folder, moe_error *error) {
  return fence(error, [&] {
    const auto core = core_of(trainer, "moe_trainer");
    const TrainingUse use(*core);
    core->trainer->resume(required_text(folder, "folder"));
    core->steps_done = core->trainer->steps_done();
  });
}

void moe_trainer_free(moe_trainer **trainer) { free_handle(trainer); }

int32_t moe_plan(const moe_model *model, const moe_options *options, moe_text **out, moe_error *error) {
  return fence(error, [&] {
    required_out(out, "out");
    *out = new_json(plan(*core_of(model, "moe_model"), *OptionsOf(options)));
  });
}

}  // extern "C"
