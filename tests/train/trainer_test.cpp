// Trainers on tiny models: resume and thread counts do not change a bit, accumulation equals one big batch, memory limits hold before
// anything runs, NaN never reaches the weights, a dead router is an error, experts train with their router.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/error.h"
#include "support/expect_error.h"
#include "support/golden.h"
#include "support/temporary_folder.h"
#include "train/trainer.h"

namespace moe {
namespace {

std::shared_ptr<Dataset> packed_data(const std::string &file, int64_t vocabulary) {
  return Dataset::open({{test::golden_path(file), "", "", -1}}, {}, nullptr, nullptr, vocabulary);
}

struct LoraRun {
  std::shared_ptr<const BaseModel> model;
  std::shared_ptr<Adapter> adapter;
  std::unique_ptr<Trainer> trainer;
};

LoraRun lora_run(int threads = 2, double dropout = 0.1, TrainOptions options = {}, const std::string &compute = "bf16") {
  LoraRun run;
  run.model = test::golden_model("models/qwen3", compute, threads);
  LoraConfig config;
  config.r = 4;
  config.alpha = 8;
  config.dropout = dropout;
  config.target_modules.all_linear = true;
  run.adapter = Adapter::create(*run.model, config, 7);
  if (options.max_steps == 0) options.max_steps = 12;
  options.learning_rate = 1e-2;
  run.trainer = Trainer::for_lora(run.model, run.adapter, packed_data("lora/qwen3_all_linear/expected.safetensors", run.model->config().vocabulary), options);
  return run;
}

std::vector<float> weights(const Adapter &adapter) { return {adapter.parameters().begin(), adapter.parameters().end()}; }

TEST(Trainer, LossFallsAndOnlyTheAdapterChanges) {
  LoraRun run = lora_run();
  double first = 0, last = 0;
  for (int i = 0; i < 12; i++) {
    const StepReport report = run.trainer->step(nullptr, nullptr);
    (i == 0 ? first : last) = report.loss;
    EXPECT_EQ(report.step, i + 1);
  }
  EXPECT_LT(last, first - 0.3);
}

TEST(Trainer, ResumeAtAnyStepIsBitEqualToTheUninterruptedRun) {
  LoraRun whole = lora_run();
  for (int i = 0; i < 12; i++) whole.trainer->step(nullptr, nullptr);
  for (int stop : {1, 5, 11}) {
    const test::TemporaryFolder folder;
    const std::string path = folder.path() + "/checkpoint";
    LoraRun first = lora_run();
    for (int i = 0; i < stop; i++) first.trainer->step(nullptr, nullptr);
    first.trainer->save(path);
    LoraRun second = lora_run();
    second.trainer->resume(path);
    EXPECT_EQ(second.trainer->steps_done(), stop);
    while (second.trainer->steps_done() < 12) second.trainer->step(nullptr, nullptr);
    EXPECT_EQ(weights(*second.adapter), weights(*whole.adapter)) << "stopped after " << stop;
  }
}

TEST(Trainer, ThreadCountDoesNotChangeABit) {
  LoraRun one = lora_run(1), three = lora_run(3);
  for (int i = 0; i < 4; i++) {
    EXPECT_EQ(one.trainer->step(nullptr, nullptr).loss, three.trainer->step(nullptr, nullptr).loss);
  }
  EXPECT_EQ(weights(*one.adapter), weights(*three.adapter));
}

TEST(Trainer, AccumulationEqualsOneBigBatch) {
  TrainOptions big, small;
  big.batch_size = 8;
  small.batch_size = 1;
  LoraRun one = lora_run(2, 0, big, "f32"), parts = lora_run(2, 0, small, "f32");
  for (int i = 0; i < 3; i++) EXPECT_NEAR(one.trainer->step(nullptr, nullptr).loss, parts.trainer->step(nullptr, nullptr).loss, 1e-5);
}

TEST(Trainer, OtherOptionsThanTheCheckpointsAreRefusedByName) {
  const test::TemporaryFolder folder;
  LoraRun first = lora_run();
  first.trainer->step(nullptr, nullptr);
  first.trainer->save(folder.path() + "/c");
  TrainOptions other;
  other.weight_decay = 0.5;
  LoraRun second = lora_run(2, 0.1, other);
  try {
    second.trainer->resume(folder.path() + "/c");
    FAIL();
  } catch (const Error &error) {
    EXPECT_EQ(error.code(), Code::state);
    EXPECT_NE(error.message().find("weight_decay"), std::string::npos) << error.message();
  }
  EXPECT_EQ(second.trainer->steps_done(), 0);
}

TEST(Trainer, AnotherAdapterThanTheCheckpointsIsRefusedByName) {
  const test::TemporaryFolder folder;
  LoraRun first = lora_run(2, 0.1), second = lora_run(2, 0.2);
  first.trainer->save(folder.path() + "/c");
  EXPECT_FAILS(second.trainer->resume(folder.path() + "/c"), Code::state, "lora_dropout = 0.2");
}

TEST(Trainer, ADamagedCheckpointIsRefusedAndTheTrainerStaysAsItWas) {
  const test::TemporaryFolder folder;
  const std::string path = folder.path() + "/c";
  LoraRun run = lora_run();
  run.trainer->step(nullptr, nullptr);
  run.trainer->save(path);
  std::string bytes = read_file(path + "/optimizer.safetensors");
  bytes[bytes.size() / 2] ^= 1;
  write_file_atomic(path + "/optimizer.safetensors", bytes);
  const std::vector<float> before = weights(*run.adapter);
  EXPECT_THROW(run.trainer->resume(path), Error);
  EXPECT_EQ(weights(*run.adapter), before);
}

TEST(Trainer, TheMemoryLimitIsCheckedBeforeAnythingRuns) {
  TrainOptions options;
  const auto plan = [&](uint64_t limit) {
    options.memory_limit = limit;
    return lora_run(2, 0.1, options).trainer->plan();
  };
  const MemoryPlan plain = plan(0);
  EXPECT_EQ(plain.checkpointed_layers, 0);
  EXPECT_EQ(plan(plain.total()).checkpointed_layers, 0);
  // each further layer that is computed twice saves its state; one alone saves nothing
  uint64_t total = plain.total();
  for (int64_t layers = 2; layers <= plain.layers; layers++) {
    const MemoryPlan tighter = plan(total - 1);
    EXPECT_EQ(tighter.checkpointed_layers, layers);
    EXPECT_LT(tighter.total(), total);
    total = tighter.total();
    EXPECT_EQ(plan(total).checkpointed_layers, layers);
  }
  EXPECT_FAILS(plan(total - 1), Code::no_memory, text(total - 1, " bytes are allowed"));
  EXPECT_FAILS(plan(1000), Code::no_memory, "1000");
}

TEST(Trainer, ACancelledStepChangesNothing) {
  LoraRun run = lora_run();
  run.trainer->step(nullptr, nullptr);
  const std::vector<float> before = weights(*run.adapter);
  Cancel cancel;
  cancel.fire();
  EXPECT_THROW(run.trainer->step(nullptr, &cancel), Error);
  EXPECT_EQ(weights(*run.adapter), before);
  EXPECT_EQ(run.trainer->steps_done(), 1);
}

TEST(Trainer, NotANumberNeverReachesTheWeights) {
  LoraRun run = lora_run();
  run.trainer->step(nullptr, nullptr);
  const float kept = run.adapter->parameters()[0];
  run.adapter->parameters()[0] = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> before = weights(*run.adapter);
  EXPECT_TRUE(run.trainer->step(nullptr, nullptr).skipped);
  for (size_t i = 1; i < before.size(); i++) ASSERT_EQ(run.adapter->parameters()[i], before[i]);
  run.adapter->parameters()[0] = kept;
  EXPECT_FALSE(run.trainer->step(nullptr, nullptr).skipped);
}

// ---- router -----------------------------------------------------------------------------------------------------------

void set_bias(Router &router, int64_t layer, int64_t entry, float value) {
  const int64_t offset = router.bias(layer, RouterKind::ffn) - std::as_const(router).parameters().data() + entry;
  router.parameters()[static_cast<size_t>(offset)] = value;
}

struct RouterRun {
  std::shared_ptr<const BaseModel> model;
  std::shared_ptr<Mixture> mixture;
  std::unique_ptr<Trainer> trainer;
};

RouterRun router_run(TrainOptions options = {}, int64_t top_k = 2, bool trained_experts = true) {
  RouterRun run;
  run.model = test::golden_model("models/qwen3", "f32");
  run.mixture = std::make_shared<Mixture>();
  for (int i = 1; i <= 3; i++) {
    auto expert = Adapter::load(*run.model, test::golden_path("mixture/qwen3/expert" + std::to_string(i)), false);
    if (!trained_experts) std::fill(expert->parameters().begin(), expert->parameters().end(), 0.0f);
    run.mixture->experts.push_back(expert);
    run.mixture->domains.push_back("expert" + std::to_string(i));
  }
  RouterConfig config;
  config.layers = run.model->config().layers;
  config.hidden = run.model->config().hidden;
  config.experts = 3;
  config.top_k = top_k;
  run.mixture->router = Router::create(config, 3);
  options.max_steps = 25;
  options.learning_rate = 1e-2;
  run.trainer = Trainer::for_router(run.model, run.mixture, packed_data("mixture/qwen3/batch.safetensors", run.model->config().vocabulary), options);
  return run;
}

TEST(RouterTrainer, ResumeIsBitEqualAndUsageGoesOn) {
  const test::TemporaryFolder folder;
  RouterRun whole = router_run(), first = router_run(), second = router_run();
  for (int i = 0; i < 6; i++) whole.trainer->step(nullptr, nullptr);
  for (int i = 0; i < 3; i++) first.trainer->step(nullptr, nullptr);
  first.trainer->save(folder.path() + "/c");
  second.trainer->resume(folder.path() + "/c");
  for (int i = 0; i < 3; i++) second.trainer->step(nullptr, nullptr);
  const auto bits = [](const RouterRun &run) {
    const auto p = std::as_const(*run.mixture->router).parameters();
    return std::vector<float>(p.begin(), p.end());
  };
  EXPECT_EQ(bits(second), bits(whole));
  EXPECT_EQ(second.trainer->usage(), whole.trainer->usage());
}

TEST(RouterTrainer, AnotherRoutingThanTheCheckpointsIsRefusedByName) {
  const test::TemporaryFolder folder;
  RouterRun first = router_run(), second = router_run({}, 3);
  first.trainer->save(folder.path() + "/c");
  EXPECT_FAILS(second.trainer->resume(folder.path() + "/c"), Code::state, "top_k = 3");
}

TEST(RouterTrainer, WithExactBalanceTheBatchSplitDoesNotMatter) {
  TrainOptions split, whole;
  split.balance_exact = whole.balance_exact = true;
  split.balance_loss_weight = whole.balance_loss_weight = 0.5;
  split.batch_size = 1;
  whole.batch_size = 8;
  RouterRun parts = router_run(split), one = router_run(whole);
  for (int i = 0; i < 4; i++) {
    const StepReport a = parts.trainer->step(nullptr, nullptr), b = one.trainer->step(nullptr, nullptr);
    EXPECT_NEAR(a.total_loss, b.total_loss, 1e-5) << i;
    EXPECT_NEAR(a.balance_loss, b.balance_loss, 1e-5) << i;
  }
}

TEST(RouterStatistics, BalanceAtTheTargetUsageIsOne) {
  for (int64_t k : {1, 2}) {
    RouterStatistics statistics;
    statistics.tokens = 100;
    statistics.top_k = k;
    const double n = static_cast<double>(100 * k);
    statistics.picks = {{0.5 * n, 0.3 * n, 0.15 * n, 0.05 * n}};
    statistics.probability = {{50, 30, 15, 5}};
    EXPECT_NEAR(statistics.balance({0.5f, 0.3f, 0.15f, 0.05f}), 1, 1e-6);
  }
}

TEST(RouterTrainer, TopOneStillGetsALanguageModelGradientWhereTheBaseWins) {
  TrainOptions options;
  options.balance_loss_weight = options.z_loss_weight = 0;
  options.supervised_weight = options.supervised_weight_end = 0;
  RouterRun run = router_run(options, 1);
  for (int64_t i = 0; i < run.model->config().layers; i++) set_bias(*run.mixture->router, i, 0, 5);  // the base wins everywhere
  const auto weights = [&] { return std::vector<float>(run.mixture->router->parameters().begin(), run.mixture->router->parameters().end()); };
  const std::vector<float> before = weights();
  run.trainer->step(nullptr, nullptr);
  run.trainer->step(nullptr, nullptr);
  EXPECT_GT(run.trainer->router_statistics().lm_gradient_norm[0], 0);
  EXPECT_NE(weights(), before);
}

// ---- router and experts ---------------------------------------------------------------------------------------------------

struct JointRun {
  std::shared_ptr<const BaseModel> model;
  std::shared_ptr<Mixture> bundle;  // what the trainer began with
  std::unique_ptr<Trainer> trainer;
  const Mixture &trained() const { return *trainer->mixture(); }
  // Router, then expert after expert.
  std::vector<std::span<float>> parts(const Mixture &mixture, bool gradients = false) const {
    std::vector<std::span<float>> parts = {gradients ? mixture.router->gradients() : mixture.router->parameters()};
    for (const auto &expert : mixture.experts) parts.push_back(gradients ? expert->gradients() : expert->parameters());
    return parts;
  }
  std::vector<float> weights() const {
    std::vector<float> all;
    for (std::span<float> part : parts(trained())) all.insert(all.end(), part.begin(), part.end());
    return all;
  }
};

JointRun joint_run(TrainOptions options = {}, int threads = 2, const std::string &compute = "f32") {
  JointRun run;
  run.model = test::golden_model("models/qwen3", compute, threads);
  run.bundle = std::make_shared<Mixture>();
  for (int i = 1; i <= 3; i++) {
    run.bundle->experts.push_back(Adapter::load(*run.model, test::golden_path("mixture/qwen3/expert" + std::to_string(i)), false));
    run.bundle->domains.push_back("expert" + std::to_string(i));
  }
  RouterConfig config;
  config.layers = run.model->config().layers;
  config.hidden = run.model->config().hidden;
  config.experts = 3;
  run.bundle->router = Router::load(test::golden_path("mixture/qwen3/router.safetensors"), config);
  if (options.max_steps == 0) options.max_steps = 20;
  options.train_experts = true;
  options.learning_rate = 1e-2;
  options.expert_learning_rate = 5e-3;
  run.trainer = Trainer::for_router(run.model, run.bundle, packed_data("mixture/qwen3/batch.safetensors", run.model->config().vocabulary), options);
  return run;
}

TrainOptions only_language_model() {
  TrainOptions options;
  options.balance_loss_weight = options.z_loss_weight = options.supervised_weight = options.supervised_weight_end = 0;
  options.warmup_ratio = 0;
  return options;
}

TEST(JointTrainer, TheFirstStepHasTheGradientsOfTheReference) {
  JointRun run = joint_run(only_language_model());
  run.trainer->step(nullptr, nullptr);
  const Safetensors expected(test::golden_path("mixture/qwen3/joint_k2.safetensors"));
  const auto expect_gradient = [&](const std::string &key, const float *found) {
    const std::vector<float> gradient = test::golden_floats(expected, "grad_lm." + key);
    EXPECT_LT(test::largest_difference(gradient, found, gradient.size()), 1e-4) << key;
  };
  const Mixture &trained = run.trained();
  for (const Router::Entry &entry : trained.router->entries()) expect_gradient(entry.key, trained.router->gradients().data() + entry.offset);
  for (size_t i = 0; i < trained.experts.size(); i++) {
    Adapter &expert = *trained.experts[i];
    for (const Adapter::Entry &entry : expert.entries()) {
      expect_gradient(text(trained.domains[i], '.', entry.key), expert.gradients().data() + entry.offset);
    }
  }
}

TEST(JointTrainer, AStepIsAdamWWithOneNormAndARateForEachPart) {
  TrainOptions options = only_language_model();
  options.max_grad_norm = 0.01;  // below the norm: clipped
  JointRun run = joint_run(options);
  const JointRun untouched = joint_run();
  const StepReport report = run.trainer->step(nullptr, nullptr);
  const auto before = untouched.parts(*untouched.bundle), gradients = run.parts(run.trained(), true), after = run.parts(run.trained());
  double squares = 0;
  for (const auto &part : gradients) {
    for (const float g : part) squares += static_cast<double>(g) * static_cast<double>(g);
  }
  EXPECT_NEAR(report.gradient_norm, std::sqrt(squares), 1e-9);
  EXPECT_GT(report.gradient_norm, 0.1);
  EXPECT_EQ(report.learning_rate, 1e-2);
  const double scale = options.max_grad_norm / (std::sqrt(squares) + 1e-6);
  for (size_t i = 0; i < after.size(); i++) {
    const double rate = i == 0 ? 1e-2 : 5e-3;
    for (size_t j = 0; j < after[i].size(); j++) {
      const double g = static_cast<double>(gradients[i][j]) * scale, p = static_cast<double>(before[i][j]);
      const double m = g, v = g * g;  // of step 1, without bias
      const double expected = p * (1 - rate * 0.01) - rate * m / (std::sqrt(v) + 1e-8);
      ASSERT_NEAR(after[i][j], expected, 2e-6) << i << " " << j;
    }
  }
}

TEST(JointTrainer, LossFallsFurtherThanThatOfTheRouterAloneAndThreadsDoNotChangeABit) {
  JointRun one = joint_run({}, 1, "bf16"), two = joint_run({}, 2, "bf16");
  TrainOptions alone_options;
  RouterRun alone = router_run(alone_options);
  double first = 0, last = 0, alone_last = 0;
  for (int i = 0; i < 20; i++) {
    const StepReport a = one.trainer->step(nullptr, nullptr), b = two.trainer->step(nullptr, nullptr);
    EXPECT_EQ(a.loss, b.loss);
    EXPECT_EQ(a.gradient_norm, b.gradient_norm);
    (i == 0 ? first : last) = a.loss;
    alone_last = alone.trainer->step(nullptr, nullptr).loss;
  }
  EXPECT_EQ(one.weights(), two.weights());
  EXPECT_LT(last, first - 0.3);
  EXPECT_LT(last, alone_last);
}

TEST(JointTrainer, ResumeAtAnyStepIsBitEqual) {
  TrainOptions options;
  options.batch_size = 1;  // several micro-batches a step
  options.gradient_accumulation_steps = 2;
  JointRun whole = joint_run(options);
  for (int i = 0; i < 8; i++) whole.trainer->step(nullptr, nullptr);
  for (int stop : {1, 4, 7}) {
    const test::TemporaryFolder folder;
    JointRun first = joint_run(options), second = joint_run(options);
    for (int i = 0; i < stop; i++) first.trainer->step(nullptr, nullptr);
    first.trainer->save(folder / "c");
    second.trainer->resume(folder / "c");
    while (second.trainer->steps_done() < 8) second.trainer->step(nullptr, nullptr);
    EXPECT_EQ(second.weights(), whole.weights()) << "stopped after " << stop;
    EXPECT_EQ(second.trainer->usage(), whole.trainer->usage());
  }
}

TEST(JointTrainer, ACheckpointOfSomethingElseIsRefusedByName) {
  const test::TemporaryFolder folder;
  JointRun joint = joint_run();
  RouterRun router = router_run();
  joint.trainer->save(folder / "joint");
  router.trainer->save(folder / "router");
  EXPECT_FAILS(joint.trainer->resume(folder / "router"), Code::state, "expected 'router and experts' (this trainer), found 'router'");
  EXPECT_FAILS(router.trainer->resume(folder / "joint"), Code::state, "expected 'router' (this trainer), found 'router and experts'");
  JointRun other = joint_run();
  other.bundle->experts[1] = Adapter::load(*other.model, test::golden_path("mixture/qwen3/expert1"), false);
  other.trainer = Trainer::for_router(other.model, other.bundle, nullptr, other.trainer->options());
  EXPECT_FAILS(other.trainer->resume(folder / "joint"), Code::state, "expert2");
}

TEST(JointTrainer, AnExpertWithoutTokensOnlyDecaysAndTheBundlesOwnExpertsStay) {
  for (const double decay : {0.0, 0.1}) {
    TrainOptions options = only_language_model();
    options.weight_decay = decay;
    options.schedule = ScheduleKind::constant;
    JointRun run = joint_run(options);
    const JointRun untouched = joint_run();
    for (int64_t i = 0; i < run.model->config().layers; i++) set_bias(*run.bundle->router, i, 3, -100);
    for (int i = 0; i < 3; i++) run.trainer->step(nullptr, nullptr);
    const auto trained = run.parts(run.trained()), kept = run.parts(*run.bundle), golden = untouched.parts(*untouched.bundle);
    for (size_t expert = 1; expert <= 3; expert++) {
      const auto same = [&](std::span<float> a, std::span<float> b) { return std::equal(a.begin(), a.end(), b.begin(), b.end()); };
      EXPECT_TRUE(same(kept[expert], golden[expert])) << expert;
      EXPECT_EQ(same(trained[expert], kept[expert]), expert == 3 && decay == 0) << expert;
    }
    const double shrunk = std::pow(1 - 5e-3 * decay, 3);
    for (size_t i = 0; i < trained[3].size(); i++) ASSERT_NEAR(trained[3][i], static_cast<double>(kept[3][i]) * shrunk, 1e-7) << i;
  }
}

TEST(JointTrainer, ThePlanCountsTheExpertsAndWhatTheirTrainingTakes) {
  const JointRun run = joint_run();
  const MemoryPlan joint = run.trainer->plan(), router = router_run().trainer->plan();
  uint64_t experts = 0;
  for (const auto &expert : run.bundle->experts) experts += expert->parameters().size() * sizeof(float);
  EXPECT_EQ(joint.total() - router.total(), 4 * experts);  // the copies, gradients, two moments
}

TEST(JointTrainer, ThePlanCountsTheMemoryOfTheHostThatADeviceReads) {
  const JointRun run = joint_run();
  uint64_t staging = 0;
  for (const auto &[purpose, bytes] : run.trainer->plan().bytes) staging += purpose == "staging" ? bytes : 0;
  EXPECT_EQ(staging, run.model->backend().staging_bytes());
  EXPECT_EQ(staging > 0, !run.model->backend().host_memory());
}

TEST(RouterTrainer, UntrainedExpertsAreAWarningNotADeadRouter) {
  RouterRun run = router_run({}, 2, false);
  for (int i = 0; i < 22; i++) run.trainer->step(nullptr, nullptr);
  ASSERT_FALSE(run.trainer->alarms().warnings.empty());
  EXPECT_NE(run.trainer->alarms().warnings[0].find("delta is zero"), std::string::npos);
}

}  // namespace
}  // namespace moe
