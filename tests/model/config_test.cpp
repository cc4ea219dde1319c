// DecoderConfig as read from config.json and GGUF metadata.
#include "model/config.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "model/module.h"
#include "support/expect_error.h"
#include "support/golden.h"

namespace moe {
namespace {

using test::golden_path;

DecoderConfig golden_config(const std::string &name) {
  const std::string path = golden_path("models/" + name + "/config.json");
  return read_config(read_json(path), path);
}

// The config of a golden model with some keys replaced.
DecoderConfig changed(const std::string &name, const std::string &changes) {
  Json json = read_json(golden_path("models/" + name + "/config.json"));
  const Json changed_keys = Json::parse(changes, "test");
  for (const auto &[key, value] : changed_keys.members()) json.set(key, value);
  return read_config(json, "config.json");
}

// theta^(-2 j / h), plainly
std::vector<double> frequencies(double theta, int64_t h) {
  std::vector<double> out;
  for (int64_t j = 0; j < h; j += 2) out.push_back(1 / std::pow(theta, static_cast<double>(j) / static_cast<double>(h)));
  return out;
}

void expect_frequencies(const Rope &rope, const std::vector<double> &expected) {
  ASSERT_EQ(rope.inverse_frequency.size(), expected.size());
  for (size_t j = 0; j < expected.size(); j++) EXPECT_NEAR(rope.inverse_frequency[j], expected[j], 1e-7 * expected[j]) << j;
  EXPECT_EQ(rope.factor, 1);
}

TEST(Config, LlamaHasItsSizesAndScales) {
  const DecoderConfig c = golden_config("llama");
  EXPECT_EQ(c.family, "llama");
  EXPECT_EQ(c.layers, 3);
  EXPECT_EQ(c.vocabulary, 139);
  EXPECT_EQ(c.hidden, 48);
  EXPECT_EQ(c.intermediate, 89);
  EXPECT_EQ(c.heads, 4);
  EXPECT_EQ(c.kv_heads, 2);
  EXPECT_EQ(c.head_dimension, 12);
  EXPECT_EQ(c.max_positions, 256);
  EXPECT_FLOAT_EQ(c.norm_epsilon, 1e-5f);
  EXPECT_FLOAT_EQ(c.attention_scale, 1 / std::sqrt(12.0f));
  EXPECT_EQ(c.embedding_scale, 1);
  EXPECT_EQ(c.activation, Activation::silu);
  EXPECT_FALSE(c.tied_embeddings || c.query_key_norm || c.sandwich_norms || c.norm_plus_one);
}

// Llama 3.1's rule by wavelengths, the form in which it was published.
TEST(Config, Llama3ScalingKeepsFastStretchesSlowAndBlendsBetween) {
  for (double original : {32.0, 128.0}) {
    const DecoderConfig c =
        changed("llama", text(R"({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
      "high_freq_factor": 4.0, "original_max_position_embeddings": )",
                              original, "}}"));
    std::vector<double> expected;
    int kept = 0, stretched = 0, blended = 0;
    for (double f : frequencies(500000, 12)) {
      const double wavelength = 2 * std::numbers::pi / f;
      if (wavelength > original / 1) {
        expected.push_back(f / 8), stretched++;
      } else if (wavelength < original / 4) {
        expected.push_back(f), kept++;
      } else {
        const double smooth = (original / wavelength - 1) / (4 - 1);
        expected.push_back((1 - smooth) * f / 8 + smooth * f), blended++;
      }
    }
    EXPECT_TRUE(kept > 0 && stretched > 0);
    EXPECT_EQ(blended, original == 128 ? 1 : 0);
    ASSERT_EQ(c.ropes.size(), 1u);
    expect_frequencies(c.ropes[0], expected);
    if (original == 32) {
      EXPECT_EQ(c.ropes[0].inverse_frequency, golden_config("llama").ropes[0].inverse_frequency);
    }
  }
}

TEST(Config, LinearScalingUnderTheOlderKeyDividesEveryFrequency) {
  const DecoderConfig c = golden_config("llama_tied");
  EXPECT_TRUE(c.tied_embeddings);
  std::vector<double> expected = frequencies(10000, 8);
  for (double &f : expected) f /= 2;
  expect_frequencies(c.ropes[0], expected);
}

TEST(Config, BothStylesOfRopeKeysMeanTheSame) {
  const DecoderConfig old_style = golden_config("llama");
  const DecoderConfig new_style =
      changed("llama", R"({"rope_scaling": null, "rope_theta": null, "rope_parameters": {"rope_type": "llama3",
    "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32}})");
  EXPECT_EQ(old_style.ropes[0].inverse_frequency, new_style.ropes[0].inverse_frequency);
}

TEST(Config, Qwen3HasNormsOnQueriesAndKeysAndItsOwnHeadDimension) {
  const DecoderConfig c = golden_config("qwen3");
  EXPECT_TRUE(c.query_key_norm);
  EXPECT_EQ(c.head_dimension, 20);
  EXPECT_EQ(c.query_width(), 80);
  EXPECT_EQ(c.kv_width(), 40);
  expect_frequencies(c.ropes[0], frequencies(1e6, 20));
  for (const auto &layer : c.layer) EXPECT_EQ(layer.window, 0);
}

TEST(Config, Qwen3WindowsApplyFromMaxWindowLayersOn) {
  const DecoderConfig c = changed("qwen3", R"({"use_sliding_window": true, "sliding_window": 16, "max_window_layers": 1})");
  EXPECT_EQ(c.layer[0].window, 0);
  EXPECT_EQ(c.layer[1].window, 16);
  EXPECT_EQ(c.layer[2].window, 16);
}

TEST(Config, Gemma3AlternatesLocalAndGlobalLayers) {
  const DecoderConfig c = golden_config("gemma3_text");
  EXPECT_EQ(c.family, "gemma3");
  EXPECT_TRUE(c.query_key_norm && c.sandwich_norms && c.norm_plus_one && c.tied_embeddings);
  EXPECT_FLOAT_EQ(c.embedding_scale, std::sqrt(48.0f));
  EXPECT_FLOAT_EQ(c.attention_scale, 1 / std::sqrt(40.0f));
  EXPECT_EQ(c.activation, Activation::gelu_tanh);
  ASSERT_EQ(c.layer.size(), 4u);
  const int64_t windows[] = {8, 8, 0, 8};
  for (size_t i = 0; i < 4; i++) {
    EXPECT_EQ(c.layer[i].window, windows[i]) << i;
    expect_frequencies(c.ropes[static_cast<size_t>(c.layer[i].rope)], frequencies(windows[i] ? 1e4 : 1e6, 20));
  }
}

TEST(Config, NestedGemma3TakesLayerTypesAndScalesGlobalLayersOnly) {
  const DecoderConfig c = golden_config("gemma3_nested");
  ASSERT_EQ(c.layer.size(), 3u);
  EXPECT_EQ(c.layer[0].window, 8);
  EXPECT_EQ(c.layer[1].window, 0);
  EXPECT_EQ(c.layer[2].window, 8);
  EXPECT_TRUE(c.tied_embeddings);
  std::vector<double> global = frequencies(1e6, 20);
  for (double &f : global) f /= 8;
  expect_frequencies(c.ropes[static_cast<size_t>(c.layer[1].rope)], global);
  expect_frequencies(c.ropes[static_cast<size_t>(c.layer[0].rope)], frequencies(1e4, 20));
}

TEST(Config, Gemma3HasTheDefaultsOfItsClass) {
  const DecoderConfig c =
      read_config(Json::parse(R"({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", "hidden_size": 2560,
    "intermediate_size": 10240, "num_hidden_layers": 34, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
    "sliding_window": 1024}})",
                              "c"),
                  "c");
  EXPECT_EQ(c.vocabulary, 262208);
  EXPECT_EQ(c.heads, 8);
  EXPECT_EQ(c.kv_heads, 4);
  EXPECT_EQ(c.head_dimension, 256);
  EXPECT_EQ(c.layer[4].window, 1024);
  EXPECT_EQ(c.layer[5].window, 0);
  EXPECT_FLOAT_EQ(c.attention_scale, 1 / 16.0f);
}

