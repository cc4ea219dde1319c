// Trainers on tiny models: resume and thread counts do not change a bit, accumulation equals one big batch, memory limits hold before
// anything runs, NaN never reaches the weights, a dead router is an error.
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
  const uint64_t plain = lora_run().trainer->plan().total();
  TrainOptions options;
  options.memory_limit = plain - 1;
  EXPECT_TRUE(lora_run(2, 0.1, options).trainer->plan().checkpoint_activations);
  options.memory_limit = 1000;
  try {
    lora_run(2, 0.1, options);
    FAIL();
  } catch (const Error &error) {
    EXPECT_EQ(error.code(), Code::no_memory);
    EXPECT_NE(error.message().find("1000"), std::string::npos);
  }
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
  auto parameters = run.mixture->router->parameters();  // the base wins everywhere
  for (int64_t i = 0; i < run.model->config().layers; i++) {
    const_cast<float *>(run.mixture->router->bias(i, RouterKind::ffn))[0] = 5;
  }
  const std::vector<float> before(parameters.begin(), parameters.end());
  run.trainer->step(nullptr, nullptr);
  run.trainer->step(nullptr, nullptr);
  EXPECT_GT(run.trainer->router_statistics().lm_gradient_norm[0], 0);
  EXPECT_FALSE(std::equal(before.begin(), before.end(), parameters.begin()));
}

TEST(RouterTrainer, UntrainedExpertsAreAWarningNotADeadRouter) {
  RouterRun run = router_run({}, 2, false);
  for (int i = 0; i < 22; i++) run.trainer->step(nullptr, nullptr);
  ASSERT_FALSE(run.trainer->alarms().warnings.empty());
  EXPECT_NE(run.trainer->alarms().warnings[0].find("delta is zero"), std::string::npos);
}

}  // namespace
}  // namespace moe
