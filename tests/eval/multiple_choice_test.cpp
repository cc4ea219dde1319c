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

TEST(MultipleChoice, AFrontIsComputedOnceAndChangesNothing) {
  NEEDS_UTF8PROC();
  const auto model = test::tiny_model();
  const auto mixture = test::noisy_mixture(*model, {"a", "b"}, 8);
  const std::string front = "One solved example, then another, and an empty line.\n\n";
  std::vector<ChoiceQuestion> questions(12);
  std::string reason;
  for (size_t i = 0; i < questions.size(); i++) {
    const std::string prompt = (i == 5 ? "" : front) + "Question " + std::to_string(i * i) + "?\nAnswer:";  // one without it
    ASSERT_TRUE(make_question(*model->tokenizer(), prompt, question({"yes", "no", std::to_string(i)}), 1024, questions[i], reason));
  }
  std::vector<ChoiceQuestion> plain = questions;
  const Overlay overlay{nullptr, mixture.get()};
  Scorer(*model, overlay, nullptr).score(plain);
  Scorer scorer(*model, overlay, nullptr);
  const std::vector<int32_t> tokens = tokenize_prompt(*model->tokenizer(), front);
  scorer.set_front(tokens);
  scorer.score(questions);
  for (size_t i = 0; i < questions.size(); i++) {
    const int64_t saved = i == 5 ? 0 : static_cast<int64_t>(tokens.size());
    EXPECT_EQ(scorer.cost(questions[i]), tokens_of(plain[i]) - saved);
    EXPECT_EQ(questions[i].routing.tokens, plain[i].routing.tokens - saved);  // that of the item, not of the examples
    for (size_t c = 0; c < 3; c++) EXPECT_NEAR(questions[i].log_likelihood[c], plain[i].log_likelihood[c], 1e-3) << i;
  }
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

// What held-out loss makes of the same row: the prompt masked, an end token.
TokenizedExample with_end(const Continuation &choice, int32_t end) {
  TokenizedExample result{choice.tokens, {}};
  result.tokens.push_back(end);
  for (size_t t = 0; t < result.tokens.size(); t++) {
    const bool scored = t + 1 < result.tokens.size() && static_cast<int64_t>(t) + 1 >= choice.first_scored;
    result.labels.push_back(scored ? result.tokens[t + 1] : kNoLabel);
  }
  return result;
}

TEST(MultipleChoice, TheRightChoiceGivesTheLossOfItsSequence) {
  NEEDS_UTF8PROC();
  const auto model = test::tiny_model();
  const auto mixture = test::noisy_mixture(*model, {"a", "b"}, 8);
  for (const Overlay &overlay : {Overlay{}, Overlay{nullptr, mixture.get()}}) {
    for (const bool ends : {true, false}) {
      ChoiceQuestion one;
      std::string reason;
      ASSERT_TRUE(make_question(*model->tokenizer(), "Question: what?\nAnswer:", question({"x", "yes, two", "no"}, 1), 1024, one,
                                reason));
      ChoiceQuestion plain = one;
      TokenizedExample sequence = with_end(one.choices[1], 7);
      if (!ends) sequence.tokens.pop_back(), sequence.labels.pop_back(), sequence.labels.back() = kNoLabel;
      ASSERT_TRUE(gives_loss(one, sequence));
      EXPECT_EQ(tokens_of(one), tokens_of(plain) + ends);
      Scorer scorer(*model, overlay, nullptr);
      ScoredSequence alone{sequence.tokens, sequence.labels, {}, {}};
      scorer.score(std::span(&alone, 1));
      scorer.score(std::span(&one, 1));
      scorer.score(std::span(&plain, 1));
      double nll = 0;
      int64_t tokens = 0;
      for (size_t t = 0; t < alone.labels.size(); t++)
        if (alone.labels[t] != kNoLabel) nll += alone.nll[t], tokens++;
      EXPECT_NEAR(completion_nll(one).nll, nll, 1e-4);
      EXPECT_EQ(completion_nll(one).tokens, tokens);
      for (size_t c = 0; c < 3; c++)
        EXPECT_NEAR(one.log_likelihood[c], plain.log_likelihood[c], 1e-4) << "the end counts in " << c;
      ASSERT_EQ(one.routing.weights.size(), alone.routing.weights.size());
      EXPECT_EQ(one.routing.tokens, alone.routing.tokens);
      for (size_t e = 0; e < one.routing.weights.size(); e++)
        EXPECT_NEAR(one.routing.weights[e], alone.routing.weights[e], 1e-4);
    }
  }
}

TEST(MultipleChoice, AnotherSequenceDoesNotGiveTheLoss) {
  NEEDS_UTF8PROC();
  const auto model = test::tiny_model();
  ChoiceQuestion one;
  std::string reason;
  ASSERT_TRUE(make_question(*model->tokenizer(), "Q?\nA:", question({"x", "yes"}, 1), 1024, one, reason));
  const TokenizedExample right = with_end(one.choices[1], 7);
  const auto differs = [&](auto change) {
    TokenizedExample other = right;
    change(other);
    return !gives_loss(one, other) && one.end == -1;
  };
  EXPECT_TRUE(differs([](TokenizedExample &other) { other.tokens[0]++; }));
  EXPECT_TRUE(differs([](TokenizedExample &other) { other.labels[0] = other.tokens[1]; }));  // a token of the prompt counts
  EXPECT_TRUE(differs([](TokenizedExample &other) { other.labels[other.labels.size() - 2] = kNoLabel; }));
  EXPECT_TRUE(differs([](TokenizedExample &other) { other.tokens.push_back(7), other.labels.push_back(kNoLabel); }));
  EXPECT_TRUE(gives_loss(one, right));
}

TEST(MultipleChoice, ThreadsChangeNoBit) {
  NEEDS_UTF8PROC();
  std::vector<std::vector<double>> results[2];
  for (const int threads : {1, 3}) {
    const auto model = test::tiny_model(threads, "auto");
    std::vector<ChoiceQuestion> questions(9);
    std::string reason;
    for (size_t i = 0; i < questions.size(); i++) {
      const std::string prompt = "Question " + std::string(7 * i, 'q') + "?\nAnswer:";
      ASSERT_TRUE(make_question(*model->tokenizer(), prompt, question({"yes", "no", std::string(i + 1, 'z')}), 1024, questions[i],
                                reason));
      questions[i].end = 7;
    }
    Scorer(*model, {}, nullptr).score(questions);
    for (const ChoiceQuestion &one : questions) {
      results[threads / 2].push_back(one.log_likelihood);
      results[threads / 2].back().push_back(one.end_log_likelihood);
    }
  }
  EXPECT_EQ(results[0], results[1]);
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

TEST(MultipleChoice, TheLastLineIsThePremise) {
  EXPECT_EQ(last_line("Question: what?\nA. x\nAnswer:"), "Answer:");
  EXPECT_EQ(last_line("one\ntwo\n\n"), "two\n\n");
  EXPECT_EQ(last_line("one line"), "one line");
  EXPECT_EQ(last_line("\n"), "\n");
  EXPECT_EQ(last_line(""), "");
  EXPECT_EQ(gained(std::vector<double>{-3, -9}, std::vector<double>{-4, -20}), (std::vector<double>{1, 11}));
}

TEST(Groups, HoldAboutTwoThousandTokensAndEveryItem) {
  const std::vector<int64_t> tokens = {800, 1000, 400, 6000, 10, 10};
  EXPECT_EQ(groups_of_tokens(tokens), (std::vector<size_t>{2, 3, 4, 6}));
  EXPECT_TRUE(groups_of_tokens({}).empty());
  EXPECT_EQ(groups_of_tokens(std::vector<int64_t>(2 * kScoringItems + 1, 1)),
            (std::vector<size_t>{kScoringItems, 2 * kScoringItems, 2 * kScoringItems + 1}));
}

}  // namespace
}  // namespace moe
