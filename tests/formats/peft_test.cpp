#include "formats/peft.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>

#include "base/error.h"
#include "base/file.h"
#include "formats/module_pattern.h"
#include "formats/safetensors.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace moe {
namespace {

using test::TemporaryFolder;

std::string golden(const std::string &name) { return std::string(MOE_TESTS_DIR) + "/golden/lora/" + name; }

LoraConfig parse(const std::string &members) {
  return parse_lora_config(Json::parse(R"({"peft_type":"LORA","r":4,"lora_alpha":8,)" + members + "}", "c.json"), "c.json");
}
LoraConfig parse_with(const std::string &members) { return parse(R"("target_modules":["q_proj"],)" + members); }

class GoldenAdapter : public testing::TestWithParam<const char *> {};

TEST_P(GoldenAdapter, ModulesRanksAlphasAndScalesAreThoseOfPeft) {
  const PeftAdapter adapter = read_peft_adapter(golden(GetParam()));
  const Json expected = read_json(golden(GetParam()) + "/expected.json");
  const Json &modules = expected.at("modules", "expected.json");
  ASSERT_EQ(adapter.modules.size(), modules.size());
  for (const auto &[path, numbers] : modules.members()) {
    const LoraModule *module = adapter.find(path);
    ASSERT_TRUE(module) << path;
    EXPECT_EQ(module->rank, numbers.integer_at("r", path)) << path;
    EXPECT_EQ(alpha_of(adapter.config, path), numbers.number_at("alpha", path)) << path;
    EXPECT_NEAR(module->scale, numbers.number_at("scale", path), 1e-12) << path;
    EXPECT_TRUE(matches(adapter.config, path)) << path;
    EXPECT_EQ(static_cast<int64_t>(module->a.size()), module->rank * module->in);
    EXPECT_EQ(static_cast<int64_t>(module->b.size()), module->rank * module->out);
  }
  EXPECT_FALSE(matches(adapter.config, "lm_head"));
  EXPECT_FALSE(matches(adapter.config, "model.embed_tokens"));
  EXPECT_FALSE(adapter.is_zero);
  EXPECT_TRUE(adapter.architecture_fingerprint.empty());
  EXPECT_TRUE(adapter.config.unknown_keys.empty());
}

TEST_P(GoldenAdapter, WhatIsWrittenReadsBack) {
  PeftAdapter adapter = read_peft_adapter(golden(GetParam()));
  adapter.architecture_fingerprint = "a1";
  adapter.weights_fingerprint = "b2";
  TemporaryFolder folder;
  write_peft_adapter(folder.path(), adapter);
  const PeftAdapter again = read_peft_adapter(folder.path());
  EXPECT_EQ(again.architecture_fingerprint, "a1");
  EXPECT_EQ(again.weights_fingerprint, "b2");
  EXPECT_EQ(again.config.alpha_pattern, adapter.config.alpha_pattern);
  EXPECT_EQ(again.config.rank_pattern, adapter.config.rank_pattern);
  ASSERT_EQ(again.modules.size(), adapter.modules.size());
  for (size_t i = 0; i < adapter.modules.size(); ++i) {
    EXPECT_EQ(again.modules[i].path, adapter.modules[i].path);
    EXPECT_EQ(again.modules[i].a, adapter.modules[i].a);
    EXPECT_EQ(again.modules[i].b, adapter.modules[i].b);
    EXPECT_EQ(again.modules[i].scale, adapter.modules[i].scale);
  }
  // No key is lost or changed, in whatever version of PEFT it began.
  const Json before = read_json(golden(GetParam()) + "/adapter_config.json"), after = read_json(folder / "adapter_config.json");
  for (const auto &[key, value] : before.members()) {
    ASSERT_TRUE(after.find(key)) << key;
    EXPECT_EQ(after.find(key)->dump(), value.dump()) << key;
  }
}

INSTANTIATE_TEST_SUITE_P(All, GoldenAdapter,
                         testing::Values("qwen3_all_linear", "llama_qv_rslora",
#if MOE_HAVE_PCRE2
                                         "gemma3_patterns", "mistral_regex",
#endif
                                         "llama_tied_suffixes", "qwen2_one_layer", "qwen3_dropout", "qwen3_moe_attention"),
                         [](const auto &info) { return std::string(info.param); });

TEST(Adapter, DoraIsRefusedByName) {
  EXPECT_FAILS(read_peft_adapter(golden("qwen3_dora")), Code::unsupported, "use_dora");
  // Also where the configuration hides it.
  TemporaryFolder folder;
  std::filesystem::copy_file(golden("qwen3_dora/adapter_model.safetensors"), folder / "adapter_model.safetensors");
  Json config = read_json(golden("qwen3_dora/adapter_config.json"));
  config.set("use_dora", false);
  std::ofstream(folder / "adapter_config.json") << config.dump();
  EXPECT_FAILS(read_peft_adapter(folder.path()), Code::unsupported, "lora_magnitude_vector");
}

// A small adapter on disk whose keys and tensors a test can change before it is read.
struct Folder {
  TemporaryFolder folder;
  std::vector<float> a = std::vector<float>(4 * 6, 0.5f), b = std::vector<float>(3 * 4, 0.25f);
  std::string config = R"({"peft_type":"LORA","r":4,"lora_alpha":8,"target_modules":["q_proj"]})";
  std::vector<TensorToWrite> tensors{{"base_model.model.m.q_proj.lora_A.weight", DType::f32, {4, 6}, a.data()},
                                     {"base_model.model.m.q_proj.lora_B.weight", DType::f32, {3, 4}, b.data()}};
  PeftAdapter read() {
    std::ofstream(folder / "adapter_config.json") << config;
    write_safetensors(folder / "adapter_model.safetensors", tensors);
    return read_peft_adapter(folder.path());
  }
};

TEST(Adapter, IsReadWithShapesOfItsModules) {
  Folder f;
  const PeftAdapter adapter = f.read();
  ASSERT_EQ(adapter.modules.size(), 1u);
  EXPECT_EQ(adapter.modules[0].path, "m.q_proj");
  EXPECT_EQ(adapter.modules[0].in, 6);
  EXPECT_EQ(adapter.modules[0].out, 3);
  EXPECT_EQ(adapter.modules[0].scale, 2);
}

TEST(Adapter, KeysWithAnAdapterNameAreAccepted) {
  Folder f;
  f.tensors[0].name = "base_model.model.m.q_proj.lora_A.default.weight";
  f.tensors[1].name = "base_model.model.m.q_proj.lora_B.default.weight";
  EXPECT_EQ(f.read().modules[0].path, "m.q_proj");
}

TEST(Adapter, HalfPrecisionIsConverted) {
  Folder f;
  const std::vector<uint16_t> half(24, 0x3800);  // 0.5
  f.tensors[0].dtype = DType::f16;
  f.tensors[0].data = half.data();
  EXPECT_EQ(f.read().modules[0].a, f.a);
}

TEST(Adapter, EveryKeyIsAccountedFor) {
  const auto with = [](auto change) {
    Folder f;
    change(f.tensors);
    return f.read().modules.size();
  };
  // One more factor A under another key.
  const auto also = [&](const char *key) {
    return with([&](std::vector<TensorToWrite> &tensors) { tensors.push_back(tensors[0]), tensors.back().name = key; });
  };
  EXPECT_FAILS(also("base_model.model.m.q_proj.weight"), Code::format, "'base_model.model.m.q_proj.weight' is not a LoRA factor");
  EXPECT_FAILS(also("m.q_proj.lora_A.weight"), Code::format, "is not a LoRA factor");
  EXPECT_FAILS(also("base_model.model.m.k_proj.lora_A.weight"), Code::format, "'m.k_proj' is not a target");
  EXPECT_FAILS(also("base_model.model.m.q_proj.lora_A.default.weight"), Code::format, "are the same factor");
  EXPECT_FAILS(also("base_model.model.m.q_proj.lora_embedding_A"), Code::unsupported, "embedding");
  EXPECT_FAILS(with([](auto &tensors) { tensors.pop_back(); }), Code::format, "'m.q_proj' has no lora_B");
  EXPECT_FAILS(with([](auto &tensors) { tensors.erase(tensors.begin()); }), Code::format, "'m.q_proj' has no lora_A");
  EXPECT_FAILS(with([](auto &tensors) { tensors.clear(); }), Code::format, "no LoRA factor");
}

TEST(Adapter, ShapesFollowTheRank) {
  const auto with = [](int factor, std::vector<int64_t> shape) {
    Folder f;
    f.tensors[static_cast<size_t>(factor)].shape = shape;
    return f.read().modules.size();
  };
  EXPECT_FAILS(with(0, {3, 6}), Code::format, "expected rank 4");
  EXPECT_FAILS(with(1, {4, 3}), Code::format, "lora_B.weight': expected rank 4");
  EXPECT_FAILS(with(0, {24}), Code::format, "expected a matrix");
  EXPECT_FAILS(with(0, {4, 0}), Code::format, "expected a matrix");
}

TEST(Adapter, NotANumberIsRefused) {
  Folder f;
  f.b[5] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_FAILS(f.read(), Code::numeric, "lora_B");
}

TEST(Adapter, ADeltaOfExactlyZeroIsReported) {
  Folder f;
  EXPECT_FALSE(f.read().is_zero);
  std::fill(f.b.begin(), f.b.end(), 0.0f);
  EXPECT_TRUE(f.read().is_zero);
  f.b[2 * 4 + 1] = 1;  // column 1 of B
  EXPECT_FALSE(f.read().is_zero);
  std::fill(f.a.begin() + 6, f.a.begin() + 12, 0.0f);  // row 1 of A
  EXPECT_TRUE(f.read().is_zero);
}

TEST(Adapter, APickleIsNeverRead) {
  TemporaryFolder folder;
  std::ofstream(folder / "adapter_config.json") << R"({"peft_type":"LORA","r":4,"lora_alpha":8,"target_modules":["q_proj"]})";
  std::ofstream(folder / "adapter_model.bin") << "x";
  EXPECT_FAILS(read_peft_adapter(folder.path()), Code::unsupported, "adapter_model.bin");
}

TEST(Adapter, WriterRefusesWhatItsConfigurationContradicts) {
  Folder f;
  const PeftAdapter good = f.read();
  const auto write = [&](auto change) {
    PeftAdapter adapter = good;
    change(adapter);
    write_peft_adapter(f.folder.path(), adapter);
  };
  EXPECT_FAILS(write([](PeftAdapter &a) { a.config.r = 5; }), Code::invalid, "rank 4");
  EXPECT_FAILS(write([](PeftAdapter &a) { a.config.target_modules.names = {"v_proj"}; }), Code::invalid, "m.q_proj");
  EXPECT_FAILS(write([](PeftAdapter &a) { a.config.use_rslora = true; }), Code::invalid, "scale 2");
  EXPECT_FAILS(write([](PeftAdapter &a) { a.modules[0].in = 5; }), Code::invalid, "expected factors");
}

TEST(Adapter, ANewConfigurationHasTheKeysOfPeft) {
  LoraConfig config;
  config.r = 16;
  config.alpha = 32;
  config.target_modules.names = {"q_proj", "v_proj"};
  const Json json = lora_config_json(config);
  EXPECT_EQ(json.at("target_modules", "").dump(), R"(["q_proj", "v_proj"])");
  EXPECT_EQ(json.at("lora_alpha", "").dump(), "32");
  EXPECT_EQ(json.at("init_lora_weights", "").dump(), "true");
  EXPECT_EQ(json.at("task_type", "").dump(), R"("CAUSAL_LM")");
  EXPECT_EQ(json.at("layers_to_transform", "").dump(), "null");
  EXPECT_EQ(json.find("exclude_modules"), nullptr);  // unknown to PEFT 0.10, which refuses what it does not know
  const LoraConfig again = parse_lora_config(json, "c.json");
  EXPECT_EQ(again.r, 16);
  EXPECT_EQ(again.target_modules.names, config.target_modules.names);
  EXPECT_TRUE(again.unknown_keys.empty());
}

TEST(LoraConfigFile, KeysThatChangeTheMathematicsAreRefusedByName) {
  for (const char *key : {"use_dora", "use_qalora", "use_bdlora", "lora_bias", "fan_in_fan_out", "use_something_new"}) {
    EXPECT_FAILS(parse_with("\"" + std::string(key) + "\":true"), Code::unsupported, key);
    EXPECT_EQ(parse_with("\"" + std::string(key) + "\":false").r, 4);
    EXPECT_EQ(parse_with("\"" + std::string(key) + "\":null").r, 4);
  }
  for (const char *key :
       {"modules_to_save", "trainable_token_indices", "alora_invocation_tokens", "target_parameters", "layer_replication"}) {
    EXPECT_FAILS(parse_with("\"" + std::string(key) + "\":[1]"), Code::unsupported, key);
    EXPECT_EQ(parse_with("\"" + std::string(key) + "\":[]").r, 4);
    EXPECT_EQ(parse_with("\"" + std::string(key) + "\":null").r, 4);
  }
  EXPECT_FAILS(parse_with(R"("bias":"all")"), Code::unsupported, "bias");
  EXPECT_FAILS(parse_with(R"("bias":"lora_only")"), Code::unsupported, "bias");
  EXPECT_FAILS(parse_with(R"("init_lora_weights":"pissa_niter_4")"), Code::unsupported, "pissa_niter_4");
  EXPECT_FAILS(parse_with(R"("megatron_config":{"a":1})"), Code::unsupported, "megatron_config");
  EXPECT_EQ(parse_with(R"("init_lora_weights":"gaussian","megatron_core":"megatron.core","loftq_config":{})").r, 4);
}

TEST(LoraConfigFile, ValuesAreChecked) {
  const auto whole = [](const std::string &json) { return parse_lora_config(Json::parse(json, "c.json"), "c.json"); };
  EXPECT_FAILS(whole("[]"), Code::format, "c.json");
  EXPECT_FAILS(whole(R"({"peft_type":"IA3"})"), Code::unsupported, "IA3");
  EXPECT_FAILS(whole(R"({"peft_type":"LORA","lora_alpha":8,"target_modules":["q"]})"), Code::format, "'r' is missing");
  EXPECT_FAILS(whole(R"({"peft_type":"LORA","r":0,"lora_alpha":8,"target_modules":["q"]})"), Code::format, "'r'");
  EXPECT_FAILS(whole(R"({"peft_type":"LORA","r":1.5,"lora_alpha":8,"target_modules":["q"]})"), Code::format, "'r'");
  EXPECT_FAILS(whole(R"({"peft_type":"LORA","r":1,"lora_alpha":"8","target_modules":["q"]})"), Code::format, "lora_alpha");
  EXPECT_FAILS(parse(R"("target_modules":null)"), Code::format, "target_modules");
  EXPECT_FAILS(parse(R"("target_modules":[])"), Code::format, "target_modules");
  EXPECT_FAILS(parse(R"("target_modules":[1])"), Code::format, "target_modules");
  EXPECT_FAILS(parse_with(R"("lora_dropout":1.5)"), Code::format, "lora_dropout");
  EXPECT_FAILS(parse_with(R"("rank_pattern":{"a":0})"), Code::format, "rank_pattern");
  EXPECT_FAILS(parse_with(R"("rank_pattern":[])"), Code::format, "rank_pattern");
  EXPECT_FAILS(parse_with(R"("alpha_pattern":{"a":"x"})"), Code::format, "alpha_pattern");
  EXPECT_FAILS(parse_with(R"("layers_to_transform":["a"])"), Code::format, "layers_to_transform");
  EXPECT_FAILS(parse(R"("target_modules":".*q_proj","layers_to_transform":[1])"), Code::format, "layers_to_transform");
  EXPECT_EQ(parse_with(R"("a_new_key":{"x":1})").unknown_keys, std::vector<std::string>{"a_new_key"});
}

TEST(Matching, ANameMatchesWholeComponentsAtTheEndOfAPath) {
  const LoraConfig config = parse(R"("target_modules":["q_proj","mlp.up_proj","lm_head"],
                                     "exclude_modules":["layers.1.self_attn.q_proj"])");
  EXPECT_TRUE(matches(config, "model.layers.0.self_attn.q_proj"));
  EXPECT_TRUE(matches(config, "q_proj"));
  EXPECT_TRUE(matches(config, "lm_head"));
  EXPECT_TRUE(matches(config, "model.layers.0.mlp.up_proj"));
  EXPECT_FALSE(matches(config, "model.layers.0.xq_proj"));
  EXPECT_FALSE(matches(config, "model.layers.0.up_proj"));
  EXPECT_FALSE(matches(config, "model.layers.0.self_attn.q_proj.weight"));
  EXPECT_FALSE(matches(config, "model.layers.1.self_attn.q_proj"));
}

TEST(Matching, AllLinearIsEverythingThatIsNotExcluded) {
  const LoraConfig config = parse(R"("target_modules":"all-linear","exclude_modules":["o_proj"])");
  EXPECT_TRUE(matches(config, "model.layers.0.self_attn.q_proj"));
  EXPECT_FALSE(matches(config, "model.layers.0.self_attn.o_proj"));
}

TEST(Matching, LayersToTransformSelectsByTheNumberOfTheLayer) {
  const LoraConfig one = parse_with(R"("layers_to_transform":11)");
  EXPECT_TRUE(matches(one, "model.layers.11.self_attn.q_proj"));
  EXPECT_FALSE(matches(one, "model.layers.1.self_attn.q_proj"));
  EXPECT_FALSE(matches(one, "11.q_proj"));      // no name before the number
  EXPECT_FALSE(matches(one, "layers.11.q_proj"));  // and that name has to follow a dot
  EXPECT_TRUE(matches(one, "q_proj"));          // a whole name is adapted whatever its layer
  const LoraConfig named = parse_with(R"("layers_to_transform":[0,2],"layers_pattern":"layers")");
  EXPECT_TRUE(matches(named, "model.layers.2.self_attn.q_proj"));
  EXPECT_FALSE(matches(named, "model.blocks.2.self_attn.q_proj"));
  EXPECT_TRUE(matches(named, "model.layers.0.mlp.experts.7.q_proj"));
  // Without a pattern the last number counts, as in PEFT.
  EXPECT_FALSE(matches(parse_with(R"("layers_to_transform":[0])"), "model.layers.0.mlp.experts.7.q_proj"));
  EXPECT_TRUE(matches(parse_with(R"("layers_to_transform":[7])"), "model.layers.0.mlp.experts.7.q_proj"));
}

TEST(Matching, PatternsOfRanksAndAlphasMatchTheEndOfAPathAndTheFirstWins) {
  const LoraConfig config = parse_with(R"("rank_pattern":{"layers.1.mlp.up_proj":2,"up_proj":6,"k_proj":3},
                                          "alpha_pattern":{"k_proj":1.5})");
  EXPECT_EQ(rank_of(config, "model.layers.1.mlp.up_proj"), 2);
  EXPECT_EQ(rank_of(config, "model.layers.11.mlp.up_proj"), 6);
  EXPECT_EQ(rank_of(config, "model.layers.0.xk_proj"), 4);
  EXPECT_EQ(rank_of(config, "k_proj"), 3);
  EXPECT_EQ(scale_of(config, "k_proj"), 0.5);
  EXPECT_EQ(alpha_of(config, "model.layers.1.mlp.up_proj"), 8);
}

#if MOE_HAVE_PCRE2
TEST(Patterns, ARegularExpressionMatchesTheWholePath) {
  const LoraConfig config = parse(R"x("target_modules":".*layers\\.[02]\\.(self_attn\\.(q|k)_proj|mlp\\.down_proj)")x");
  EXPECT_TRUE(matches(config, "model.layers.2.self_attn.k_proj"));
  EXPECT_TRUE(matches(config, "model.layers.0.mlp.down_proj"));
  EXPECT_FALSE(matches(config, "model.layers.1.mlp.down_proj"));
  EXPECT_FALSE(matches(config, "model.layers.0.mlp.down_proj.x"));
}

TEST(Patterns, MalformedAndCostlyExpressionsAreRefused) {
  EXPECT_FAILS(matches(parse(R"("target_modules":"a(")"), "a"), Code::format, "malformed");
  EXPECT_FAILS(matches(parse(R"x("target_modules":"(a|aa)+[bc]")x"), std::string(64, 'a')), Code::format, "cannot be matched");
  EXPECT_FAILS(pattern_matches(std::string(5000, 'a'), PatternPlace::whole, "a", "c"), Code::format, "5000 bytes");
}

TEST(Patterns, PlainNamesMatchAsTheExpressionsTheyAre) {
  // The plain matcher and PCRE2 (forced by an empty group) give the same answer.
  for (const char *pattern : {"q_proj", "layers.1", "a.c", "proj", "self_attn.q_proj"}) {
    for (const char *path :
         {"q_proj", "model.layers.1", "model.layers.11", "x.abc", "abc", "xabc", "layersx1", "m.self_attn.q_proj"}) {
      for (PatternPlace place : {PatternPlace::whole, PatternPlace::end, PatternPlace::after_dot}) {
        EXPECT_EQ(pattern_matches(pattern, place, path, "c"), pattern_matches(std::string("(?:)") + pattern, place, path, "c"))
            << pattern << " " << path << " " << static_cast<int>(place);
      }
    }
  }
}
#else
TEST(Patterns, WithoutPcre2OnlyPlainNamesWork) {
  EXPECT_TRUE(pattern_matches("layers.1.q_proj", PatternPlace::end, "model.layers.1.q_proj", "c"));
  EXPECT_FAILS(pattern_matches(".*q_proj", PatternPlace::whole, "q_proj", "c"), Code::unsupported, "without PCRE2");
}
#endif

}  // namespace
}  // namespace moe
