#include "data/leak.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <functional>
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
  std::shared_ptr<Dataset> open(const std::vector<std::string> &paths) {
    std::vector<DatasetSource> sources;
    for (const std::string &path : paths) sources.push_back({path, "", "", -1});
    return Dataset::open(sources, {}, &tokenizer_, nullptr, 0);
  }
  std::shared_ptr<Dataset> open(const std::string &path) { return open(std::vector{path}); }
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

// Every planting is one row of GSM8K's training questions, changed; the others are untouched rows of its test split.
TEST_F(Leaks, PlantedOverlapsAreFound) {
  const std::string gsm = std::string(MOE_DATA_DIR) + "/gsm8k/";
  const std::vector<Json> training = read_rows(gsm + "train.jsonl"), clean = read_rows(gsm + "heldout.jsonl");
  const auto split = [](const std::string &text) {
    std::vector<std::string> words;
    for (size_t at = 0, end; at < text.size(); at = end + 1) {
      end = std::min(text.find(' ', at), text.size());
      words.push_back(text.substr(at, end - at));
    }
    return words;
  };
  const auto joined = [](const std::vector<std::string> &words) {
    std::string out;
    for (const std::string &word : words) out += (out.empty() ? "" : " ") + word;
    return out;
  };
  const auto upper = [](std::string text) {
    for (char &c : text) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    return text;
  };
  const auto punctuated = [](const std::string &text) {  // every sign another, quotes around words
    std::string out;
    for (const char c : text) out += c == ' ' ? " (" : std::string_view(".,?!;").find(c) != std::string_view::npos ? std::string(" --") : std::string(1, c);
    return out + "!?";
  };
  const auto replaced = [&](const std::string &text, int way) {  // one word in five, in three ways
    std::vector<std::string> words = split(text);
    const size_t n = words.size(), fifth = n / 5;
    for (size_t i = 0; i < n; i++)
      if (way == 0 ? i >= n - fifth : way == 1 ? i >= n / 3 && i < n / 3 + fifth : i % 5 == 2) words[i] = "other" + std::to_string(i);
    return joined(words);
  };
  const std::vector<std::function<std::string(const std::string &)>> plantings{
      [](const std::string &text) { return text; }, upper, punctuated, [&](const std::string &text) { return punctuated(upper(text)); },
      [&](const std::string &text) { return replaced(text, 0); }, [&](const std::string &text) { return replaced(text, 1); },
      [&](const std::string &text) { return replaced(text, 2); }, [&](const std::string &text) { return upper(replaced(text, 1)); }};
  for (size_t way = 0; way < plantings.size(); way++) {
    Rows rows;
    for (size_t i = 0; i < 100; i++) rows.push_back({clean[i].string_at("question", ""), "#### " + std::to_string(i)});
    for (size_t i = 0; i < 100; i++) {
      const std::string question = training[i * 10].string_at("question", "");
      rows.push_back({plantings[way](question), "#### other answer"});
    }
    const LeakReport report = find_leaks(*open(gsm + "train.jsonl"), *open(file("heldout.jsonl", rows)), nullptr);
    EXPECT_EQ(report.sequences, 200);
    EXPECT_GE(report.count(), 97) << "planting " << way;  // a question of few words may lose every run
    EXPECT_LE(report.count(), 100) << "planting " << way << ": " << report.line();
    for (const Leak &leak : report.first) {
      EXPECT_GT(leak.row, 100);
      EXPECT_EQ(leak.training_row, (leak.row - 101) * 10 + 1);
    }
  }
}

// 30 words. The share is that of words in their order, wherever the others stand.
TEST_F(Leaks, ThreeQuartersOfTheWordsAreSimilar) {
  const auto changed = [&](int first, int count) {
    return words("a", 0, first) + words("new", 0, count) + words("a", first + count, 30 - first - count);
  };
  const Rows training{{words("b", 0, 30), "x"}, {words("a", 0, 30), "x"}, {words("c", 0, 30), "x"}};
  const LeakReport in_the_middle = find(training, {{changed(12, 7), "x"}});
  EXPECT_EQ(in_the_middle.similar, 1);
  EXPECT_NEAR(in_the_middle.first.at(0).share, 23.0 / 30, 1e-12);
  EXPECT_EQ(in_the_middle.first.at(0).training_row, 2);
  EXPECT_FALSE(in_the_middle.first.at(0).same_prompt);
  EXPECT_EQ(find(training, {{changed(22, 8), "x"}}).count(), 0);  // 22 of 30
  EXPECT_EQ(find(training, {{words("a", 15, 15) + words("a", 0, 15), "x"}}).count(), 0) << "in another order";
  EXPECT_EQ(find(training, {{words("d", 0, 30), "x"}}).count(), 0);
  EXPECT_EQ(find(training, {{words("a", 3, 7), "y"}}).count(), 0) << "too short to be judged";
  EXPECT_EQ(find(training, {{words("a", 3, 8), "y"}}).similar, 1) << "a part of a training row";
  EXPECT_EQ(find(training, {{words("a", 0, 15) + words("b", 15, 15), "x"}}).count(), 0) << "half of this and half of that";
}

