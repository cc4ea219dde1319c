// A LoRA adapter on a base model: factors of every adapted projection in one flat f32 array. Trainable or loaded.
// Files: PEFT folders (formats/peft.h), always in Hugging Face names and row order.
#pragma once
#include <array>
#include <memory>
#include <string>
#include <vector>

#include "formats/peft.h"
#include "model/base_model.h"
#include "model/trained_arrays.h"

namespace moe {

class Adapter : public TrainedArrays {
 public:
  // A fresh adapter: A Kaiming-uniform(a = sqrt 5), that is uniform in +-1/sqrt(in); B = 0. Which modules: config.target_modules by
  // PEFT's rules; a target that matches nothing is Code::invalid and names it.
  static std::shared_ptr<Adapter> create(const BaseModel &model, const LoraConfig &config, uint64_t seed);
  // Every key of the file is accounted for. A base of another architecture: Code::format with both fingerprints or shapes; other
  // weights of the same architecture: a warning in the log, an error with strict_base.
  static std::shared_ptr<Adapter> load(const BaseModel &model, const std::string &folder, bool strict_base);
  // Writes adapter_config.json and adapter_model.safetensors into an existing folder.
  void save(const BaseModel &model, const std::string &folder) const;

  const LoraConfig &config() const { return config_; }
  int64_t rank(int64_t layer, Module module) const { return slot(layer, module).rank; }  // 0 where the module is not adapted
  LowRank factors(int64_t layer, Module module) const;        // into parameters(); null pointers where not adapted
  LowRankGradient gradient_of(int64_t layer, Module module);  // into gradients()
  // The same in the backend's memory, for ops: after bring() in a pass.
  LowRank op_factors(int64_t layer, Module module) const;
  LowRankGradient op_gradient(int64_t layer, Module module) const;
  bool targets_attention() const { return targets_attention_; }
  bool targets_ffn() const { return targets_ffn_; }
  bool delta_is_zero() const;
  int64_t largest_rank() const { return largest_rank_; }

  std::vector<Entry> entries() const;  // in a fixed order, for checkpoints and dumps

 private:
  struct Slot {
    int64_t rank = 0, in = 0, out = 0;
    float scale = 0;
    size_t a = 0, b = 0;  // offsets into parameters_
  };
  const Slot &slot(int64_t layer, Module module) const { return slots_[static_cast<size_t>(layer)][static_cast<size_t>(module)]; }
  void lay_out(const BaseModel &model);
  static LowRank factors_at(const Slot &slot, const float *parameters);
  static LowRankGradient gradient_at(const Slot &slot, float *gradients);
  std::string path_of(int64_t layer, Module module) const;  // the module's path in the names of the adapter

  LoraConfig config_;
  std::string prefix_ = "model.";  // before "layers.N...."; another one where the adapter was made on a vision model's decoder
  std::vector<std::array<Slot, kModules>> slots_;
  bool targets_attention_ = false, targets_ffn_ = false;
  int64_t largest_rank_ = 0;
};

}  // namespace moe
