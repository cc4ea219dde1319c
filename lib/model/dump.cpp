#include "model/dump.h"

#include <algorithm>

#include "base/error.h"
#include "formats/safetensors.h"

namespace moe {
namespace {

// Tensors whose values are views into what outlives the writing.
class DumpFile {
 public:
  void add(std::string name, std::vector<int64_t> shape, const float *values) {
    tensors_.push_back({std::move(name), DType::f32, std::move(shape), values});
  }
  void add(const std::string &name, const Capture::Tensor &tensor) {
    if (tensor.integers.empty()) add(name, tensor.shape, tensor.values.data());
    else tensors_.push_back({name, DType::i32, tensor.shape, tensor.integers.data()});
  }
  template <class Trained>
  void add_gradients(const std::string &prefix, Trained &trained) {
    const float *gradients = trained.gradients().data();
    for (const auto &entry : trained.entries()) add(prefix + entry.key, entry.shape, gradients + entry.offset);
  }
  void write(const std::string &path) const { write_safetensors_atomic(path, tensors_, {{"format", "pt"}}); }

 private:
  std::vector<TensorToWrite> tensors_;
};

template <class Trained>
void zero_gradients(Trained &trained) {
  std::fill(trained.gradients().begin(), trained.gradients().end(), 0.0f);
}

bool trains_router(Trainable what) { return what == Trainable::router || what == Trainable::joint; }
bool trains_experts(Trainable what) { return what == Trainable::experts || what == Trainable::joint; }

void check_trainable(const Overlay &overlay, Trainable what) {
  if (what == Trainable::adapter && !overlay.adapter)
    fail(Code::invalid, "trainable: there is no adapter whose gradients could be written");
  if (trains_router(what) && !(overlay.mixture && overlay.mixture->router)) {
    fail(Code::invalid, "trainable: there is no router whose gradients could be written");
  }
  if (trains_experts(what) && !overlay.mixture)
    fail(Code::invalid, "trainable: there are no experts whose gradients could be written");
}

void zero_all(const Overlay &overlay, Trainable what) {
  if (what == Trainable::adapter) zero_gradients(*overlay.adapter);
  if (trains_router(what)) zero_gradients(*overlay.mixture->router);
  if (trains_experts(what)) {
    for (const auto &expert : overlay.mixture->experts) zero_gradients(*expert);
  }
}

void add_all(DumpFile &file, const Overlay &overlay, Trainable what) {
  if (what == Trainable::adapter) file.add_gradients("grad.", *overlay.adapter);
  if (trains_router(what)) file.add_gradients("grad.", *overlay.mixture->router);
  if (trains_experts(what)) {
    for (size_t i = 0; i < overlay.mixture->experts.size(); i++) {
      file.add_gradients("grad." + overlay.mixture->domains[i] + ".", *overlay.mixture->experts[i]);
    }
  }
}

}  // namespace

void dump_pass(const BaseModel &model, const Overlay &overlay, const PackedBatch &batch, const DumpRequest &dump,
               const std::string &path, const Cancel *cancel) {
  const int64_t supervised = batch.supervised();
  if (dump.gradients) {
    check_trainable(overlay, dump.trainable);
    if (supervised == 0) fail(Code::invalid, "dump: gradients need a label that is not -100");
    zero_all(overlay, dump.trainable);
  }
  Capture capture;
  capture.logits = dump.logits;
  capture.hidden_states = dump.hidden_states;
  capture.router = dump.router;
  PassRequest request;
  request.train = dump.gradients ? dump.trainable : Trainable::nothing;
  request.gradient_scale = supervised > 0 ? 1.0f / static_cast<float>(supervised) : 1.0f;
  request.losses = dump.losses;
  request.capture = &capture;
  request.cancel = cancel;
  Arena arena = pass_arena(model, training_pass_bytes(model, overlay, request, batch.size(), supervised));
  const PassResult result = training_pass(model, overlay, batch, request, arena);

  DumpFile file;
  for (const auto &[name, tensor] : capture.tensors) file.add(name, tensor);
  const float loss = supervised > 0 ? static_cast<float>(result.nll / static_cast<double>(supervised)) : 0;
  file.add("loss", {1}, &loss);
  if (dump.token_nll) file.add("token_nll", {batch.size()}, result.token_nll.data());
  if (dump.gradients) add_all(file, overlay, dump.trainable);
  file.write(path);
}

}  // namespace moe
