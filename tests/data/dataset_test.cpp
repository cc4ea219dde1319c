#include "data/dataset.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/file.h"
#include "base/sha256.h"
#include "data/byte_tokenizer.h"
#include "formats/packed.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace moe {
namespace {

using test::ByteTokenizer;

class DatasetTest : public testing::Test {
 protected:
  // `count` rows whose prompts are two letters of their own: "aa", "ab", ... and whose answers name the domain.
  DatasetSource source(const std::string &domain, int count, int32_t entry) {
    std::string rows;
    for (int i = 0; i < count; i++)
      rows += text(R"({"prompt": ")", static_cast<char>('a' + i / 26), static_cast<char>('a' + i % 26), R"(", "completion": ")",
                   domain, "\"}\n");
    return {file(domain + ".jsonl", rows), "", domain, entry};
  }
  std::string file(const std::string &name, const std::string &content) {
    write_file_atomic(folder_ / name, content);
    return folder_ / name;
  }
  std::shared_ptr<Dataset> open(const std::vector<DatasetSource> &sources, const DatasetOptions &options = {},
                                int64_t vocabulary = 300) {
    return Dataset::open(sources, options, &tokenizer_, nullptr, vocabulary);
  }
  static std::string prompt_of(const PackedBatch &batch, size_t sequence) {
    const auto at = batch.tokens.begin() + batch.starts[sequence];
    return {static_cast<char>(at[0]), static_cast<char>(at[1])};
  }
  test::TemporaryFolder folder_;
  ByteTokenizer tokenizer_;
};

bool operator==(const PackedBatch &a, const PackedBatch &b) {
  return a.tokens == b.tokens && a.positions == b.positions && a.starts == b.starts && a.labels == b.labels &&
         a.domains == b.domains;
}

TEST_F(DatasetTest, PacksSequencesOneAfterAnotherWithoutPadding) {
  const std::string path =
      file("a.jsonl", "{\"prompt\": \"ab\", \"completion\": \"c\"}\n{\"prompt\": \"d\", \"completion\": \"e\"}\n");
  DatasetOptions options;
  options.shuffle = false;
  const auto data = open({{path, "", "letters", 2}}, options);
  const PackedBatch batch = data->next(2);
  const int32_t eos = ByteTokenizer::kEos;
  EXPECT_EQ(batch.tokens, (std::vector<int32_t>{'a', 'b', 'c', eos, 'd', 'e', eos}));
  EXPECT_EQ(batch.labels, (std::vector<int32_t>{kNoLabel, 'c', eos, kNoLabel, 'e', eos, kNoLabel}));
  EXPECT_EQ(batch.positions, (std::vector<int32_t>{0, 1, 2, 3, 0, 1, 2}));
  EXPECT_EQ(batch.starts, (std::vector<int32_t>{0, 4, 7}));
  EXPECT_EQ(batch.domains, (std::vector<int32_t>{2, 2}));
  EXPECT_NO_THROW(check_packed_batch(batch, "batch"));
  EXPECT_EQ(data->tokens(), 7);
  EXPECT_EQ(data->supervised_tokens(), 4);
}

TEST_F(DatasetTest, EveryEpochHoldsEveryRowOnceInAnotherOrder) {
  const auto data = open({source("x", 53, 1)});
  EXPECT_EQ(data->size(), 53);
  EXPECT_EQ(data->batches_per_epoch(7), 8);
  std::vector<std::vector<std::string>> epochs;
  for (int epoch = 0; epoch < 3; epoch++) {
    std::vector<std::string> order;
    for (int64_t i = 0; i < data->batches_per_epoch(7); i++) {
      const PackedBatch batch = data->next(7);
      EXPECT_EQ(batch.sequences(), i < 7 ? 7 : 4);
      for (size_t s = 0; s < static_cast<size_t>(batch.sequences()); s++) order.push_back(prompt_of(batch, s));
    }
    EXPECT_EQ(std::set<std::string>(order.begin(), order.end()).size(), 53u);
    EXPECT_FALSE(std::is_sorted(order.begin(), order.end()));
    epochs.push_back(order);
  }
  EXPECT_NE(epochs[0], epochs[1]);
  EXPECT_NE(epochs[1], epochs[2]);
}