TEST(Config, Gemma3InTheNewerStyleHasRopeParametersByLayerType) {
  const DecoderConfig c = changed("gemma3_text", R"({"rope_theta": null, "rope_local_base_freq": null, "rope_parameters": {
    "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 20000.0}}})");
  std::vector<double> global = frequencies(5e5, 20);
  for (double &f : global) f /= 4;
  expect_frequencies(c.ropes[0], global);
  expect_frequencies(c.ropes[1], frequencies(2e4, 20));
}

TEST(Config, GgufMetadataGivesTheFamilyOfLlamaCpp) {
  const DecoderConfig llama = read_config(Gguf(golden_path("gguf/llama-Q4_0.gguf")));
  EXPECT_EQ(llama.vocabulary, 272);
  EXPECT_EQ(llama.head_dimension, 16);
  EXPECT_FALSE(llama.tied_embeddings);
  EXPECT_FLOAT_EQ(llama.norm_epsilon, 1e-6f);
  const DecoderConfig qwen = read_config(Gguf(golden_path("gguf/qwen3-F16.gguf")));
  EXPECT_TRUE(qwen.query_key_norm);
  EXPECT_EQ(qwen.query_width(), 64);
  expect_frequencies(qwen.ropes[0], frequencies(1e6, 16));
  const DecoderConfig gemma = read_config(Gguf(golden_path("gguf/gemma3-F32.gguf")));
  EXPECT_TRUE(gemma.tied_embeddings && gemma.sandwich_norms);
  EXPECT_FALSE(gemma.norm_plus_one) << "the file holds 1 + w";
  ASSERT_EQ(gemma.layer.size(), 7u);
  for (size_t i = 0; i < 7; i++) EXPECT_EQ(gemma.layer[i].window, i == 5 ? 0 : 8);
}

