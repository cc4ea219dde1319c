// A limit of memory makes passes smaller, and nothing else.
#include "eval/scorer.h"

#include <gtest/gtest.h>

#include <functional>

#include "eval/exact_match.h"
#include "support/expect_error.h"
#include "support/needs.h"
#include "support/tiny_model.h"

namespace moe {
namespace {

class ScorerMemory : public testing::Test {
 protected:
  std::vector<ScoredSequence> sequences() const {
    std::vector<ScoredSequence> all(20);
    for (size_t i = 0; i < all.size(); i++)
      for (size_t t = 0; t < 60; t++) {
        all[i].tokens.push_back(static_cast<int32_t>((7 * i + 3 * t) % 250));
        all[i].labels.push_back(static_cast<int32_t>((5 * i + t) % 250));
      }
    return all;
  }
  std::vector<ChoiceQuestion> questions() const {
    std::vector<ChoiceQuestion> all(20);
    for (size_t i = 0; i < all.size(); i++) {
      std::vector<int32_t> prompt;
      for (size_t t = 0; t < 30; t++) prompt.push_back(static_cast<int32_t>((11 * i + t) % 250));
      for (int32_t c = 0; c < 4; c++) {
        std::vector<int32_t> tokens = prompt;
        for (int32_t t = 0; t < 5; t++) tokens.push_back((c * 9 + t) % 250);
        all[i].choices.push_back({tokens, 30});
      }
      all[i].shared = 30;
      all[i].routed = 1;
    }
    return all;
  }
  // The least memory that `attempt` takes.
  static uint64_t least_for(const std::function<void(uint64_t)> &attempt) {
    uint64_t low = 1, high = 1 << 30;  // fails, is enough
    while (low + 1 < high) {
      const uint64_t middle = (low + high) / 2;
      try {
        attempt(middle);
        high = middle;
      } catch (const Error &) {
        low = middle;
      }
    }
    return high;
  }
  // Of one item.
  template <class Item>
  uint64_t least(std::vector<Item> items) const {
    return least_for([&](uint64_t memory) { Scorer(*model_, overlay_, nullptr, memory).score(std::span(items).first(1)); });
  }
  std::shared_ptr<const BaseModel> model_ = test::tiny_model();
  std::shared_ptr<Mixture> mixture_ = test::noisy_mixture(*model_, {"a", "b"}, 8);
  Overlay overlay_{nullptr, mixture_.get()};
};

TEST_F(ScorerMemory, DecidesHowManySequencesAPassHas) {
  auto free = sequences();
  Scorer unlimited(*model_, overlay_, nullptr);
  unlimited.score(free);
  EXPECT_EQ(unlimited.passes(), 1);
  const uint64_t one = least(sequences());
  int64_t before = 0;
  for (const uint64_t items : {1, 4, 12}) {
    auto all = sequences();
    Scorer scorer(*model_, overlay_, nullptr, items * one);
    scorer.score(all);
    EXPECT_TRUE(before == 0 || scorer.passes() < before) << items;
    EXPECT_GE(scorer.passes(), items == 1 ? 20 : 2);
    before = scorer.passes();
    for (size_t i = 0; i < all.size(); i++) {
      for (size_t t = 0; t < all[i].nll.size(); t++) ASSERT_NEAR(all[i].nll[t], free[i].nll[t], 1e-5) << i << " " << t;
      for (size_t e = 0; e < 3; e++) EXPECT_NEAR(all[i].routing.weights[e], free[i].routing.weights[e], 1e-4);
    }
  }
}

TEST_F(ScorerMemory, DecidesHowManyQuestionsAPassHas) {
  auto free = questions();
  Scorer unlimited(*model_, overlay_, nullptr);
  unlimited.score(free);
  EXPECT_EQ(unlimited.passes(), 1);
  for (const uint64_t items : {1, 3}) {
    auto all = questions();
    Scorer scorer(*model_, overlay_, nullptr, items * least(questions()));
    scorer.score(all);
    EXPECT_GE(scorer.passes(), items == 1 ? 20 : 7);
    for (size_t i = 0; i < all.size(); i++)
      for (size_t c = 0; c < 4; c++) EXPECT_NEAR(all[i].log_likelihood[c], free[i].log_likelihood[c], 1e-4) << i << " " << c;
  }
}

TEST_F(ScorerMemory, TooLittleForOneIsAnError) {
  auto all = sequences();
  Scorer scorer(*model_, overlay_, nullptr, least(all) - 1);
  EXPECT_FAILS(scorer.score(all), Code::no_memory, "memory_limit: ");
}

TEST_F(ScorerMemory, DecidesHowManyAnswersAreWrittenTogether) {
  NEEDS_UTF8PROC();
  std::vector<std::vector<int32_t>> prompts;
  for (const ScoredSequence &sequence : sequences()) prompts.emplace_back(sequence.tokens.begin(), sequence.tokens.begin() + 40);
  const auto answers = [&](uint64_t memory) {
    std::vector<std::string> texts(prompts.size());
    AnswerOptions options;
    options.max_new_tokens = 6;
    options.memory = memory;
    const auto done = [&](size_t index, const GeneratedAnswer &answer) { return texts[index] = answer.text, true; };
    generate_answers(model_, nullptr, mixture_, prompts, options, done, nullptr);
    return texts;
  };
  const auto free = answers(0);
  const auto two = [&](uint64_t memory) { return prompts.resize(2), answers(memory); };
  const auto all_prompts = prompts;
  const uint64_t one = least_for(two);
  prompts = all_prompts;
  for (const uint64_t memory : {one, 2 * one}) EXPECT_EQ(answers(memory), free);
  EXPECT_FAILS(answers(10000), Code::no_memory, "memory_limit: 10000 bytes are left for generation");
}

}  // namespace
}  // namespace moe
