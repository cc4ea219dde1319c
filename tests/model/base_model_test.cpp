// Loading of base models: every stored value arrives where it belongs, whatever the file's names and row order.
#include "model/base_model.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "formats/gguf.h"
#include "formats/safetensors.h"
#include "model/inference_pass.h"
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

// Of a matrix of the model, wherever its memory is.
std::vector<float> values_of(const BaseModel &model, const Matrix &m) {
  const auto stored =
      downloaded(model.backend(), static_cast<const std::byte *>(m.data), static_cast<size_t>(row_bytes(m.dtype, m.rows * m.columns)));
  std::vector<float> values(static_cast<size_t>(m.rows * m.columns));
  dequantize(m.dtype, stored.data(), m.rows * m.columns, values.data());
  return values;
}
std::vector<float> norm(const BaseModel &model, const float *w, int64_t n) {
  return downloaded(model.backend(), w, static_cast<size_t>(n));
}

// A copy of a golden model whose config or tensors a test changes.
class ModelCopy {
 public:
  explicit ModelCopy(const std::string &name) : source_(golden_path("models/" + name)) {
    config_ = read_json(source_ + "/config.json");
    const Safetensors file(source_);
    for (const TensorInfo &tensor : file.tensors()) tensors_[tensor.name] = {tensor.shape, file.read_floats(tensor)};
  }
  struct Tensor {
    std::vector<int64_t> shape;
    std::vector<float> values;
  };
  std::map<std::string, Tensor> tensors_;
  Json config_;

  std::shared_ptr<const BaseModel> load(ModelOptions options = {}, const Cancel *cancel = nullptr) {
    std::ofstream(folder_ / "config.json") << config_.dump();
    std::vector<TensorToWrite> list;
    for (const auto &[name, tensor] : tensors_) list.push_back({name, DType::f32, tensor.shape, tensor.values.data()});
    write_safetensors(folder_ / "model.safetensors", list);
    options.threads = 2;
    return BaseModel::load(folder_.path(), options, cancel);
  }
  const std::string &path() const { return folder_.path(); }

 private:
  std::string source_;
  TemporaryFolder folder_;
};

class GoldenModel : public testing::TestWithParam<std::pair<const char *, const char *>> {};