TEST(Config, GgufDivisorsStretchTheFrequencies) {
  const Gguf file(golden_path("gguf/llama-F32.gguf"));
  const std::vector<float> divisors = file.read_floats(file.at("rope_freqs.weight"));
  std::vector<double> expected = frequencies(10000, 16);
  for (size_t j = 0; j < expected.size(); j++) expected[j] /= divisors[j];
  EXPECT_NE(divisors.front(), divisors.back());
  expect_frequencies(read_config(file).ropes[0], expected);
}

TEST(Config, FingerprintDependsOnTheArchitectureAndNotOnTheFileFormat) {
  const DecoderConfig c = golden_config("llama");
  EXPECT_EQ(c.fingerprint().size(), 64u);
  EXPECT_EQ(c.fingerprint(), changed("llama", R"({"torch_dtype": "bfloat16", "rms_norm_eps": 1e-6})").fingerprint());
  EXPECT_NE(c.fingerprint(), changed("llama", R"({"num_hidden_layers": 2})").fingerprint());
  EXPECT_NE(c.fingerprint(), changed("llama", R"({"model_type": "qwen3", "head_dim": 12})").fingerprint());
  EXPECT_EQ(read_config(Gguf(golden_path("gguf/llama-F32.gguf"))).fingerprint(),
            read_config(Gguf(golden_path("gguf/llama-Q8_0.gguf"))).fingerprint());
}