TEST_F(DatasetTest, TheOrderDependsOnTheSeedAlone) {
  const DatasetSource rows = source("x", 40, 1);
  DatasetOptions one, two;
  two.seed = 1;
  EXPECT_TRUE(open({rows}, one)->next(40) == open({rows}, one)->next(40));
  EXPECT_FALSE(open({rows}, one)->next(40) == open({rows}, two)->next(40));
  const auto again = open({rows}, one);
  const PackedBatch first = again->next(11);
  for (int i = 0; i < 9; i++) again->next(11);
  again->rewind();
  EXPECT_TRUE(again->next(11) == first);
}

TEST_F(DatasetTest, ARestoredCursorGivesTheSameStream) {
  const std::vector<DatasetSource> sources{source("x", 30, 1), source("y", 13, 2)};
  const auto data = open(sources);
  for (int i = 0; i < 12; i++) data->next(5);  // into the second epoch
  const std::string saved = data->cursor().dump();
  const auto resumed = open(sources);
  resumed->restore(Json::parse(saved, "state"));
  for (int i = 0; i < 30; i++) ASSERT_TRUE(resumed->next(5) == data->next(5)) << i;
  data->restore(Json::parse(saved, "state"));  // back again on the same handle
  resumed->restore(Json::parse(saved, "state"));
  EXPECT_TRUE(resumed->next(5) == data->next(5));
}

TEST_F(DatasetTest, ACursorOfOtherDataIsRefused) {
  const auto data = open({source("x", 30, 1)});
  const Json cursor = data->cursor();
  EXPECT_FAILS(open({source("x", 29, 1)})->restore(cursor), Code::state, "not those of the checkpoint");
  DatasetOptions seed;
  seed.seed = 4;
  EXPECT_FAILS(open({source("x", 30, 1)}, seed)->restore(cursor), Code::state, "seed");
  Json bad = cursor;
  bad.set("index", 31);
  const auto same = open({source("x", 30, 1)});
  EXPECT_FAILS(same->restore(bad), Code::format, "index 31 of 30");
  bad.set("index", -1);
  EXPECT_FAILS(same->restore(bad), Code::format, "index -1");
  EXPECT_FAILS(same->restore(Json::array()), Code::format, "data cursor");
  EXPECT_FAILS(same->restore(Json::object()), Code::format, "identity");
}

TEST_F(DatasetTest, EveryBatchHoldsAllDomainsInProportion) {
  const auto data = open({source("x", 60, 1), source("y", 30, 2), source("z", 10, 3)});
  EXPECT_EQ(data->size(), 100);
  for (int batch_number = 0; batch_number < 20; batch_number++) {
    const PackedBatch batch = data->next(10);
    std::map<int32_t, int> counts;
    for (const int32_t domain : batch.domains) counts[domain]++;
    EXPECT_NEAR(counts[1], 6, 1);
    EXPECT_NEAR(counts[2], 3, 1);
    EXPECT_NEAR(counts[3], 1, 1);
    for (size_t s = 0; s < 10; s++) {  // the rows are those of their domain
      const char answer = static_cast<char>(batch.tokens[static_cast<size_t>(batch.starts[s]) + 2]);
      EXPECT_EQ(answer, "xyz"[batch.domains[s] - 1]);
    }
  }
  EXPECT_EQ(data->tokens_by_domain(3), (std::vector<int64_t>{240, 120, 40}));
  EXPECT_EQ(data->tokens_by_domain(2), (std::vector<int64_t>{240, 120}));
}

