#include "data/leak.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <map>
#include <set>

#include "base/file.h"
#include "base/sha256.h"
#include "data/byte_tokenizer.h"
#include "data/example_file.h"
#include "formats/packed.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

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

// Words are tokens; the same word is the same id.
class WordTokenizer : public test::ByteTokenizer {
 public:
  Encoding encode_with_spans(std::string_view text, EncodeOptions) const override {
    Encoding result;
    for (size_t at = 0, end; at < text.size(); at = end) {
      end = std::min(text.find(' ', at + 1), text.size());
      const std::string word(text.substr(at + (text[at] == ' '), end - at - (text[at] == ' ')));
      result.ids.push_back(1000 + static_cast<int32_t>(ids_.try_emplace(word, ids_.size()).first->second));
      result.spans.push_back({at, end});
    }
    return result;
  }

 private:
  mutable std::map<std::string, size_t> ids_;
};

class Leaks : public testing::Test {
 protected:
  using Rows = std::vector<std::pair<std::string, std::string>>;  // prompt, completion

  std::string file(const std::string &name, const Rows &rows) {
    std::string lines;
    for (const auto &[prompt, completion] : rows)
      lines += Json::object({{"prompt", prompt}, {"completion", completion}}).dump() + "\n";
    write_file_atomic(folder_ / name, lines);
    return folder_ / name;
  }
  std::shared_ptr<Dataset> open(const std::string &path) {
    return Dataset::open({{path, "", "", -1}}, {}, &tokenizer_, nullptr, 0);
  }
  LeakReport find(const Rows &training, const Rows &held_out) {
    return find_leaks(*open(file("train.jsonl", training)), *open(file("heldout.jsonl", held_out)), nullptr);
  }
  // `count` words that no other stem gives.
  static std::string words(const std::string &stem, int first, int count) {
    std::string out;
    for (int i = first; i < first + count; i++) out += stem + std::to_string(i) + " ";
    return out;
  }

  test::TemporaryFolder folder_;
  WordTokenizer tokenizer_;
};

TEST_F(Leaks, OfTheSamePromptAreCountedAndNamed) {
  const LeakReport report = find({{"What is it?", "a"}, {"Other", "b"}, {"Third", "c"}},
                                 {{"what is  it", "x"}, {"new", "y"}, {"OTHER.", "z"}});
  EXPECT_EQ(report.sequences, 3);
  EXPECT_EQ(report.same_prompt, 2);
  EXPECT_EQ(report.similar, 0);
  ASSERT_EQ(report.first.size(), 2u);
  EXPECT_EQ(report.first[1].row, 3);
  EXPECT_EQ(report.first[1].training_row, 2);
  EXPECT_EQ(report.line(), text("2 of 3 held-out sequences stand in the training data (2 with the same prompt, 0 similar): ",
                                folder_ / "heldout.jsonl", " row 1 is ", folder_ / "train.jsonl", " row 1, ",
                                folder_ / "heldout.jsonl", " row 3 is ", folder_ / "train.jsonl", " row 2"));
  const LeakReport many = find({{"Other", "a"}}, Rows(12, {"Other", "b"}));
  EXPECT_EQ(many.count(), 12);
  EXPECT_EQ(many.first.size(), 5u);
  EXPECT_EQ(many.to_json().integer_at("same_prompt", ""), 12);
}

// 30 words are 23 runs of eight; one that is changed spoils the eight runs it is in.
TEST_F(Leaks, SeventyPercentOfTheRunsAreSimilar) {
  const std::string original = words("a", 0, 30);
  const auto changed_at = [&](int place) { return words("a", 0, place) + "changed " + words("a", place + 1, 29 - place); };
  const Rows training{{words("b", 0, 30), "x"}, {original, "x"}};
  const LeakReport at_the_end = find(training, {{changed_at(28), "x"}});  // with completion and end token 25 runs, of which 21
  EXPECT_EQ(at_the_end.similar, 1);
  EXPECT_NEAR(at_the_end.first.at(0).share, 21.0 / 25, 1e-12);
  EXPECT_EQ(at_the_end.first.at(0).training_row, 2);
  EXPECT_FALSE(at_the_end.first.at(0).same_prompt);
  EXPECT_EQ(find(training, {{changed_at(15), "x"}}).count(), 0);  // 17 of 25
  EXPECT_EQ(find(training, {{words("c", 0, 30), "x"}}).count(), 0);
  EXPECT_EQ(find(training, {{words("a", 3, 12), "y"}}).count(), 0) << "too short to be judged";
}

