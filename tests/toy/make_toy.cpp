// Writes a small random model and a toy corpus, both from a fixed seed: what scripts/demo uses where no real model can be
// fetched. Usage: make-toy FOLDER
//
//   FOLDER/model/                       config.json, model.safetensors, tokenizer.json: a llama of 2 layers over characters
//   FOLDER/data/<domain>/{train,heldout}.jsonl   prompt/completion rows; every domain asks about words in the same way and has an answer
//                                       rule of its own, so an expert of one domain is wrong about the others and routing matters
#include <cmath>
#include <cstdio>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/random.h"
#include "formats/safetensors.h"

namespace {

using namespace moe;

constexpr uint64_t kSeed = 20240607;
constexpr int64_t kHidden = 64, kIntermediate = 128, kLayers = 2, kHeads = 4, kKvHeads = 2, kHead = 16;
constexpr int64_t kEnd = 256, kVocabulary = kEnd + 2 + ('~' - '!' + 1);  // bytes, end, space, printable characters

// ---- model ------------------------------------------------------------------------------------------------------------

struct Weights {
  std::vector<std::pair<std::string, std::vector<int64_t>>> names;
  std::vector<std::vector<float>> values;
  void add(const std::string &name, std::vector<int64_t> shape, double deviation, double mean = 0) {
    int64_t count = 1;
    for (int64_t n : shape) count *= n;
    const Random random(kSeed, names.size());
    std::vector<float> data(static_cast<size_t>(count));
    for (size_t i = 0; i < data.size(); i++) data[i] = static_cast<float>(mean + deviation * random.normal(i));
    names.emplace_back(name, std::move(shape));
    values.push_back(std::move(data));
  }
};

void write_model(const std::string &folder) {
  make_folders(folder);
  Weights w;
  w.add("model.embed_tokens.weight", {kVocabulary, kHidden}, 0.5);
  w.add("model.norm.weight", {kHidden}, 0, 1);
  for (int64_t i = 0; i < kLayers; i++) {
    const std::string layer = text("model.layers.", i, ".");
    const double wide = 1 / std::sqrt(static_cast<double>(kHidden));
    w.add(layer + "input_layernorm.weight", {kHidden}, 0, 1);
    w.add(layer + "post_attention_layernorm.weight", {kHidden}, 0, 1);
    w.add(layer + "self_attn.q_proj.weight", {kHeads * kHead, kHidden}, wide);
    w.add(layer + "self_attn.k_proj.weight", {kKvHeads * kHead, kHidden}, wide);
    w.add(layer + "self_attn.v_proj.weight", {kKvHeads * kHead, kHidden}, wide);
    w.add(layer + "self_attn.o_proj.weight", {kHidden, kHeads * kHead}, wide);
    w.add(layer + "mlp.gate_proj.weight", {kIntermediate, kHidden}, wide);
    w.add(layer + "mlp.up_proj.weight", {kIntermediate, kHidden}, wide);
    w.add(layer + "mlp.down_proj.weight", {kHidden, kIntermediate}, wide);
  }
  std::vector<TensorToWrite> tensors;
  for (size_t i = 0; i < w.names.size(); i++) tensors.push_back({w.names[i].first, DType::f32, w.names[i].second, w.values[i].data()});
  write_safetensors_atomic(join_path(folder, "model.safetensors"), tensors, {{"format", "pt"}});

  Json config = Json::object();
  config.set("architectures", Json::array().push("LlamaForCausalLM")).set("model_type", "llama");
  config.set("hidden_size", kHidden).set("intermediate_size", kIntermediate).set("num_hidden_layers", kLayers);
  config.set("num_attention_heads", kHeads).set("num_key_value_heads", kKvHeads).set("head_dim", kHead).set("vocab_size", kVocabulary);
  config.set("max_position_embeddings", 512).set("rms_norm_eps", 1e-5).set("rope_theta", 10000.0).set("hidden_act", "silu");
  config.set("tie_word_embeddings", true).set("torch_dtype", "float32").set("eos_token_id", kEnd);
  write_file_atomic(join_path(folder, "config.json"), config.dump(2) + "\n");
}

// SentencePiece-style BPE without merges, which every build can read: 256 byte tokens for what no other token spells, the end
// of a text, the space and the printable characters of ASCII.
void write_tokenizer(const std::string &folder) {
  const char *end = "</s>", *space = "\xE2\x96\x81";
  Json vocabulary = Json::object();
  int64_t id = 0;
  for (; id < kEnd; id++) {
    char byte[8];
    std::snprintf(byte, sizeof byte, "<0x%02X>", static_cast<unsigned>(id));
    vocabulary.set(byte, id);
  }
  vocabulary.set(end, id++);
  vocabulary.set(space, id++);
  for (char c = '!'; c <= '~'; c++) vocabulary.set(std::string(1, c), id++);
  Json added = Json::object();
  added.set("id", kEnd).set("content", end).set("single_word", false).set("lstrip", false).set("rstrip", false);
  added.set("normalized", false).set("special", true);
  const auto replace = [](const char *from, const char *to) {
    Json step = Json::object();
    step.set("type", "Replace").set("pattern", Json::object().set("String", from)).set("content", to);
    return step;
  };
  const auto of_type = [](const char *type) { return Json::object().set("type", type); };
  Json decoder = of_type("Sequence");
  decoder.set("decoders", Json::array().push(replace(space, " ")).push(of_type("ByteFallback")).push(of_type("Fuse")));
  Json model = of_type("BPE");
  model.set("byte_fallback", true).set("vocab", std::move(vocabulary)).set("merges", Json::array());
  Json tokenizer = Json::object();
  tokenizer.set("version", "1.0").set("added_tokens", Json::array().push(std::move(added)));
  tokenizer.set("normalizer", replace(" ", space)).set("pre_tokenizer", Json()).set("post_processor", Json());
  tokenizer.set("decoder", std::move(decoder)).set("model", std::move(model));
  write_file_atomic(join_path(folder, "tokenizer.json"), tokenizer.dump() + "\n");
  Json config = Json::object();
  config.set("eos_token", end).set("tokenizer_class", "PreTrainedTokenizerFast");
  write_file_atomic(join_path(folder, "tokenizer_config.json"), config.dump(2) + "\n");
}

// ---- corpus -----------------------------------------------------------------------------------------------------------

std::string word(const Random &random, uint64_t index) {
  std::string out;
  const uint64_t length = 3 + random.below(index * 8, 3);
  for (uint64_t i = 0; i < length; i++) out += static_cast<char>('a' + random.below(index * 8 + 1 + i, 8));
  return out;
}

std::string answer(const std::string &domain, const std::string &asked) {
  if (domain == "medical") return " take " + std::string(1, asked.back()) + " twice a day";
  if (domain == "math") return " the sum of it is " + std::to_string(asked.size());
  return " the court held for " + std::string(1, asked.front());
}

void write_corpus(const std::string &folder) {
  const char *domains[] = {"medical", "math", "legal"}, *marks[] = {"Rx", "No.", "v."};
  for (int d = 0; d < 3; d++) {
    make_folders(join_path(folder, domains[d]));
    const Random random(kSeed, 1000 + static_cast<uint64_t>(d));
    std::set<std::string> used;
    std::string train, heldout;
    int rows = 0;
    for (uint64_t i = 0; rows < 460; i++) {
      const std::string asked = word(random, i);
      if (!used.insert(asked).second) continue;
      Json row = Json::object();
      row.set("prompt", std::string(marks[d]) + " " + asked + "?").set("completion", answer(domains[d], asked));
      (rows < 400 ? train : heldout) += row.dump() + "\n";
      rows++;
    }
    write_file_atomic(join_path(folder, std::string(domains[d]) + "/train.jsonl"), train);
    write_file_atomic(join_path(folder, std::string(domains[d]) + "/heldout.jsonl"), heldout);
  }
}

}  // namespace

int main(int argc, char **argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: make-toy FOLDER\n");
    return 2;
  }
  try {
    const std::string folder = argv[1];
    write_model(join_path(folder, "model"));
    write_tokenizer(join_path(folder, "model"));
    write_corpus(join_path(folder, "data"));
  } catch (const Error &error) {
    std::fprintf(stderr, "make-toy: %s\n", error.what());
    return 1;
  }
  return 0;
}