// Windows of a text are compared with the windows of one training text as they follow one another.
TEST_F(Leaks, OfTextsAreFoundWhereverTheirWindowsBegin) {
  std::string text, other;
  for (int i = 0; i < 2000; i++) text += "t" + std::to_string(i * 7919 % 104729) + " ", other += "o" + std::to_string(i) + " ";
  write_file_atomic(folder_ / "train.txt", text);
  write_file_atomic(folder_ / "heldout.txt", other.substr(0, 3001) + text.substr(2500, 6000) + other.substr(3001, 3000));
  DatasetOptions windows;
  windows.max_length = 256;
  const auto data = [&](const char *name) { return Dataset::open({{folder_ / name, "", "", -1}}, windows, &tokenizer_, nullptr, 0); };
  const LeakReport report = find_leaks(*data("train.txt"), *data("heldout.txt"), nullptr);
  const int64_t copied = 6000 / (static_cast<int64_t>(text.size()) / 2000) / 256;  // windows that hold nothing else
  EXPECT_GE(report.similar, copied - 2);
  EXPECT_LE(report.similar, copied + 2);
  EXPECT_GT(report.sequences, report.similar + 3);
}

TEST(Leak, WordsHaveNeitherCaseNorPunctuation) {
  const auto count = [](const char *text) { return word_hashes(text).size(); };
  EXPECT_EQ(word_hashes("it's (half-life), 12.5 mg"), word_hashes("its half life -- 12/5: mg?"));
  EXPECT_EQ(count("it's (half-life), 12.5 mg"), 5u);  // its half life 12 mg: 5 is one character
  EXPECT_EQ(count("a. b) c 1"), 0u);
  EXPECT_EQ(count("na\xC3\xAFve \xE2\x80\x9Cquote\xE2\x80\x9D"), 2u);
  EXPECT_EQ(count("\xE6\x97\xA5\xE6\x9C\xAC\xE8\xAA\x9E\xE3\x80\x82ok"), 4u);  // three characters of Chinese script, a stop, a word
  EXPECT_NE(word_hashes("one two"), word_hashes("two one"));
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

TEST_F(Leaks, ATemplateOfOneFileIsNoLeakAmongMoreRowsOfOthers) {
  Rows training, others, held_out;
  const std::string instruction = words("instruction", 0, 30);
  for (int i = 0; i < 20; i++) (i < 10 ? training : held_out).push_back({instruction + words("t" + std::to_string(i) + "_", 0, 8), "yes"});
  for (int i = 0; i < 400; i++) others.push_back({words("o" + std::to_string(i) + "_", 0, 8), "no"});
  const std::string of_training = file("a.jsonl", training), of_others = file("b.jsonl", others), of_held_out = file("c.jsonl", held_out);
  EXPECT_EQ(find_leaks(*open(std::vector{of_training, of_others}), *open(of_held_out), nullptr).count(), 0);
  EXPECT_EQ(find_leaks(*open(std::vector{of_others, of_training}), *open(of_held_out), nullptr).count(), 0);
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
  std::vector<std::string> all_training, all_held_out;
  for (const char *domain : {"medmcqa", "gsm8k", "casehold", "mbpp"}) {
    const std::string train = data + "/" + domain + "/train.jsonl", heldout = data + "/" + domain + "/heldout.jsonl";
    const LeakReport report = find_leaks(*open(train), *open(heldout), nullptr);
    EXPECT_EQ(report.count(), 0) << report.line();
    EXPECT_GT(report.sequences, 20);
    all_training.push_back(train);
    all_held_out.push_back(heldout);
    const auto questions = [&](const std::string &path) {
      std::set<std::string> found;
      for (const Json &row : read_rows(path)) {
        std::string letters;  // of the question alone, nothing but letters and digits
        for (const char c : row.string_at(row.find("question") ? "question" : row.find("context") ? "context" : "text", path))
          if (std::isalnum(static_cast<unsigned char>(c)))
            letters += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
        found.insert(letters);
      }
      return found;
    };
    const std::set<std::string> learnt = questions(train);
    for (const std::string &question : questions(heldout)) EXPECT_EQ(learnt.count(question), 0u) << domain << ": " << question;
  }
  const LeakReport together = find_leaks(*open(all_training), *open(all_held_out), nullptr);
  EXPECT_EQ(together.count(), 0) << together.line();
}

TEST(Leak, TheShippedFilesAreThoseOfTheReadme) {
  const std::string data = MOE_DATA_DIR, readme = read_file(data + "/README.md");
  for (const char *domain : {"medmcqa", "gsm8k", "casehold", "mbpp"})
    for (const char *split : {"train", "heldout"})
      EXPECT_NE(readme.find(sha256_file(data + "/" + domain + "/" + split + ".jsonl")), std::string::npos)
          << domain << " " << split;
}

}  // namespace
}  // namespace moe
