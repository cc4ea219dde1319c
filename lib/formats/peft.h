// A PEFT LoRA adapter folder: adapter_config.json (formats/lora_config.h) and adapter_model.safetensors with the keys
//   base_model.model.<module path>.lora_A.weight  [r, in]       (also ".lora_A.default.weight")
//   base_model.model.<module path>.lora_B.weight  [out, r]
// The delta of a module's weight [out, in] is scale B A (Hu et al. 2021). Every key of the file is accounted for.
// The fingerprints of the base model travel in the metadata of the safetensors file.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "formats/lora_config.h"

namespace moe {

struct LoraModule {
  std::string path;         // "model.layers.0.self_attn.q_proj"
  int64_t rank = 0, in = 0, out = 0;
  double scale = 0;
  std::vector<float> a;     // [rank, in]
  std::vector<float> b;     // [out, rank]
};

struct PeftAdapter {
  LoraConfig config;
  std::vector<LoraModule> modules;            // by path
  std::string architecture_fingerprint;       // empty when the file has none
  std::string weights_fingerprint;
  bool is_zero = false;                       // every delta is exactly zero: an untrained adapter

  const LoraModule *find(std::string_view path) const;
};

// Code::format: a key that is no factor of a targeted module, a factor without its partner, a rank or shape that does not
// fit. Code::unsupported: DoRA and the like. Code::numeric: NaN or infinity. Targets of the base model that the adapter
// lacks are for the caller to find, who knows the base: matches(config, path) but find(path) == nullptr.
PeftAdapter read_peft_adapter(const std::string &folder);

// Writes both files as f32 into an existing folder; for a write that is whole or not at all give the path of an AtomicFolder.
// Ranks and scales must be those that config gives, else nobody could read them back: Code::invalid.
void write_peft_adapter(const std::string &folder, const PeftAdapter &adapter);

}  // namespace moe