// Of each source as many as its share, whatever its size; every pass through it gives each row once.
TEST_F(DatasetTest, WeightsMixSourcesInTheirShares) {
  std::vector<DatasetSource> sources{source("x", 60, 1), source("y", 30, 2), source("z", 10, 3)};
  sources[0].weight = 1, sources[1].weight = 0.5, sources[2].weight = 2.5;  // 25, 12 or 13, and 62 or 63 of 100
  const auto data = open(sources);
  EXPECT_EQ(data->size(), 100);
  EXPECT_EQ(data->batches_per_epoch(10), 10);
  std::map<int32_t, std::vector<std::string>> drawn;
  for (int batch_number = 0; batch_number < 40; batch_number++) {
    const PackedBatch batch = data->next(10);
    std::map<int32_t, int> counts;
    for (size_t s = 0; s < 10; s++) {
      counts[batch.domains[s]]++;
      drawn[batch.domains[s]].push_back(prompt_of(batch, s));
    }
    EXPECT_NEAR(counts[1], 2.5, 1);
    EXPECT_NEAR(counts[2], 1.25, 1);
    EXPECT_NEAR(counts[3], 6.25, 1);
  }
  EXPECT_EQ(drawn[1].size(), 100u);
  EXPECT_NEAR(static_cast<double>(drawn[2].size()), 50, 2);
  EXPECT_NEAR(static_cast<double>(drawn[3].size()), 250, 2);
  const std::map<int32_t, size_t> sizes{{1, 60}, {2, 30}, {3, 10}};
  std::set<std::vector<std::string>> orders;
  for (const auto &[domain, size] : sizes) {
    const std::vector<std::string> &all = drawn[domain];
    for (size_t pass = 0; (pass + 1) * size <= all.size(); pass++) {
      const auto begin = all.begin() + static_cast<ptrdiff_t>(pass * size), end = begin + static_cast<ptrdiff_t>(size);
      EXPECT_EQ(std::set<std::string>(begin, end).size(), size) << domain << " pass " << pass;
      if (domain == 3) orders.emplace(begin, end);
    }
  }
  EXPECT_GT(orders.size(), 20u) << "every pass has an order of its own";
  const std::vector<int64_t> tokens = data->tokens_by_domain(3);
  EXPECT_NEAR(static_cast<double>(tokens[0]), 25 * 4, 4);
  EXPECT_NEAR(static_cast<double>(tokens[2]), 62.5 * 4, 4);
}

TEST_F(DatasetTest, AWeightedStreamResumesAndDependsOnItsWeights) {
  std::vector<DatasetSource> sources{source("x", 30, 1), source("y", 13, 2)};
  const Json by_size = open(sources)->cursor();
  sources[0].weight = 1, sources[1].weight = 4;
  const auto data = open(sources);
  for (int i = 0; i < 14; i++) data->next(5);
  const Json saved = data->cursor();
  const auto resumed = open(sources);
  resumed->restore(saved);
  for (int i = 0; i < 60; i++) ASSERT_TRUE(resumed->next(5) == data->next(5)) << i;
  EXPECT_FAILS(resumed->restore(by_size), Code::state, "not those of the checkpoint");
  int64_t tokens = 0, supervised = 0;
  data->largest_batch(11, &tokens, &supervised);
  for (int i = 0; i < 100; i++) EXPECT_LE(data->next(11).size(), tokens);
  sources[1].weight = 0;
  EXPECT_FAILS(open(sources), Code::invalid, "1 of 2 sources have a weight");
}

TEST_F(DatasetTest, FilesOfADomainShareItsWeightBySize) {
  std::vector<DatasetSource> sources{source("x", 40, 1), source("y", 10, 1), source("z", 50, 2)};
  sources[1].domain = "x";
  for (DatasetSource &one : sources) one.weight = 1;
  const auto data = open(sources);
  const PackedBatch epoch = data->next(100);
  std::map<char, int> counts;
  for (size_t s = 0; s < 100; s++) counts[static_cast<char>(epoch.tokens[static_cast<size_t>(epoch.starts[s]) + 2])]++;
  EXPECT_EQ(counts['x'], 40);
  EXPECT_EQ(counts['y'], 10);
  EXPECT_EQ(counts['z'], 50);
}

