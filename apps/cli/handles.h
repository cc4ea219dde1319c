// The handles of moe.h, freed at the end of their scope.
#pragma once
#include <moe.h>

#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "cli/failure.h"

namespace moe::cli {

template <class T, void (*Free)(T **)>
class Handle {
 public:
  Handle() = default;
  Handle(Handle &&other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Handle &operator=(Handle &&other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Handle() { Free(&handle_); }

  T *get() const { return handle_; }
  explicit operator bool() const { return handle_ != nullptr; }
  // For an out-parameter; frees what was held.
  T **out() {
    Free(&handle_);
    return &handle_;
  }

 private:
  T *handle_ = nullptr;
};

using Options = Handle<moe_options, moe_options_free>;
using Model = Handle<moe_model, moe_model_free>;
using Lora = Handle<moe_lora, moe_lora_free>;
using Router = Handle<moe_router, moe_router_free>;
using Dataset = Handle<moe_dataset, moe_dataset_free>;
using Trainer = Handle<moe_trainer, moe_trainer_free>;
using Session = Handle<moe_session, moe_session_free>;
using Generation = Handle<moe_generation, moe_generation_free>;
using Text = Handle<moe_text, moe_text_free>;

inline std::string_view view(const Text &text) { return {moe_text_data(text.get()), moe_text_length(text.get())}; }

// Runs a call of the library that takes a moe_error last, and throws its failure:
//   call(moe_model_load, path, options, cancel, model.out());
template <class Function, class... Arguments>
void call(Function function, Arguments... arguments) {
  moe_error error = MOE_ERROR_INIT;
  check(function(arguments..., &error), error);
}

// A call whose result is a text, as a string.
template <class Function, class... Arguments>
std::string text_of(Function function, Arguments... arguments) {
  Text text;
  call(function, arguments..., text.out());
  return std::string(view(text));
}

}  // namespace moe::cli