TEST_F(Leaks, ATemplateThatAllRowsHaveIsNoLeak) {
  Rows training, held_out;
  const std::string instruction = words("instruction", 0, 100);
  for (int i = 0; i < 40; i++) {
    const std::string stem = std::string(1, static_cast<char>('a' + i % 26)) + std::to_string(i) + "_";
    (i < 30 ? training : held_out).push_back({instruction + words(stem, 0, 40), "yes"});
  }
  EXPECT_EQ(find(training, held_out).count(), 0);
  held_out.push_back({instruction + "what " + words("c2_", 0, 40), "yes"});  // the question of row 3
  const LeakReport report = find(training, held_out);
  EXPECT_EQ(report.similar, 1);
  EXPECT_EQ(report.first.at(0).row, 11);
  EXPECT_EQ(report.first.at(0).training_row, 3);
}

TEST_F(Leaks, OfMessagesAllButTheAnswersIsThePrompt) {
  Example chat;
  chat.kind = SchemaKind::messages;
  chat.messages = {{"user", "Hi"}, {"assistant", "yo"}};
  Example other = chat;
  other.messages[1].content = "hello";
  EXPECT_EQ(prompt_key(chat), prompt_key(other));
  other.messages[0].content = "Bye";
  EXPECT_NE(prompt_key(chat), prompt_key(other));
}

TEST_F(Leaks, AreFoundInPackedFilesBySequence) {
  PackedBatch training, held_out;
  const auto add = [](PackedBatch &batch, int32_t first) {
    if (batch.starts.empty()) batch.starts = {0};
    for (int32_t i = 0; i < 20; i++) {
      batch.tokens.push_back(first + i);
      batch.labels.push_back(first + i + 1);
      batch.positions.push_back(i);
    }
    batch.starts.push_back(static_cast<int32_t>(batch.tokens.size()));
  };
  for (const int32_t first : {100, 200, 300}) add(training, first);
  for (const int32_t first : {400, 300}) add(held_out, first);
  write_packed_batch(folder_ / "train.safetensors", training);
  write_packed_batch(folder_ / "heldout.safetensors", held_out);
  const LeakReport report = find_leaks(*open(folder_ / "train.safetensors"), *open(folder_ / "heldout.safetensors"), nullptr);
  EXPECT_EQ(report.sequences, 2);
  EXPECT_EQ(report.similar, 1);
  EXPECT_EQ(report.first.at(0).row, 2);
  EXPECT_EQ(report.first.at(0).training_row, 3);
}

TEST_F(Leaks, TheSearchCanBeCancelled) {
  const auto rows = open(file("a.jsonl", {{"a", "b"}}));
  Cancel cancel;
  cancel.fire();
  EXPECT_FAILS(find_leaks(*rows, *rows, &cancel), Code::cancelled, "");
}

TEST_F(Leaks, TheShippedSplitsAreDisjointByPromptByRunsAndByQuestion) {
  const std::string data = MOE_DATA_DIR;
  for (const char *domain : {"medmcqa", "gsm8k", "casehold"}) {
    const std::string train = data + "/" + domain + "/train.jsonl", heldout = data + "/" + domain + "/heldout.jsonl";
    const LeakReport report = find_leaks(*open(train), *open(heldout), nullptr);
    EXPECT_EQ(report.count(), 0) << report.line();
    EXPECT_GT(report.sequences, 20);
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
