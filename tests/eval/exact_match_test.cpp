#include "eval/exact_match.h"

#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/needs.h"
#include "support/tiny_model.h"

namespace moe {
namespace {

TEST(MarkedAnswer, TheNumberAfterTheMarkCounts) {
  const auto strict = [](const char *text) { return parse_marked_answer(text, "####").strict; };
  EXPECT_EQ(strict("3 * 24 = 72\n#### 72"), "72");
  EXPECT_EQ(strict("#### 1,234,567"), "1234567");
  EXPECT_EQ(strict("#### $18."), "18");
  EXPECT_EQ(strict("####-5 apples"), "-5");
  EXPECT_EQ(strict("#### 2.50"), "2.50");
  EXPECT_EQ(strict("#### 7\n#### 8"), "7");
  EXPECT_EQ(strict("the answer is 72"), "");
  EXPECT_EQ(strict("#### none"), "");
  EXPECT_EQ(strict("####"), "");
  EXPECT_EQ(strict(""), "");
}

TEST(MarkedAnswer, TheLastNumberIsTheFlexibleOne) {
  const auto flexible = [](const char *text) { return parse_marked_answer(text, "####").flexible; };
  EXPECT_EQ(flexible("she has 3 apples and $1,200."), "1200");
  EXPECT_EQ(flexible("12 - 5 is -7"), "-7");
  EXPECT_EQ(flexible("#### 9 and later 10 . . ."), "10");
  EXPECT_EQ(flexible("no number - , ."), "");
}

TEST(ChoiceAnswer, IsTheTextOrTheLetterOfAChoice) {
  const std::vector<Choice> choices = {{"Odontoma", ""}, {"A myxoma", ""}, {"Both", ""}};
  EXPECT_EQ(parse_choice(" odontoma \nQuestion", choices), 0);
  EXPECT_EQ(parse_choice("A myxoma", choices), 1);
  EXPECT_EQ(parse_choice("\n(C) whatever", choices), 2);
  EXPECT_EQ(parse_choice("b. A myxoma", choices), 1);
  EXPECT_EQ(parse_choice("B", choices), 1);
  EXPECT_EQ(parse_choice("D", choices), -1);
  EXPECT_EQ(parse_choice("", choices), -1);
  EXPECT_EQ(parse_choice("Because", choices), -1);
}

TEST(TokenF1, ComparesBagsOfWords) {
  EXPECT_NEAR(token_f1("The cat sat.", "a cat sat on the mat"), 2.0 * 2 / (2 + 4), 1e-12);  // articles do not count
  EXPECT_NEAR(token_f1("yes yes", "YES!"), 2.0 * 1 / (2 + 1), 1e-12);                      // a word counts as often as both have it
  EXPECT_EQ(token_f1("don't", "dont"), 1);
  EXPECT_EQ(token_f1("\xC3\xA9t\xC3\xA9", "\xC3\xA9t\xC3\xA9"), 1);
  EXPECT_EQ(token_f1("", "the"), 1);
  EXPECT_EQ(token_f1("", "cat"), 0);
}

// Together in one pass and one by one the answers are the same greedy continuations.
TEST(GeneratedAnswers, EqualTheAnswersOfSingleSessions) {
  NEEDS_UTF8PROC();
  const auto model = test::tiny_model();
  std::vector<std::vector<int32_t>> prompts;
  for (int i = 0; i < 11; i++) prompts.push_back(model->tokenizer()->encode("A beginning that all of them share. Question " + std::to_string(i * i) + ":", {}));
  AnswerOptions options;
  options.max_new_tokens = 12;
  std::vector<std::string> texts(prompts.size());
  std::vector<int64_t> tokens(prompts.size());
  size_t calls = 0;
  const auto keep = [&](size_t index, const GeneratedAnswer &answer) {
    texts[index] = answer.text;
    tokens[index] = answer.tokens;
    return ++calls > 0;
  };
  generate_answers(model, nullptr, nullptr, prompts, options, keep, nullptr);
  EXPECT_EQ(calls, prompts.size());
  for (size_t i = 0; i < prompts.size(); i++) {
    Session session(model);
    session.append(prompts[i]);
    std::string text;
    int64_t count = 0;
    for (bool end = false; !end && count < 12; count++) {
      const Piece piece = session.next({});
      text += piece.text;
      end = piece.end;
    }
    EXPECT_EQ(texts[i], text) << i;
    EXPECT_EQ(tokens[i], static_cast<int64_t>(prompts[i].size()) + count) << i;
  }
  const auto refuse = [](size_t, const GeneratedAnswer &) { return false; };
  EXPECT_FAILS(generate_answers(model, nullptr, nullptr, prompts, options, refuse, nullptr), Code::cancelled, "cancelled");
}

}  // namespace
}  // namespace moe
