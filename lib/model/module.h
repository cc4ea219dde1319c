// The seven linear projections of a decoder layer, by their Hugging Face names.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "model/config.h"

namespace moe {

enum class Module : int { q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj };
inline constexpr int kModules = 7;
inline constexpr std::array<const char *, kModules> kModulePaths = {
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"};

inline bool is_attention(Module module) { return static_cast<int>(module) < 4; }
// "model.layers.3.mlp.down_proj"
std::string module_path(int64_t layer, Module module);
// The inverse of module_path; false when the path is none.
bool parse_module_path(std::string_view path, int64_t *layer, Module *module);
struct ModuleShape {
  int64_t out = 0, in = 0;
};
ModuleShape module_shape(const DecoderConfig &config, Module module);

}  // namespace moe
