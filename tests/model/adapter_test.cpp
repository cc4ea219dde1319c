// LoRA adapters: creation, files, names, and the base they belong to.
#include "model/adapter.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <set>

#include "formats/gguf.h"
#include "support/expect_error.h"
#include "support/golden.h"
#include "support/needs.h"
#include "support/temporary_folder.h"
#include "tensor/dequantize.h"
#include "tensor/host_arrays.h"

namespace moe {
namespace {

using test::golden_model;
using test::golden_path;
using test::TemporaryFolder;

LoraConfig config_of(std::vector<std::string> targets, int64_t rank = 4) {
  LoraConfig config;
  config.r = rank;
  config.alpha = 8;
  config.target_modules.names = std::move(targets);
  return config;
}

std::vector<float> values(std::span<const float> span) { return {span.begin(), span.end()}; }

// A copy of an adapter folder whose tensors a test changes.
struct AdapterFiles {
  explicit AdapterFiles(const std::string &folder) {
    std::filesystem::copy(folder + "/adapter_config.json", folder_ / "adapter_config.json");
    const Safetensors file(folder + "/adapter_model.safetensors");
    for (const TensorInfo &tensor : file.tensors()) tensors[tensor.name] = {tensor.shape, file.read_floats(tensor)};
    metadata = file.metadata();
  }
  const std::string &write() {
    std::vector<TensorToWrite> list;
    for (const auto &[name, tensor] : tensors) list.push_back({name, DType::f32, tensor.first, tensor.second.data()});
    write_safetensors(folder_ / "adapter_model.safetensors", list, metadata);
    return folder_.path();
  }
  std::map<std::string, std::pair<std::vector<int64_t>, std::vector<float>>> tensors;
  SafetensorsMetadata metadata;
  TemporaryFolder folder_;
};

TEST(Adapter, AFreshOneChangesNothingAndIsAFunctionOfTheSeed) {
  const auto model = golden_model("models/qwen3");
  LoraConfig config;
  config.r = 5;
  config.alpha = 10;
  config.target_modules.all_linear = true;
  const auto a = Adapter::create(*model, config, 7), same = Adapter::create(*model, config, 7),
             other = Adapter::create(*model, config, 8);
  EXPECT_TRUE(a->delta_is_zero());
  EXPECT_TRUE(a->targets_attention() && a->targets_ffn());
  EXPECT_EQ(a->largest_rank(), 5);
  EXPECT_EQ(values(a->parameters()), values(same->parameters()));
  EXPECT_NE(values(a->parameters()), values(other->parameters()));
  size_t total = 0;
  for (int64_t layer = 0; layer < model->config().layers; layer++) {
    for (int m = 0; m < kModules; m++) {
      const ModuleShape shape = module_shape(model->config(), static_cast<Module>(m));
      const LowRank f = a->factors(layer, static_cast<Module>(m));
      ASSERT_EQ(f.rank, 5);
      EXPECT_EQ(f.scale, 2);
      const float bound = 1 / std::sqrt(static_cast<float>(shape.in));
      float largest = 0;
      double mean = 0;
      for (int64_t i = 0; i < f.rank * shape.in; i++) largest = std::max(largest, std::abs(f.a[i])), mean += f.a[i];
      EXPECT_LE(largest, bound);
      EXPECT_GT(largest, 0.9f * bound);
      EXPECT_LT(std::abs(mean / static_cast<double>(f.rank * shape.in)), 0.2 * bound);
      for (int64_t i = 0; i < shape.out * f.rank; i++) ASSERT_EQ(f.b[i], 0);
      total += static_cast<size_t>(f.rank * (shape.in + shape.out));
    }
  }
  EXPECT_EQ(a->parameters().size(), total);
}

TEST(Adapter, LayersAndModulesStartDifferently) {
  const auto model = golden_model("models/qwen3");
  const auto adapter = Adapter::create(*model, config_of({"q_proj", "k_proj"}), 0);
  std::set<float> first;
  for (int64_t layer = 0; layer < 3; layer++) {
    first.insert(adapter->factors(layer, Module::q_proj).a[0]);
    first.insert(adapter->factors(layer, Module::k_proj).a[0]);
  }
  EXPECT_EQ(first.size(), 6u);
}

TEST(Adapter, ModulesThatAreNoTargetHaveRankZero) {
  const auto model = golden_model("models/llama");
  const auto adapter = Adapter::create(*model, config_of({"q_proj", "layers.1.mlp.up_proj"}), 0);
  EXPECT_EQ(adapter->factors(0, Module::q_proj).rank, 4);
  EXPECT_EQ(adapter->factors(0, Module::up_proj).rank, 0);
  EXPECT_EQ(adapter->factors(1, Module::up_proj).rank, 4);
  EXPECT_EQ(adapter->factors(0, Module::v_proj).a, nullptr);
  EXPECT_EQ(adapter->gradient_of(0, Module::v_proj).a, nullptr);
  const auto attention_only = Adapter::create(*model, config_of({"o_proj"}), 0);
  EXPECT_TRUE(attention_only->targets_attention());
  EXPECT_FALSE(attention_only->targets_ffn());
}

TEST(Adapter, ATargetThatMatchesNothingIsNamed) {
  const auto model = golden_model("models/llama");
  EXPECT_FAILS(Adapter::create(*model, config_of({"q_proj", "query"}), 0), Code::invalid,
               "target_modules: 'query' matches no projection");
  EXPECT_FAILS(Adapter::create(*model, config_of({"layers.9.self_attn.q_proj"}), 0), Code::invalid,
               "'layers.9.self_attn.q_proj'");
  EXPECT_FAILS(Adapter::create(*model, config_of({"lm_head"}), 0), Code::invalid, "'lm_head'");
  LoraConfig one_layer = config_of({"q_proj"});
  one_layer.layers_to_transform = {5};
  EXPECT_FAILS(Adapter::create(*model, one_layer, 0), Code::invalid, "'q_proj'");
}

TEST(Adapter, GradientsStandBesideTheParameters) {
  const auto model = golden_model("models/llama");
  const auto adapter = Adapter::create(*model, config_of({"v_proj"}), 0);
  const LowRankGradient g = adapter->gradient_of(1, Module::v_proj);
  const LowRank f = adapter->factors(1, Module::v_proj);
  EXPECT_EQ(g.a - adapter->gradients().data(), f.a - adapter->parameters().data());
  EXPECT_EQ(g.b - adapter->gradients().data(), f.b - adapter->parameters().data());
  for (float x : adapter->gradients()) ASSERT_EQ(x, 0);
}

class GoldenAdapter : public testing::TestWithParam<const char *> {};

TEST_P(GoldenAdapter, RanksScalesAndFactorsAreThoseOfPeft) {
  if (std::string(GetParam()) == "gemma3_patterns") {
    NEEDS_PCRE2();
  }
  const std::string folder = golden_path(std::string("lora/") + GetParam());
  const Json expected = read_json(folder + "/expected.json");
  const auto model = golden_model("models/" + expected.string_at("model", "expected.json"));
  const auto adapter = Adapter::load(*model, folder, false);
  const Safetensors file(folder + "/adapter_model.safetensors");
  size_t adapted = 0;
  for (int64_t layer = 0; layer < model->config().layers; layer++) {
    for (int m = 0; m < kModules; m++) adapted += adapter->factors(layer, static_cast<Module>(m)).rank > 0;
  }
  const auto &modules = expected.at("modules", folder).members();
  EXPECT_EQ(adapted, modules.size());
  for (const auto &[path, settings] : modules) {
    int64_t layer = 0;
    Module module = Module::q_proj;
    ASSERT_TRUE(parse_module_path(path, &layer, &module)) << path;
    const LowRank f = adapter->factors(layer, module);
    EXPECT_EQ(f.rank, settings.integer_at("r", path));
    EXPECT_NEAR(f.scale, settings.number_at("scale", path), 1e-6);
    const ModuleShape shape = module_shape(model->config(), module);
    EXPECT_EQ(std::vector<float>(f.a, f.a + f.rank * shape.in),
              file.read_floats(file.at("base_model.model." + path + ".lora_A.weight")));
    EXPECT_EQ(std::vector<float>(f.b, f.b + f.rank * shape.out),
              file.read_floats(file.at("base_model.model." + path + ".lora_B.weight")));
  }
  EXPECT_FALSE(adapter->delta_is_zero());
}

TEST_P(GoldenAdapter, SavedAndLoadedItIsTheSame) {
  if (std::string(GetParam()) == "gemma3_patterns") {
    NEEDS_PCRE2();
  }
  const std::string folder = golden_path(std::string("lora/") + GetParam());
  const auto model = golden_model("models/" + read_json(folder + "/expected.json").string_at("model", "expected.json"));
  const auto adapter = Adapter::load(*model, folder, false);
  const TemporaryFolder copy;
  adapter->save(*model, copy.path());
  const Safetensors before(folder + "/adapter_model.safetensors"), after(copy / "adapter_model.safetensors");
  ASSERT_EQ(before.tensors().size(), after.tensors().size());
  for (const TensorInfo &tensor : before.tensors())
    EXPECT_EQ(before.read_floats(tensor), after.read_floats(after.at(tensor.name))) << tensor.name;
  const auto again = Adapter::load(*model, copy.path(), true);
  EXPECT_EQ(values(adapter->parameters()), values(again->parameters()));
  EXPECT_EQ(adapter->config().base_model_name_or_path, again->config().base_model_name_or_path);
}
INSTANTIATE_TEST_SUITE_P(Cases, GoldenAdapter,
                         testing::Values("qwen3_all_linear", "llama_qv_rslora", "gemma3_patterns", "llama_tied_suffixes",
                                         "qwen3_dropout"),
                         [](const auto &info) { return std::string(info.param); });

TEST(Adapter, EntriesCoverEveryParameterInPeftNames) {
  const auto model = golden_model("models/qwen3");
  const auto adapter = Adapter::create(*model, config_of({"down_proj", "q_proj"}), 0);
  const auto entries = adapter->entries();
  EXPECT_EQ(entries.front().key, "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight");
  size_t at = 0;
  for (const Adapter::Entry &entry : entries) {
    EXPECT_EQ(entry.offset, at);
    at += static_cast<size_t>(entry.shape[0] * entry.shape[1]);
  }
  EXPECT_EQ(at, adapter->parameters().size());
}

TEST(Adapter, ANewOneRecordsBaseNameAndFingerprints) {
  ModelOptions options;
  options.base_model_name = "org/model";
  const auto model = BaseModel::load(golden_path("gguf/qwen3-Q8_0.gguf"), options);
  const auto adapter = Adapter::create(*model, config_of({"q_proj"}), 0);
  const TemporaryFolder folder;
  adapter->save(*model, folder.path());
  EXPECT_EQ(read_json(folder / "adapter_config.json").string_at("base_model_name_or_path", ""), "org/model");
  const PeftAdapter file = read_peft_adapter(folder.path());
  EXPECT_EQ(file.architecture_fingerprint, model->architecture_fingerprint());
  EXPECT_EQ(file.weights_fingerprint, model->weights_fingerprint());
  EXPECT_TRUE(file.is_zero);
}

TEST(Adapter, AnotherArchitectureIsAnErrorWithBothFingerprints) {
  const auto qwen = golden_model("gguf/qwen3-Q8_0.gguf"), llama = golden_model("gguf/llama-Q8_0.gguf");
  const TemporaryFolder folder;
  Adapter::create(*qwen, config_of({"q_proj"}), 0)->save(*qwen, folder.path());
  EXPECT_FAILS(Adapter::load(*llama, folder.path(), false), Code::format, llama->architecture_fingerprint());
  EXPECT_FAILS(Adapter::load(*llama, folder.path(), false), Code::format, qwen->architecture_fingerprint());
}

TEST(Adapter, OtherWeightsAreAWarningAndStrictlyAnError) {
  const auto trained_on = golden_model("gguf/llama-Q4_0.gguf");
  std::vector<std::string> warnings;
  ModelOptions options;
  options.log = [&](LogLevel level, const std::string &line) {
    if (level == LogLevel::warning) warnings.push_back(line);
  };
  const auto served_on = BaseModel::load(golden_path("gguf/llama-BF16.gguf"), options);
  const auto adapter = Adapter::create(*trained_on, config_of({"q_proj"}), 0);
  for (float &x : adapter->parameters()) x = 0.5f;
  const TemporaryFolder folder;
  adapter->save(*trained_on, folder.path());
  warnings.clear();
  Adapter::load(*served_on, folder.path(), false);
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_NE(warnings[0].find("other weights"), std::string::npos);
  EXPECT_FAILS(Adapter::load(*served_on, folder.path(), true), Code::format, served_on->weights_fingerprint());
}

TEST(Adapter, AFileWithoutFingerprintsIsJudgedByItsShapes) {
  EXPECT_FAILS(Adapter::load(*golden_model("models/llama"), golden_path("lora/qwen3_all_linear"), false), Code::format,
               "'model.layers.0.self_attn.q_proj': expected lora_A [4, 48] and lora_B [48, 4]");
}

TEST(Adapter, AZeroDeltaIsReported) {
  std::vector<std::string> warnings;
  ModelOptions options;
  options.log = [&](LogLevel level, const std::string &line) {
    if (level == LogLevel::warning) warnings.push_back(line);
  };
  const auto model = BaseModel::load(golden_path("models/llama"), options);
  const auto adapter = Adapter::create(*model, config_of({"q_proj"}), 0);
  const TemporaryFolder folder;
  adapter->save(*model, folder.path());
  EXPECT_TRUE(Adapter::load(*model, folder.path(), true)->delta_is_zero());
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_NE(warnings[0].find("its delta is zero"), std::string::npos);
}

TEST(Adapter, OneChangedValueOfBMakesADelta) {
  const auto model = golden_model("models/llama");
  const auto adapter = Adapter::create(*model, config_of({"q_proj"}), 0);
  adapter->parameters().back() = 1e-20f;
  EXPECT_FALSE(adapter->delta_is_zero());
  // A row of zeros in A against a column of B, for every k, is zero again.
  for (const Adapter::Entry &entry : adapter->entries()) {
    if (entry.key.find("lora_A") != std::string::npos)
      std::fill_n(adapter->parameters().begin() + static_cast<long>(entry.offset), entry.shape[0] * entry.shape[1], 0.0f);
  }
  EXPECT_TRUE(adapter->delta_is_zero());
}

TEST(Adapter, MissingAndForeignModulesAreErrors) {
  const auto model = golden_model("models/llama");
  AdapterFiles missing(golden_path("lora/llama_qv_rslora"));
  missing.tensors.erase("base_model.model.model.layers.1.self_attn.v_proj.lora_A.weight");
  missing.tensors.erase("base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight");
  EXPECT_FAILS(Adapter::load(*model, missing.write(), false), Code::format, "'model.layers.1.self_attn.v_proj' is a target of");

  AdapterFiles foreign(golden_path("lora/llama_qv_rslora"));
  for (const char *factor : {"A", "B"}) {
    const std::string ending = std::string("self_attn.v_proj.lora_") + factor + ".weight";
    foreign.tensors["base_model.model.model.layers.7." + ending] = foreign.tensors["base_model.model.model.layers.1." + ending];
  }
  EXPECT_FAILS(Adapter::load(*model, foreign.write(), false), Code::format, "'model.layers.7.self_attn.v_proj' is no projection");
}

TEST(Adapter, NamesOfAVisionModelsDecoderAreUnderstoodAndKept) {
  const auto model = golden_model("models/gemma3_nested");
  const auto adapter = Adapter::create(*model, config_of({"q_proj", "down_proj"}, 3), 1);
  for (float &x : adapter->parameters()) x += 0.25f;
  const TemporaryFolder folder;
  adapter->save(*model, folder.path());
  AdapterFiles renamed(folder.path());
  auto tensors = std::move(renamed.tensors);
  renamed.tensors.clear();
  const std::string old_prefix = "base_model.model.model.", new_prefix = "base_model.model.model.language_model.";
  for (auto &[name, tensor] : tensors) renamed.tensors[new_prefix + name.substr(old_prefix.size())] = std::move(tensor);
  const auto loaded = Adapter::load(*model, renamed.write(), true);
  EXPECT_EQ(values(adapter->parameters()), values(loaded->parameters()));
  EXPECT_EQ(loaded->entries().front().key, new_prefix + "layers.0.self_attn.q_proj.lora_A.weight");
  const TemporaryFolder again;
  loaded->save(*model, again.path());
  EXPECT_EQ(values(Adapter::load(*model, again.path(), true)->parameters()), values(adapter->parameters()));
}

// The Hugging Face folder of a tiny Llama GGUF: names, row order and values undone by hand.
void write_dequantized_llama(const std::string &gguf, const std::string &folder) {
  const Gguf file(gguf);
  const int64_t h = file.integer_at("llama.attention.key_length"), layers = file.integer_at("llama.block_count");
  std::map<std::string, std::pair<std::vector<int64_t>, std::vector<float>>> tensors;
  const auto add = [&](const std::string &from, const std::string &to, bool interleaved = false) {
    const TensorInfo &tensor = file.at(from + ".weight");
    std::vector<float> stored = file.read_floats(tensor), rows = stored;
    for (int64_t row = 0; interleaved && row < tensor.shape[0]; row++) {
      const int64_t head = row / h, r = row % h;  // stored row 2 j + half  ->  row half h/2 + j
      std::copy_n(stored.begin() + row * tensor.shape[1], tensor.shape[1],
                  rows.begin() + (head * h + (r % 2) * (h / 2) + r / 2) * tensor.shape[1]);
    }
    tensors[to + ".weight"] = {tensor.shape, rows};
  };
  add("token_embd", "model.embed_tokens"), add("output_norm", "model.norm"), add("output", "lm_head");
  for (int64_t i = 0; i < layers; i++) {
    const std::string from = text("blk.", i, "."), to = text("model.layers.", i, ".");
    add(from + "attn_norm", to + "input_layernorm"), add(from + "ffn_norm", to + "post_attention_layernorm");
    add(from + "attn_q", to + "self_attn.q_proj", true), add(from + "attn_k", to + "self_attn.k_proj", true);
    add(from + "attn_v", to + "self_attn.v_proj"), add(from + "attn_output", to + "self_attn.o_proj");
    add(from + "ffn_gate", to + "mlp.gate_proj"), add(from + "ffn_up", to + "mlp.up_proj"),
        add(from + "ffn_down", to + "mlp.down_proj");
  }
  std::vector<TensorToWrite> list;
  for (const auto &[name, tensor] : tensors) list.push_back({name, DType::f32, tensor.first, tensor.second.data()});
  write_safetensors(folder + "/model.safetensors", list);
  std::ofstream(folder + "/config.json")
      << R"({"model_type": "llama", "vocab_size": 272, "hidden_size": 32, "intermediate_size": 64,
    "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32}})";
}

TEST(Adapter, OneAdapterFitsAGgufAndItsDequantizedFolder) {
  const std::string gguf = golden_path("gguf/llama-Q4_0.gguf");
  const TemporaryFolder folder, adapter_folder;
  write_dequantized_llama(gguf, folder.path());
  const auto quantized = BaseModel::load(gguf, test::model_options("auto")), plain = BaseModel::load(folder.path(), test::model_options("auto"));
  EXPECT_EQ(quantized->architecture_fingerprint(), plain->architecture_fingerprint());
  const Matrix &q = quantized->layer(1).projection[0], &p = plain->layer(1).projection[0];
  const auto count = static_cast<size_t>(q.rows * q.columns);
  const auto stored = downloaded(quantized->backend(), static_cast<const std::byte *>(q.data),
                                 static_cast<size_t>(row_bytes(q.dtype, q.rows * q.columns)));
  std::vector<float> dequantized(count);
  dequantize(q.dtype, stored.data(), q.rows * q.columns, dequantized.data());
  EXPECT_EQ(dequantized, downloaded(plain->backend(), static_cast<const float *>(p.data), count)) << "rows of q in the same order";

  const auto trained = Adapter::create(*quantized, config_of({"q_proj", "k_proj", "down_proj"}), 3);
  for (float &x : trained->parameters()) x += 0.125f;
  trained->save(*quantized, adapter_folder.path());
  const auto on_gguf = Adapter::load(*quantized, adapter_folder.path(), true),
             on_folder = Adapter::load(*plain, adapter_folder.path(), false);
  EXPECT_EQ(values(on_gguf->parameters()), values(on_folder->parameters()));
  for (int m = 0; m < kModules; m++) {
    const LowRank a = on_gguf->factors(1, static_cast<Module>(m)), b = on_folder->factors(1, static_cast<Module>(m));
    EXPECT_EQ(a.rank, b.rank);
    EXPECT_EQ(a.scale, b.scale);
  }
  ASSERT_EQ(quantized->config().ropes[0].inverse_frequency.size(), plain->config().ropes[0].inverse_frequency.size());
  for (size_t j = 0; j < 8; j++) {
    EXPECT_NEAR(quantized->config().ropes[0].inverse_frequency[j] / plain->config().ropes[0].inverse_frequency[j], 1, 2e-7);
  }
}

}  // namespace
}  // namespace moe
