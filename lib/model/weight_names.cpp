#include "model/weight_names.h"

#include <array>
#include <utility>

#include "base/error.h"

namespace moe {
namespace {

constexpr std::array<const char *, kModules> kGgufProjections = {"attn_q",   "attn_k", "attn_v",  "attn_output",
                                                                 "ffn_gate", "ffn_up", "ffn_down"};
// by Norm
constexpr const char *kGgufNorms[] = {"attn_norm",     "post_attention_norm", "ffn_norm",
                                      "post_ffw_norm", "attn_q_norm",         "attn_k_norm"};
constexpr const char *kNorms[] = {"input_layernorm", "", "post_attention_layernorm", "", "self_attn.q_norm", "self_attn.k_norm"};
constexpr const char *kSandwichNorms[] = {"input_layernorm",           "post_attention_layernorm",
                                          "pre_feedforward_layernorm", "post_feedforward_layernorm",
                                          "self_attn.q_norm",          "self_attn.k_norm"};
// prefix of the decoder, prefix of the head
constexpr std::pair<const char *, const char *> kPrefixes[] = {
    {"model.", ""}, {"language_model.model.", "language_model."}, {"model.language_model.", ""}};

}  // namespace

WeightNames WeightNames::canonical(bool sandwich_norms) {
  WeightNames names;
  names.sandwich_norms_ = sandwich_norms;
  names.prefix_ = kPrefixes[0].first;
  return names;
}

WeightNames WeightNames::hugging_face(const TensorSource &file, bool sandwich_norms) {
  WeightNames names = canonical(sandwich_norms);
  for (const auto &[prefix, head_prefix] : kPrefixes) {
    if (!file.find(text(prefix, "embed_tokens.weight"))) continue;
    names.prefix_ = prefix;
    names.head_prefix_ = head_prefix;
    break;
  }
  return names;
}

WeightNames WeightNames::gguf() {
  WeightNames names;
  names.gguf_ = true;
  return names;
}

std::string WeightNames::embedding() const { return gguf_ ? "token_embd.weight" : prefix_ + "embed_tokens.weight"; }
std::string WeightNames::final_norm() const { return gguf_ ? "output_norm.weight" : prefix_ + "norm.weight"; }
std::string WeightNames::head() const { return gguf_ ? "output.weight" : head_prefix_ + "lm_head.weight"; }

std::string WeightNames::projection(int64_t layer, Module module) const {
  const size_t i = static_cast<size_t>(module);
  return gguf_ ? text("blk.", layer, ".", kGgufProjections[i], ".weight")
               : text(prefix_, "layers.", layer, ".", kModulePaths[i], ".weight");
}

std::string WeightNames::norm(int64_t layer, Norm norm) const {
  const size_t i = static_cast<size_t>(norm);
  if (gguf_) return text("blk.", layer, ".", kGgufNorms[i], ".weight");
  return text(prefix_, "layers.", layer, ".", (sandwich_norms_ ? kSandwichNorms : kNorms)[i], ".weight");
}

}  // namespace moe