TEST_F(DatasetTest, TokensBeyondTheMemoryAreInAFileAndTheSame) {
  std::string rows;
  for (int i = 0; i < 3000; i++)
    rows += text(R"({"prompt": "question )", i, std::string(static_cast<size_t>(i * 37 % 301), 'p'), R"(", "completion": "answer )", i, "\"}\n");
  const std::vector<DatasetSource> sources{{file("a.jsonl", rows), "", "a", 1}, source("x", 50, 2)};
  DatasetOptions small;
  small.memory = 10'000;
  const auto kept = open(sources), filed = open(sources, small);
  ASSERT_TRUE(filed->cursor().dump() == kept->cursor().dump());
  for (int i = 0; i < 1000; i++) ASSERT_TRUE(filed->next(7) == kept->next(7)) << i;
  std::vector<std::vector<int32_t>> found[2];
  for (const auto &[data, which] : {std::pair{kept, 0}, std::pair{filed, 1}}) {
    const auto validation = data->take_validation(0.1);
    for (const auto &side : {data, validation}) {
      side->each_sequence([&, which = which](const Dataset::Sequence &sequence) {
        found[which].emplace_back(sequence.tokens.begin(), sequence.tokens.end());
        found[which].emplace_back(sequence.words.begin(), sequence.words.end());
      });
    }
  }
  EXPECT_EQ(found[0].size(), 2u * 3050);
  EXPECT_TRUE(found[0] == found[1]);
}

TEST_F(DatasetTest, ReportsWhatIsRepeatedAndEmpty) {
  make_folders(folder_ / "set");
  file("set/a.jsonl", R"({"id": 1, "prompt": "p", "completion": "c"})" "\n" R"({"id": 1, "prompt": "P", "completion": "d"})" "\n");
  file("set/b.jsonl", "");
  file("set/c.csv", "question,answer\nWhat?,#### 4\n");
  const auto data = open({{folder_ / "set", "", "x", 1}});
  const std::vector<Json> &files = data->report().items();
  ASSERT_EQ(files.size(), 3u);
  EXPECT_EQ(files[0].integer_at("repeated_ids", ""), 1);
  EXPECT_EQ(files[0].integer_at("repeated_prompts", ""), 1);  // but for its case
  EXPECT_EQ(files[0].string_at("schema", ""), "prompt_completion");
  EXPECT_TRUE(files[1].bool_at("empty", ""));
  EXPECT_EQ(files[2].string_at("schema", ""), "gsm8k");
  EXPECT_EQ(data->size(), 3);
  EXPECT_FAILS(open({{folder_ / "set/b.jsonl", "", "x", 1}}), Code::format, "b.jsonl: no rows");
}

TEST_F(DatasetTest, SamplesAreLimitedPerSource) {
  DatasetOptions options;
  options.max_samples = 7;
  EXPECT_EQ(open({source("x", 30, 1), source("y", 5, 2)}, options)->size(), 12);
}

TEST_F(DatasetTest, AFolderIsOneSource) {
  make_folders(folder_ / "rows");
  source("x", 5, 1);
  write_file_atomic(folder_ / "rows/1.jsonl", read_file(folder_ / "x.jsonl"));
  write_file_atomic(folder_ / "rows/2.txt", "plain text");
  const auto data = open({{folder_ / "rows", "", "both", 1}});
  EXPECT_EQ(data->size(), 6);
  EXPECT_EQ(data->report().size(), 2u);
  DatasetOptions options;
  options.max_samples = 3;
  EXPECT_EQ(open({{folder_ / "rows", "", "both", 1}}, options)->size(), 3);
}