// (folder, prefix of the decoder in its files)
TEST_P(GoldenModel, EveryTensorOfTheDecoderIsInItsPlace) {
  const std::string folder = golden_path(std::string("models/") + GetParam().first), prefix = GetParam().second;
  const auto model = BaseModel::load(folder, test::model_options("auto"));
  const DecoderConfig &c = model->config();
  const Safetensors file(folder);
  const auto stored = [&](const std::string &tensor) { return file.read_floats(file.at(prefix + tensor + ".weight")); };
  const auto stored_norm = [&](const std::string &tensor) {
    std::vector<float> w = stored(tensor);
    for (float &x : w) x += c.norm_plus_one ? 1.0f : 0.0f;
    return w;
  };
  EXPECT_EQ(values_of(*model, model->embedding()), stored("embed_tokens"));
  EXPECT_EQ(norm(*model, model->final_norm(), c.hidden), stored_norm("norm"));
  if (c.tied_embeddings) {
    EXPECT_EQ(model->head().data, model->embedding().data);
  } else {
    EXPECT_EQ(values_of(*model, model->head()), file.read_floats(file.at("lm_head.weight")));
  }
  int64_t parameters = c.vocabulary * c.hidden * (c.tied_embeddings ? 1 : 2) + c.hidden;
  for (int64_t i = 0; i < c.layers; i++) {
    const std::string layer = text("layers.", i, ".");
    const LayerWeights &w = model->layer(i);
    for (int m = 0; m < kModules; m++) {
      const Matrix &matrix = w.projection[static_cast<size_t>(m)];
      EXPECT_EQ(values_of(*model, matrix), stored(layer + kModulePaths[static_cast<size_t>(m)])) << layer << m;
      EXPECT_EQ(reinterpret_cast<uintptr_t>(matrix.data) % 64, 0u);
      parameters += matrix.rows * matrix.columns;
    }
    EXPECT_EQ(norm(*model, w.attention_norm, c.hidden), stored_norm(layer + "input_layernorm"));
    EXPECT_EQ(norm(*model, w.ffn_norm, c.hidden),
              stored_norm(layer + (c.sandwich_norms ? "pre_feedforward_layernorm" : "post_attention_layernorm")));
    parameters += 2 * c.hidden;
    if (c.sandwich_norms) {
      EXPECT_EQ(norm(*model, w.post_attention_norm, c.hidden), stored_norm(layer + "post_attention_layernorm"));
      EXPECT_EQ(norm(*model, w.post_ffn_norm, c.hidden), stored_norm(layer + "post_feedforward_layernorm"));
      parameters += 2 * c.hidden;
    } else {
      EXPECT_TRUE(!w.post_attention_norm && !w.post_ffn_norm);
    }
    if (c.query_key_norm) {
      EXPECT_EQ(norm(*model, w.q_norm, c.head_dimension), stored_norm(layer + "self_attn.q_norm"));
      EXPECT_EQ(norm(*model, w.k_norm, c.head_dimension), stored_norm(layer + "self_attn.k_norm"));
      parameters += 2 * c.head_dimension;
    } else {
      EXPECT_TRUE(!w.q_norm && !w.k_norm);
    }
  }
  EXPECT_EQ(model->parameters(), parameters);
  EXPECT_EQ(model->weight_bytes(), static_cast<uint64_t>(parameters) * 4);
  EXPECT_EQ(model->name(), folder);
  EXPECT_EQ(model->tokenizer(), nullptr);
}
INSTANTIATE_TEST_SUITE_P(Folders, GoldenModel,
                         testing::Values(std::pair{"llama", "model."}, std::pair{"llama_tied", "model."},
                                         std::pair{"qwen3", "model."}, std::pair{"gemma3_text", "model."},
                                         std::pair{"gemma3_nested", "language_model.model."},
                                         std::pair{"gemma3_nested/newer_names", "model.language_model."}),
                         [](const auto &info) {
                           std::string name = info.param.first;
                           std::replace(name.begin(), name.end(), '/', '_');
                           return name;
                         });

TEST(BaseModel, BothNamingsOfAVisionModelGiveOneModel) {
  const auto older = golden_model("models/gemma3_nested"), newer = golden_model("models/gemma3_nested/newer_names");
  EXPECT_EQ(older->weights_fingerprint(), newer->weights_fingerprint());
  EXPECT_EQ(older->architecture_fingerprint(), newer->architecture_fingerprint());
}

TEST(BaseModel, UnusedTensorsAreLoggedAndNoError) {
  std::vector<std::string> lines;
  ModelOptions options;
  options.log = [&](LogLevel level, const std::string &line) {
    if (level == LogLevel::info) lines.push_back(line);
  };
  BaseModel::load(golden_path("models/gemma3_nested"), options);
  ASSERT_FALSE(lines.empty());
  EXPECT_NE(lines.front().find("23 tensors are not used, the first is '"), std::string::npos) << lines.front();
}

class GgufModel : public testing::TestWithParam<const char *> {};

