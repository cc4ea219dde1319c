// DecoderConfig from a Hugging Face config.json, in the style of transformers 4 (rope_theta, rope_scaling) or 5
// (rope_parameters). Defaults are those of the family's configuration class there; what would change the mathematics and is
// not built in is refused by its key.
#include "model/config.h"

#include <cmath>

#include "base/error.h"
#include "base/sha256.h"
#include "model/config_limits.h"
#include "model/rope.h"

namespace moe {
namespace {

class ConfigReader {
 public:
  // `outer` is the whole file when the text model's keys are nested in it.
  ConfigReader(const Json &json, const Json &outer, const std::string &source) : json_(json), outer_(outer), source_(source) {}

  DecoderConfig read(const std::string &family) {
    config_.family = family;
    const bool gemma = family == "gemma3", qwen = family == "qwen3";
    refuse_unsupported();
    read_sizes(gemma, qwen);
    config_.norm_epsilon = static_cast<float>(json_.number_or("rms_norm_eps", 1e-6, source_));
    config_.tied_embeddings =
        json_.bool_or("tie_word_embeddings", outer_.bool_or("tie_word_embeddings", gemma, source_), source_);
    config_.query_key_norm = gemma || qwen;
    config_.attention_scale = static_cast<float>(1 / std::sqrt(static_cast<double>(config_.head_dimension)));
    read_activation(gemma);
    if (gemma) read_gemma();
    read_layers(gemma, qwen);
    read_ropes(gemma);
    check_config(config_, source_);
    return std::move(config_);
  }

 private:
  bool is_set(const char *key) const {
    const Json *value = json_.find(key);
    return value && !value->is_null();
  }

  void refuse_unsupported() const {
    for (const char *key : {"attention_bias", "mlp_bias", "use_bidirectional_attention"}) {
      const Json *value = json_.find(key);
      if (value && !value->is_null() && !(value->is_bool() && !value->boolean())) {
        fail(Code::unsupported, source_, ": key '", key, "': ", value->dump(), " is not supported yet");
      }
    }
    for (const char *key : {"attn_logit_softcapping", "final_logit_softcapping", "quantization_config"}) {
      if (is_set(key) || (outer_.find(key) && !outer_.find(key)->is_null())) {
        fail(Code::unsupported, source_, ": key '", key, "' is not supported yet");
      }
    }
    if (json_.number_or("partial_rotary_factor", 1, source_) != 1) {
      fail(Code::unsupported, source_, ": key 'partial_rotary_factor' other than 1 is not supported yet");
    }
  }

  // A size with a default of the family; 0 = the key is required.
  int64_t size(const char *key, int64_t otherwise, int64_t high) const {
    const int64_t value = otherwise == 0 || is_set(key) ? json_.integer_at(key, source_) : otherwise;
    return checked_size(source_, key, value, high);
  }

  void read_sizes(bool gemma, bool qwen) {
    config_.layers = size("num_hidden_layers", gemma ? 26 : 0, kMaxLayers);
    config_.vocabulary = size("vocab_size", gemma ? 262208 : 0, kMaxVocabulary);
    config_.hidden = size("hidden_size", gemma ? 2304 : 0, kMaxHidden);
    config_.intermediate = size("intermediate_size", gemma ? 9216 : 0, kMaxIntermediate);
    config_.heads = size("num_attention_heads", gemma ? 8 : 0, kMaxHeads);
    config_.kv_heads = size("num_key_value_heads", gemma ? 4 : config_.heads, kMaxHeads);
    config_.max_positions = size("max_position_embeddings", gemma ? 131072 : qwen ? 32768 : 2048, kMaxPositions);
    const int64_t head_default = gemma ? 256 : qwen ? 128 : config_.hidden / config_.heads;
    if (!gemma && !qwen && !is_set("head_dim") && config_.hidden % config_.heads != 0) {
      fail(Code::format, source_, ": key 'hidden_size': expected a multiple of the ", config_.heads, " heads, found ",
           config_.hidden);
    }
    config_.head_dimension =
        checked_size(source_, "head_dim", json_.integer_or("head_dim", head_default, source_), kMaxHeadDimension);
  }

  void read_activation(bool gemma) {
    const char *key = gemma ? "hidden_activation" : "hidden_act", *expected = gemma ? "gelu_pytorch_tanh" : "silu";
    const std::string name = json_.string_or(key, expected, source_);
    if (name != expected) fail(Code::unsupported, source_, ": key '", key, "': expected ", expected, ", found ", name);
    config_.activation = gemma ? Activation::gelu_tanh : Activation::silu;
  }

  void read_gemma() {
    config_.sandwich_norms = config_.norm_plus_one = true;
    config_.embedding_scale = static_cast<float>(std::sqrt(static_cast<double>(config_.hidden)));
    const double scalar = json_.number_or("query_pre_attn_scalar", 256, source_);
    if (!(scalar > 0)) fail(Code::format, source_, ": key 'query_pre_attn_scalar': expected more than 0, found ", scalar);
    config_.attention_scale = static_cast<float>(1 / std::sqrt(scalar));
  }

