// Training through the C API: the caller's own batches, data sets, checkpoints, whole runs, cancelling, use at the same time.
#include <atomic>
#include <cmath>
#include <cstring>
#include <thread>

#include "api/api.h"
#include "base/file.h"
#include "support/needs.h"

namespace moe::test {
namespace {

struct Training {
  ModelHandle model = load_tiny();
  LoraHandle lora;
  DatasetHandle data;
  TrainerHandle trainer;
};

Training start(const TemporaryFolder &folder, Values values, moe_cancel_token *token = nullptr) {
  moe_error error = MOE_ERROR_INIT;
  Training training;
  values.insert({{"data", folder / "train.jsonl"}, {"rank", "4"}, {"batch_size", "4"}, {"learning_rate", "1e-2"}});
  if (!file_exists(folder / "train.jsonl")) write_sums(folder / "train.jsonl", 30);
  const OptionsHandle options = make_options(values);
  EXPECT_OK(moe_lora_create(training.model, options, &training.lora, &error));
  EXPECT_OK(moe_dataset_open(training.model, options, nullptr, &training.data, &error));
  EXPECT_OK(moe_trainer_create_lora(training.lora, training.data, options, token, &training.trainer, &error));
  return training;
}

std::vector<double> losses(moe_trainer *trainer, int64_t steps) {
  moe_error error = MOE_ERROR_INIT;
  std::vector<double> result;
  moe_step step = MOE_STEP_INIT;
  for (int64_t i = 0; i < steps; i++) {
    EXPECT_OK(moe_lora_train_step(trainer, nullptr, &step, &error));
    result.push_back(step.loss);
  }
  return result;
}

TEST(Training, OwnBatchesLowerTheLoss) {
  moe_error error = MOE_ERROR_INIT;
  const ModelHandle model = load_tiny();
  const OptionsHandle options =
      make_options({{"rank", "4"}, {"max_steps", "20"}, {"learning_rate", "2e-2"}, {"warmup_ratio", "0"}});
  LoraHandle lora;
  TrainerHandle trainer;
  ASSERT_OK(moe_lora_create(model, options, &lora, &error));
  EXPECT_EQ(moe_lora_is_zero(lora), 1);
  EXPECT_GT(moe_lora_parameters(lora), 0);
  ASSERT_OK(moe_trainer_create_lora(lora, nullptr, options, nullptr, &trainer, &error));
  EXPECT_EQ(moe_trainer_steps_planned(trainer), 20);
  const SmallBatch small;
  const moe_batch batch = small.view();
  moe_step step = MOE_STEP_INIT;
  double first = 0;
  for (int i = 1; i <= 20; i++) {
    ASSERT_OK(moe_lora_train_step(trainer, &batch, &step, &error));
    EXPECT_EQ(step.step, i);
    EXPECT_EQ(step.tokens, 9);
    EXPECT_EQ(step.supervised_tokens, 7);
    EXPECT_EQ(step.rows, 2);
    if (i == 1) first = step.loss;
  }
  EXPECT_LT(step.loss, 0.8 * first);
  EXPECT_EQ(moe_lora_is_zero(lora), 0);
  EXPECT_EQ(moe_trainer_steps_done(trainer), 20);
}

TEST(Training, ABatchThatIsNotWellFormedIsRefused) {
  moe_error error = MOE_ERROR_INIT;
  const SmallTrainer small_trainer;
  moe_trainer *trainer = small_trainer.trainer;
  const auto refused = [&](auto change, const char *part) {
    SmallBatch small;
    moe_batch batch = small.view();
    change(small, batch);
    EXPECT_CODE(moe_lora_train_step(trainer, &batch, nullptr, &error), MOE_ERR_INVALID, part);
  };
  refused([](SmallBatch &s, moe_batch &) { s.tokens[3] = 272; }, "tokens[3] is 272");
  refused([](SmallBatch &s, moe_batch &) { s.tokens[0] = -1; }, "tokens[0] is -1");
  refused([](SmallBatch &s, moe_batch &) { s.labels[1] = -99; }, "labels[1] is -99");
  refused([](SmallBatch &s, moe_batch &) { s.starts[1] = 0; }, "sequence_starts");
  refused([](SmallBatch &s, moe_batch &) { s.starts[2] = 8; }, "sequence_starts");
  refused([](SmallBatch &s, moe_batch &) { s.starts[0] = 1; }, "sequence_starts");
  refused([](SmallBatch &, moe_batch &b) { b.n_tokens = 0; }, "n_tokens");
  refused([](SmallBatch &, moe_batch &b) { b.n_sequences = 10; }, "n_sequences");
  refused([](SmallBatch &, moe_batch &b) { b.labels = nullptr; }, "labels is NULL");
  refused([](SmallBatch &s, moe_batch &) { std::fill(s.labels.begin(), s.labels.end(), -100); }, "supervised");
  const std::vector<int32_t> flat{0, 1, 2, 3, 4, 5, 6, 7, 8};
  refused([&](SmallBatch &, moe_batch &b) { b.positions = flat.data(); }, "positions");
  EXPECT_CODE(moe_lora_train_step(trainer, nullptr, nullptr, &error), MOE_ERR_STATE, "neither a batch nor a dataset");
  EXPECT_CODE(moe_router_train_step(trainer, nullptr, nullptr, &error), MOE_ERR_STATE, "moe_lora_train_step");
  EXPECT_EQ(moe_trainer_steps_done(trainer), 0);
}

TEST(Training, ResumeIsBitEqual) {
  NEEDS_UTF8PROC();
  moe_error error = MOE_ERROR_INIT;
  const TemporaryFolder folder;
  Training whole = start(folder, {});
  const std::vector<double> expected = losses(whole.trainer, 6);
  Training first = start(folder, {});
  losses(first.trainer, 3);
  ASSERT_OK(moe_trainer_save(first.trainer, (folder / "checkpoint").c_str(), &error));
  Training second = start(folder, {});
  ASSERT_OK(moe_trainer_resume(second.trainer, (folder / "checkpoint").c_str(), &error));
  EXPECT_EQ(moe_trainer_steps_done(second.trainer), 3);
  EXPECT_EQ(losses(second.trainer, 3), std::vector<double>(expected.begin() + 3, expected.end()));
  Training other = start(folder, {{"learning_rate", "1e-3"}});
  EXPECT_CODE(moe_trainer_resume(other.trainer, (folder / "checkpoint").c_str(), &error), MOE_ERR_STATE, "learning_rate");
  EXPECT_CODE(moe_trainer_resume(other.trainer, (folder / "nothing").c_str(), &error), error.code, "nothing");
  EXPECT_NE(error.code, MOE_OK);
}

TEST(Training, AnAdapterComesBackFromItsFolder) {
  NEEDS_UTF8PROC();
  moe_error error = MOE_ERROR_INIT;
  const TemporaryFolder folder;
  Training training = start(folder, {});
  losses(training.trainer, 3);
  const std::string path = folder / "adapter";
  ASSERT_OK(moe_lora_save(training.lora, path.c_str(), &error));
  ASSERT_OK(moe_lora_save(training.lora, path.c_str(), &error));  // replaces itself
  LoraHandle again;
  ASSERT_OK(moe_lora_load(training.model, path.c_str(), nullptr, &again, &error));
  EXPECT_EQ(moe_lora_parameters(again), moe_lora_parameters(training.lora));
  double before = 0, after = 0;
  DatasetHandle data;
  TrainerHandle other;
  const OptionsHandle options = make_options({{"data", folder / "train.jsonl"}, {"batch_size", "4"}});
  ASSERT_OK(moe_dataset_open(training.model, options, nullptr, &data, &error));
  ASSERT_OK(moe_trainer_create_lora(again, nullptr, options, nullptr, &other, &error));
  ASSERT_OK(moe_trainer_evaluate(training.trainer, data, &before, &error));
  ASSERT_OK(moe_trainer_evaluate(other, data, &after, &error));
  EXPECT_EQ(before, after);
  EXPECT_GT(before, 0);
  write_text(folder / "file", "x");
  EXPECT_CODE(moe_lora_save(training.lora, folder.path().c_str(), &error), MOE_ERR_INVALID, "no adapter");
  TextHandle text;
  ASSERT_OK(moe_inspect(path.c_str(), &text, &error));
  EXPECT_EQ(json_of(text).at("config", "").at("r", "").integer(), 4);
}

TEST(Training, DataSaysWhatWasRead) {
  NEEDS_UTF8PROC();
  moe_error error = MOE_ERROR_INIT;
  const TemporaryFolder folder;
  write_text(folder / "d.jsonl", "{\"prompt\": \"1 + 1 =\", \"completion\": \" 2\"}\n{\"prompt\": \"x\"}\n");
  const ModelHandle model = load_tiny();
  const OptionsHandle options = make_options({{"data", "sums=" + (folder / "d.jsonl")}, {"schema", "prompt_completion"}});
  DatasetHandle data;
  ASSERT_OK(moe_dataset_open(model, options, nullptr, &data, &error));
  EXPECT_EQ(moe_dataset_size(data), 1);
  TextHandle report, preview, raw;
  ASSERT_OK(moe_dataset_report(data, &report, &error));
  EXPECT_NE(text_of(report).find("sums"), std::string::npos);
  ASSERT_OK(moe_dataset_preview(model, options, &preview, &error));
  const std::string line = text_of(preview).substr(0, text_of(preview).find('\n'));
  const Json first = Json::parse(line, "preview");
  EXPECT_EQ(first.at("text", "").string(), "1 + 1 = 2");
  EXPECT_EQ(first.at("supervised", "").items()[0].items()[0].integer(), 7);
  EXPECT_GT(first.at("supervised_tokens", "").integer(), 0);
  EXPECT_NE(text_of(preview).find("\"skipped\""), std::string::npos);
  ASSERT_OK(moe_options_set(options, "raw", "1", &error));
  ASSERT_OK(moe_options_set(options, "types", "1", &error));
  ASSERT_OK(moe_dataset_preview(nullptr, options, &raw, &error));
  EXPECT_EQ(text_of(raw).substr(0, text_of(raw).find('\n')), R"({"types": {"prompt": "string", "completion": "string"}})");
  EXPECT_CODE(moe_dataset_open(model, nullptr, nullptr, &data, &error), MOE_ERR_INVALID, "data");
}

TEST(Training, DataIsMixedByWeights) {
  NEEDS_UTF8PROC();
  moe_error error = MOE_ERROR_INIT;
  const TemporaryFolder folder;
  const ModelHandle model = load_tiny();
  const std::string data = "a=" + write_sums(folder / "a.jsonl", 20) + ",b=" + write_sums(folder / "b.jsonl", 5);
  DatasetHandle mixed;
  ASSERT_OK(moe_dataset_open(model, make_options({{"data", data}, {"data_weights", "a=1,b=3.5"}, {"data_memory", "1K"}}), nullptr,
                             &mixed, &error));
  EXPECT_EQ(moe_dataset_size(mixed), 25);
  const auto refused = [&](const std::string &weights, const char *message) {
    DatasetHandle none;
    EXPECT_CODE(moe_dataset_open(model, make_options({{"data", data}, {"data_weights", weights}}), nullptr, &none, &error),
                MOE_ERR_INVALID, message);
  };
  refused("a=1", "the domain 'b' has no weight");
  refused("a=1,b=2,c=3", "no data has the domain 'c'");
  refused("a=1,b=0", "a weight above 0, found 'b=0'");
  refused("a=1,b=x", "found 'b=x'");
  refused("a=1,a=2,b=1", "the domain 'a' is named twice");
}

TEST(Training, DataIsSplitForValidation) {
  NEEDS_UTF8PROC();
  moe_error error = MOE_ERROR_INIT;
  const TemporaryFolder folder;
  const ModelHandle model = load_tiny();
  DatasetHandle data, validation;
  ASSERT_OK(moe_dataset_open(model, make_options({{"data", write_sums(folder / "d.jsonl", 20)}}), nullptr, &data, &error));
  ASSERT_OK(moe_dataset_split(data, 0.25, &validation, &error));
  EXPECT_EQ(moe_dataset_size(validation), 5);
  EXPECT_EQ(moe_dataset_size(data), 15);
  LoraHandle lora;
  TrainerHandle trainer, second;
  ASSERT_OK(moe_lora_create(model, nullptr, &lora, &error));
  ASSERT_OK(moe_trainer_create_lora(lora, data, nullptr, nullptr, &trainer, &error));
  EXPECT_CODE(moe_dataset_split(data, 0.5, &validation, &error), MOE_ERR_STATE, "trainer");
  EXPECT_CODE(moe_trainer_create_lora(lora, data, nullptr, nullptr, &second, &error), MOE_ERR_STATE, "another trainer");
  double loss = 0;
  EXPECT_CODE(moe_trainer_evaluate(trainer, data, &loss, &error), MOE_ERR_INVALID, "another data set");
  moe_trainer_free(&trainer);
  EXPECT_OK(moe_trainer_create_lora(lora, data, nullptr, nullptr, &second, &error));
}

TEST(Training, ThePlanComesBeforeTheMemory) {
  moe_error error = MOE_ERROR_INIT;
  const ModelHandle model = load_tiny();
  TextHandle text;
  ASSERT_OK(moe_plan(model, make_options({{"max_length", "64"}}), &text, &error));
  const Json plan = json_of(text);
  EXPECT_GT(plan.at("total_bytes", "").integer(), plan.at("bytes", "").at("weights", "").integer());
  EXPECT_EQ(plan.at("micro_batch_tokens", "").integer(), 8 * 64);
  EXPECT_CODE(moe_plan(model, make_options({{"memory_limit", "100K"}}), &text, &error), MOE_ERR_NOMEM,
              "memory_limit: 102400 bytes");
  LoraHandle lora;
  TrainerHandle trainer;
  ASSERT_OK(moe_lora_create(model, nullptr, &lora, &error));
  EXPECT_CODE(moe_trainer_create_lora(lora, nullptr, make_options({{"memory_limit", "1"}}), nullptr, &trainer, &error),
              MOE_ERR_NOMEM, "memory_limit");
}

struct Seen {
  std::vector<int32_t> kinds;
  std::vector<double> losses;
  int64_t stop_at = -1;
};

int32_t watch(const moe_event *event, void *user) {
  auto *seen = static_cast<Seen *>(user);
  EXPECT_EQ(event->struct_size, sizeof *event);
  seen->kinds.push_back(event->kind);
  if (event->kind == MOE_EVENT_STEP) {
    EXPECT_EQ(event->step->step, event->done);
    seen->losses.push_back(event->step->loss);
  }
  return event->kind == MOE_EVENT_STEP && event->done == seen->stop_at;
}

TEST(Run, LeavesTheResultOnDiskAndGoesOnWhereItWasStopped) {
  NEEDS_UTF8PROC();
  moe_error error = MOE_ERROR_INIT;
  const TemporaryFolder folder, eval_folder;
  write_sums(folder / "train.jsonl", 32);
  const Values values = {{"epochs", "1"}, {"batch_size", "4"}, {"save_steps", "2"}, {"eval_steps", "4"}};
  const auto run_options = [&](const char *output, const char *resume) {
    return make_options({{"output_dir", folder / output}, {"domain", "sums"}, {"resume", resume}});
  };
  Seen whole;
  Training straight = start(folder, values);
  DatasetHandle held_out;
  ASSERT_OK(moe_dataset_open(straight.model, make_options({{"data", write_sums(eval_folder / "e.jsonl", 5, 1)}}), nullptr,
                             &held_out, &error));
  TextHandle summary;
  ASSERT_OK(moe_trainer_run(straight.trainer, held_out, run_options("a", "false"), watch, &whole, &summary, &error));
  EXPECT_EQ(whole.losses.size(), 8u);
  EXPECT_EQ(std::count(whole.kinds.begin(), whole.kinds.end(), MOE_EVENT_EVALUATION), 2);
  EXPECT_EQ(whole.kinds.back(), MOE_EVENT_FINISHED);
  const Json json = json_of(summary);
  EXPECT_EQ(json.at("steps", "").integer(), 8);
  EXPECT_EQ(json.at("options", "").at("batch_size", "").is_number(), true);
  EXPECT_EQ(json.at("leaks", "").at("sequences", "").integer(), 5);
  EXPECT_EQ(json.at("leaks", "").at("same_prompt", "").integer(), 5);  // sums that are trained on
  EXPECT_TRUE(file_exists(folder / "a/final_adapter/adapter_config.json"));
  EXPECT_TRUE(file_exists(folder / "a/sums_training_summary.json"));
  EXPECT_TRUE(file_exists(folder / "a/metrics.jsonl"));

  Seen stopped, resumed;
  stopped.stop_at = 3;
  Training first = start(folder, values);
  EXPECT_CODE(moe_trainer_run(first.trainer, nullptr, run_options("b", "false"), watch, &stopped, nullptr, &error),
              MOE_ERR_CANCELLED, "step 3");
  EXPECT_EQ(stopped.kinds.back(), MOE_EVENT_CHECKPOINT);
  Training second = start(folder, values);
  ASSERT_OK(moe_trainer_run(second.trainer, nullptr, run_options("b", "true"), watch, &resumed, nullptr, &error));
  EXPECT_EQ(resumed.kinds.front(), MOE_EVENT_RESUMED);
  EXPECT_EQ(resumed.losses, std::vector<double>(whole.losses.begin() + 3, whole.losses.end()));
  EXPECT_CODE(moe_trainer_run(second.trainer, nullptr, nullptr, nullptr, nullptr, nullptr, &error), MOE_ERR_INVALID,
              "output_dir");
}

TEST(Cancel, FromAnotherThreadStopsAStepAndChangesNothing) {
  NEEDS_UTF8PROC();
  moe_error error = MOE_ERROR_INIT;
  const TemporaryFolder folder;
  TokenHandle token;
  ASSERT_OK(moe_cancel_token_create(&token, &error));
  Training training = start(folder, {{"epochs", "100000"}}, token);
  std::atomic<bool> started{false};
  std::thread other([&] {
    while (!started) std::this_thread::yield();
    moe_cancel_token_fire(token);
  });
  int32_t status = MOE_OK;
  int64_t done = 0;
  while (status == MOE_OK && done < 100000) {
    status = moe_lora_train_step(training.trainer, nullptr, nullptr, &error);
    started = true;
    if (status == MOE_OK) done++;
  }
  other.join();
  EXPECT_EQ(status, MOE_ERR_CANCELLED);
  EXPECT_EQ(moe_trainer_steps_done(training.trainer), done);
  ASSERT_OK(moe_trainer_set_cancel(training.trainer, nullptr, &error));
  EXPECT_OK(moe_lora_train_step(training.trainer, nullptr, nullptr, &error));
  EXPECT_EQ(moe_trainer_steps_done(training.trainer), done + 1);
}

struct Reentry {
  moe_trainer *trainer;
  moe_lora *lora;
  std::string folder;
  int32_t step = 1, save = 1;
};

TEST(SameTime, ACallbackCannotUseItsOwnHandles) {
  NEEDS_UTF8PROC();
  moe_error error = MOE_ERROR_INIT;
  const TemporaryFolder folder;
  Training training = start(folder, {{"max_steps", "1"}});
  Reentry reentry{training.trainer, training.lora, folder / "x"};
  const auto callback = [](const moe_event *event, void *user) -> int32_t {
    auto *r = static_cast<Reentry *>(user);
    if (event->kind != MOE_EVENT_STEP) return 0;
    r->step = moe_lora_train_step(r->trainer, nullptr, nullptr, nullptr);
    r->save = moe_lora_save(r->lora, r->folder.c_str(), nullptr);
    EXPECT_EQ(moe_trainer_steps_done(r->trainer), 1);
    return 0;
  };
  ASSERT_OK(moe_trainer_run(training.trainer, nullptr, make_options({{"output_dir", folder / "out"}}), callback, &reentry,
                            nullptr, &error));
  EXPECT_EQ(reentry.step, MOE_ERR_BUSY);
  EXPECT_EQ(reentry.save, MOE_ERR_BUSY);
  EXPECT_OK(moe_lora_save(training.lora, (folder / "x").c_str(), &error));
}

TEST(SameTime, TwoThreadsOnOneTrainerAreToldSo) {
  NEEDS_UTF8PROC();
  const TemporaryFolder folder;
  Training training = start(folder, {{"epochs", "100000"}});
  std::atomic<int> ok{0}, busy{0}, other{0};
  const auto work = [&] {
    for (int i = 0; i < 100; i++) {
      const int32_t status = moe_lora_train_step(training.trainer, nullptr, nullptr, nullptr);
      (status == MOE_OK ? ok : status == MOE_ERR_BUSY ? busy : other)++;
    }
  };
  std::thread a(work), b(work);
  a.join(), b.join();
  EXPECT_EQ(other, 0);
  EXPECT_EQ(ok, moe_trainer_steps_done(training.trainer));
  EXPECT_EQ(ok + busy, 200);
}

}  // namespace
}  // namespace moe::test