TEST(Config, WhatIsNotBuiltInIsRefusedByName) {
  EXPECT_FAILS(changed("llama", R"({"model_type": "mistral"})"), Code::unsupported,
               "config.json: model_type 'mistral' is not supported yet; supported: llama, qwen3, gemma3");
  EXPECT_FAILS(changed("llama", R"({"attention_bias": true})"), Code::unsupported, "'attention_bias'");
  EXPECT_FAILS(changed("llama", R"({"mlp_bias": true})"), Code::unsupported, "'mlp_bias'");
  EXPECT_FAILS(changed("llama", R"({"hidden_act": "gelu"})"), Code::unsupported, "'hidden_act': expected silu, found gelu");
  EXPECT_FAILS(changed("llama", R"({"rope_scaling": {"rope_type": "yarn", "factor": 4}})"), Code::unsupported, "'yarn'");
  EXPECT_FAILS(changed("llama", R"({"partial_rotary_factor": 0.5})"), Code::unsupported, "'partial_rotary_factor'");
  EXPECT_FAILS(changed("llama", R"({"quantization_config": {"bits": 4}})"), Code::unsupported, "'quantization_config'");
  EXPECT_FAILS(changed("gemma3_text", R"({"attn_logit_softcapping": 50.0})"), Code::unsupported, "'attn_logit_softcapping'");
  EXPECT_FAILS(changed("gemma3_text", R"({"final_logit_softcapping": 30.0})"), Code::unsupported, "'final_logit_softcapping'");
  EXPECT_FAILS(changed("gemma3_text", R"({"use_bidirectional_attention": true})"), Code::unsupported,
               "'use_bidirectional_attention'");
}

TEST(Config, SizesOutOfRangeNameFileKeyAndValue) {
  EXPECT_FAILS(changed("llama", R"({"num_hidden_layers": 0})"), Code::format,
               "config.json: key 'num_hidden_layers': expected 1 to 1024, found 0");
  EXPECT_FAILS(changed("llama", R"({"hidden_size": 1e15})"), Code::format, "'hidden_size'");
  EXPECT_FAILS(changed("llama", R"({"hidden_size": 47})"), Code::format,
               "'hidden_size': expected a multiple of the 4 heads, found 47");
  EXPECT_FAILS(changed("llama", R"({"vocab_size": -1})"), Code::format, "'vocab_size'");
  EXPECT_FAILS(changed("llama", R"({"vocab_size": "many"})"), Code::format, "'vocab_size'");
  EXPECT_FAILS(changed("llama", R"({"num_key_value_heads": 3})"), Code::format, "multiple of the 3 key heads, found 4");
  EXPECT_FAILS(changed("llama", R"({"head_dim": 11})"), Code::format, "must be even, found 11");
  EXPECT_FAILS(changed("llama", R"({"rms_norm_eps": 0})"), Code::format, "epsilon");
  EXPECT_FAILS(changed("llama", R"({"rope_theta": -1})"), Code::format, "'rope_theta'");
  EXPECT_FAILS(changed("llama", R"({"rope_scaling": {"type": "linear", "factor": 0}})"), Code::format, "'factor'");
  EXPECT_FAILS(changed("gemma3_text", R"({"sliding_window": 0})"), Code::format, "'sliding_window'");
  EXPECT_FAILS(changed("gemma3_text", R"({"layer_types": ["full_attention"]})"), Code::format,
               "'layer_types': expected a list of 4");
  EXPECT_FAILS(read_config(Json::parse("{}", "c"), "c"), Code::format, "c: key 'model_type' is missing");
  EXPECT_FAILS(read_config(Json::parse("[]", "c"), "c"), Code::format, "c");
}

TEST(Module, PathsAndTheirInverse) {
  EXPECT_EQ(module_path(3, Module::down_proj), "model.layers.3.mlp.down_proj");
  int64_t layer = -1;
  Module module = Module::q_proj;
  ASSERT_TRUE(parse_module_path("model.layers.12.self_attn.o_proj", &layer, &module));
  EXPECT_EQ(layer, 12);
  EXPECT_EQ(module, Module::o_proj);
  for (const char *path :
       {"", "model.layers.", "model.layers.1", "model.layers.1.", "model.layers.-1.mlp.up_proj", "model.layers.01.mlp.up_proj",
        "model.layers.1.mlp.up_proj.x", "layers.1.mlp.up_proj", "model.layers.99999999999999999999.mlp.up_proj"}) {
    EXPECT_FALSE(parse_module_path(path, &layer, &module)) << path;
  }
}

}  // namespace
}  // namespace moe
