#include "model/module.h"

#include <charconv>

namespace moe {
namespace {

constexpr std::string_view kLayers = "model.layers.";

}  // namespace

std::string module_path(int64_t layer, Module module) {
  return std::string(kLayers) + std::to_string(layer) + "." + kModulePaths[static_cast<size_t>(module)];
}

bool parse_module_path(std::string_view path, int64_t *layer, Module *module) {
  if (!path.starts_with(kLayers)) return false;
  path.remove_prefix(kLayers.size());
  const auto [end, error] = std::from_chars(path.data(), path.data() + path.size(), *layer);
  const size_t digits = static_cast<size_t>(end - path.data());
  if (error != std::errc() || *layer < 0 || (digits > 1 && path[0] == '0') || digits == path.size() || path[digits] != '.')
    return false;
  path.remove_prefix(digits + 1);
  for (int i = 0; i < kModules; i++) {
    if (path == kModulePaths[static_cast<size_t>(i)]) {
      *module = static_cast<Module>(i);
      return true;
    }
  }
  return false;
}

ModuleShape module_shape(const DecoderConfig &config, Module module) {
  switch (module) {
    case Module::q_proj:
      return {config.query_width(), config.hidden};
    case Module::k_proj:
    case Module::v_proj:
      return {config.kv_width(), config.hidden};
    case Module::o_proj:
      return {config.hidden, config.query_width()};
    case Module::gate_proj:
    case Module::up_proj:
      return {config.intermediate, config.hidden};
    case Module::down_proj:
      return {config.hidden, config.intermediate};
  }
  return {};
}

}  // namespace moe
