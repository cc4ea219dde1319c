// The numbers of an adapter or a router and their gradients, each one flat array, so that the optimizer, checkpoints and clipping
// see the same of both.
#pragma once
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tensor/shared_array.h"

namespace moe {

class TrainedArrays {
 public:
  std::span<float> parameters() { return parameters_.host(); }
  std::span<const float> parameters() const { return parameters_.host(); }
  std::span<float> gradients() { return gradients_.host(); }  // zero at first
  SharedArray &shared_parameters() { return parameters_; }    // for an optimizer, which works in the backend's memory
  SharedArray &shared_gradients() { return gradients_; }
  size_t size() const { return parameters_.size(); }
  // For the ops of a pass, which write the gradients where the numbers train in it: both in the backend's memory, up to date.
  void bring(const std::shared_ptr<Backend> &backend, bool train) {
    parameters_.bring(backend, false);
    if (train) gradients_.bring(backend, true);
  }
  // A tensor of the file: its key, shape and place in parameters().
  struct Entry {
    std::string key;  // "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", "layers.0.router.weight"
    std::vector<int64_t> shape;
    size_t offset = 0;
  };

 protected:
  TrainedArrays() = default;
  ~TrainedArrays() = default;
  TrainedArrays(const TrainedArrays &) = default;
  TrainedArrays &operator=(const TrainedArrays &) = default;
  void resize(size_t size) {
    parameters_ = SharedArray(size);
    gradients_ = SharedArray(size);
  }

  SharedArray parameters_, gradients_;
};

}  // namespace moe
