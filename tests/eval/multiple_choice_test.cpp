// The shared prompt, the copied caches and the packed pass against a full forward of every prompt + choice.
#include "eval/multiple_choice.h"

#include <gtest/gtest.h>

#include "support/brute_force.h"
#include "support/needs.h"
#include "support/tiny_model.h"

namespace moe {
namespace {

Example question(const std::vector<std::string> &choices, int32_t gold = 0) {
  Example example;
  example.kind = SchemaKind::multiple_choice;
  for (const std::string &choice : choices) example.choices.push_back({choice, " " + choice});
  example.gold = gold;
  return example;
}

double brute_force(const BaseModel &model, const Overlay &overlay, const Continuation &choice) {
  const auto nll = test::token_nll(model, overlay, choice.tokens);
  double sum = 0;
  for (size_t t = static_cast<size_t>(choice.first_scored); t < nll.size(); t++) sum -= nll[t];
  return sum;
}

TEST(MultipleChoice, LogLikelihoodsEqualFullForwards) {
  NEEDS_UTF8PROC();
  const auto model = test::tiny_model();
  const auto adapter = test::noisy_adapter(*model, 4);
  const auto mixture = test::noisy_mixture(*model, {"a", "b"}, 8);
  for (const Overlay &overlay : {Overlay{}, Overlay{adapter.get(), nullptr}, Overlay{nullptr, mixture.get()}}) {
    std::vector<ChoiceQuestion> questions(5);
    std::string reason;
    const std::string long_prompt = "Question: " + std::string(300, 'q') + " and so on?\nAnswer:";
    ASSERT_TRUE(make_question(*model->tokenizer(), long_prompt, question({"red", "red wine", "blue", "r"}, 1), 1024, questions[0],
                              reason));
    ASSERT_TRUE(make_question(*model->tokenizer(), "", question({"one", "two"}), 1024, questions[1], reason));
    ASSERT_TRUE(make_question(*model->tokenizer(), "Q?\nA:", question({"the same start, one end", "the same start, other end"}),
                              1024, questions[2], reason));
    // The tokens part before the scored ones (as where the end of a prompt merges with the choice), and at once.
    ChoiceQuestion &early = questions[3];
    early.choices = {{{5, 9, 20, 30, 40}, 3}, {{5, 9, 21, 30}, 3}, {{5, 9, 20, 33}, 2}};
    early.shared = 2;
    ChoiceQuestion &letters = questions[4];
    letters.choices = {{{5, 9, 20, 65}, 3}, {{5, 9, 20, 66}, 3}};
    letters.shared = 3;
    Scorer scorer(*model, overlay, nullptr);
    for (int repeat = 0; repeat < 2; repeat++) {  // caches are used again
      scorer.score(questions);
      for (const ChoiceQuestion &one : questions) {
        ASSERT_EQ(one.log_likelihood.size(), one.choices.size());
        for (size_t c = 0; c < one.choices.size(); c++)
          EXPECT_NEAR(one.log_likelihood[c], brute_force(*model, overlay, one.choices[c]), 2e-3) << c;
      }
    }
    if (overlay.mixture) {
      EXPECT_EQ(questions[0].routing.tokens, static_cast<int64_t>(questions[0].choices[1].tokens.size()) - 1);
      double sum = 0;
      for (const double weight : questions[0].routing.weights) sum += weight;
      EXPECT_NEAR(sum, static_cast<double>(questions[0].routing.tokens), 1e-3);
    } else {
      EXPECT_TRUE(questions[0].routing.weights.empty());
    }
  }
}

TEST(MultipleChoice, ThePromptIsShared) {
  NEEDS_UTF8PROC();
  const auto model = test::tiny_model();
  ChoiceQuestion one;
  std::string reason;
  ASSERT_TRUE(make_question(*model->tokenizer(), "Question: what?\nAnswer:", question({"x", "yy"}), 1024, one, reason));
  EXPECT_EQ(one.shared, one.choices[0].first_scored);
  int64_t tokens = one.shared;
  for (const Continuation &choice : one.choices) tokens += static_cast<int64_t>(choice.tokens.size()) - 1 - one.shared;
  EXPECT_EQ(tokens_of(one), tokens);
  EXPECT_LT(tokens_of(one), static_cast<int64_t>(one.choices[0].tokens.size() + one.choices[1].tokens.size()));
}

TEST(MultipleChoice, ManyQuestionsAtOnceEqualThemOneByOne) {
  NEEDS_UTF8PROC();
  const auto model = test::tiny_model();
  std::vector<ChoiceQuestion> questions(2 * kScoringItems + 5);
  std::string reason;
  for (size_t i = 0; i < questions.size(); i++) {
    const std::string prompt = "Question " + std::to_string(i * i) + "?\nAnswer:";
    ASSERT_TRUE(
        make_question(*model->tokenizer(), prompt, question({"yes", "no", std::to_string(i)}), 1024, questions[i], reason));
  }
  std::vector<ChoiceQuestion> alone = questions;
  Scorer scorer(*model, {}, nullptr);
  scorer.score(questions);
  for (size_t i = 0; i < alone.size(); i++) {
    scorer.score(std::span(alone).subspan(i, 1));
    for (size_t c = 0; c < 3; c++) EXPECT_NEAR(questions[i].log_likelihood[c], alone[i].log_likelihood[c], 1e-3) << i;
  }
}

TEST(MultipleChoice, WhatCannotBeScoredHasAReason) {
  NEEDS_UTF8PROC();
  const auto model = test::tiny_model();
  ChoiceQuestion one;
  std::string reason;
  Example empty = question({"x", "y"});
  empty.choices[1].continuation = "";
  EXPECT_FALSE(make_question(*model->tokenizer(), "Prompt", empty, 1024, one, reason));
  EXPECT_NE(reason.find("scored"), std::string::npos);
  EXPECT_FALSE(make_question(*model->tokenizer(), std::string(100, 'p'), question({"x", "y"}), 8, one, reason));
  EXPECT_NE(reason.find("max_length 8"), std::string::npos);
  EXPECT_FALSE(make_question(*model->tokenizer(), "Prompt", question({}), 1024, one, reason));
}

TEST(MultipleChoice, TheFirstOfEqualScoresWins) {
  EXPECT_EQ(best_choice(std::vector<double>{-3, -1, -1}), 1);
  const std::vector<double> scores = {-4, -9};
  const std::vector<int64_t> bytes = {2, 9};
  EXPECT_EQ(best_choice(scores), 0);
  EXPECT_EQ(best_choice(per_byte(scores, bytes)), 1);
}

TEST(Groups, HoldAboutAThousandTokensAndEveryItem) {
  const std::vector<int64_t> tokens = {400, 500, 200, 3000, 10, 10};
  EXPECT_EQ(groups_of_tokens(tokens), (std::vector<size_t>{2, 3, 4, 6}));
  EXPECT_TRUE(groups_of_tokens({}).empty());
  EXPECT_EQ(groups_of_tokens(std::vector<int64_t>(2 * kScoringItems + 1, 1)),
            (std::vector<size_t>{kScoringItems, 2 * kScoringItems, 2 * kScoringItems + 1}));
}

}  // namespace
}  // namespace moe
