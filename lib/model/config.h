// A decoder as data: which sizes, norms, rotary forms, windows, activation and scales a base model has. A model family is one
// reading of a config.json or of GGUF metadata into this; the decoder itself knows no family.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "formats/gguf.h"
#include "tensor/backend.h"

namespace moe {

// Rotary embedding of a kind of layer: angle of pair j at position p is p * inverse_frequency[j]; cos and sin are multiplied by
// `factor`.
struct Rope {
  std::vector<float> inverse_frequency;  // [head_dimension / 2]
  float factor = 1;
};

struct DecoderConfig {
  std::string family;            // "llama", "qwen3", "gemma3"
  int64_t layers = 0, vocabulary = 0, hidden = 0, intermediate = 0;
  int64_t heads = 0, kv_heads = 0, head_dimension = 0, max_positions = 0;
  float norm_epsilon = 1e-6f;
  bool query_key_norm = false;   // RMS norm over each head of q and k before the rotation
  bool sandwich_norms = false;   // norms also after attention and after the FFN (Gemma)
  bool norm_plus_one = false;    // stored norm weights w mean 1 + w; undone at load
  bool tied_embeddings = false;
  float embedding_scale = 1, attention_scale = 0;
  Activation activation = Activation::silu;
  std::vector<Rope> ropes;
  struct Layer {
    int64_t window = 0;          // 0 = full causal attention
    int rope = 0;                // index into ropes
  };
  std::vector<Layer> layer;

  int64_t query_width() const { return heads * head_dimension; }
  int64_t kv_width() const { return kv_heads * head_dimension; }
  // sha256 of the canonical family, dimensions and vocabulary: equal for every file format of the same architecture.
  std::string fingerprint() const;
};

// `source` opens every error message.
DecoderConfig read_config(const Json &config, const std::string &source);
DecoderConfig read_config(const Gguf &file);

}  // namespace moe