  // Which layers see a window: by `layer_types`, else by the family's own rule.
  void read_layers(bool gemma, bool qwen) {
    config_.layer.resize(static_cast<size_t>(config_.layers));
    if (!gemma && !qwen) return;  // Llama's class ignores both keys
    const bool windowed = gemma || json_.bool_or("use_sliding_window", false, source_);
    const int64_t window =
        windowed && (gemma || is_set("sliding_window")) ? size("sliding_window", gemma ? 4096 : 0, kMaxPositions) : 0;
    const int64_t pattern =
        size(is_set("_sliding_window_pattern") ? "_sliding_window_pattern" : "sliding_window_pattern", 6, kMaxLayers);
    const int64_t first = json_.integer_or("max_window_layers", 28, source_);
    const Json *types = is_set("layer_types") ? json_.find("layer_types") : nullptr;
    if (types && (!types->is_array() || static_cast<int64_t>(types->size()) != config_.layers)) {
      fail(Code::format, source_, ": key 'layer_types': expected a list of ", config_.layers, " types");
    }
    for (int64_t i = 0; i < config_.layers; i++) {
      bool slides = gemma ? (i + 1) % pattern != 0 : i >= first;
      if (types) {
        const Json &type = types->items()[static_cast<size_t>(i)];
        slides = type.is_string() && type.string() == "sliding_attention";
        if (!slides && !(type.is_string() && type.string() == "full_attention")) {
          fail(Code::unsupported, source_, ": key 'layer_types': expected full_attention or sliding_attention, found ",
               type.dump());
        }
      }
      DecoderConfig::Layer &layer = config_.layer[static_cast<size_t>(i)];
      layer.window = slides ? window : 0;
      layer.rope = gemma && slides ? 1 : 0;
    }
  }

  // Rope 0: everywhere, Gemma: the global layers. Rope 1: Gemma's local layers.
  void read_ropes(bool gemma) {
    RopeSettings global, local;
    global.theta = theta("rope_theta", gemma ? 1e6 : 10000);
    local.theta = theta("rope_local_base_freq", 10000);
    if (const Json *scaling = json_.find("rope_scaling")) read_rope_settings(*scaling, source_, "rope_scaling", global);
    if (const Json *parameters = json_.find("rope_parameters"); parameters && parameters->is_object()) {
      const Json *full = parameters->find("full_attention"), *sliding = parameters->find("sliding_attention");
      read_rope_settings(full ? *full : *parameters, source_, "rope_parameters", global);
      if (sliding) read_rope_settings(*sliding, source_, "rope_parameters", local);
    }
    config_.ropes.push_back(make_rope(global, config_.head_dimension));
    if (gemma) config_.ropes.push_back(make_rope(local, config_.head_dimension));
  }

  double theta(const char *key, double otherwise) const {
    const double value = json_.number_or(key, otherwise, source_);
    if (!(value > 0) || !std::isfinite(value))
      fail(Code::format, source_, ": key '", key, "': expected more than 0, found ", value);
    return value;
  }

  const Json &json_, &outer_;
  const std::string &source_;
  DecoderConfig config_;
};

}  // namespace

int64_t checked_size(std::string_view source, std::string_view key, int64_t value, int64_t high) {
  if (value < 1 || value > high) fail(Code::format, source, ": key '", key, "': expected 1 to ", high, ", found ", value);
  return value;
}

void check_config(const DecoderConfig &config, const std::string &source) {
  if (config.head_dimension % 2 != 0)
    fail(Code::format, source, ": the head dimension must be even, found ", config.head_dimension);
  if (config.heads % config.kv_heads != 0) {
    fail(Code::format, source, ": expected a number of attention heads that is a multiple of the ", config.kv_heads,
         " key heads, found ", config.heads);
  }
  if (config.query_width() > kMaxHidden) {
    fail(Code::format, source, ": ", config.heads, " heads of ", config.head_dimension, ": at most ", kMaxHidden,
         " in all are possible");
  }
  if (!(config.norm_epsilon > 0) || !(config.norm_epsilon < 1)) {
    fail(Code::format, source, ": the epsilon of the norms: expected more than 0 and less than 1, found ", config.norm_epsilon);
  }
  if (!(config.attention_scale > 0) || !std::isfinite(config.attention_scale)) {
    fail(Code::format, source, ": the scale of the attention scores is ", config.attention_scale);
  }
}

void refuse_family(const std::string &source, std::string_view key, std::string_view name) {
  fail(Code::unsupported, source, ": ", key, " '", name, "' is not supported yet; supported: llama, qwen3, gemma3");
}

std::string DecoderConfig::fingerprint() const {
  const std::string canonical =
      text("family=", family, "\nlayers=", layers, "\nhidden=", hidden, "\nintermediate=", intermediate, "\nheads=", heads,
           "\nkv_heads=", kv_heads, "\nhead_dimension=", head_dimension, "\nvocabulary=", vocabulary, "\n");
  return sha256_hex(canonical.data(), canonical.size());
}

DecoderConfig read_config(const Json &config, const std::string &source) {
  const std::string type = config.string_at("model_type", source);
  if (type == "llama" || type == "qwen3") return ConfigReader(config, config, source).read(type);
  if (type == "gemma3_text") return ConfigReader(config, config, source).read("gemma3");
  if (type == "gemma3") {
    const Json &nested = config.at("text_config", source);
    if (!nested.is_object()) fail(Code::format, source, ": key 'text_config': expected an object");
    return ConfigReader(nested, config, source + ": text_config").read("gemma3");
  }
  refuse_family(source, "model_type", type);
}

}  // namespace moe
