// A run in its output folder: what it leaves, how it stops and goes on, and that damage is noticed and repaired.
#include "train/run.h"

#include <gtest/gtest.h>

#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "model/bundle.h"
#include "support/expect_error.h"
#include "support/golden.h"
#include "support/temporary_folder.h"
#include "train/checkpoint.h"

namespace moe {
namespace {

using Kind = RunEvent::Kind;

std::shared_ptr<Dataset> data() {
  return Dataset::open({{test::golden_path("lora/llama_qv_rslora/expected.safetensors"), "", "", -1}}, {}, nullptr, nullptr, 0);
}

class Run : public testing::Test {
 protected:
  void SetUp() override {
    options_.max_steps = 5;
    options_.learning_rate = 1e-2;
    options_.save_steps = 1;
    options_.save_total_limit = 10;
    run_.output_dir = folder_ / "out";
    run_.log = [this](LogLevel, const std::string &line) { said_ += line + "\n"; };
  }

  // A run of a fresh trainer; returns the trained weights.
  std::vector<float> run(bool resume, const RunCallback &callback = {}, const Cancel *cancel = nullptr) {
    const auto model = test::golden_model("models/llama");
    LoraConfig config;
    config.r = 2;
    config.dropout = 0.1;
    config.target_modules.names = {"q_proj", "v_proj"};
    const auto adapter = Adapter::create(*model, config, 1);
    const auto trainer = Trainer::for_lora(model, adapter, data(), options_);
    run_.resume = resume;
    said_.clear();
    summary_ = run_training(*trainer, *model, run_, callback, cancel);
    return {adapter->parameters().begin(), adapter->parameters().end()};
  }
  // The same run elsewhere, undisturbed.
  std::vector<float> undisturbed() {
    const std::string here = run_.output_dir;
    run_.output_dir = folder_ / "undisturbed";
    const std::vector<float> weights = run(false);
    run_.output_dir = here;
    return weights;
  }
  // Of the output folder; event files without what follows their kind, once.
  std::vector<std::string> files() const {
    std::set<std::string> names;
    for (const std::string &name : list_folder(run_.output_dir))
      names.insert(name.starts_with("events.out.tfevents.") ? "events.out.tfevents" : name);
    return {names.begin(), names.end()};
  }
  std::string checkpoints() const { return run_.output_dir + "/checkpoints"; }
  std::string summary_file() const { return run_.output_dir + "/adapter_training_summary.json"; }