TEST_F(DatasetTest, ReportsFilesRowsAndWhatWasSkipped) {
  const std::string content =
      "{\"prompt\": \"a\", \"completion\": \"b\"}\n{\"prompt\": \"\", \"completion\": \"b\"}\n{\"prompt\": \"a\", "
      "\"completion\": \"bcdef\"}\n";
  DatasetOptions options;
  options.max_length = 5;
  const std::string path = file("a.jsonl", content);
  const auto data = open({{path, "prompt_completion", "letters", 1}}, options);
  const Json &report = data->report().items().at(0);
  EXPECT_EQ(report.string_at("path", ""), path);
  EXPECT_EQ(report.string_at("sha256", ""), sha256_hex(content.data(), content.size()));
  EXPECT_EQ(report.string_at("schema", ""), "prompt_completion");
  EXPECT_EQ(report.integer_at("rows", ""), 3);
  EXPECT_EQ(report.integer_at("sequences", ""), 1);
  EXPECT_EQ(report.integer_at("tokens", ""), 3);
  EXPECT_EQ(report.integer_at("supervised_tokens", ""), 2);
  const Json &skipped = report.at("skipped", "");
  EXPECT_EQ(skipped.at("field 'prompt' is empty", "").integer_at("first_row", ""), 2);
  EXPECT_EQ(skipped.at("longer than max_length 5", "").integer_at("count", ""), 1);
  EXPECT_EQ(data->skipped().total(), 2);
}

TEST_F(DatasetTest, DataOfNothingUsableIsAnError) {
  DatasetOptions options;
  options.max_length = 3;
  EXPECT_FAILS(open({}), Code::invalid, "no file");
  EXPECT_FAILS(open({source("long", 3, 1)}, options), Code::invalid, "3 skipped: longer than max_length 3 (first in row 1)");
  EXPECT_FAILS(open({{file("empty.jsonl", ""), "", "e", 1}}), Code::format, "no rows");
  EXPECT_FAILS(open({source("x", 3, 1)}, {}, 'x'), Code::format, "expected ids below 120 (the vocabulary), found");
  EXPECT_FAILS(Dataset::open({source("x", 3, 1)}, {}, nullptr, nullptr, 300), Code::unsupported,
               "this model has no tokenizer; give packed");
  DatasetOptions unusable;
  unusable.why_no_tokenizer = "it needs utf8proc";
  EXPECT_FAILS(Dataset::open({source("x", 3, 1)}, unusable, nullptr, nullptr, 300), Code::unsupported,
               "this model has no tokenizer (it needs utf8proc); give packed");
  EXPECT_FAILS(open({source("x", 3, 1)})->next(0), Code::invalid, "0 rows");
  Cancel cancel;
  cancel.fire();
  options = {};
  options.cancel = &cancel;
  EXPECT_FAILS(open({source("x", 3, 1)}, options), Code::cancelled, "cancelled");
}

TEST_F(DatasetTest, APackedFileIsOneStep) {
  PackedBatch a, b;
  a.tokens = {5, 6, 7, 8};
  a.labels = {6, kNoLabel, 8, kNoLabel};
  a.positions = {0, 1, 0, 1};
  a.starts = {0, 2, 4};
  b = a;
  b.tokens[0] = 9;
  b.domains = {3, 1};
  write_packed_batch(folder_ / "a.safetensors", a);
  write_packed_batch(folder_ / "b.safetensors", b);
  const std::vector<DatasetSource> sources{{folder_ / "a.safetensors", "", "a", 2}, {folder_ / "b.safetensors", "", "b", 2}};
  const auto data = Dataset::open(sources, {}, nullptr, nullptr, 10);
  EXPECT_EQ(data->size(), 2);
  EXPECT_EQ(data->batches_per_epoch(8), 2);
  for (int epoch = 0; epoch < 2; epoch++) {
    a.domains = {2, 2};
    EXPECT_TRUE(data->next(8) == a);
    EXPECT_TRUE(data->next(8) == b);
  }
  EXPECT_FAILS(Dataset::open(sources, {}, nullptr, nullptr, 9), Code::format, "b.safetensors: token 0: expected ids below 9");
  EXPECT_FAILS(open({sources[0], source("x", 3, 1)}), Code::invalid, "cannot be mixed");
  EXPECT_FAILS(data->take_validation(0.5), Code::invalid, "packed");
  a.labels.assign(4, kNoLabel);
  write_packed_batch(folder_ / "a.safetensors", a);
  EXPECT_FAILS(Dataset::open(sources, {}, nullptr, nullptr, 10), Code::invalid, "no supervised token");
}

