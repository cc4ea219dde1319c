// Inference with int8 activations on the small quantized models: close to strict f32, the same for any number of threads, and
// (up to f32 sums) the same whether a prompt is read at once or token by token.
#include <gtest/gtest.h>

#include "model/inference_pass.h"
#include "support/golden.h"
#include "support/reference.h"

namespace moe {
namespace {

std::shared_ptr<const BaseModel> load(const std::string &file, const char *compute, int threads) {
  return test::golden_model("gguf/" + file, compute, threads);
}

// Logits behind the last of some tokens, appended in pieces of at most `piece`.
std::vector<float> logits_of(const BaseModel &model, size_t piece, uint64_t count = 40) {
  std::vector<int32_t> tokens;
  for (uint64_t i = 0; i < count; i++) tokens.push_back(static_cast<int32_t>(test::random_bits(5, i) % static_cast<uint64_t>(model.config().vocabulary)));
  std::vector<float> logits(static_cast<size_t>(model.config().vocabulary));
  KvCache cache(model, static_cast<int64_t>(count));
  InferenceScratch scratch;
  for (size_t i = 0; i < tokens.size(); i += piece) {
    Segment segment;
    segment.tokens = std::span(tokens).subspan(i, std::min(piece, tokens.size() - i));
    segment.cache = &cache;
    segment.logits = logits.data();
    inference_pass(model, {}, std::span(&segment, 1), scratch);
  }
  return logits;
}

class Int8Inference : public testing::TestWithParam<const char *> {};

TEST_P(Int8Inference, IsCloseToStrictF32) {
  const auto model = load(GetParam(), "int8", 2);
  EXPECT_STREQ(model->inference_compute(), "int8");
  EXPECT_STREQ(model->compute(), "bf16");
  const std::vector<float> strict = logits_of(*load(GetParam(), "f32", 2), 40);
  const double error = test::nmse(test::to_double(strict), logits_of(*model, 40));
  EXPECT_LT(error, 5e-3);
  EXPECT_GT(error, 1e-9) << "the products were not integer products";
}

TEST_P(Int8Inference, DoesNotDependOnThreadsAndHardlyOnPieces) {
  const auto model = load(GetParam(), "int8", 1);
  const std::vector<float> whole = logits_of(*model, 40);
  EXPECT_TRUE(test::same_bits(whole, logits_of(*load(GetParam(), "int8", 3), 40)));
  for (const size_t piece : {1, 7}) EXPECT_LT(test::nmse(test::to_double(whole), logits_of(*model, piece)), 5e-4) << piece;
}

// `auto` takes what the backend computes faster, pass by pass; `int8` stays what it says.
TEST_P(Int8Inference, AutoFollowsTheLengthOfAPass) {
  constexpr uint64_t kTokens = 120;
  const auto automatic = load(GetParam(), "auto", 2), int8 = load(GetParam(), "int8", 2), bf16 = load(GetParam(), "bf16", 2);
  const auto same = [](const BaseModel &a, const BaseModel &b, size_t piece) {
    return test::same_bits(logits_of(a, piece, kTokens), logits_of(b, piece, kTokens));
  };
  // the head of the last token is a product of its own, of one row
  EXPECT_EQ(same(*automatic, *int8, kTokens), automatic->backend().fast_int8(kTokens));
  EXPECT_EQ(same(*automatic, *int8, 7), automatic->backend().fast_int8(7));
  if (!automatic->backend().fast_int8(1)) {
    EXPECT_TRUE(same(*automatic, *bf16, kTokens));
  }
  EXPECT_FALSE(same(*int8, *bf16, kTokens));
  const auto strict = test::to_double(logits_of(*load(GetParam(), "f32", 2), kTokens, kTokens));
  EXPECT_LT(test::nmse(strict, logits_of(*automatic, kTokens, kTokens)), 5e-3);
}

INSTANTIATE_TEST_SUITE_P(Models, Int8Inference,
                         testing::Values("llama-Q4_0.gguf", "llama-Q4_1.gguf", "llama-Q5_0.gguf", "llama-Q8_0.gguf",
                                         "qwen3-Q5_1.gguf", "gemma3-Q8_0.gguf"),
                         [](const auto &file) {
                           std::string name = file.param;
                           name.resize(name.find('.'));
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(Int8Inference, PlainWeightsHaveNoIntegerProducts) {
  const auto model = load("llama-BF16.gguf", "int8", 1);
  EXPECT_STREQ(model->inference_compute(), "bf16");
  EXPECT_TRUE(test::same_bits(logits_of(*model, 40), logits_of(*load("llama-BF16.gguf", "bf16", 1), 40)));
}

}  // namespace
}  // namespace moe
