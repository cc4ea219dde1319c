// The whole road on the model and corpus that scripts/demo falls back on. Its SentencePiece-style tokenizer needs no optional
// library, so this trains, evaluates and generates on text in every build.
#include <filesystem>

#include "apps/run_program.h"

namespace moe::test {
namespace {

class Toy : public Programs {
 protected:
  void SetUp() override {
    const Ended made = run("make-toy", {folder.path()});
    ASSERT_EQ(made.status, 0) << made.err;
  }
};

TEST_F(Toy, IsTheSameEveryTime) {
  const std::string weights = file_text(path("model/model.safetensors")), rows = file_text(path("data/math/train.jsonl"));
  ASSERT_EQ(run("make-toy", {path("again")}).status, 0);
  EXPECT_EQ(file_text(path("again/model/model.safetensors")), weights);
  EXPECT_EQ(file_text(path("again/data/math/train.jsonl")), rows);
  EXPECT_EQ(count_of(rows, "\n"), 400u);
}

TEST_F(Toy, LearnsItsDomainsAndAnswers) {
  write_text(path("pipeline.json"), R"({
    "model": "model", "output_dir": "work",
    "domains": {"medical": {"data": "data/medical/train.jsonl", "tasks": "data/medical/heldout.jsonl"},
                "math": {"data": "data/math/train.jsonl", "tasks": "data/math/heldout.jsonl"}},
    "adapters": {"learning_rate": 0.01, "batch_size": 8, "max_length": 128, "max_steps": 20},
    "router": {"batch_size": 12, "max_length": 128, "max_steps": 10},
    "evaluate": {"limit": 4}})");
  const Ended ended = train({"pipeline", "--config", "pipeline.json"});
  ASSERT_EQ(ended.status, 0) << ended.err;
  EXPECT_TRUE(std::filesystem::exists(path("work/evaluation/evaluation_results.json")));

  // The text of a domain has become likelier, and the answer is text.
  std::vector<double> losses;
  std::istringstream metrics(file_text(path("work/domain_models/math/metrics.jsonl")));
  for (std::string line; std::getline(metrics, line);) {
    const Json row = Json::parse(line, "metrics");
    if (const Json *loss = row.find("loss")) losses.push_back(loss->number());
  }
  ASSERT_EQ(losses.size(), 20u);
  EXPECT_LT(losses.back(), 0.6 * losses.front());
  const Ended answer =
      eval({"generate", "--model", "model", "--moe", "work/moe_model", "--prompt", "No. face?", "--max-new-tokens", "8"});
  ASSERT_EQ(answer.status, 0) << answer.err;
  EXPECT_FALSE(answer.out.empty());
}

}  // namespace
}  // namespace moe::test
