// The verbs of moe-eval on a tiny model.
#include <filesystem>

#include "apps/run_program.h"
#include "support/golden.h"
#include "support/needs.h"

namespace moe::test {
namespace {

class EvaluationVerbs : public Programs {
 protected:
  void make_bundle() {
    for (const std::string domain : {"math", "medical"}) {
      make_data(domain);
      ASSERT_EQ(train({"lora", "--model", tiny, "--data", path(domain + ".jsonl"), "--domain", domain, "--rank", "4",
                       "--max-steps", "2"})
                    .status,
                0);
    }
    ASSERT_EQ(train({"build", "--model", tiny, "--adapters-dir", "domain_models", "--output-dir", "moe_model"}).status, 0);
  }
};

TEST_F(EvaluationVerbs, InspectShowsTensorsAndMetadata) {
  const Json json = eval({"inspect", tiny, "--json"}).json();
  EXPECT_EQ(json.at("kind", "").string(), "gguf");
  EXPECT_GT(json.at("tensors", "").size(), 10u);
  const Ended table = eval({"inspect", tiny});
  EXPECT_EQ(table.status, 0);
  EXPECT_NE(table.out.find("token_embd.weight"), std::string::npos) << table.out;
  EXPECT_EQ(eval({"inspect", "nothing"}).status, 1);
}

TEST_F(EvaluationVerbs, InspectShowsColumnsOfParquetFiles) {
  const std::string file = std::string(MOE_TESTS_DIR) + "/golden/parquet/hyparquet/rowgroups.parquet";
  const Json json = eval({"inspect", file, "--json"}).json();
  EXPECT_EQ(json.at("kind", "").string(), "parquet");
  EXPECT_EQ(json.at("row_groups", "").size(), 2u);
  const Ended table = eval({"inspect", file});
  EXPECT_EQ(table.status, 0);
  EXPECT_NE(table.out.find("row group 1, 5 rows:"), std::string::npos) << table.out;
  EXPECT_NE(table.out.find("RLE_DICTIONARY"), std::string::npos) << table.out;
}

TEST_F(EvaluationVerbs, DataShowsTypesAndRowsOfParquetFiles) {
  const std::string file = std::string(MOE_TESTS_DIR) + "/golden/parquet/parquet-testing/map_no_value.parquet";
  const Ended ended = eval({"data", "--data", file, "--raw", "--types", "--head", "1"});
  EXPECT_EQ(ended.status, 0) << ended.err;
  EXPECT_EQ(ended.out,
            "{\"types\": {\"my_map\": \"map<int32, int32> not null\", \"my_map_no_v\": \"list<key: int32 not null> not null\", "
            "\"my_list\": \"list<element: int32 not null> not null\"}}\n"
            "{\"my_map\": [[1, null], [2, null], [3, null]], \"my_map_no_v\": [1, 2, 3], \"my_list\": [1, 2, 3]}\n");
}

TEST_F(EvaluationVerbs, TokenizeReadsEscapesAndSurrogatePairs) {
  NEEDS_UTF8PROC();
  const Ended ended =
      eval({"tokenize", "--model", tiny},
           "{\"text\": \"a\\u00e9\\n\\\"\\ud83d\\ude00\\u0000\"}\n\n{\"text\":\"\",\"add_special_tokens\":false}\n");
  ASSERT_EQ(ended.status, 0) << ended.err;
  EXPECT_EQ(ended.out,
            "{\"ids\": [97, 195, 169, 10, 34, 240, 159, 152, 128, 0], \"decoded\": \"aé\\n\\\"\xF0\x9F\x98\x80\\u0000\"}\n"
            "{\"ids\": [], \"decoded\": \"\"}\n");
}

TEST_F(EvaluationVerbs, TokenizeReadsAFileAndMayParseControlTokens) {
  NEEDS_UTF8PROC();
  write_text(path("in.jsonl"),
             "{\"text\": \"<|im_end|>\", \"parse_special\": true}\n{\"text\": \"<|im_end|>\", \"parse_special\": false}\n");
  const Ended ended = eval({"tokenize", "--model", tiny, "--input", "in.jsonl"});
  ASSERT_EQ(ended.status, 0) << ended.err;
  const Json second = Json::parse(ended.out.substr(ended.out.find('\n') + 1), "line");
  EXPECT_EQ(second.at("ids", "").size(), 10u);
  EXPECT_EQ(second.at("decoded", "").string(), "<|im_end|>");
}

TEST_F(EvaluationVerbs, TokenizeRefusesWhatIsNoJson) {
  for (const char *line : {"{\"text\": \"\\ud83d\"}", "{\"text\": \"\\ude00\\ud83d\"}", "{\"text\": \"a\nb\"}",
                           "{\"text\": \"a\"} x", "{\"text\": \"a\", \"text\": \"b\"}", "{\"text\": 01}", "{\"text\": 1}",
                           "{\"text\": \"\\x\"}", "{\"text\": \"\xC3(\"}", "{\"text\": \"\xED\xA0\x80\"}", "{'text': 'a'}", "[",
                           "{\"text\": \"a\",}", "{\"text\": \"a\", \"parse_special\": \"yes\"}"}) {
    const Ended ended = eval({"tokenize", "--model", tiny, "--quiet"}, line);
    EXPECT_EQ(ended.status, 1) << line;
    EXPECT_NE(ended.err.find("standard input:1"), std::string::npos) << line << ended.err;
  }
  EXPECT_EQ(eval({"tokenize", "--model", tiny, "--quiet"}, std::string(200, '[')).status, 1);
}

TEST_F(EvaluationVerbs, RenderWritesChatsAsTheGoldenFilesHaveThem) {
  const std::string chat = std::string(MOE_TESTS_DIR) + "/golden/text/chat/";
  const std::string lines = file_text(chat + "Qwen-Qwen3-0.6B.jsonl");
  const std::string first = lines.substr(0, lines.find('\n') + 1);
  const Json expected = Json::parse(first, "golden");
  write_text(path("chatml.jinja"),
             "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + "
             "'\\n'}}{% endfor %}"
             "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}");
  const Ended ended = eval({"render", "--template-file", "chatml.jinja"},
                           first + R"({"messages": [{"role": "user", "content": "é"}, {"role": "assistant", "content": "ok"}]})" +
                               "\n" + R"({"messages": [], "tools": [1]})" + "\nno json\n");
  ASSERT_EQ(ended.status, 0) << ended.err;
  std::istringstream out(ended.out);
  std::string line;
  std::getline(out, line);
  EXPECT_EQ(Json::parse(line, "out").at("rendered", "").string(), expected.at("rendered", "").string());
  std::getline(out, line);
  const Json second = Json::parse(line, "out");
  const std::string rendered = second.at("rendered", "").string();
  EXPECT_EQ(rendered, "<|im_start|>user\né<|im_end|>\n<|im_start|>assistant\nok<|im_end|>\n");
  EXPECT_EQ(second.at("assistant_spans", "").items()[0].items()[0].integer(),
            static_cast<int64_t>(rendered.find("ok<")) - 1);  // code points
  for (int i = 0; i < 2; i++) {
    std::getline(out, line);
    EXPECT_NE(Json::parse(line, "out").find("error"), nullptr) << line;
  }
}

TEST_F(EvaluationVerbs, DataShowsRowsSpansAndSkippedRows) {
  NEEDS_UTF8PROC();
  write_text(path("d.jsonl"), "{\"prompt\": \"one and\", \"completion\": \" two\"}\n{\"prompt\": \"x\", \"completion\": \"\"}\n");
  const Ended ended = eval({"data", "--data", "d.jsonl", "--model", tiny});
  ASSERT_EQ(ended.status, 0) << ended.err;
  EXPECT_NE(ended.out.find("one and⟦ two⟧"), std::string::npos) << ended.out;
  EXPECT_NE(ended.out.find("supervised"), std::string::npos) << ended.out;
  const Ended raw = eval({"data", "--data", "d.jsonl", "--raw", "--types", "--head", "1"});
  EXPECT_EQ(count_of(raw.out, "\n"), 2u) << raw.out;
  EXPECT_NE(raw.out.find("\"types\""), std::string::npos);
  EXPECT_EQ(eval({"data", "--data", "d.jsonl", "--types"}).status, 2);
  EXPECT_NE(ended.out.find("prompt_completion, 2 rows, 1 examples"), std::string::npos) << ended.out;
}

TEST_F(EvaluationVerbs, DataTellsWhatBecameOfEachRow) {
  NEEDS_UTF8PROC();
  write_text(path("d.csv"), "id,prompt,completion\n1,a, b\n1,c, d\n2,e\n3," + std::string(3000, 'x') + ", f\n4,g,\"\"\n");
  const Ended ended = eval({"data", "--data", "d.csv", "--model", tiny, "--head", "1", "--show-skipped", "2", "--max-length", "100"});
  ASSERT_EQ(ended.status, 0) << ended.err;
  EXPECT_EQ(count_of(ended.out, "-- row "), 3u) << ended.out;
  EXPECT_NE(ended.out.find("-- row 4, skipped: fewer cells than the header"), std::string::npos) << ended.out;
  EXPECT_NE(ended.out.find("-- row 5, completion, skipped: longer than max_length 100"), std::string::npos) << ended.out;
  EXPECT_NE(ended.out.find("== d.csv: schema prompt_completion, 5 rows, 2 examples\n"), std::string::npos) << ended.out;
  EXPECT_NE(ended.out.find("-- skipped 1: field 'completion' is empty (first row 6)"), std::string::npos) << ended.out;
  EXPECT_NE(ended.out.find("-- 1 rows have an id that occurred before"), std::string::npos) << ended.out;
  write_text(path("empty.jsonl"), "\n");
  EXPECT_EQ(eval({"data", "--data", "empty.jsonl"}).out, "== empty.jsonl: empty\n");
  const Ended json = eval({"data", "--data", "d.csv", "--head", "0", "--show-skipped", "1", "--json"});
  EXPECT_EQ(json.out.substr(0, json.out.find('\n')), R"({"row": 4, "skipped": "fewer cells than the header", "columns": null})");
}

TEST_F(EvaluationVerbs, GenerateStreamsWhatJsonReports) {
  NEEDS_UTF8PROC();
  const Words words{"generate",         "--model", tiny,           "--prompt",  "hello",
                    "--max-new-tokens", "6",       "--ignore-eos", "--compute", "f32"};
  const Ended streamed = eval(words);
  ASSERT_EQ(streamed.status, 0) << streamed.err;
  Words with_json = words;
  with_json.push_back("--json");
  const Json json = eval(with_json).json();
  EXPECT_EQ(json.at("tokens", "").size(), 6u);
  EXPECT_EQ(json.at("finish_reason", "").string(), "length");
  EXPECT_EQ(streamed.out, json.at("text", "").string() + "\n");
  Words by_input{"generate", "--model", tiny, "--max-new-tokens", "6", "--ignore-eos", "--compute", "f32"};
  EXPECT_EQ(eval(by_input, "hello").out, streamed.out);
}

TEST_F(EvaluationVerbs, ABundleShowsItsRoutingAndIsEvaluated) {
  NEEDS_UTF8PROC();
  make_bundle();
  const Json json = eval({"generate", "--moe", "moe_model", "--prompt", "math", "--max-new-tokens", "3", "--ignore-eos",
                          "--show-routing", "--json"})
                        .json();
  double sum = 0;
  for (const auto &[name, share] : json.at("routing", "").members()) sum += share.number();
  EXPECT_NEAR(sum, 1, 1e-4);
  EXPECT_EQ(json.at("trace", "").size(), 3u);
  const std::string adapters = "math=domain_models/math/final_adapter,medical=domain_models/medical/final_adapter";
  const Ended ended = eval({"--moe", "moe_model", "--adapter", adapters, "--tasks", "math=math.jsonl,medical=medical.jsonl",
                            "--limit", "4", "--output-dir", "results", "--log-samples"});
  ASSERT_EQ(ended.status, 0) << ended.err;
  for (const char *model : {"base", "medical", "moe", "oracle"}) EXPECT_NE(ended.out.find(model), std::string::npos) << ended.out;
  EXPECT_TRUE(std::filesystem::exists(path("results/evaluation_results.json")));
  EXPECT_TRUE(std::filesystem::exists(path("results/evaluation_samples.jsonl")));
}

TEST_F(EvaluationVerbs, PerplexityStatesItsWindows) {
  NEEDS_UTF8PROC();
  write_text(path("t.txt"), std::string(300, 'x') + "the end of a text");
  const Json json = eval({"perplexity", "--model", tiny, "--text", "t.txt", "--window", "64", "--stride", "32", "--json"}).json();
  EXPECT_GT(json.at("perplexity", "").number(), 1);
  EXPECT_EQ(json.at("window", "").integer(), 64);
  EXPECT_EQ(json.at("tokens_scored", "").integer(), json.at("tokens", "").integer() - 1);
}

TEST_F(EvaluationVerbs, ChatNeedsATemplateAndEndsWithExit) {
  NEEDS_UTF8PROC();
  const Ended none = eval({"chat", "--model", tiny}, "hi\n");
  EXPECT_EQ(none.status, 1);
  EXPECT_NE(none.err.find("chat template"), std::string::npos) << none.err;
  EXPECT_EQ(eval({"chat", "--model", tiny}, "/exit\nhi\n").status, 0);
}

TEST_F(EvaluationVerbs, DumpGivesTheGoldenLogits) {
  const std::string golden = golden_path("gguf/qwen3.expected.safetensors");
  const Ended ended = eval({"dump", "--model", tiny, "--input", golden, "--output", "out.safetensors", "--what",
                            "logits,token_nll", "--compute", "f32"});
  ASSERT_EQ(ended.status, 0) << ended.err;
  const Safetensors expected(golden), got(path("out.safetensors"));
  EXPECT_LT(largest_difference(golden_floats(expected, "F32.logits"), golden_floats(got, "logits")), 2e-4);
}

TEST_F(EvaluationVerbs, BenchReportsRatesBesideThePeak) {
  const Ended ended = eval({"bench", "--model", tiny, "--prompt-tokens", "32", "--generate-tokens", "4", "--batch-size", "2",
                            "--train", "--rank", "2", "--threads", "2", "--json"});
  ASSERT_EQ(ended.status, 0) << ended.err;
  const Json json = ended.json();
  for (const char *key :
       {"prompt_tokens_per_s", "generate_tokens_per_s", "train_tokens_per_s", "model_load_s", "peak_rss_bytes"}) {
    EXPECT_GT(json.at(key, "").number(), 0) << key;
  }
  EXPECT_LE(json.at("prompt_tokens_per_s_median", "").number(), json.at("prompt_tokens_per_s", "").number());
  ASSERT_EQ(json.at("machine_peak", "").size(), 2u);
  EXPECT_GT(json.at("machine_peak", "").items()[0].at("read_gb_s", "").number(), 0);
}

}  // namespace
}  // namespace moe::test
