// Whole answers: streaming, end tokens, stop strings, cancelling.
#include <gtest/gtest.h>

#include <cmath>

#include "generate/session.h"
#include "support/expect_error.h"
#include "support/needs.h"
#include "support/tiny_model.h"

namespace moe {
namespace {

using test::tiny_model;

GenerateOptions sampled(int64_t tokens, uint64_t seed = 3) {
  GenerateOptions options;
  options.sampler.do_sample = true;
  options.sampler.seed = seed;
  options.max_new_tokens = tokens;
  options.ignore_eos = true;
  return options;
}

Generation generate(const GenerateOptions &options, const std::function<bool(const Piece &)> &on_piece = nullptr,
                    const std::shared_ptr<Mixture> &mixture = nullptr, Session *out = nullptr) {
  Session own(tiny_model(), nullptr, mixture);
  Session &session = out ? *out : own;
  if (session.tokens().empty()) session.append_text("The quick brown fox", true, false);
  return session.generate(options, on_piece);
}

TEST(Generation, StreamedPiecesJoinToTheText) {
  NEEDS_UTF8PROC();
  std::string streamed;
  std::vector<int32_t> tokens;
  const Generation result = generate(sampled(60), [&](const Piece &piece) {
    streamed += piece.text;
    if (piece.token >= 0) tokens.push_back(piece.token);
    return true;
  });
  EXPECT_EQ(result.text, streamed);
  EXPECT_EQ(result.tokens, tokens);
  EXPECT_EQ(result.tokens.size(), 60u);
  EXPECT_EQ(result.log_probabilities.size(), 60u);
  EXPECT_EQ(result.finish_reason, "length");
  EXPECT_GT(result.prompt_tokens, 0);
  EXPECT_GT(result.generate_seconds, 0);
  EXPECT_FALSE(result.text.empty());
}

TEST(Generation, TextIsThatOfTheTokensWithWholeCharactersOnly) {
  NEEDS_UTF8PROC();
  const auto model = tiny_model();
  const Generation result = generate(sampled(80));
  StreamDecoder decoder(*model->tokenizer());
  std::string wanted;
  for (const int32_t token : result.tokens) {
    const auto &ends = model->tokenizer()->end_tokens();
    if (std::find(ends.begin(), ends.end(), token) == ends.end()) wanted += decoder.push(token);
  }
  EXPECT_EQ(result.text, wanted + decoder.finish());
}

TEST(Generation, StopsAtAStopStringAcrossPieces) {
  NEEDS_UTF8PROC();
  const Generation whole = generate(sampled(60));
  ASSERT_GT(whole.text.size(), 30u);
  // A stretch of the text that begins and ends inside of tokens.
  for (const size_t begin : {7u, 12u, 20u}) {
    const std::string stop = whole.text.substr(begin, 9);
    GenerateOptions options = sampled(60);
    options.stop = {"never in this text", stop};
    std::string streamed;
    bool ended = false;
    const Generation result = generate(options, [&](const Piece &piece) {
      EXPECT_FALSE(ended);
      streamed += piece.text;
      ended = piece.end;
      return true;
    });
    EXPECT_EQ(result.text, whole.text.substr(0, whole.text.find(stop)));
    EXPECT_EQ(streamed, result.text);
    EXPECT_EQ(result.finish_reason, "stop");
    EXPECT_TRUE(ended);
    EXPECT_LT(result.tokens.size(), 60u);
  }
}

TEST(Generation, AnEndTokenEndsTheAnswerAndHasNoText) {
  NEEDS_UTF8PROC();
  const auto model = tiny_model();
  const auto &ends = model->tokenizer()->end_tokens();
  ASSERT_FALSE(ends.empty());
  // With a flat distribution some seed meets an end token soon.
  GenerateOptions options = sampled(400);
  options.sampler.temperature = 20;
  options.ignore_eos = false;
  Session session(model);
  bool ended = false;
  const Generation result = generate(
      options, [&](const Piece &piece) { return ended = piece.end, true; }, nullptr, &session);
  ASSERT_EQ(result.finish_reason, "eos");
  EXPECT_NE(std::find(ends.begin(), ends.end(), result.tokens.back()), ends.end());
  EXPECT_EQ(session.tokens().back(), result.tokens.back());
  const std::vector<int32_t> before(result.tokens.begin(), result.tokens.end() - 1);
  StreamDecoder decoder(*model->tokenizer());
  std::string wanted;
  for (const int32_t token : before) wanted += decoder.push(token);
  EXPECT_EQ(result.text, wanted + decoder.finish());

  options.ignore_eos = true;
  options.max_new_tokens = static_cast<int64_t>(result.tokens.size()) + 5;
  const Generation longer = generate(options);
  EXPECT_EQ(longer.finish_reason, "length");
  EXPECT_EQ(std::vector<int32_t>(longer.tokens.begin(), longer.tokens.begin() + static_cast<ptrdiff_t>(result.tokens.size())),
            result.tokens);
}

TEST(Generation, ContinuesWhereItEnded) {
  NEEDS_UTF8PROC();
  Session session(tiny_model());
  const Generation whole = generate(sampled(20)), first = generate(sampled(8), nullptr, nullptr, &session),
                   second = generate(sampled(12), nullptr, nullptr, &session);
  std::vector<int32_t> joined = first.tokens;
  joined.insert(joined.end(), second.tokens.begin(), second.tokens.end());
  EXPECT_EQ(joined, whole.tokens);
  EXPECT_EQ(second.prompt_tokens, 0);
}

TEST(Generation, CancelledByTheCallbackOrTheFlagKeepsWhatWasGenerated) {
  NEEDS_UTF8PROC();
  Session session(tiny_model());
  int calls = 0;
  const Generation result = generate(
      sampled(50), [&](const Piece &piece) { return piece.token < 0 || ++calls < 4; }, nullptr, &session);
  EXPECT_EQ(result.finish_reason, "cancelled");
  EXPECT_EQ(result.tokens.size(), 4u);
  Cancel fired;
  fired.fire();
  const Generation none = session.generate(sampled(50), nullptr, &fired);
  EXPECT_EQ(none.finish_reason, "cancelled");
  EXPECT_TRUE(none.tokens.empty());
  const Generation rest = session.generate(sampled(6), nullptr);
  const Generation whole = generate(sampled(10));
  EXPECT_EQ(rest.tokens, std::vector<int32_t>(whole.tokens.begin() + 4, whole.tokens.end()));
}

TEST(Generation, RoutingIsTheMeanOverTheTokens) {
  NEEDS_UTF8PROC();
  const auto mixture = test::noisy_mixture(*tiny_model(), {"a", "b", "c"}, 11);
  std::vector<double> sum(4, 0);
  const Generation result = generate(
      sampled(16),
      [&](const Piece &piece) {
        for (size_t e = 0; e < piece.routing.size(); e++) sum[e] += piece.routing[e];
        return true;
      },
      mixture);
  ASSERT_EQ(result.routing.size(), 4u);
  for (size_t e = 0; e < 4; e++) EXPECT_NEAR(result.routing[e], sum[e] / 16, 1e-5);
}

TEST(Generation, BadOptionsAreNamed) {
  NEEDS_UTF8PROC();
  Session session(tiny_model());
  session.append_text("x", true, false);
  GenerateOptions options;
  options.max_new_tokens = -1;
  EXPECT_FAILS(session.generate(options, nullptr), Code::invalid, "max_new_tokens");
  options.max_new_tokens = 1;
  options.stop = {""};
  EXPECT_FAILS(session.generate(options, nullptr), Code::invalid, "stop string");
}

}  // namespace
}  // namespace moe
