// Options: every row of the table can be set and refuses what is outside its bounds; aliases, lists, JSON, the page of the docs.
#include <cstdlib>
#include <set>
#include <sstream>

#include "api/api.h"

namespace moe::test {
namespace {

std::vector<moe_option> all_rows() {
  std::vector<moe_option> rows;
  moe_option row = MOE_OPTION_INIT;
  for (size_t i = 0; moe_options_row(i, &row); i++) rows.push_back(row);
  return rows;
}

std::vector<std::string> words(std::string text, char separator) {
  std::vector<std::string> parts;
  std::stringstream in(text);
  for (std::string part; std::getline(in, part, separator);) {
    part.erase(0, part.find_first_not_of(' '));
    if (!part.empty()) parts.push_back(part);
  }
  return parts;
}

std::string get(const moe_options *options, const char *key) {
  TextHandle text;
  moe_error error = MOE_ERROR_INIT;
  EXPECT_OK(moe_options_get(options, key, &text, &error));
  return text ? text_of(text) : "";
}

// A value that the row accepts, and one that it refuses ("" = any text is fine).
std::pair<std::string, std::string> good_and_bad(const moe_option &row) {
  const std::string type = row.type, bounds = row.bounds;
  if (type == "choice") return {words(bounds, '|').front(), "no_such_choice"};
  if (type == "bool") return {"yes", "maybe"};
  if (type == "string") return {"some text", ""};
  const std::string low = bounds.substr(0, bounds.find(' '));
  const std::string below = type == "float" ? std::to_string(std::stod(low) - 1) : std::to_string(std::stoll(low) - 1);
  return {low, below};
}

TEST(Options, EveryRowAcceptsItsDefaultAndRefusesWhatIsOutside) {
  const std::vector<moe_option> rows = all_rows();
  ASSERT_GT(rows.size(), 70u);
  moe_error error = MOE_ERROR_INIT;
  for (const moe_option &row : rows) {
    const OptionsHandle options = make_options({});
    EXPECT_EQ(moe_options_has(options, row.key), 0) << row.key;
    EXPECT_EQ(get(options, row.key), row.default_value) << row.key;
    if (*row.default_value) {
      EXPECT_OK(moe_options_set(options, row.key, row.default_value, &error)) << row.key;
    }
    const auto [good, bad] = good_and_bad(row);
    EXPECT_OK(moe_options_set(options, row.key, good.c_str(), &error)) << row.key;
    EXPECT_EQ(moe_options_has(options, row.key), 1) << row.key;
    if (!bad.empty()) EXPECT_CODE(moe_options_set(options, row.key, bad.c_str(), &error), MOE_ERR_INVALID, row.key);
    const std::string above = std::string(row.bounds).find(" to ") != std::string::npos ? "99999999999999" : "";
    if (!above.empty()) EXPECT_CODE(moe_options_set(options, row.key, above.c_str(), &error), MOE_ERR_INVALID, row.bounds);
    EXPECT_FALSE(std::string(row.help).empty()) << row.key;
    EXPECT_NE(std::string(row.help).back(), '.') << row.key;
    EXPECT_FALSE(words(row.verbs, ' ').empty()) << row.key;
  }
}

TEST(Options, NamesAndAliasesAreDistinct) {
  std::set<std::string> names;
  for (const moe_option &row : all_rows()) {
    EXPECT_TRUE(names.insert(row.key).second) << row.key;
    for (const std::string &alias : words(row.aliases, ',')) EXPECT_TRUE(names.insert(alias).second) << alias;
  }
}

TEST(Options, HabitsFromOtherProgramsWork) {
  const std::map<std::string, std::string> habits = {{"r", "rank"},
                                                     {"lora_r", "rank"},
                                                     {"lora_rank", "rank"},
                                                     {"lora_alpha", "alpha"},
                                                     {"num_train_epochs", "epochs"},
                                                     {"per_device_train_batch_size", "batch_size"},
                                                     {"model-path", "model"},
                                                     {"base-model", "model"},
                                                     {"max-samples", "max_samples"},
                                                     {"data_dir", "data"},
                                                     {"save_dir", "output_dir"},
                                                     {"checkpoint_path", "adapter"},
                                                     {"lr", "learning_rate"},
                                                     {"warmup", "warmup_ratio"},
                                                     {"max_seq_length", "max_length"},
                                                     {"learning-rate", "learning_rate"}};
  for (const auto &[alias, key] : habits) {
    const OptionsHandle options = make_options({{alias, key == "max_length" ? "16" : "1"}});
    EXPECT_EQ(moe_options_has(options, key.c_str()), 1) << alias;
  }
  EXPECT_EQ(get(make_options({{"max-length", "512"}, {"max_length", "256"}}), "max_seq_len"), "256");
}

TEST(Options, AnUnknownKeyNamesTheNearest) {
  const OptionsHandle options = make_options({});
  moe_error error = MOE_ERROR_INIT;
  EXPECT_CODE(moe_options_set(options, "leraning_rate", "1", &error), MOE_ERR_INVALID, "did you mean 'learning_rate'?");
  EXPECT_CODE(moe_options_set(options, "bach-size", "1", &error), MOE_ERR_INVALID, "did you mean 'batch_size'?");
  EXPECT_CODE(moe_options_set(options, "zzzzzzzzzzzzzzz", "1", &error), MOE_ERR_INVALID, "'zzzzzzzzzzzzzzz' does not exist");
  EXPECT_EQ(std::string(error.message).find("did you mean"), std::string::npos);
  EXPECT_EQ(moe_options_has(options, "zzz"), 0);
}

TEST(Options, NumbersAreReadExactly) {
  moe_error error = MOE_ERROR_INIT;
  const OptionsHandle options = make_options({{"memory_limit", "8G"}, {"learning_rate", "2e-4"}, {"seed", "9007199254740991"}});
  EXPECT_EQ(get(options, "memory_limit"), "8589934592");
  EXPECT_EQ(get(options, "seed"), "9007199254740991");
  for (const char *bad : {"", " 1", "1 ", "1.5", "0x10", "1e3", "--1", "nan"}) {
    EXPECT_CODE(moe_options_set(options, "rank", bad, &error), MOE_ERR_INVALID, "rank: expected an integer, 1 to 4096");
  }
  for (const char *bad : {"", "1,5", "nan", "inf", "1e999", "abc"})
    EXPECT_CODE(moe_options_set(options, "alpha", bad, &error), MOE_ERR_INVALID, "alpha");
  for (const auto &[value, bytes] :
       std::map<std::string, std::string>{{"512MiB", "536870912"}, {"1k", "1024"}, {"1.5GB", "1610612736"}, {"77", "77"}}) {
    EXPECT_OK(moe_options_set(options, "memory_limit", value.c_str(), &error));
    EXPECT_EQ(get(options, "memory_limit"), bytes);
  }
}

TEST(Options, ListsAreCutAtCommasOrAppended) {
  moe_error error = MOE_ERROR_INIT;
  const OptionsHandle options = make_options({{"target_modules", "q_proj,v_proj"}});
  EXPECT_EQ(get(options, "target_modules"), "q_proj,v_proj");
  EXPECT_OK(moe_options_append(options, "stop", "a,b", 3, &error));
  EXPECT_OK(moe_options_append(options, "stop", "x\0y", 3, &error));
  EXPECT_EQ(get(options, "stop"), "[\"a,b\", \"x\\u0000y\"]");
  const OptionsHandle copy = make_options({{"stop", get(options, "stop")}});
  EXPECT_EQ(get(copy, "stop"), get(options, "stop"));
  EXPECT_CODE(moe_options_append(options, "rank", "1", 1, &error), MOE_ERR_INVALID, "takes one value");
  EXPECT_CODE(moe_options_set(options, "what", "logits,nothing", &error), MOE_ERR_INVALID, "logits|hidden_states");
  EXPECT_CODE(moe_options_set(options, "target_usage", "0.5,2", &error), MOE_ERR_INVALID, "0 to 1");
}

TEST(Options, JsonIsTakenWholeOrNotAtAll) {
  moe_error error = MOE_ERROR_INIT;
  const OptionsHandle options = make_options({{"rank", "4"}});
  const std::string json =
      R"({"lora_r": 8, "data": {"math": "m.jsonl", "law": "l.jsonl"}, "rslora": true, "stop": ["\n", "a,b"], "lr": 3e-5})";
  EXPECT_OK(moe_options_load_json(options, json.data(), json.size(), &error));
  EXPECT_EQ(get(options, "rank"), "8");
  EXPECT_EQ(get(options, "data"), "math=m.jsonl,law=l.jsonl");
  EXPECT_EQ(get(options, "rslora"), "true");
  const std::string bad = R"({"rank": 2, "batch_size": 0})";
  EXPECT_CODE(moe_options_load_json(options, bad.data(), bad.size(), &error), MOE_ERR_INVALID, "batch_size");
  EXPECT_EQ(get(options, "rank"), "8");
  const std::string null = R"({"rank": null})";
  EXPECT_OK(moe_options_load_json(options, null.data(), null.size(), &error));
  EXPECT_EQ(moe_options_has(options, "rank"), 0);
  EXPECT_CODE(moe_options_load_json(options, "[1]", 3, &error), MOE_ERR_FORMAT, "JSON object");
  EXPECT_CODE(moe_options_load_json(options, "{", 1, &error), MOE_ERR_FORMAT, "options");
}

TEST(Options, TheResolvedConfigurationIsTypedAndReadsBack) {
  moe_error error = MOE_ERROR_INIT;
  const OptionsHandle options = make_options({{"rank", "4"}, {"data", "a=x,b=y"}, {"learning_rate", "1e-3"}, {"rslora", "1"}});
  TextHandle text;
  ASSERT_OK(moe_options_resolved(options, "lora", &text, &error));
  const Json json = json_of(text);
  EXPECT_EQ(json.at("rank", "").integer(), 4);
  EXPECT_EQ(json.at("learning_rate", "").number(), 1e-3);
  EXPECT_TRUE(json.at("rslora", "").boolean());
  EXPECT_EQ(json.at("data", "").items()[1].string(), "b=y");
  EXPECT_TRUE(json.at("model", "").is_null());
  EXPECT_EQ(json.find("window"), nullptr);
  const OptionsHandle copy = make_options({});
  ASSERT_OK(moe_options_load_json(copy, moe_text_data(text), moe_text_length(text), &error));
  TextHandle again;
  ASSERT_OK(moe_options_resolved(copy, "lora", &again, &error));
  EXPECT_EQ(text_of(again), text_of(text));
  EXPECT_CODE(moe_options_resolved(options, "fly", &again, &error), MOE_ERR_INVALID, "expected one of");
}

TEST(Options, AMisplacedOptionIsNamed) {
  moe_error error = MOE_ERROR_INIT;
  EXPECT_OK(moe_options_check(make_options({{"rank", "4"}, {"data", "x"}}), "lora", &error));
  EXPECT_CODE(moe_options_check(make_options({{"rank", "4"}, {"window", "9"}}), "lora", &error), MOE_ERR_INVALID,
              "'window' is not read by 'lora'");
}

// docs/options.md: MOE_UPDATE_DOCS=1 writes it anew.
TEST(Options, ThePageOfTheDocumentationIsTheTable) {
  std::string page =
      "# Options\n\nOne word for the flag, the key in a configuration file and `moe_options_set`; `-` and `_` are the same. "
      "Written by the test of\n"
      "the options from the table in lib/api/option_rows.cpp.\n\n"
      "| option | aliases | type | default | bounds | meaning | read by |\n|---|---|---|---|---|---|---|\n";
  for (const moe_option &row : all_rows()) {
    const auto cell = [](std::string value) {
      for (size_t at = 0; (at = value.find('|', at)) != std::string::npos; at += 2) value.insert(at, "\\");
      return value;
    };
    page += std::string("| `") + row.key + "` | " + row.aliases + " | " + row.type + (row.is_list ? " list" : "") + " | " +
            row.default_value + " | " + cell(row.bounds) + " | " + cell(row.help) + " | " + row.verbs + " |\n";
  }
  const std::string path = std::string(MOE_SOURCE_DIR) + "/docs/options.md";
  if (std::getenv("MOE_UPDATE_DOCS")) write_text(path, page);
  std::ifstream in(path);
  const std::string found{std::istreambuf_iterator<char>(in), {}};
  EXPECT_EQ(found, page) << "run the test once with MOE_UPDATE_DOCS=1";
}

TEST(Options, TheTableIsAlsoJson) {
  moe_error error = MOE_ERROR_INIT;
  TextHandle all, bench;
  ASSERT_OK(moe_options_describe(nullptr, &all, &error));
  EXPECT_EQ(json_of(all).size(), all_rows().size());
  ASSERT_OK(moe_options_describe("bench", &bench, &error));
  EXPECT_LT(json_of(bench).size(), 20u);
  EXPECT_CODE(moe_options_describe("fly", &bench, &error), MOE_ERR_INVALID, "fly");
}

}  // namespace
}  // namespace moe::test
