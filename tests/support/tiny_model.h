// Small models that run in milliseconds and the adapters and mixtures on them that tests make up.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "model/base_model.h"
#include "model/mixture.h"
#include "support/golden.h"

namespace moe::test {

// The golden GGUF file of a Llama with a byte-level tokenizer of 272 tokens.
inline std::shared_ptr<const BaseModel> tiny_model(int threads = 2, const std::string &compute = "f32") {
  return golden_model("gguf/llama-F32.gguf", compute, threads);
}

// Values in [-size, size) from an index, the same on every machine.
inline void fill_noise(std::span<float> values, uint64_t seed, float size) {
  uint64_t state = seed * 0x9E3779B97F4A7C15u + 1;
  for (float &value : values) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    value = size * (static_cast<float>(state >> 40) / static_cast<float>(1 << 23) - 1);
  }
}

// An adapter on every linear module with a delta that is not zero.
inline std::shared_ptr<Adapter> noisy_adapter(const BaseModel &model, uint64_t seed, float size = 0.3f) {
  LoraConfig config;
  config.r = 3;
  config.alpha = 6;
  config.target_modules.names = {"gate_proj", "up_proj", "down_proj"};
  auto adapter = Adapter::create(model, config, seed);
  fill_noise(adapter->parameters(), seed, size);
  return adapter;
}

inline std::shared_ptr<Mixture> noisy_mixture(const BaseModel &model, const std::vector<std::string> &domains, uint64_t seed,
                                              float size = 0.3f) {
  auto mixture = std::make_shared<Mixture>();
  mixture->domains = domains;
  for (size_t i = 0; i < domains.size(); i++) mixture->experts.push_back(noisy_adapter(model, seed + i + 1, size));
  RouterConfig config;
  config.layers = model.config().layers;
  config.hidden = model.config().hidden;
  config.experts = static_cast<int64_t>(domains.size());
  mixture->router = Router::create(config, seed);
  fill_noise(mixture->router->parameters(), seed + 99, 0.5f);
  return mixture;
}

}  // namespace moe::test
