#include "data/example_file.h"

#include <gtest/gtest.h>

#include "base/file.h"
#include "data/schema_detection.h"
#include "support/expect_error.h"
#include "support/parquet_builder.h"
#include "support/temporary_folder.h"

namespace moe {
namespace {

const std::string kData = MOE_DATA_DIR, kGolden = std::string(MOE_TESTS_DIR) + "/golden/data/";

std::string letters_row(const std::string &cop) {
  return R"({"question": "Q)" + cop + R"(", "opa": "1", "opb": "2", "opc": "3", "opd": "4", "cop": )" + cop + "}\n";
}

class ExampleFileTest : public testing::Test {
 protected:
  std::string file(const std::string &name, const std::string &content) {
    write_file_atomic(folder_ / name, content);
    return folder_ / name;
  }
  test::TemporaryFolder folder_;
};

// name, schema that the fields tell, rows, examples
struct Published {
  std::string path, schema;
  int64_t rows, examples;
};

TEST(PublishedFiles, AreRecognisedAndReadWhole) {
  const std::vector<Published> files{
      {kData + "/medmcqa/train.jsonl", "medmcqa_from_0", 1200, 1200},
      {kData + "/medmcqa/heldout.jsonl", "medmcqa_from_0", 200, 200},
      {kData + "/gsm8k/train.jsonl", "gsm8k", 1000, 1000},
      {kData + "/gsm8k/heldout.jsonl", "gsm8k", 200, 200},
      {kData + "/casehold/train.jsonl", "casehold", 600, 600},
      {kData + "/casehold/heldout.jsonl", "casehold", 150, 150},
      {kData + "/mbpp/train.jsonl", "mbpp", 372, 372},
      {kData + "/mbpp/heldout.jsonl", "mbpp", 162, 162},
      {kGolden + "medmcqa_original_dev.json", "medmcqa_from_1", 1, 1},
      {kGolden + "medmcqa_choices.jsonl", "multiple_choice", 40, 40},
      {kGolden + "medmcqa_instruct.jsonl", "self_instruct", 5, 5},
      {kGolden + "mathqa.json", "mathqa", 40, 40},
      {kGolden + "aqua.json", "aqua", 20, 20},
      {kGolden + "medqa.jsonl", "medqa", 5, 5},
      {kGolden + "mbpp.jsonl", "mbpp", 5, 5},
      {kGolden + "mbpp_sanitized.json", "mbpp", 3, 3},
      {kGolden + "humaneval.jsonl", "humaneval", 3, 3},
      {kGolden + "casehold.csv", "casehold_csv", 6, 6},
      {kGolden + "pubmedqa.json", "pubmedqa", 12, 12},
      {kGolden + "legalbench_limited_use.tsv", "legalbench_yes_no", 8, 8},
      {kGolden + "legalbench_ucc_v_common_law.tsv", "legalbench", 6, 6},
      {kGolden + "self_instruct.jsonl", "self_instruct", 40, 40},
      {kGolden + "minimind_sft.jsonl", "messages", 2, 2},
      {kGolden + "minimind_lora.jsonl", "messages", 2, 2},
      {kGolden + "minimind_r1.jsonl", "messages", 2, 2},
      {kGolden + "minimind_pretrain.jsonl", "text", 2, 2},
      {kGolden + "wikitext.raw", "text", 1, 1},
      {kGolden + "shakespeare.txt", "text", 1, 1},
  };
  for (const Published &published : files) {
    const ExampleFile file = read_examples(published.path, "", 0);
    EXPECT_EQ(file.schema.name, published.schema) << published.path;
    EXPECT_EQ(file.rows, published.rows) << published.path;
    EXPECT_EQ(static_cast<int64_t>(file.examples.size()), published.examples) << published.path;
    EXPECT_EQ(file.skipped.total(), 0) << published.path << ": " << file.skipped.summary();
    EXPECT_EQ(file.sha256.size(), 64u);
  }
}

// Against the rows themselves, put together by hand.
TEST(PublishedFiles, GiveTheirPromptsAndAnswersExactly) {
  const std::vector<Json> med = read_rows(kData + "/medmcqa/train.jsonl");
  const ExampleFile med_file = read_examples(kData + "/medmcqa/train.jsonl", "medmcqa", 0);
  for (size_t i = 0; i < med.size(); i++) {
    const auto field = [&](const char *name) { return med[i].string_at(name, "row"); };
    const char *const options[] = {"opa", "opb", "opc", "opd"};
    ASSERT_EQ(med_file.examples[i].prompt, "Question: " + field("question") + "\nA. " + field("opa") + "\nB. " + field("opb") +
                                               "\nC. " + field("opc") + "\nD. " + field("opd") + "\nAnswer:");
    ASSERT_EQ(med_file.examples[i].completion, " " + field(options[med[i].integer_at("cop", "row")]));
    ASSERT_EQ(med_file.examples[i].row, static_cast<int64_t>(i) + 1);
  }
  const std::vector<Json> gsm = read_rows(kData + "/gsm8k/heldout.jsonl");
  const ExampleFile gsm_file = read_examples(kData + "/gsm8k/heldout.jsonl", "", 0);
  for (size_t i = 0; i < gsm.size(); i++) {
    const std::string answer = gsm[i].string_at("answer", "row");
    ASSERT_EQ(gsm_file.examples[i].prompt, gsm[i].string_at("question", "row") + "\n");
    ASSERT_EQ(gsm_file.examples[i].completion, answer);
    ASSERT_EQ(gsm_file.examples[i].reference, answer.substr(answer.find("#### ") + 5));
  }
  const std::vector<Json> law = read_rows(kData + "/casehold/heldout.jsonl");
  const ExampleFile law_file = read_examples(kData + "/casehold/heldout.jsonl", "", 0);
  for (size_t i = 0; i < law.size(); i++) {
    const size_t label = static_cast<size_t>(law[i].integer_at("label", "row"));
    ASSERT_EQ(law_file.examples[i].prompt, "Question: " + law[i].string_at("context", "row") + "\nAnswer:");
    ASSERT_EQ(law_file.examples[i].completion, " " + law[i].at("endings", "row").items()[label].string());
    ASSERT_EQ(law_file.examples[i].choices.size(), 5u);
  }
}

TEST(PublishedFiles, GiveKnownRows) {
  const Example original = read_examples(kGolden + "medmcqa_original_dev.json", "", 0).examples.at(0);
  EXPECT_EQ(original.gold, 3);  // cop 4 counts from 1
  EXPECT_EQ(original.completion, " Cryptosporidium hominis");
  const Example mathqa = read_examples(kGolden + "mathqa.json", "", 1).examples.at(0);
  EXPECT_EQ(mathqa.completion, " 625");
  EXPECT_TRUE(mathqa.prompt.ends_with("\nA. 24\nB. 120\nC. 625\nD. 720\nE. 1024\nAnswer:")) << mathqa.prompt;
  const Example aqua = read_examples(kGolden + "aqua.json", "", 1).examples.at(0);
  EXPECT_EQ(aqua.completion, " 250 m");
  EXPECT_TRUE(aqua.prompt.ends_with("\nA. 100 m\nB. 150 m\nC. 200 m\nD. 250 m\nE. 300 m\nAnswer:")) << aqua.prompt;
  const Example law = read_examples(kGolden + "casehold.csv", "", 0).examples.at(3);
  EXPECT_EQ(law.gold, 3);
  EXPECT_EQ(law.choices.size(), 5u);
  const Example limited = read_examples(kGolden + "legalbench_limited_use.tsv", "", 0).examples.at(0);
  EXPECT_TRUE(limited.prompt.starts_with("The Parties agree to use the Confidential Information solely in connection")) << limited.prompt;
  EXPECT_TRUE(limited.prompt.ends_with("\nAnswer:"));
  EXPECT_EQ(limited.completion, " Yes");
  EXPECT_EQ(limited.choices.size(), 2u);
  EXPECT_EQ(read_examples(kGolden + "legalbench_ucc_v_common_law.tsv", "", 0).examples.at(0).completion, " UCC");
  const ExampleFile pubmed = read_examples(kGolden + "pubmedqa.json", "", 2);
  EXPECT_TRUE(pubmed.examples[0].prompt.starts_with("Abstract: Programmed cell death (PCD) is the regulated death"));
  EXPECT_TRUE(pubmed.examples[0].prompt.ends_with(
      "\nQuestion: Do mitochondria play a role in remodelling lace plant leaves during programmed cell death?\nAnswer:"));
  EXPECT_EQ(pubmed.examples[0].completion, " yes");
  EXPECT_EQ(pubmed.examples[1].completion, " no");
  // The same rows in two layouts give the same examples.
  const ExampleFile columns = read_examples(kData + "/medmcqa/train.jsonl", "", 40),
                    choices = read_examples(kGolden + "medmcqa_choices.jsonl", "", 0);
  for (size_t i = 0; i < 40; i++) {
    EXPECT_EQ(columns.examples[i].prompt, choices.examples[i].prompt);
    EXPECT_EQ(columns.examples[i].completion, choices.examples[i].completion);
  }
}

TEST(PublishedFiles, WithoutLabelsAreRefused) {
  EXPECT_FAILS(read_examples(kGolden + "medmcqa_original_test.json", "", 0), Code::invalid, "but for its answer 'cop'");
  EXPECT_FAILS(read_examples(kGolden + "medmcqa_unlabelled.jsonl", "", 0), Code::invalid,
               "5 skipped: no answer: field 'answer' is -1");
}

TEST_F(ExampleFileTest, TheWholeFileTellsWhereAnswersCountFrom) {
  std::string middle;
  for (int i = 0; i < 40; i++) middle += letters_row(std::to_string(1 + i % 3));
  EXPECT_EQ(choose_schema(file("zero.jsonl", middle + letters_row("0")), "").name, "medmcqa_from_0");
  EXPECT_EQ(choose_schema(file("four.jsonl", middle + letters_row("4")), "medmcqa").name, "medmcqa_from_1");
  EXPECT_FAILS(choose_schema(file("neither.jsonl", middle + letters_row("-1")), ""), Code::invalid,
               "set schema to medmcqa_from_0 or medmcqa_from_1");
  EXPECT_FAILS(choose_schema(file("both.jsonl", middle + letters_row("0") + letters_row("4")), ""), Code::invalid,
               "row 41 has 0 and row 42 the number of options");
  EXPECT_EQ(choose_schema(folder_ / "neither.jsonl", "medmcqa_from_1").name, "medmcqa_from_1");
  EXPECT_FAILS(read_examples(kGolden + "medmcqa_original_train.json", "", 0), Code::invalid, "set schema to");  // one row, cop 3
}

TEST_F(ExampleFileTest, ASchemaThatTheAnswersContradictIsRefused) {
  const std::string from_0 = file("zero.jsonl", letters_row("0") + letters_row("3"));
  const std::string from_1 = file("four.jsonl", letters_row("1") + letters_row("4"));
  EXPECT_FAILS(read_examples(from_0, "medmcqa_from_1", 0), Code::invalid, "answers count from 0 (row 1");
  EXPECT_FAILS(read_examples(from_1, "medmcqa_from_0", 0), Code::invalid, "answers count from 1 (row 2");
  EXPECT_EQ(read_examples(from_1, "medmcqa_from_1", 0).examples.at(1).gold, 3);
}

TEST_F(ExampleFileTest, ErrorsListWhatWasSeenAndWhatIsKnown) {
  EXPECT_FAILS(read_examples(file("a.jsonl", R"({"colour": "red", "size": 3})"), "", 0), Code::invalid,
               "colour, size; known schemas: aqua, ");
  EXPECT_FAILS(read_examples(file("b.jsonl", R"({"messages": [], "text": "t"})"), "", 0), Code::invalid, "'messages' and 'text'");
  EXPECT_FAILS(read_examples(file("c.jsonl", "\n\n"), "", 0), Code::format, "no rows");
  EXPECT_FAILS(read_examples(file("d.jsonl", R"({"text": ""})"), "text", 0), Code::invalid, "1 skipped: field 'text' is empty");
  EXPECT_FAILS(read_examples(file("e.jsonl", "{\"text\": \"a\"}\n{\"text\""), "", 0), Code::format, "e.jsonl:2");
  EXPECT_FAILS(read_examples(folder_ / "absent.jsonl", "", 0), Code::io, "absent.jsonl");
}

TEST_F(ExampleFileTest, OneBadRowDoesNotHideTheSchema) {
  const std::string path = file("a.jsonl", "{\"note\": 1}\n{\"text\": \"a\"}\n\n{\"text\": \"b\"}\n");
  const ExampleFile read = read_examples(path, "", 0);
  EXPECT_EQ(read.rows, 3);
  ASSERT_EQ(read.examples.size(), 2u);
  EXPECT_EQ(read.examples[1].row, 4);  // its line
  EXPECT_EQ(read.skipped.reasons().at("field 'text' is absent").first_row, 1);
  EXPECT_EQ(read_examples(path, "", 1).examples.size(), 1u);
}

TEST_F(ExampleFileTest, RowsThatCannotBeReadAreSkippedAndShown) {
  ExampleReader reader(file("a.csv", "prompt,completion\na,b\nc\nd,\xFF\ne,\nf,g\n"), "");
  std::string skipped;
  reader.on_skip([&](int64_t number, const std::string &reason, const Json &row) {
    skipped += text(number, " ", reason, " ", row.dump(), "; ");
  });
  int64_t examples = 0;
  for (Example example; reader.next(example);) examples++;
  EXPECT_EQ(examples, 2);
  EXPECT_EQ(reader.rows(), 5);
  EXPECT_EQ(skipped, "3 fewer cells than the header null; 4 not valid UTF-8 null; 5 field 'completion' is empty "
                     "{\"prompt\": \"e\", \"completion\": \"\"}; ");
  EXPECT_EQ(reader.skipped().total(), 3);
  EXPECT_FAILS(read_examples(file("b.csv", "text\n\xFF\n\xFE\n"), "", 0), Code::format, "b.csv:2: not valid UTF-8; and no other");
}

TEST_F(ExampleFileTest, IdsThatOccurAgainAreCounted) {
  const ExampleFile read = read_examples(file("a.jsonl", R"({"id": "x", "text": "1"})" "\n" R"({"id": 7, "text": "2"})" "\n"
      R"({"id": "y", "text": "3"})" "\n" R"({"id": "x", "text": "4"})" "\n" R"({"text": "5"})" "\n" R"({"id": 7, "text": "6"})"), "", 0);
  EXPECT_EQ(read.examples.size(), 6u) << "they are used like others";
  EXPECT_EQ(read.repeated_ids.count, 2);
  EXPECT_EQ(read.repeated_ids.first_row, 4);
  EXPECT_EQ(read_examples(kData + "/gsm8k/train.jsonl", "", 0).repeated_ids.count, 0);
  EXPECT_EQ(read_examples(kGolden + "mbpp.jsonl", "", 0).repeated_ids.count, 0);
}

TEST_F(ExampleFileTest, APlainTextFileIsReadByItsSchema) {
  const std::string path = file("a.txt", "one\n\ntwo\nlines\n\n\nthree\n");
  EXPECT_EQ(read_examples(path, "", 0).examples.size(), 1u);
  EXPECT_EQ(read_examples(path, "wikitext", 0).examples.at(0).completion, "one\n\ntwo\nlines\n\n\nthree\n");
  const ExampleFile paragraphs = read_examples(path, "paragraphs", 0);
  ASSERT_EQ(paragraphs.examples.size(), 3u);
  EXPECT_EQ(paragraphs.examples[1].completion, "two\nlines");
  EXPECT_EQ(paragraphs.examples[1].row, 3);
}

TEST_F(ExampleFileTest, ParquetRowsAreExamples) {
  using test::ParquetBuilder;
  const auto column = [](const std::vector<std::string> &texts) {
    const int count = static_cast<int>(texts.size());
    return ParquetBuilder::Chunk{count, ParquetBuilder::page(count, ParquetEncoding::plain, test::plain_texts(texts))};
  };
  const std::string path =
      file("train.parquet", ParquetBuilder()
                                .text("question")
                                .text("answer")
                                .row_group(2, {column({"1 + 1?", "\xff"}), column({"Two. #### 2", "#### 3"})})
                                .row_group(1, {column({"2 + 2?"}), column({"Four. #### 4"})})
                                .file());
  const ExampleFile examples = read_examples(path, "", 0);
  EXPECT_EQ(examples.schema.name, "gsm8k");
  EXPECT_EQ(examples.rows, 3);
  ASSERT_EQ(examples.examples.size(), 2u);
  EXPECT_EQ(examples.examples[1].row, 3);
  EXPECT_EQ(examples.skipped.total(), 1);
}

// The pages of the other columns are no pages: whoever looks at them fails.
TEST_F(ExampleFileTest, OfAParquetFileTheColumnsOfTheSchemaAreRead) {
  using test::ParquetBuilder;
  const auto chunk = [](const std::vector<std::string> &texts) {
    const int count = static_cast<int>(texts.size());
    return ParquetBuilder::Chunk{count, ParquetBuilder::page(count, ParquetEncoding::plain, test::plain_texts(texts))};
  };
  const ParquetBuilder::Chunk damaged{2, std::string(40, '\xFF')};
  const std::string path = file("train.parquet", ParquetBuilder()
                                                     .text("before")
                                                     .text("question")
                                                     .text("between")
                                                     .text("answer")
                                                     .text("after")
                                                     .row_group(2, {damaged, chunk({"1 + 1?", "1 + 2?"}), damaged,
                                                                    chunk({"#### 2", "#### 3"}), damaged})
                                                     .file());
  EXPECT_FAILS(read_rows(path), Code::format, "column 'before'");
  const ExampleFile examples = read_examples(path, "gsm8k", 0);
  ASSERT_EQ(examples.examples.size(), 2u);
  EXPECT_EQ(examples.examples[1].prompt, "1 + 2?\n");
  EXPECT_EQ(examples.examples[1].reference, "3");
  EXPECT_FAILS(ExampleReader(path, "gsm8k", true).next(*std::make_unique<Example>()), Code::format, "column 'before'");
  EXPECT_FAILS(read_examples(path, "casehold", 0), Code::format, "column 'before'");  // none of its columns is there
}

TEST_F(ExampleFileTest, AFolderIsItsDataFilesInOrder) {
  file("b.jsonl", "");
  file("a.txt", "");
  file("notes.md", "");
  EXPECT_EQ(data_files(folder_.path()), (std::vector<std::string>{folder_ / "a.txt", folder_ / "b.jsonl"}));
  make_folders(folder_ / "c/d");
  make_folders(folder_ / "c/.hidden");
  for (const char *name : {"c/1.csv.gz", "c/d/2.tsv", "c/d/3.json.zst", "c/notes.md", "c/.hidden/4.csv"}) file(name, "");
  EXPECT_EQ(data_files(folder_.path()), (std::vector<std::string>{folder_ / "a.txt", folder_ / "b.jsonl", folder_ / "c/1.csv.gz",
                                                                  folder_ / "c/d/2.tsv", folder_ / "c/d/3.json.zst"}));
  EXPECT_EQ(data_files(folder_ / "c/*"), (std::vector<std::string>{folder_ / "c/1.csv.gz", folder_ / "c/notes.md"}));
  EXPECT_EQ(data_files(folder_ / "?/d/[23].*"), (std::vector<std::string>{folder_ / "c/d/2.tsv", folder_ / "c/d/3.json.zst"}));
  file("odd[1].csv", "");
  EXPECT_EQ(data_files(folder_ / "odd[1].csv"), (std::vector<std::string>{folder_ / "odd[1].csv"}));  // a file's own name
  EXPECT_FAILS(data_files(folder_ / "*.parquets"), Code::invalid, "no file has a name of this pattern");
  const test::TemporaryFolder empty;
  EXPECT_FAILS(data_files(empty.path()), Code::invalid, "no data file");
}

}  // namespace
}  // namespace moe