  test::TemporaryFolder folder_;
  TrainOptions options_;
  RunOptions run_;
  Json summary_;
  std::string said_;
};

TEST_F(Run, LeavesTheAdapterTheSummaryTheMetricsAndTheCheckpoints) {
  run(false);
  EXPECT_EQ(files(), (std::vector<std::string>{".lock", "adapter_training_summary.json", "checkpoints", "events.out.tfevents",
                                               "final_adapter", "metrics.jsonl"}));
  EXPECT_EQ(list_checkpoints(checkpoints()), (std::vector<int64_t>{1, 2, 3, 4}));
  EXPECT_EQ(read_json(summary_file()).dump(), summary_.dump());
  EXPECT_EQ(summary_.integer_at("steps", "summary"), 5);
  EXPECT_EQ(said_, "");
}

TEST_F(Run, StoppedAtAnyEventItSavesAndGoesOnToTheSameWeights) {
  run_.eval_data = data();
  options_.eval_steps = 2;
  options_.save_steps = 3;
  const std::vector<float> expected = undisturbed();
  int events = 0;
  const auto count = [&](const RunEvent &event) { return events += event.kind != Kind::finished, true; };
  run_.output_dir = folder_ / "counted";
  run(false, count);
  for (int stop = 1; stop <= events; stop++) {
    SCOPED_TRACE(stop);
    run_.output_dir = folder_ / std::to_string(stop);
    int seen = 0, after = 0;
    const auto callback = [&](const RunEvent &event) {
      if (seen >= stop && event.kind != Kind::checkpoint) after++;
      return ++seen != stop;
    };
    EXPECT_FAILS(run(false, callback), Code::cancelled, "continue it with resume");
    EXPECT_EQ(after, 0) << "it went on";
    EXPECT_FALSE(file_exists(summary_file()));
    EXPECT_EQ(run(true), expected);
    EXPECT_GT(summary_.number_at("eval_loss", "summary"), 0);
  }
}

TEST_F(Run, CancelledWhileItEvaluatesItSavesTheSteps) {
  run_.eval_data = data();
  options_.save_steps = 0;
  options_.eval_steps = 3;
  Cancel cancel;
  const auto callback = [&](const RunEvent &event) {
    if (event.step.step == 3) cancel.fire();
    return true;
  };
  EXPECT_FAILS(run(false, callback, &cancel), Code::cancelled, "");
  EXPECT_EQ(list_checkpoints(checkpoints()), (std::vector<int64_t>{3}));
  EXPECT_EQ(run(true), undisturbed());
}

TEST_F(Run, ADamagedNewestCheckpointIsPassedOverAndReplaced) {
  const std::vector<float> expected = undisturbed();
  const auto stop = [](const RunEvent &event) { return event.step.step < 3; };
  EXPECT_FAILS(run(false, stop), Code::cancelled, "");
  const std::string damaged = checkpoint_path(checkpoints(), 3);
  write_file_atomic(damaged + "/optimizer.safetensors", "not what the manifest says");
  EXPECT_EQ(run(true), expected);
  EXPECT_NE(said_.find("optimizer.safetensors"), std::string::npos) << said_;
  EXPECT_NO_THROW(verify_checkpoint(damaged));
}

TEST_F(Run, AnyDamageToAnyFileOfACheckpointIsNoticed) {
  run(false);
  const std::string checkpoint = checkpoint_path(checkpoints(), 4);
  const auto expect_noticed = [&] { EXPECT_EQ(newest_checkpoint(checkpoints(), {}), checkpoint_path(checkpoints(), 3)); };
  for (const std::string &name : list_folder(checkpoint)) {
    SCOPED_TRACE(name);
    const std::string path = checkpoint + "/" + name, whole = read_file(path);
    for (size_t at : {size_t{0}, whole.size() / 3, whole.size() / 2}) {
      std::string flipped = whole;
      if (std::isspace(static_cast<unsigned char>(flipped[at]))) at++;  // of a manifest, blanks may change
      flipped[at] ^= 4;
      write_file_atomic(path, flipped);
      expect_noticed();
    }
    for (size_t size : {size_t{0}, whole.size() / 2}) {
      write_file_atomic(path, whole.substr(0, size));
      expect_noticed();
    }
    remove_tree(path);
    expect_noticed();
    write_file_atomic(path, whole);
    EXPECT_EQ(newest_checkpoint(checkpoints(), {}), checkpoint);
  }
}

TEST_F(Run, ANewRunForgetsTheEarlierOne) {
  run(false);
  const auto stop = [](const RunEvent &event) { return event.step.step < 2; };
  EXPECT_FAILS(run(false, stop), Code::cancelled, "");
  EXPECT_NE(said_.find("checkpoints of an earlier run are replaced"), std::string::npos) << said_;
  EXPECT_FALSE(file_exists(summary_file())) << "the run looks finished";
  EXPECT_EQ(list_checkpoints(checkpoints()), (std::vector<int64_t>{1, 2}));
}

TEST_F(Run, KeepsAsManyCheckpointsAsItIsTold) {
  options_.save_total_limit = 2;
  run(false);
  EXPECT_EQ(list_checkpoints(checkpoints()), (std::vector<int64_t>{3, 4}));
}

TEST_F(Run, WhatAKilledRunLeftIsRemovedByTheNext) {
  const auto stop = [](const RunEvent &event) { return event.step.step < 2; };
  EXPECT_FAILS(run(false, stop), Code::cancelled, "");
  make_folders(checkpoints() + "/.checkpoint-3.new-1-2-3");
  make_folders(run_.output_dir + "/.final_adapter.new-1-2-3");
  write_file_atomic(run_.output_dir + "/metrics.jsonl", "{\"step\": 1, \"lo");
  run(true);
  EXPECT_EQ(files(), (std::vector<std::string>{".lock", "adapter_training_summary.json", "checkpoints", "events.out.tfevents",
                                               "final_adapter", "metrics.jsonl"}));
  for (const std::string &name : list_folder(checkpoints())) EXPECT_TRUE(name.starts_with("checkpoint-")) << name;
  EXPECT_EQ(read_file(run_.output_dir + "/metrics.jsonl").rfind("{\"step\": 1, \"lo\n{", 0), 0u)
      << "a new line was added to a cut-off one";
}

// The result of a router run replaces what it began with, so without anything saved it would begin with what it trained.
TEST(RouterRun, KilledBetweenItsBundleAndItsSummaryItEndsTheSame) {
  const auto model = test::golden_model("models/llama");
  for (const bool train_experts : {false, true}) {
    const test::TemporaryFolder folder;
    BundleBuild build;
    for (const char *expert : {"expert1", "expert2"}) build.adapters.emplace_back(expert, test::golden_path(text("mixture/llama/", expert)));
    RunOptions options;
    options.output_dir = folder / "out";
    options.domain = "router";
    options.bundle = folder / "bundle";
    build_bundle(*model, build, options.bundle);
    const auto run = [&] {
      TrainOptions training;
      training.max_steps = 3;
      training.learning_rate = training.expert_learning_rate = 1e-2;
      training.train_experts = train_experts;
      const auto rows = Dataset::open({{test::golden_path("mixture/llama/train_batch.safetensors"), "", "", -1}}, {}, nullptr, nullptr, 0);
      const auto trainer = Trainer::for_router(model, std::make_shared<Mixture>(load_bundle(*model, options.bundle)), rows, training);
      run_training(*trainer, *model, options, {}, nullptr);
      return sha256_file(options.bundle + "/router.safetensors") + sha256_file(options.bundle + "/adapters/expert1/adapter_model.safetensors");
    };
    const std::string trained = run();
    EXPECT_EQ(list_checkpoints(options.output_dir + "/checkpoints"), (std::vector<int64_t>{3}));
    remove_tree(options.output_dir + "/router_training_summary.json");
    options.resume = true;
    EXPECT_EQ(run(), trained);
    options.resume = false;
    EXPECT_NE(run(), trained) << "a new run goes on from the trained weights";
  }
}

}  // namespace
}  // namespace moe