// HF row r of a head is stored row 2 r in its lower half and 2 (r - h/2) + 1 in its upper half (architecture llama).
TEST_P(GgufModel, MatricesKeepTheirTypeAndQueryRowsAreInHalves) {
  const std::string path = golden_path(std::string("gguf/") + GetParam() + ".gguf");
  const Gguf file(path);
  const auto model = BaseModel::load(path, test::model_options("auto"));
  const DecoderConfig &c = model->config();
  const char *names[] = {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"};
  for (int64_t i = 0; i < c.layers; i++) {
    for (int m = 0; m < kModules; m++) {
      const Matrix &matrix = model->layer(i).projection[static_cast<size_t>(m)];
      const TensorInfo &tensor = file.at(text("blk.", i, ".", names[m], ".weight"));
      EXPECT_EQ(matrix.dtype, tensor.dtype);
      std::vector<float> expected = file.read_floats(tensor);
      if (c.family == "llama" && m < 2) {
        const std::vector<float> interleaved = expected;
        const int64_t h = c.head_dimension, columns = matrix.columns;
        for (int64_t row = 0; row < matrix.rows; row++) {
          const int64_t head = row / h, r = row % h, source = head * h + (r < h / 2 ? 2 * r : 2 * (r - h / 2) + 1);
          std::copy_n(interleaved.begin() + source * columns, columns, expected.begin() + row * columns);
        }
      }
      EXPECT_EQ(values_of(*model, matrix), expected) << tensor.name;
    }
    EXPECT_EQ(norm(*model, model->layer(i).attention_norm, c.hidden), file.read_floats(file.at(text("blk.", i, ".attn_norm.weight"))));
    EXPECT_EQ(norm(*model, model->layer(i).ffn_norm, c.hidden), file.read_floats(file.at(text("blk.", i, ".ffn_norm.weight"))));
  }
  EXPECT_EQ(values_of(*model, model->embedding()), file.read_floats(file.at("token_embd.weight")));
  EXPECT_EQ(model->name(), file.string_at("general.name"));
  NEEDS_UTF8PROC();
  ASSERT_NE(model->tokenizer(), nullptr);
  EXPECT_EQ(model->tokenizer()->size(), 272);
}
INSTANTIATE_TEST_SUITE_P(Files, GgufModel,
                         testing::Values("llama-F32", "llama-F16", "llama-BF16", "llama-Q4_0", "llama-Q4_1", "llama-Q5_0",
                                         "llama-Q5_1", "llama-Q8_0", "qwen3-F32", "qwen3-F16", "qwen3-Q4_0", "qwen3-Q5_1",
                                         "qwen3-Q8_0", "gemma3-F32", "gemma3-BF16", "gemma3-Q4_0", "gemma3-Q8_0"),
                         [](const auto &info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(BaseModel, ATensorTypeThatIsNotReadIsRefusedByName) {
  EXPECT_FAILS(BaseModel::load(golden_path("gguf/llama_kmix-KMIX.gguf"), {}), Code::unsupported,
               "'blk.0.ffn_up.weight' has type IQ4_XS");
}

TEST(BaseModel, MissingTensorsAndWrongShapesNameFileTensorAndShapes) {
  {
    ModelCopy copy("llama");
    copy.tensors_.erase("model.layers.1.mlp.up_proj.weight");
    EXPECT_FAILS(copy.load(), Code::format, "tensor 'model.layers.1.mlp.up_proj.weight' is missing; expected shape [89, 48]");
  }
  {
    ModelCopy copy("llama");
    copy.config_.set("intermediate_size", 90);
    EXPECT_FAILS(copy.load(), Code::format,
                 "model.safetensors: tensor 'model.layers.0.mlp.gate_proj.weight': expected shape [90, 48], found [89, 48]");
  }
  {
    ModelCopy copy("llama");
    copy.config_.set("vocab_size", 140);
    EXPECT_FAILS(copy.load(), Code::format, "tensor 'model.embed_tokens.weight': expected shape [140, 48], found [139, 48]");
  }
  {
    ModelCopy copy("llama_tied");
    copy.config_.set("tie_word_embeddings", false);
    EXPECT_FAILS(copy.load(), Code::format, "tensor 'lm_head.weight' is missing");
  }
  {
    ModelCopy copy("llama");
    copy.tensors_["model.layers.2.input_layernorm.weight"] = {{47}, std::vector<float>(47)};
    EXPECT_FAILS(copy.load(), Code::format, "tensor 'model.layers.2.input_layernorm.weight': expected shape [48], found [47]");
  }
}

TEST(BaseModel, ABiasBesideAUsedWeightIsRefusedRatherThanLeftOut) {
  ModelCopy copy("llama");
  copy.tensors_["model.layers.0.self_attn.q_proj.bias"] = {{48}, std::vector<float>(48, 1)};
  EXPECT_FAILS(copy.load(), Code::unsupported, "tensor 'model.layers.0.self_attn.q_proj.bias': biases are not supported yet");
}

TEST(BaseModel, WeightsFingerprintSeesOneChangedValue) {
  ModelCopy copy("llama");
  const std::string fingerprint = copy.load()->weights_fingerprint();
  EXPECT_EQ(fingerprint, golden_model("models/llama")->weights_fingerprint()) << "shards do not matter";
  EXPECT_EQ(fingerprint.size(), 64u);
  copy.tensors_["model.layers.2.mlp.down_proj.weight"].values[5] += 1;
  EXPECT_NE(copy.load()->weights_fingerprint(), fingerprint);
}

TEST(BaseModel, OptionsAreCheckedByName) {
  const std::string folder = golden_path("models/llama_tied");
  ModelOptions options;
  options.compute = "f64";
  EXPECT_FAILS(BaseModel::load(folder, options), Code::invalid, "compute: expected auto, bf16, f32 or int8, found 'f64'");
  options.compute = "auto";
  options.threads = -1;
  EXPECT_FAILS(BaseModel::load(folder, options), Code::invalid, "threads: expected 0 to 1024, found -1");
  options.threads = 3;
  options.base_model_name = "HuggingFaceTB/SmolLM2-135M";
  const auto model = BaseModel::load(folder, options);
  EXPECT_EQ(model->pool().threads(), 3);
  EXPECT_EQ(model->activation_type(), DType::bf16);
  EXPECT_EQ(model->name(), "HuggingFaceTB/SmolLM2-135M");
  options.compute = "f32";
  options.threads = 0;
  EXPECT_STREQ(BaseModel::load(folder, options)->compute(), "f32");
}

TEST(BaseModel, AFiredCancelEndsTheLoad) {
  Cancel cancel;
  cancel.fire();
  EXPECT_FAILS(BaseModel::load(golden_path("models/llama"), {}, &cancel), Code::cancelled, "cancelled");
}

TEST(BaseModel, PathsThatAreNoModelAreErrors) {
  const TemporaryFolder folder;
  EXPECT_FAILS(BaseModel::load(folder / "nothing", {}), Code::io, "nothing");
  EXPECT_FAILS(BaseModel::load(folder.path(), {}), Code::io, "config.json");
  std::ofstream(folder / "weights.bin") << "abcdefgh";
  EXPECT_FAILS(BaseModel::load(folder / "weights.bin", {}), Code::format,
               "expected a model folder with config.json or a GGUF file");
  std::ofstream(folder / "empty.gguf") << "";
  EXPECT_FAILS(BaseModel::load(folder / "empty.gguf", {}), Code::format, "empty.gguf");
}

TEST(BaseModel, AModelWithoutTokenizerSaysSo) {
  EXPECT_FAILS(golden_model("models/llama")->require_tokenizer(), Code::unsupported, "models/llama: the model has no tokenizer");
  EXPECT_EQ(golden_model("models/llama")->why_no_tokenizer(), "");
}

TEST(BaseModel, ATokenizerThatCannotBeUsedIsRefusedWithTheReason) {
  const TemporaryFolder folder;
  std::filesystem::copy(golden_path("models/llama"), folder / "llama");
  std::ofstream(folder / "llama/tokenizer.json") << R"({"model": {"type": "WordPiece", "vocab": {"a": 0}}})";
  const auto model = BaseModel::load(folder / "llama", {});
  EXPECT_FAILS(model->require_tokenizer(), Code::unsupported, "llama: the tokenizer cannot be used: ");
  EXPECT_FAILS(model->require_tokenizer(), Code::unsupported, "WordPiece");
  EXPECT_GT(model->config().layers, 0) << "token ids can still be used";
}

TEST(BaseModel, ALibraryThatThisBuildIsWithoutIsNamedWhereTheTokenizerIsNeeded) {
  if (MOE_HAVE_UTF8PROC) GTEST_SKIP() << "this build has utf8proc";
  const auto model = golden_model("gguf/llama-F32.gguf");
  EXPECT_FAILS(model->require_tokenizer(), Code::unsupported, "this build has no utf8proc");
  EXPECT_FAILS(model->require_tokenizer(), Code::unsupported, "llama-F32.gguf: the tokenizer cannot be used: ");
}

// ---- key/value cache ----

float value(int64_t layer, int64_t position, int64_t column) { return static_cast<float>(10000 * layer + 100 * position + column); }

// [count, width] of the keys of a layer from position `first` on; of the values with the other sign.
std::vector<float> expected(const BaseModel &model, int64_t layer, int64_t first, int64_t count, float sign) {
  std::vector<float> values;
  for (int64_t p = first; p < first + count; p++)
    for (int64_t c = 0; c < model.config().kv_width(); c++) values.push_back(sign * value(layer, p, c));
  return values;
}
float *at(Rows rows, int64_t position) { return static_cast<float *>(rows.data) + position * rows.stride; }

void fill(KvCache &cache, const BaseModel &model, int64_t first, int64_t count) {
  cache.reserve(first + count);
  for (int64_t layer = 0; layer < model.config().layers; layer++) {
    const std::vector<float> keys = expected(model, layer, first, count, 1), values = expected(model, layer, first, count, -1);
    model.backend().upload(at(cache.keys(layer), first), keys.data(), keys.size() * sizeof(float));
    model.backend().upload(at(cache.values(layer), first), values.data(), values.size() * sizeof(float));
  }
  cache.advance(count);
}

void expect_filled(const KvCache &cache, const BaseModel &model, int64_t count) {
  ASSERT_EQ(cache.size(), count);
  for (int64_t layer = 0; layer < model.config().layers; layer++) {
    const size_t n = static_cast<size_t>(count * model.config().kv_width());
    EXPECT_EQ(downloaded(model.backend(), static_cast<const float *>(cache.keys(layer).data), n), expected(model, layer, 0, count, 1));
    EXPECT_EQ(downloaded(model.backend(), static_cast<const float *>(cache.values(layer).data), n), expected(model, layer, 0, count, -1));
  }
}

TEST(KvCache, GrowsWithoutLosingPositions) {
  const auto model = golden_model("models/llama");
  KvCache cache(*model, 3);
  fill(cache, *model, 0, 3);
  const uint64_t position = cache.bytes() / 3;
  cache.reserve(4);
  EXPECT_EQ(cache.bytes(), 4 * position);
  fill(cache, *model, 3, 1);
  cache.make_room(16);
  const uint64_t roomy = cache.bytes();
  EXPECT_GE(roomy, 30 * position) << "half as much again";
  fill(cache, *model, 4, 26);
  EXPECT_EQ(cache.bytes(), roomy);
  expect_filled(cache, *model, 30);
}

TEST(KvCache, CopiesAndForgetsPositions) {
  const auto model = golden_model("models/llama");
  KvCache cache(*model, 5), copy(*model, 0);
  fill(cache, *model, 0, 5);
  copy.copy_from(cache, 4);
  expect_filled(copy, *model, 4);
  cache.truncate(2);
  expect_filled(cache, *model, 2);
  fill(cache, *model, 2, 7);
  expect_filled(cache, *model, 9);
  expect_filled(copy, *model, 4);
  EXPECT_FAILS(cache.truncate(10), Code::invalid, "expected 0 to 9 positions, found 10");
  EXPECT_FAILS(copy.copy_from(cache, 10), Code::invalid, "expected 0 to 9 positions, found 10");
  const auto another = golden_model("models/qwen3");
  KvCache other(*another, 4);
  EXPECT_FAILS(other.copy_from(cache, 1), Code::invalid, "another model");
}

}  // namespace
}  // namespace moe
