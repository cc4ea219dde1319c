// What every verb has: help, misspelt names, configuration files, exit statuses.
#include <moe.h>

#include <filesystem>

#include "apps/run_program.h"

namespace moe::test {
namespace {

class CommandLine : public Programs {};

TEST_F(CommandLine, HelpNamesTheVerbsAndEveryVerbItsOptionsWithDefaults) {
  EXPECT_NE(train({"--help"}).out.find("pipeline"), std::string::npos);
  EXPECT_NE(eval({"--help"}).out.find("perplexity"), std::string::npos);
  for (const char *verb : {"lora", "build", "router", "pipeline", "plan", "doctor"}) {
    const Ended help = train({verb, "--help"});
    EXPECT_EQ(help.status, 0) << verb;
    EXPECT_EQ(help.err, "") << verb;
    EXPECT_NE(help.out.find("  --threads INT"), std::string::npos) << verb;
  }
  for (const char *verb : {"run", "perplexity", "generate", "chat", "bench", "inspect", "tokenize", "render", "data", "dump"}) {
    const Ended help = eval({verb, "--help"});
    EXPECT_EQ(help.status, 0) << verb;
    EXPECT_NE(help.out.find("  --model TEXT"), std::string::npos) << verb;
  }
  EXPECT_NE(train({"lora", "--help"}).out.find("(0 to 10; default 2e-4)"), std::string::npos);
}

TEST_F(CommandLine, VersionIsPrinted) {
  EXPECT_EQ(train({"--version"}).out, "moe-train " + std::string(moe_version()) + "\n");
  EXPECT_EQ(eval({"run", "--version"}).out, "moe-eval " + std::string(moe_version()) + "\n");
}

TEST_F(CommandLine, AMisspeltOptionIsWrongUsageAndTheNearestNameIsGiven) {
  const Ended ended = train({"lora", "--lerning-rate", "1e-3"});
  EXPECT_EQ(ended.status, 2);
  EXPECT_NE(ended.err.find("did you mean 'learning_rate'"), std::string::npos) << ended.err;
  expect_one_error_line(ended, "moe-train");
}

TEST_F(CommandLine, WrongUsageIsStatus2) {
  const std::vector<Words> all = {{},
                                  {"fly"},
                                  {"merge"},
                                  {"quantize", "--type", "q8_0"},
                                  {"lora"},                            // no model
                                  {"lora", "--rank"},                  // no value
                                  {"lora", "--rank", "--alpha", "3"},  // no value either
                                  {"lora", "--rank", "0"},             // out of bounds
                                  {"lora", "--rank", "many"},          // no number
                                  {"lora", "--prompt", "x"},           // an option of another verb
                                  {"lora", "-r", "3"},                 // no single letters
                                  {"lora", "stray"},                   // no operand
                                  {"doctor", "--json=1"}};             // a switch
  for (const Words &words : all) {
    const Ended ended = train(words);
    EXPECT_EQ(ended.status, 2) << ::testing::PrintToString(words);
    EXPECT_EQ(ended.out, "") << ::testing::PrintToString(words);
    expect_one_error_line(ended, "moe-train");
  }
}

TEST_F(CommandLine, FlagsMayBeWrittenInSeveralWaysAndTheConfigurationIsPrinted) {
  const Ended ended = train({"lora", "--model=m", "--num_train_epochs", "3", "--lora-alpha", "8", "--rslora", "--resume", "false",
                             "--target-modules", "q_proj,v_proj", "--print-config"});
  ASSERT_EQ(ended.status, 0) << ended.err;
  const Json config = ended.json();
  EXPECT_EQ(config.at("model", "").string(), "m");
  EXPECT_EQ(config.at("epochs", "").integer(), 3);
  EXPECT_EQ(config.at("alpha", "").number(), 8);
  EXPECT_TRUE(config.at("rslora", "").boolean());
  EXPECT_FALSE(config.at("resume", "").boolean());
  EXPECT_EQ(config.at("target_modules", "").dump(), R"(["q_proj", "v_proj"])");
  EXPECT_EQ(config.at("rank", "").integer(), 16);
}

TEST_F(CommandLine, ARepeatedListFlagTakesItsElementsAsTheyAre) {
  const Ended ended = eval({"generate", "--stop", "a,b", "--stop", "\n", "--print-config"});
  ASSERT_EQ(ended.status, 0) << ended.err;
  EXPECT_EQ(ended.json().at("stop", "").dump(), R"(["a,b", "\n"])");
  EXPECT_EQ(eval({"generate", "--stop", "a,b", "--print-config"}).json().at("stop", "").dump(), R"(["a", "b"])");
}

TEST_F(CommandLine, FlagsWinOverTheConfigurationFile) {
  write_text(path("c.json"), R"({"rank": 4, "learning-rate": 0.5, "data": {"math": "m.jsonl"}})");
  const Json config = train({"lora", "--rank", "8", "--config", "c.json", "--print-config"}).json();
  EXPECT_EQ(config.at("rank", "").integer(), 8);
  EXPECT_EQ(config.at("learning_rate", "").number(), 0.5);
  EXPECT_EQ(config.at("data", "").dump(), R"(["math=m.jsonl"])");
  for (const char *bad : {R"({"rank": 0})", R"({"rankk": 1})", "[1]", "{"}) {
    write_text(path("c.json"), bad);
    const Ended ended = train({"lora", "--config", "c.json", "--print-config"});
    EXPECT_EQ(ended.status, 2) << bad;
    EXPECT_NE(ended.err.find("c.json"), std::string::npos) << ended.err;
  }
}

TEST_F(CommandLine, DoctorTellsOfTheMachine) {
  const Json json = train({"doctor", "--json"}).json();
  EXPECT_EQ(json.at("version", "").string(), moe_version());
  EXPECT_GE(json.at("threads", "").integer(), 1);
  EXPECT_NE(train({"doctor"}).out.find("cpu_level"), std::string::npos);
}

TEST_F(CommandLine, DoctorListsTheModelsAdaptersAndBundlesThatAreThere) {
  std::filesystem::create_directories(path("models/hf"));
  std::filesystem::copy(tiny, path("models/tiny.gguf"));
  std::filesystem::copy(std::string(MOE_TESTS_DIR) + "/golden/models/llama", path("models/hf"));
  write_text(path("models/broken.gguf"), "GGUF");
  write_text(path("models/notes.txt"), "no model");
  std::filesystem::create_directories(path("domain_models/legal/final_adapter"));
  std::filesystem::copy(std::string(MOE_TESTS_DIR) + "/golden/lora/llama_qv_rslora", path("domain_models/legal/final_adapter"));
  setenv("MOE_MODELS_DIR", path("models").c_str(), 1);
  const Ended table = train({"doctor"});
  const Json json = train({"doctor", "--json"}).json();
  setenv("MOE_MODELS_DIR", path("nowhere").c_str(), 1);
  const Json empty = train({"doctor", "--json"}).json();
  unsetenv("MOE_MODELS_DIR");
  EXPECT_EQ(json.at("models_folder", "").string(), path("models"));
  std::string found;
  for (const Json &one : json.at("models", "").items()) {
    found += one.at("kind", "").string() + " " + one.at("path", "").string().substr(one.at("path", "").string().rfind('/') + 1);
    found += one.find("error") ? " bad, " : one.find("family") ? " " + one.at("family", "").string() + ", " : ", ";
  }
  EXPECT_EQ(found, "model broken.gguf bad, model hf llama, model tiny.gguf qwen3, adapter final_adapter, ");
  EXPECT_GT(json.at("models", "").items()[2].at("parameters", "").integer(), 1000);
  EXPECT_EQ(table.status, 0);
  EXPECT_NE(table.out.find("tiny.gguf: qwen3, "), std::string::npos) << table.out;
  EXPECT_NE(table.out.find("broken.gguf: CANNOT BE USED: "), std::string::npos) << table.out;
  EXPECT_EQ(empty.at("models", "").size(), 1u);  // the adapter
}

TEST_F(CommandLine, ATruncatedModelIsOneErrorLine) {
  const std::string whole = file_text(tiny);
  for (size_t length : {whole.size() / 2, size_t{100}, size_t{0}}) {
    write_text(path("cut.gguf"), whole.substr(0, length));
    const Ended ended = eval({"generate", "--model", "cut.gguf", "--prompt", "x"});
    EXPECT_EQ(ended.status, 1);
    EXPECT_EQ(ended.out, "");
    expect_one_error_line(ended, "moe-eval");
    EXPECT_NE(ended.err.find("cut.gguf"), std::string::npos) << ended.err;
  }
}

TEST_F(CommandLine, AFullDiskIsAnErrorOfTheOutput) {
  if (access("/dev/full", W_OK) != 0) GTEST_SKIP() << "no /dev/full here";
  const pid_t child = fork();
  if (child == 0) {
    const bool ready = dup2(open("/dev/full", O_WRONLY), 1) == 1 && dup2(open("/dev/null", O_WRONLY), 2) == 2;
    if (ready) execl((std::string(MOE_APPS_DIR) + "/moe-train").c_str(), "moe-train", "doctor", "--json", nullptr);
    _exit(127);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 1);
}

}  // namespace
}  // namespace moe::test
