// Perplexity by its written rule, against a brute-force reading of it.
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "eval/evaluation.h"
#include "support/brute_force.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"
#include "support/tiny_model.h"

namespace moe {
namespace {

std::vector<int32_t> some_tokens(int count, int32_t vocabulary) {
  std::vector<int32_t> tokens;
  for (int i = 0; i < count; i++) tokens.push_back(static_cast<int32_t>((i * i * 31 + i * 17 + 5) % vocabulary));
  return tokens;
}

// The golden Llama with a head of zeros: every token has probability 1 / V.
std::shared_ptr<const BaseModel> constant_model(const test::TemporaryFolder &folder) {
  const std::string source = test::golden_path("models/llama");
  write_file_atomic(folder / "config.json", read_file(source + "/config.json"));
  const Safetensors file(source);
  std::map<std::string, std::vector<float>> values;
  std::vector<TensorToWrite> tensors;
  for (const TensorInfo &tensor : file.tensors()) {
    std::vector<float> &stored = values[tensor.name] = file.read_floats(tensor);
    if (tensor.name == "lm_head.weight") std::fill(stored.begin(), stored.end(), 0.0f);
    tensors.push_back({tensor.name, DType::f32, tensor.shape, stored.data()});
  }
  write_safetensors(folder / "model.safetensors", tensors);
  return BaseModel::load(folder.path(), test::model_options("auto"));
}

TEST(Perplexity, OfAConstantProbabilityModelIsTheVocabulary) {
  const test::TemporaryFolder folder;
  const auto model = constant_model(folder);
  const double v = static_cast<double>(model->config().vocabulary);
  const auto tokens = some_tokens(301, static_cast<int32_t>(model->config().vocabulary));
  for (const auto &[window, stride] : {std::pair<int64_t, int64_t>{2, 1}, {16, 8}, {100, 99}, {1024, 512}}) {
    const PerplexityResult result = perplexity(*model, {}, tokens, window, stride, nullptr);
    EXPECT_NEAR(result.perplexity / v, 1, 1e-6) << window;
    EXPECT_EQ(result.tokens_scored, 300) << window;
    EXPECT_EQ(result.nll.size(), 300u);
  }
}

TEST(Perplexity, EqualsAReadingOfTheRuleWindowByWindow) {
  const auto model = test::golden_model("models/llama");
  const auto tokens = some_tokens(97, static_cast<int32_t>(model->config().vocabulary));
  for (const auto &[window, stride] : {std::pair<int64_t, int64_t>{32, 16}, {20, 19}, {20, 3}, {97, 50}, {200, 100}}) {
    std::vector<double> wanted(tokens.size(), -1);
    for (size_t start = 0; start < tokens.size(); start += static_cast<size_t>(stride)) {
      const size_t length = std::min(static_cast<size_t>(window), tokens.size() - start);
      const auto nll = test::token_nll(*model, {}, std::span(tokens).subspan(start, length));
      for (size_t i = 1; i < length; i++)
        if (wanted[start + i] < 0) wanted[start + i] = nll[i];
    }
    const PerplexityResult result = perplexity(*model, {}, tokens, window, stride, nullptr);
    ASSERT_EQ(result.nll.size(), tokens.size() - 1);
    double sum = 0;
    for (size_t t = 1; t < tokens.size(); t++) {
      EXPECT_NEAR(result.nll[t - 1], wanted[t], 1e-4) << "window " << window << " token " << t;
      sum += wanted[t];
    }
    EXPECT_NEAR(result.mean_nll, sum / static_cast<double>(tokens.size() - 1), 1e-5);
    EXPECT_NEAR(result.perplexity, std::exp(result.mean_nll), 1e-9);
    EXPECT_EQ(result.window, window);
    EXPECT_EQ(result.stride, stride);
    EXPECT_EQ(result.tokens, 97);
  }
}

TEST(Perplexity, RefusesWindowsThatLeaveTokensOut) {
  const auto model = test::golden_model("models/llama");
  const auto tokens = some_tokens(10, 50);
  EXPECT_FAILS(perplexity(*model, {}, tokens, 1, 1, nullptr), Code::invalid, "window");
  EXPECT_FAILS(perplexity(*model, {}, tokens, 8, 8, nullptr), Code::invalid, "stride");
  EXPECT_FAILS(perplexity(*model, {}, tokens, 8, 0, nullptr), Code::invalid, "stride");
  EXPECT_FAILS(perplexity(*model, {}, {3}, 8, 4, nullptr), Code::invalid, "nothing to score");
  Cancel fired;
  fired.fire();
  EXPECT_FAILS(perplexity(*model, {}, tokens, 8, 4, &fired), Code::cancelled, "cancelled");
}

}  // namespace
}  // namespace moe