TEST_F(DatasetTest, TheLargestBatchBoundsAllBatches) {
  std::string rows;
  for (int i = 1; i <= 20; i++)
    rows += text(R"({"prompt": ")", std::string(static_cast<size_t>(i * 7 % 13 + 1), 'p'), R"(", "completion": ")",
                 std::string(static_cast<size_t>(i * 5 % 11 + 1), 'c'), "\"}\n");
  const auto data = open({{file("a.jsonl", rows), "", "a", 1}});
  int64_t tokens = 0, supervised = 0, most = 0, most_supervised = 0;
  data->largest_batch(3, &tokens, &supervised);
  for (int i = 0; i < 200; i++) {
    const PackedBatch batch = data->next(3);
    most = std::max(most, batch.size());
    most_supervised = std::max(most_supervised, batch.supervised());
  }
  EXPECT_GE(tokens, most);
  EXPECT_GE(supervised, most_supervised);
  data->largest_batch(100, &tokens, &supervised);  // more than there are
  EXPECT_EQ(tokens, data->tokens());
  EXPECT_EQ(supervised, data->supervised_tokens());
}

TEST_F(DatasetTest, AValidationSplitKeepsEqualPromptsTogether) {
  std::string rows;
  for (int i = 0; i < 120; i++) rows += text(R"({"prompt": "question )", i / 2, R"(", "completion": ")", i, "\"}\n");
  const DatasetSource questions{file("a.jsonl", rows), "", "a", 1};
  const auto texts = [&](Dataset &data) {  // of all rows: prompt and completion
    std::set<std::string> found;
    const PackedBatch batch = data.next(data.size());
    for (size_t s = 0; s + 1 < batch.starts.size(); s++)
      found.insert(tokenizer_.decode({batch.tokens.begin() + batch.starts[s], batch.tokens.begin() + batch.starts[s + 1]}, true));
    return found;
  };
  const auto train = open({questions, source("x", 30, 2)});
  const auto validation = train->take_validation(0.2);
  EXPECT_EQ(train->size() + validation->size(), 150);
  EXPECT_NEAR(static_cast<double>(validation->size()), 30, 2);
  EXPECT_EQ(train->tokens() + validation->tokens(), open({questions, source("x", 30, 2)})->tokens());
  EXPECT_GT(validation->tokens_by_domain(2)[0], 0);
  EXPECT_GT(validation->tokens_by_domain(2)[1], 0);
  // Both rows of a question are on one side: completions 2k and 2k + 1.
  const std::set<std::string> left = texts(*train);
  for (int k = 0; k < 60; k++) {
    const std::string prompt = "question " + std::to_string(k);
    EXPECT_EQ(left.count(prompt + std::to_string(2 * k)), left.count(prompt + std::to_string(2 * k + 1))) << k;
  }
  DatasetOptions other;
  other.seed = 77;
  const auto again = open({questions, source("x", 30, 2)}, other);
  EXPECT_EQ(again->take_validation(0.2)->tokens(), validation->tokens());  // the same rows whatever the seed
  EXPECT_FAILS(train->take_validation(1.0), Code::invalid, "between 0 and 1");
  EXPECT_FAILS(open({source("x", 1, 1)})->take_validation(0.5), Code::invalid, "leaves none");
}

}  // namespace
}  // namespace moe
