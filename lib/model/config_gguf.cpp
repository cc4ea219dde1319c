// DecoderConfig from the metadata of a GGUF file, with the meaning that llama.cpp gives to it. Norm weights of Gemma are
// stored as 1 + w there; llama3 scaling comes as a tensor of divisors.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "model/config.h"
#include "model/config_limits.h"
#include "model/rope.h"

namespace moe {
namespace {

constexpr const char *kDivisors = "rope_freqs.weight";

class GgufConfigReader {
 public:
  explicit GgufConfigReader(const Gguf &file) : file_(file), architecture_(file.string_at("general.architecture")) {}

  DecoderConfig read() {
    if (architecture_ != "llama" && architecture_ != "qwen3" && architecture_ != "gemma3") {
      refuse_family(file_.path(), "architecture", architecture_);
    }
    const bool gemma = architecture_ == "gemma3";
    config_.family = architecture_;
    refuse_unsupported();
    read_sizes();
    config_.norm_epsilon = static_cast<float>(file_.number_at(key("attention.layer_norm_rms_epsilon")));
    config_.tied_embeddings = !file_.find("output.weight");
    config_.query_key_norm = gemma || architecture_ == "qwen3";
    config_.attention_scale = static_cast<float>(1 / std::sqrt(static_cast<double>(config_.head_dimension)));
    config_.layer.resize(static_cast<size_t>(config_.layers));
    if (gemma) read_gemma();
    read_ropes(gemma);
    check_config(config_, file_.path());
    return std::move(config_);
  }

 private:
  std::string key(std::string_view name) const { return text(architecture_, ".", name); }

  void refuse_unsupported() const {
    if (file_.integer_or(key("expert_count"), 0) > 0) {
      fail(Code::unsupported, file_.path(), ": key '", key("expert_count"), "': sparse experts are not supported yet");
    }
    for (const char *name : {"attn_logit_softcapping", "final_logit_softcapping"}) {
      if (file_.number_or(key(name), 0) != 0)
        fail(Code::unsupported, file_.path(), ": key '", key(name), "' is not supported yet");
    }
  }

  int64_t size(const char *name, int64_t high) const {
    return checked_size(file_.path(), key(name), file_.integer_at(key(name)), high);
  }

  void read_sizes() {
    config_.layers = size("block_count", kMaxLayers);
    config_.hidden = size("embedding_length", kMaxHidden);
    config_.intermediate = size("feed_forward_length", kMaxIntermediate);
    config_.heads = size("attention.head_count", kMaxHeads);
    const std::string kv_heads = key("attention.head_count_kv");
    config_.kv_heads = checked_size(file_.path(), kv_heads, file_.integer_or(kv_heads, config_.heads), kMaxHeads);
    config_.max_positions = size("context_length", kMaxPositions);
    const std::string key_length = key("attention.key_length");
    config_.head_dimension =
        checked_size(file_.path(), key_length, file_.integer_or(key_length, config_.hidden / config_.heads), kMaxHeadDimension);
    for (const char *name : {"attention.value_length", "rope.dimension_count"}) {
      const int64_t length = file_.integer_or(key(name), config_.head_dimension);
      if (length != config_.head_dimension) {
        fail(Code::unsupported, file_.path(), ": key '", key(name), "': expected the head dimension ", config_.head_dimension,
             ", found ", length);
      }
    }
    // The vocabulary is the height of the embedding; a key that says otherwise is an error of the file.
    const TensorInfo &embedding = file_.at("token_embd.weight");
    if (embedding.shape.size() != 2) {
      fail(Code::format, file_.path(), ": tensor '", embedding.name, "': expected a matrix, found shape ",
           shape_text(embedding.shape));
    }
    config_.vocabulary = checked_size(file_.path(), "token_embd.weight", embedding.shape[0], kMaxVocabulary);
    const int64_t declared = file_.integer_or(key("vocab_size"), config_.vocabulary);
    if (declared != config_.vocabulary) {
      fail(Code::format, file_.path(), ": key '", key("vocab_size"), "': expected ", config_.vocabulary,
           " as token_embd.weight has, found ", declared);
    }
  }

  // The pattern of local layers, their theta and the score scale are constants of llama.cpp where the file has no key.
  void read_gemma() {
    constexpr int64_t kLayersOf27B = 62;  // the one size whose scale is not 1 / sqrt(head dimension)
    config_.activation = Activation::gelu_tanh;
    config_.sandwich_norms = true;
    config_.embedding_scale = static_cast<float>(std::sqrt(static_cast<double>(config_.hidden)));
    if (config_.layers == kLayersOf27B) {
      config_.attention_scale =
          static_cast<float>(1 / std::sqrt(static_cast<double>(config_.hidden) / static_cast<double>(config_.heads)));
    }
    const std::string pattern_key = key("attention.sliding_window_pattern");
    const int64_t window = size("attention.sliding_window", kMaxPositions);
    const int64_t pattern = checked_size(file_.path(), pattern_key, file_.integer_or(pattern_key, 6), kMaxLayers);
    for (int64_t i = 0; i < config_.layers; i++) {
      if ((i + 1) % pattern != 0) config_.layer[static_cast<size_t>(i)] = {window, 1};
    }
  }

  void read_ropes(bool gemma) {
    RopeSettings global, local;
    global.theta = theta("rope.freq_base", gemma ? 1e6 : 10000);
    local.theta = theta("rope.freq_base_swa", 10000);
    const std::string kind(file_.string_or(key("rope.scaling.type"), "none"));
    const double factor = file_.number_or(key("rope.scaling.factor"), file_.number_or(key("rope.scale_linear"), 1));
    if (kind != "none" && kind != "linear") {
      fail(Code::unsupported, file_.path(), ": key '", key("rope.scaling.type"), "': '", kind,
           "' is not supported yet; supported: none, linear");
    }
    if (!(factor > 0))
      fail(Code::format, file_.path(), ": key '", key("rope.scaling.factor"), "': expected more than 0, found ", factor);
    if (kind == "linear" || (factor != 1 && !file_.find_key(key("rope.scaling.type")))) {
      global.scaling = RopeSettings::Scaling::linear;
      global.factor = factor;
    }
    read_divisors(global);
    config_.ropes.push_back(make_rope(global, config_.head_dimension));
    if (gemma) config_.ropes.push_back(make_rope(local, config_.head_dimension));
  }

  double theta(const char *name, double otherwise) const {
    const double value = file_.number_or(key(name), otherwise);
    if (!(value > 0)) fail(Code::format, file_.path(), ": key '", key(name), "': expected more than 0, found ", value);
    return value;
  }

  void read_divisors(RopeSettings &settings) const {
    const TensorInfo *tensor = file_.find(kDivisors);
    if (!tensor) return;
    const std::vector<int64_t> expected = {config_.head_dimension / 2};
    if (tensor->shape != expected) {
      fail(Code::format, file_.path(), ": tensor '", kDivisors, "': expected shape ", shape_text(expected), ", found ",
           shape_text(tensor->shape));
    }
    settings.divisors = file_.read_floats(*tensor);
    if (!std::all_of(settings.divisors.begin(), settings.divisors.end(), [](float x) { return x > 0 && std::isfinite(x); })) {
      fail(Code::format, file_.path(), ": tensor '", kDivisors, "': expected divisors above 0");
    }
  }

  const Gguf &file_;
  std::string architecture_;
  DecoderConfig config_;
};

}  // namespace

DecoderConfig read_config(const Gguf &file) { return GgufConfigReader(file).read(); }

}  // namespace moe
