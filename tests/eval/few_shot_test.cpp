// The examples in front of a prompt never give an item away.
#include "eval/few_shot.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace moe {
namespace {

std::vector<Example> examples_of(const std::vector<std::string> &prompts) {
  std::vector<Example> examples;
  for (const std::string &prompt : prompts) {
    Example &example = examples.emplace_back();
    example.prompt = prompt;
    example.completion = " yes";
  }
  return examples;
}

using Chosen = std::vector<size_t>;

TEST(FewShot, TakesTheFirstThatRepeatNoItem) {
  const auto items = examples_of({"What is seven and eight?", "Who wrote this?"});
  const auto pool = examples_of({"what  is Seven and eight", "Another?", "Who wrote\nthis?", "A third?", "A fourth?"});
  EXPECT_EQ(choose_examples(pool, items, 2, false), (Chosen{1, 3}));
  EXPECT_EQ(choose_examples(pool, items, 9, false), (Chosen{1, 3, 4}));
}

TEST(FewShot, LeavesOutWhatIsNearlyAnItem) {
  std::string item, near, far;
  for (int i = 0; i < 40; i++) {
    item += text("word", i, " ");
    near += i == 20 ? "changed " : text("word", i, " ");  // 8 of 33 runs differ
    far += i % 4 == 0 ? "changed " : text("word", i, " ");
  }
  const auto items = examples_of({item, "Something else?"});
  EXPECT_EQ(choose_examples(examples_of({near, far}), items, 2, false), (Chosen{1}));
}

TEST(FewShot, LeavesOutWhatHasThreeQuartersOfTheWordsOfAnItem) {
  std::string item, near, far;
  for (int i = 0; i < 40; i++) {
    item += text("word", i, " ");
    near += i < 10 ? text("changed", i, " ") : text("word", i, " ");
    far += i < 11 ? text("changed", i, " ") : text("word", i, " ");
  }
  EXPECT_EQ(choose_examples(examples_of({near, far}), examples_of({item}), 2, false), (Chosen{1}));
  const auto one_file = examples_of({item, near}), other_file = examples_of({item, far});
  EXPECT_EQ(choose_examples(one_file, one_file, 2, true), Chosen());
  EXPECT_EQ(choose_examples(other_file, other_file, 2, true), (Chosen{0, 1}));
}

TEST(FewShot, LooksThroughALargePool) {
  std::vector<std::string> prompts;
  for (int i = 0; i < 200; i++) prompts.push_back(text("number ", i, "?"));
  const auto pool = examples_of(prompts);
  const std::vector<Example> items(pool.begin(), pool.begin() + 150);
  EXPECT_EQ(choose_examples(pool, items, 3, false), (Chosen{150, 151, 152}));
  EXPECT_EQ(choose_examples(pool, pool, 199, true).size(), 199u);
}

TEST(FewShot, OfTheOwnFileAnExampleIsNoRepetitionOfItself) {
  const auto rows = examples_of({"One?", "Two?", "one", "Three?"});
  EXPECT_EQ(choose_examples(rows, rows, 2, true), (Chosen{1, 3}));
}

TEST(FewShot, WordsOfATemplateAreNoRepetition) {
  std::vector<std::string> prompts;
  const std::string frame = "please read the following text with great care and then say what the one right answer to it is: ";
  for (int i = 0; i < 60; i++) prompts.push_back(frame + text("item", i));
  EXPECT_EQ(choose_examples(examples_of({frame + "of its own"}), examples_of(prompts), 1, false), (Chosen{0}));
}

TEST(FewShot, ExamplesStandSolvedWithAnEmptyLineBetween) {
  EXPECT_EQ(shots_of(examples_of({"a:", "b:", "c:"}), {0, 2}), "a: yes\n\nc: yes\n\n");
}

}  // namespace
}  // namespace moe
