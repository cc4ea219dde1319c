// Evaluation, perplexity and dump through the C API.
#include <cmath>
#include <cstring>

#include "api/bundle_fixture.h"
#include "base/file.h"
#include "support/golden.h"
#include "support/needs.h"

namespace moe::test {
namespace {

TEST(Evaluation, ComparesModelsOnTheSameRows) {
  NEEDS_UTF8PROC();
  moe_error error = MOE_ERROR_INIT;
  const Bundle bundle;
  write_sums(bundle.folder / "m.jsonl", 6);
  const OptionsHandle options = make_options({{"tasks", "math=" + (bundle.folder / "m.jsonl")},
                                              {"moe", bundle.path()},
                                              {"log_samples", "1"},
                                              {"adapter", "math=" + (bundle.folder / "adapters/math/final_adapter")},
                                              {"output_dir", bundle.folder / "results"}});
  struct {
    int64_t items = 0;
    std::string last;
  } seen;
  const auto count = [](const moe_event *event, void *user) -> int32_t {
    auto *s = static_cast<decltype(seen) *>(user);
    EXPECT_EQ(event->kind, MOE_EVENT_ITEM);
    EXPECT_STREQ(event->domain, "math");
    s->items++;
    s->last = event->name;
    return 0;
  };
  TextHandle results, table;
  ASSERT_OK(moe_eval_run(bundle.base, options, count, &seen, nullptr, &results, &table, &error));
  EXPECT_GT(seen.items, 0);
  EXPECT_NE(text_of(table).find("math"), std::string::npos);
  const Json json = json_of(results);
  EXPECT_EQ(json.at("run", "").at("library_version", "").string(), moe_version());
  EXPECT_TRUE(file_exists(bundle.folder / "results/evaluation_results.json"));
  EXPECT_TRUE(file_exists(bundle.folder / "results/evaluation_samples.jsonl"));
  for (const char *type : {"\"base\"", "\"lora\"", "\"moe\"", "\"oracle\""})
    EXPECT_NE(text_of(results).find(type), std::string::npos) << type;

  const auto stop = [](const moe_event *, void *) -> int32_t { return 1; };
  EXPECT_CODE(moe_eval_run(bundle.base, options, stop, nullptr, nullptr, &results, nullptr, &error), MOE_ERR_CANCELLED,
              "cancelled");
  EXPECT_CODE(moe_eval_run(bundle.base, nullptr, nullptr, nullptr, nullptr, &results, nullptr, &error), MOE_ERR_INVALID, "tasks");
  EXPECT_CODE(moe_eval_run(bundle.base, make_options({{"tasks", "x"}, {"model_type", "moe"}}), nullptr, nullptr, nullptr,
                           &results, nullptr, &error),
              MOE_ERR_INVALID, "moe");
}

TEST(Perplexity, IsTheExponentialOfTheMeanLoss) {
  NEEDS_UTF8PROC();
  moe_error error = MOE_ERROR_INIT;
  const ModelHandle model = load_tiny();
  std::string text;
  for (int i = 0; i < 40; i++) text += std::to_string(i) + " and ";
  TextHandle out;
  const OptionsHandle options = make_options({{"window", "32"}, {"stride", "16"}});
  ASSERT_OK(moe_perplexity(model, nullptr, text.data(), text.size(), options, nullptr, &out, &error));
  const Json json = json_of(out);
  EXPECT_NEAR(json.at("perplexity", "").number(), std::exp(json.at("mean_nll", "").number()),
              1e-6 * json.at("perplexity", "").number());
  EXPECT_EQ(json.at("window", "").integer(), 32);
  EXPECT_EQ(json.at("stride", "").integer(), 16);
  EXPECT_GT(json.at("tokens_scored", "").integer(), 100);
  EXPECT_EQ(moe_perplexity(model, nullptr, "", 0, options, nullptr, &out, &error), MOE_ERR_INVALID);
  TokenHandle token;
  ASSERT_OK(moe_cancel_token_create(&token, &error));
  moe_cancel_token_fire(token);
  EXPECT_CODE(moe_perplexity(model, nullptr, text.data(), text.size(), options, token, &out, &error), MOE_ERR_CANCELLED,
              "cancelled");
}

// Every tensor that the golden file has too.
void expect_golden(const std::string &found, const std::string &expected, const std::vector<std::string> &names) {
  const Safetensors file(found), golden(expected);
  for (const std::string &name : names) {
    ASSERT_NE(file.find(name), nullptr) << name;
    EXPECT_EQ(file.at(name).shape, golden.at(name).shape) << name;
    EXPECT_LT(largest_difference(golden_floats(golden, name), file.read_floats(file.at(name))), 2e-4) << name;
  }
}

TEST(Dump, WritesTheNumbersOfTheGoldenFiles) {
  moe_error error = MOE_ERROR_INIT;
  const TemporaryFolder folder;
  const std::string base = golden_path("models/qwen3/expected.safetensors"), adapter = golden_path("lora/qwen3_all_linear");
  ModelHandle model;
  ASSERT_OK(moe_model_load(golden_path("models/qwen3").c_str(), make_options({{"compute", "f32"}}), nullptr, &model, &error));
  const OptionsHandle options =
      make_options({{"input", base}, {"output", folder / "a"}, {"what", "logits,hidden_states,token_nll"}});
  ASSERT_OK(moe_dump(model, nullptr, options, nullptr, &error));
  expect_golden(folder / "a", base, {"logits", "hidden_states", "final_norm", "token_nll"});

  LoraHandle lora;
  ASSERT_OK(moe_lora_load(model, adapter.c_str(), nullptr, &lora, &error));
  const std::string expected = adapter + "/expected.safetensors";
  ASSERT_OK(moe_dump(model, lora, make_options({{"input", expected}, {"output", folder / "b"}, {"what", "logits,gradients"}}),
                     nullptr, &error));
  std::vector<std::string> gradients;
  const Safetensors golden(expected);
  for (const TensorInfo &tensor : golden.tensors()) {
    if (tensor.name.starts_with("grad.")) gradients.push_back(tensor.name);
  }
  EXPECT_GT(gradients.size(), 20u);
  expect_golden(folder / "b", expected, gradients);
  const double loss = read_json(adapter + "/expected.json").at("loss", "").number();
  const Safetensors file(folder / "b");
  EXPECT_NEAR(file.read_floats(file.at("loss"))[0], loss, 1e-5);
}

TEST(Dump, OfABundleHasRoutingAndGradientsByName) {
  moe_error error = MOE_ERROR_INIT;
  const Bundle bundle;
  const ModelHandle model = bundle.open();
  PackedBatch batch;
  const SmallBatch small;
  batch.tokens = small.tokens;
  batch.labels = small.labels;
  batch.starts = small.starts;
  batch.positions = {0, 1, 2, 3, 0, 1, 2, 3, 4};
  write_packed_batch(bundle.folder / "batch.safetensors", batch);
  const std::string out = bundle.folder / "out.safetensors";
  const OptionsHandle options = make_options({{"input", bundle.folder / "batch.safetensors"},
                                              {"output", out},
                                              {"what", "router,gradients,token_nll"},
                                              {"trainable", "joint"}});
  ASSERT_OK(moe_dump(model, nullptr, options, nullptr, &error));
  const Safetensors file(out);
  EXPECT_EQ(file.at("layers.0.router.probs").shape, (std::vector<int64_t>{9, 3}));
  EXPECT_EQ(file.at("layers.0.router.experts").dtype, DType::i32);
  EXPECT_NE(file.find("grad.layers.0.router.weight"), nullptr);
  EXPECT_NE(file.find("grad.math.base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"), nullptr);
  EXPECT_EQ(file.at("token_nll").shape, std::vector<int64_t>{9});
  EXPECT_EQ(file.at("loss").shape, std::vector<int64_t>{1});
  const std::vector<float> nll = file.read_floats(file.at("token_nll"));
  double sum = 0;
  for (float x : nll) sum += x;
  EXPECT_NEAR(file.read_floats(file.at("loss"))[0], sum / 7, 1e-5);
  EXPECT_CODE(moe_dump(bundle.base, nullptr, options, nullptr, &error), MOE_ERR_INVALID, "needs a bundle");
  ASSERT_OK(moe_options_set(options, "what", "gradients", &error));
  EXPECT_CODE(moe_dump(bundle.base, nullptr, options, nullptr, &error), MOE_ERR_INVALID, "trainable");
}

}  // namespace
}  // namespace moe::test
