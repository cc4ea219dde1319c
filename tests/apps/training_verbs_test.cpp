// lora, build, router, plan and pipeline on a tiny model: results, interruption, resume.
#include <chrono>
#include <filesystem>
#include <random>
#include <thread>

#include "apps/run_program.h"
#include "support/needs.h"

namespace moe::test {
namespace {

class TrainingVerbs : public Programs {
 protected:
  Words lora_words(const std::string &domain, const Words &more = {}) const {
    Words words{"lora",   "--model", tiny,           "--data", path(domain + ".jsonl"), "--domain", domain,
                "--rank", "4",       "--batch-size", "4"};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }

  void make_adapters() {
    for (const char *domain : {"math", "medical"}) {
      make_data(domain);
      ASSERT_EQ(train(lora_words(domain, {"--max-steps", "3", "--learning-rate", "1e-2"})).status, 0);
    }
  }

  std::string weights(const std::string &output_dir) const {
    return file_text(path(output_dir + "/final_adapter/adapter_model.safetensors"));
  }

  // Until a file below the folder of a run appears, or 20 seconds.
  bool wait_for_file(const std::string &name) const {
    for (int i = 0; i < 2000; i++) {
      if (std::filesystem::exists(path(name))) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }
};

TEST_F(TrainingVerbs, LoraTrainsThreeStepsAndSaysWhereTheAdapterIs) {
  NEEDS_UTF8PROC();
  make_data("math");
  const Ended ended = train(lora_words("math", {"--max-steps", "3"}));
  ASSERT_EQ(ended.status, 0) << ended.err;
  EXPECT_NE(ended.out.find("domain_models/math/final_adapter"), std::string::npos) << ended.out;
  for (const char *step : {"step 1/3 ", "step 2/3 ", "step 3/3 "}) EXPECT_EQ(count_of(ended.err, step), 1u) << ended.err;
  EXPECT_TRUE(std::filesystem::exists(path("domain_models/math/final_adapter/adapter_config.json")));
  EXPECT_TRUE(std::filesystem::exists(path("domain_models/math/math_training_summary.json")));
  EXPECT_EQ(count_of(file_text(path("domain_models/math/metrics.jsonl")), "\"loss\""), 3u);
}

TEST_F(TrainingVerbs, JsonAndQuietLeaveNothingElse) {
  NEEDS_UTF8PROC();
  make_data("math");
  const Ended ended = train(lora_words("math", {"--max-steps", "2", "--json", "--quiet"}));
  ASSERT_EQ(ended.status, 0);
  EXPECT_EQ(ended.json().at("steps", "").integer(), 2);
  EXPECT_EQ(ended.err, "");
}

TEST_F(TrainingVerbs, HeldOutRowsAreEvaluated) {
  NEEDS_UTF8PROC();
  make_data("math"), make_data("other", 8);
  const Ended given = train(lora_words("math", {"--max-steps", "2", "--eval-data", path("other.jsonl"), "--json"}));
  ASSERT_EQ(given.status, 0) << given.err;
  EXPECT_GT(given.json().at("eval_loss", "").number(), 0);
  const Ended split = train(lora_words("math", {"--max-steps", "2", "--validation-split", "0.3", "--json"}));
  ASSERT_EQ(split.status, 0) << split.err;
  EXPECT_GT(split.json().at("eval_loss", "").number(), 0);
}

TEST_F(TrainingVerbs, HeldOutRowsThatAreTrainedOnAreWarnedOf) {
  NEEDS_UTF8PROC();
  make_data("math");
  std::string rows;
  for (const char *prompt : {"Who wrote this?", "Where do they live?"})
    rows += std::string(R"({"prompt": ")") + prompt + R"(", "completion": " Nobody knows that."})" + "\n";
  write_text(path("other.jsonl"), rows);
  write_text(path("mixed.jsonl"), rows + R"({"prompt": "Math 2  GAMMA alpha", "completion": "x"})" + "\n");
  const Ended clean = train(lora_words("math", {"--max-steps", "1", "--eval-data", path("other.jsonl"), "--json"}));
  ASSERT_EQ(clean.status, 0) << clean.err;
  EXPECT_EQ(clean.err.find("stand in the training data"), std::string::npos) << clean.err;
  EXPECT_EQ(clean.json().at("leaks", "").at("sequences", "").integer(), 2);
  const Ended leaky = train(lora_words("math", {"--max-steps", "1", "--eval-data", path("mixed.jsonl"), "--json"}));
  ASSERT_EQ(leaky.status, 0) << leaky.err;
  EXPECT_NE(leaky.err.find("warning: 1 of 3 held-out sequences stand in the training data"), std::string::npos) << leaky.err;
  EXPECT_NE(leaky.err.find("mixed.jsonl row 3 is " + path("math.jsonl") + " row 3"), std::string::npos) << leaky.err;
  EXPECT_EQ(leaky.json().at("leaks", "").at("same_prompt", "").integer(), 1);
}

TEST_F(TrainingVerbs, AFinishedRunSaysSoAndOtherOptionsAreRefused) {
  NEEDS_UTF8PROC();
  make_data("math");
  ASSERT_EQ(train(lora_words("math", {"--max-steps", "3"})).status, 0);
  const std::string before = weights("domain_models/math");
  const Ended again = train(lora_words("math", {"--max-steps", "3", "--resume"}));
  EXPECT_EQ(again.status, 0) << again.err;
  EXPECT_NE(again.err.find("finished already"), std::string::npos) << again.err;
  EXPECT_EQ(count_of(again.err, "step 1/"), 0u);
  const Ended other = train(lora_words("math", {"--max-steps", "4", "--resume"}));
  EXPECT_EQ(other.status, 1);
  EXPECT_NE(other.err.find("max_steps"), std::string::npos) << other.err;
  EXPECT_EQ(weights("domain_models/math"), before);
}

TEST_F(TrainingVerbs, ARunThatIsKilledTwiceEndsWithTheSameBytes) {
  NEEDS_UTF8PROC();
  make_data("math", 40);
  const auto words = [&](const std::string &output_dir) {
    return lora_words("math", {"--output-dir", output_dir, "--max-steps", "300", "--save-steps", "20", "--dropout", "0.1"});
  };
  ASSERT_EQ(train(words("whole")).status, 0);
  std::mt19937 random(std::random_device{}());
  Words resumed = words("killed");
  resumed.push_back("--resume");
  for (int kill_number = 0; kill_number < 2; kill_number++) {
    const pid_t child = start("moe-train", resumed);
    ASSERT_TRUE(wait_for_file("killed/checkpoints"));
    std::this_thread::sleep_for(std::chrono::milliseconds(random() % 120));
    kill(child, SIGKILL);
    wait_for(child);
  }
  const Ended last = train(resumed);
  ASSERT_EQ(last.status, 0) << last.err;
  ASSERT_FALSE(weights("whole").empty());
  EXPECT_EQ(weights("killed"), weights("whole"));
}

TEST_F(TrainingVerbs, CtrlCSavesACheckpointThatResumesToTheSameBytes) {
  NEEDS_UTF8PROC();
  make_data("math", 40);
  const auto words = [&](const std::string &output_dir, const char *steps) {
    return lora_words("math", {"--output-dir", output_dir, "--max-steps", steps});
  };
  const pid_t child = start("moe-train", words("stopped", "1500"));
  ASSERT_TRUE(wait_for_file("stopped/metrics.jsonl"));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  kill(child, SIGINT);
  const Ended stopped = wait_for(child);
  EXPECT_EQ(stopped.status, 130) << stopped.err;
  EXPECT_NE(stopped.err.find("checkpoint stopped/checkpoints/checkpoint-"), std::string::npos) << stopped.err;
  Words resume = words("stopped", "1500");
  resume.push_back("--resume");
  const Ended resumed = train(resume);
  ASSERT_EQ(resumed.status, 0) << resumed.err;
  EXPECT_NE(resumed.err.find("resumed after step "), std::string::npos);
  ASSERT_EQ(train(words("whole", "1500")).status, 0);
  EXPECT_EQ(weights("stopped"), weights("whole"));
}

TEST_F(TrainingVerbs, ABundleIsBuiltCheckedAndItsRouterTrained) {
  NEEDS_UTF8PROC();
  make_adapters();
  const Ended built = train({"build", "--model", tiny, "--adapters-dir", "domain_models", "--output-dir", "moe_model"});
  ASSERT_EQ(built.status, 0) << built.err;
  const Ended good = train({"build", "--validate-only", "--output-dir", "moe_model"});
  EXPECT_EQ(good.status, 0) << good.err;
  EXPECT_GT(count_of(good.out, "good  "), 3u) << good.out;

  const std::string untrained = file_text(path("moe_model/router.safetensors"));
  const std::string data = "math=" + path("math.jsonl") + ",medical=" + path("medical.jsonl");
  const Ended trained = train({"router", "--moe", "moe_model", "--data", data, "--max-steps", "4"});
  ASSERT_EQ(trained.status, 0) << trained.err;
  EXPECT_NE(trained.err.find("recorded in moe_model"), std::string::npos) << trained.err;
  EXPECT_NE(trained.out.find("medical: "), std::string::npos) << trained.out;
  EXPECT_NE(file_text(path("moe_model/router.safetensors")), untrained);
  EXPECT_EQ(train({"build", "--validate-only", "--output-dir", "moe_model"}).status, 0);

  const Ended stranger = train({"router", "--moe", "moe_model", "--data", "law=" + path("math.jsonl"), "--max-steps", "1"});
  EXPECT_EQ(stranger.status, 1);
  EXPECT_NE(stranger.err.find("'law'"), std::string::npos) << stranger.err;

  write_text(path("moe_model/adapters/math/adapter_config.json"), "{}");
  const Ended bad = train({"build", "--validate-only", "--output-dir", "moe_model"});
  EXPECT_EQ(bad.status, 1);
  EXPECT_NE(bad.out.find("BAD   "), std::string::npos) << bad.out;
}

TEST_F(TrainingVerbs, ExpertsTrainWithTheirRouterWhenTheyAreToldTo) {
  NEEDS_UTF8PROC();
  make_adapters();
  ASSERT_EQ(train({"build", "--model", tiny, "--adapters-dir", "domain_models", "--output-dir", "moe_model"}).status, 0);
  const std::string data = "math=" + path("math.jsonl") + ",medical=" + path("medical.jsonl");
  const auto expert = [&] { return file_text(path("moe_model/adapters/math/adapter_model.safetensors")); };
  const std::string untrained = expert();
  const auto router = [&](const Words &more) {
    Words words{"router", "--moe", "moe_model", "--data", data, "--max-steps", "4"};
    words.insert(words.end(), more.begin(), more.end());
    return train(words);
  };
  EXPECT_EQ(router({"--expert-learning-rate", "11", "--train-experts"}).status, 2);
  EXPECT_EQ(router({"--train-experts", "perhaps"}).status, 2);
  ASSERT_EQ(router({}).status, 0);
  EXPECT_EQ(expert(), untrained);
  const Ended trained = router({"--train-experts", "--expert-learning-rate", "1e-2"});
  ASSERT_EQ(trained.status, 0) << trained.err;
  EXPECT_NE(trained.err.find("its experts train with it"), std::string::npos) << trained.err;
  EXPECT_NE(expert(), untrained);
  EXPECT_EQ(Json::parse(file_text(path("moe_model_router/router_training_summary.json")), "").at("trains", "").string(),
            "router and experts");
  const Ended good = train({"build", "--validate-only", "--output-dir", "moe_model"});
  EXPECT_EQ(good.status, 0) << good.out;
  const Words plan = {"plan", "--model", tiny, "--moe", "moe_model", "--json"};
  Words joint = plan;
  joint.push_back("--train-experts");
  const auto bytes = [](const Ended &ended) { return ended.json().at("bytes", "").at("optimizer", "").integer(); };
  EXPECT_GT(bytes(train(joint)), bytes(train(plan)));
}

TEST_F(TrainingVerbs, AdaptersKeepTheOrderTheyAreGivenIn) {
  NEEDS_UTF8PROC();
  make_adapters();
  const std::string adapters = "medical=domain_models/medical/final_adapter,math=domain_models/math/final_adapter";
  ASSERT_EQ(train({"build", "--model", tiny, "--adapters", adapters, "--output-dir", "b"}).status, 0);
  EXPECT_EQ(eval({"inspect", "b", "--json"}).json().at("domains", "").dump(), R"(["medical", "math"])");
}

TEST_F(TrainingVerbs, PlanTellsBytesStepsAndTime) {
  NEEDS_UTF8PROC();
  make_data("math");
  const Ended ended =
      train({"plan", "--model", tiny, "--data", path("math.jsonl"), "--batch-size", "4", "--epochs", "3", "--json"});
  ASSERT_EQ(ended.status, 0) << ended.err;
  const Json plan = ended.json();
  EXPECT_EQ(plan.at("steps", "").integer(), 18);
  EXPECT_GT(plan.at("tokens", "").number(), 0);
  EXPECT_GT(plan.at("estimated_seconds", "").number(), 0);
  EXPECT_GT(plan.at("total_bytes", "").integer(), plan.at("bytes", "").at("weights", "").integer());
  const Ended small = train({"plan", "--model", tiny, "--data", path("math.jsonl"), "--memory-limit", "1K"});
  EXPECT_EQ(small.status, 1);
}

class Pipeline : public TrainingVerbs {
 protected:
  void SetUp() override {
    for (const char *name : {"math", "medical", "math_test", "medical_test"}) make_data(name);
    write_config("");
  }

  void write_config(const std::string &router) {
    write_text(path("pipeline.json"), R"({
      "model": ")" + tiny + R"(", "output_dir": "work", "batch_size": 4,
      "domains": {"math": {"data": "math.jsonl", "tasks": "math_test.jsonl"},
                  "medical": {"data": "medical.jsonl", "tasks": "medical_test.jsonl", "rank": 2}},
      "adapters": {"rank": 4, "max_steps": 3, "learning_rate": 0.01},
      "router": {"max_steps": 3)" + router +
                                          R"(},
      "evaluate": {"limit": 4}})");
  }

  // The stages that were made, in order; the others were up to date.
  std::string stages(const Words &more = {}) {
    Words words{"pipeline", "--config", "pipeline.json", "--json"};
    words.insert(words.end(), more.begin(), more.end());
    const Ended ended = train(words);
    EXPECT_EQ(ended.status, 0) << ended.err;
    if (ended.status != 0) return "failed";
    std::string made;
    const Json json = ended.json();
    for (const auto &[stage, outcome] : json.at("stages", "").members()) {
      if (outcome.string() == "made") made += (made.empty() ? "" : " ") + stage;
    }
    return made;
  }
};

TEST_F(Pipeline, MakesEveryStageOnceAndAgainWhatChanged) {
  NEEDS_UTF8PROC();
  EXPECT_EQ(stages(), "adapters/math adapters/medical build router evaluate");
  EXPECT_TRUE(std::filesystem::exists(path("work/evaluation/evaluation_results.json")));
  const std::string router = file_text(path("work/moe_model/router.safetensors"));
  EXPECT_EQ(stages(), "");

  write_config(R"(, "learning_rate": 0.02)");
  EXPECT_EQ(stages(), "build router evaluate");
  EXPECT_NE(file_text(path("work/moe_model/router.safetensors")), router);
  write_config("");
  stages();
  EXPECT_EQ(file_text(path("work/moe_model/router.safetensors")), router);  // begun from the router of the build each time

  write_config(R"(, "train_experts": true)");
  EXPECT_EQ(stages(), "build router evaluate");
  EXPECT_EQ(stages(), "");  // the trained experts of the bundle are no reason to build it again
  const std::string expert = "work/moe_model/adapters/math/adapter_model.safetensors", trained = file_text(path(expert));
  EXPECT_NE(trained, file_text(path("work/domain_models/math/final_adapter/adapter_model.safetensors")));
  write_config(R"(, "train_experts": true, "learning_rate": 0.02)");
  EXPECT_EQ(stages(), "build router evaluate");
  write_config(R"(, "train_experts": true)");
  stages();
  EXPECT_EQ(file_text(path(expert)), trained);  // begun from the adapters each time

  make_data("medical", 20);
  EXPECT_EQ(stages(), "adapters/medical build router evaluate");
  EXPECT_EQ(stages({"--threads", "1"}), "");  // it changes no result
}

TEST_F(Pipeline, WarnsOfTasksThatAreTrainedOn) {
  NEEDS_UTF8PROC();
  const Ended clean = train({"pipeline", "--config", "pipeline.json"});
  ASSERT_EQ(clean.status, 0) << clean.err;
  EXPECT_EQ(clean.err.find("stand in the training data"), std::string::npos) << clean.err;
  const std::string math = file_text(path("math.jsonl"));
  write_text(path("medical_test.jsonl"), math.substr(0, math.find('\n') + 1) + file_text(path("medical_test.jsonl")));
  const Ended leaky = train({"pipeline", "--config", "pipeline.json"});
  ASSERT_EQ(leaky.status, 0) << leaky.err;
  EXPECT_NE(leaky.err.find("medical_test.jsonl row 1 is math.jsonl row 1"), std::string::npos) << leaky.err;
  const Json results = Json::parse(file_text(path("work/evaluation/evaluation_results.json")), "results");
  EXPECT_EQ(results.at("run", "").at("leaks", "").at("same_prompt", "").integer(), 1);
}

TEST_F(Pipeline, DataMayBeAFolderOrAPattern) {
  NEEDS_UTF8PROC();
  std::filesystem::create_directory(path("shards"));
  make_data("shards/a"), make_data("shards/b", 20);
  std::string config = file_text(path("pipeline.json"));
  config.replace(config.find("\"math.jsonl\""), 12, "\"shards/*.jsonl\"");
  config.replace(config.find("\"medical.jsonl\""), 15, "\"shards\"");
  write_text(path("pipeline.json"), config);
  EXPECT_EQ(stages(), "adapters/math adapters/medical build router evaluate");
  EXPECT_EQ(stages(), "");
  make_data("shards/b", 12);
  EXPECT_EQ(stages(), "adapters/math adapters/medical build router evaluate");
}

// What --experiment left: the folder of the only run of that name.
class Experiments : public Pipeline {
 protected:
  std::string only(const std::string &name) const {
    std::string found;
    for (const auto &entry : std::filesystem::directory_iterator(path("experiments"))) {
      const std::string folder = entry.path().filename();
      if (folder.size() < 16 || folder.substr(16) != name) continue;  // behind 20261201-152000-
      EXPECT_TRUE(found.empty()) << found << ", " << folder;
      found = "experiments/" + folder;
    }
    EXPECT_FALSE(found.empty()) << name;
    return path(found);
  }
};

TEST_F(Experiments, ListARunWithItsLogAndItsReport) {
  NEEDS_UTF8PROC();
  const Ended ended = train(lora_words("math", {"--max-steps", "3", "--experiment", "first", "--quiet"}));
  ASSERT_EQ(ended.status, 0) << ended.err;
  EXPECT_EQ(ended.err, "");
  const std::string log = file_text(only("first") + "/run.log");
  for (const char *part : {"moe-train lora, libmoe ", "  --max-steps 3\n", "output: domain_models/math\n", " step 1/3 ", " step 3/3 "})
    EXPECT_EQ(count_of(log, part), 1u) << part << "\n" << log;
  EXPECT_NE(file_text(only("first") + "/report.html").find("<svg"), std::string::npos);  // of the losses
}

TEST_F(Experiments, ListAPipelineWithItsEvaluation) {
  NEEDS_UTF8PROC();
  EXPECT_EQ(stages({"--experiment", "all"}), "adapters/math adapters/medical build router evaluate");
  const std::string log = file_text(only("all") + "/run.log"), report = file_text(only("all") + "/report.html");
  for (const char *part : {"== adapters/math\n", "== router\n", "medical: moe 4/4 "}) EXPECT_EQ(count_of(log, part), 1u) << part << "\n" << log;
  for (const char *part : {"medical", "router"}) EXPECT_NE(report.find(part), std::string::npos) << part;
  EXPECT_EQ(stages({"--experiment", "again"}), "");  // its name changes no result
  only("again");
}

TEST_F(Experiments, KeepTheErrorOfARunThatFails) {
  NEEDS_UTF8PROC();
  EXPECT_EQ(train(lora_words("absent", {"--experiment", "bad"})).status, 1);
  EXPECT_EQ(count_of(file_text(only("bad") + "/run.log"), "absent.jsonl"), 2u);  // the option and the error
  EXPECT_FALSE(std::filesystem::exists(only("bad") + "/report.html"));
  EXPECT_EQ(train(lora_words("math", {"--experiment", "../up"})).status, 2);
  EXPECT_FALSE(std::filesystem::exists(path("up")));
}

TEST_F(Pipeline, GoesOnAfterAKill) {
  NEEDS_UTF8PROC();
  const pid_t child = start("moe-train", {"pipeline", "--config", "pipeline.json"});
  ASSERT_TRUE(wait_for_file("work/domain_models/medical"));
  kill(child, SIGKILL);
  wait_for(child);
  const std::string made = stages();
  EXPECT_FALSE(made.starts_with("adapters/math")) << made;
  EXPECT_TRUE(made.ends_with("evaluate")) << made;
  EXPECT_EQ(train({"build", "--validate-only", "--output-dir", "work/moe_model"}).status, 0);
}

TEST_F(Pipeline, MistakesOfItsFileAreWrongUsage) {
  for (const char *bad :
       {R"({"model": "m", "output_dir": "w"})", R"({"model": "m", "output_dir": "w", "domains": {"../x": "f"}})",
        R"({"model": "m", "output_dir": "w", "domains": {"a": "f"}, "adapters": {"rankk": 3}})",
        R"({"model": "m", "output_dir": "w", "domains": {"a": "f"}, "stages": 3})",
        R"({"output_dir": "w", "domains": {"a": "f"}})"}) {
    write_text(path("bad.json"), bad);
    EXPECT_EQ(train({"pipeline", "--config", "bad.json"}).status, 2) << bad;
  }
  EXPECT_EQ(train({"pipeline"}).status, 2);
}

TEST_F(Pipeline, AJointAdapterHasTheParametersOfAllAdapters) {
  NEEDS_UTF8PROC();
  const std::string plain = file_text(path("pipeline.json"));
  write_text(path("pipeline.json"), plain.substr(0, plain.rfind('}')) + R"(, "joint": {"learning_rate": 0.005}})");
  const Json config = train({"pipeline", "--config", "pipeline.json", "--print-config"}).json().at("joint", "");
  EXPECT_EQ(config.at("rank", "").integer(), 6);
  EXPECT_EQ(config.at("alpha", "").number(), 48);  // 32 / 4 for each
  EXPECT_EQ(config.at("max_steps", "").integer(), 6);
  EXPECT_EQ(config.at("learning_rate", "").number(), 0.005);
  EXPECT_EQ(config.at("data", "").dump(), R"(["math=math.jsonl", "medical=medical.jsonl"])");
  EXPECT_EQ(stages(), "adapters/math adapters/medical joint build router evaluate");
  EXPECT_EQ(stages(), "");
  const std::string results = file_text(path("work/evaluation/evaluation_results.json"));
  EXPECT_NE(results.find(R"("model": "joint")"), std::string::npos);
  make_data("medical", 20);
  EXPECT_EQ(stages(), "adapters/medical joint build router evaluate");
}

TEST_F(Pipeline, ItsConfigurationIsPrintedByStage) {
  const Json config = train({"pipeline", "--config", "pipeline.json", "--print-config"}).json();
  EXPECT_EQ(config.at("adapters/math", "").at("rank", "").integer(), 4);
  EXPECT_EQ(config.at("adapters/medical", "").at("rank", "").integer(), 2);
  EXPECT_EQ(config.at("router", "").at("data", "").dump(), R"(["math=math.jsonl", "medical=medical.jsonl"])");
}

}  // namespace
}  // namespace moe::test
