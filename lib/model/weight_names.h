// What the weights of a decoder are called in the two kinds of files.
//
//   role              Hugging Face (after "model.")                              GGUF
//   embedding         embed_tokens                                               token_embd
//   final norm        norm                                                       output_norm
//   head              lm_head (without "model.")                                 output
//   projection        layers.N.self_attn.q_proj ...                              blk.N.attn_q, attn_k, attn_v, attn_output,
//                     layers.N.mlp.gate_proj ...                                 blk.N.ffn_gate, ffn_up, ffn_down
//   attention norm    layers.N.input_layernorm                                   blk.N.attn_norm
//   post attention    layers.N.post_attention_layernorm (Gemma)                  blk.N.post_attention_norm
//   ffn norm          layers.N.post_attention_layernorm; Gemma:
//                     layers.N.pre_feedforward_layernorm                         blk.N.ffn_norm
//   post ffn          layers.N.post_feedforward_layernorm (Gemma)                blk.N.post_ffw_norm
//   q, k norm         layers.N.self_attn.q_norm ...                              blk.N.attn_q_norm ...
//
// each with ".weight". In a checkpoint that also holds a vision tower the decoder is "language_model.model." or
// "model.language_model." instead of "model.".
#pragma once
#include <string>

#include "formats/tensor_source.h"
#include "model/module.h"

namespace moe {

enum class Norm : int { attention, post_attention, ffn, post_ffn, q, k };

class WeightNames {
 public:
  static WeightNames canonical(bool sandwich_norms);                               // Hugging Face, "model."
  static WeightNames hugging_face(const TensorSource &file, bool sandwich_norms);  // with the prefix that the file uses
  static WeightNames gguf();

  std::string embedding() const;
  std::string final_norm() const;
  std::string head() const;
  std::string projection(int64_t layer, Module module) const;
  std::string norm(int64_t layer, Norm norm) const;

 private:
  bool gguf_ = false, sandwich_norms_ = false;
  std::string prefix_, head_prefix_;
};

}  // namespace moe
