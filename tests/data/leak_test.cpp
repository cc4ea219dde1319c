#include "data/leak.h"

#include <gtest/gtest.h>

#include <cctype>
#include <set>

#include "base/file.h"
#include "base/sha256.h"
#include "data/example_file.h"

namespace moe {
namespace {

Example with_prompt(const std::string &prompt, int64_t row) {
  Example example;
  example.prompt = prompt;
  example.row = row;
  return example;
}

TEST(Leak, PromptsAreComparedWithoutSpaceCaseAndFinalPunctuation) {
  EXPECT_EQ(prompt_key(with_prompt("  Loading  dose\nis:-\t", 1)), "loading dose is");
  EXPECT_EQ(prompt_key(with_prompt("2 - 3 = -1 , or not ?", 1)), "2 - 3 = -1 or not");
  EXPECT_NE(prompt_key(with_prompt("2 - 3", 1)), prompt_key(with_prompt("2 + 3", 1)));
  EXPECT_NE(prompt_key(with_prompt("ab", 1)), prompt_key(with_prompt("a b", 1)));
  EXPECT_EQ(prompt_key(with_prompt("", 1)), "");
}

TEST(Leak, CountsAndNamesTheRows) {
  const std::vector<Example> training{with_prompt("What is it?", 4), with_prompt("Other", 5)};
  const LeakReport report =
      find_leaks(training, {with_prompt("what is  it", 2), with_prompt("new", 3), with_prompt("OTHER.", 9)});
  EXPECT_EQ(report.count, 2);
  ASSERT_EQ(report.first.size(), 2u);
  EXPECT_EQ(report.first[0], "row 2 (training row 4): what is it");
  EXPECT_EQ(report.first[1], "row 9 (training row 5): other");
  const std::vector<Example> many(12, with_prompt("Other", 1));
  EXPECT_EQ(find_leaks(training, many).count, 12);
  EXPECT_EQ(find_leaks(training, many).first.size(), 5u);
}

TEST(Leak, OfMessagesAllButTheAnswersCounts) {
  Example chat;
  chat.kind = SchemaKind::messages;
  chat.messages = {{"user", "Hi"}, {"assistant", "yo"}};
  Example other = chat;
  other.messages[1].content = "hello";
  EXPECT_EQ(find_leaks({chat}, {other}).count, 1);
  other.messages[0].content = "Bye";
  EXPECT_EQ(find_leaks({chat}, {other}).count, 0);
}

TEST(Leak, TheShippedSplitsAreDisjointByPromptAndByQuestion) {
  const std::string data = MOE_DATA_DIR;
  for (const char *domain : {"medmcqa", "gsm8k", "casehold"}) {
    const std::string train = data + "/" + domain + "/train.jsonl", heldout = data + "/" + domain + "/heldout.jsonl";
    const LeakReport report = find_leaks(read_examples(train, "", 0).examples, read_examples(heldout, "", 0).examples);
    EXPECT_EQ(report.count, 0) << domain << ": " << (report.first.empty() ? "" : report.first[0]);
    const auto questions = [&](const std::string &path) {
      std::set<std::string> found;
      for (const Json &row : read_rows(path)) {
        std::string letters;  // of the question alone, nothing but letters and digits
        for (const char c : row.string_at(row.find("question") ? "question" : "context", path))
          if (std::isalnum(static_cast<unsigned char>(c)))
            letters += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
        found.insert(letters);
      }
      return found;
    };
    const std::set<std::string> learnt = questions(train);
    for (const std::string &question : questions(heldout)) EXPECT_EQ(learnt.count(question), 0u) << domain << ": " << question;
  }
}

TEST(Leak, TheShippedFilesAreThoseOfTheReadme) {
  const std::string data = MOE_DATA_DIR, readme = read_file(data + "/README.md");
  for (const char *domain : {"medmcqa", "gsm8k", "casehold"})
    for (const char *split : {"train", "heldout"})
      EXPECT_NE(readme.find(sha256_file(data + "/" + domain + "/" + split + ".jsonl")), std::string::npos)
          << domain << " " << split;
}

}  // namespace
}  // namespace moe
