// The C API for tests: handles that free themselves, calls whose failure is a failed test, small data files.
#pragma once
#include <gtest/gtest.h>
#include <moe.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "support/temporary_folder.h"

namespace moe::test {

// A handle that frees itself: Owned<moe_model, moe_model_free> model; moe_model_load(..., &model, ...).
template <class H, void (*free_handle)(H **)>
class Owned {
 public:
  Owned() = default;
  Owned(Owned &&other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Owned &operator=(Owned &&other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Owned() { free_handle(&handle_); }
  H **operator&() {  // for an out-parameter: what was held is freed
    free_handle(&handle_);
    return &handle_;
  }
  operator H *() const { return handle_; }

 private:
  H *handle_ = nullptr;
};

using Values = std::map<std::string, std::string>;

using OptionsHandle = Owned<moe_options, moe_options_free>;
using TokenHandle = Owned<moe_cancel_token, moe_cancel_token_free>;
using TextHandle = Owned<moe_text, moe_text_free>;
using ModelHandle = Owned<moe_model, moe_model_free>;
using LoraHandle = Owned<moe_lora, moe_lora_free>;
using RouterHandle = Owned<moe_router, moe_router_free>;
using DatasetHandle = Owned<moe_dataset, moe_dataset_free>;
using TrainerHandle = Owned<moe_trainer, moe_trainer_free>;
using SessionHandle = Owned<moe_session, moe_session_free>;
using GenerationHandle = Owned<moe_generation, moe_generation_free>;

// EXPECT_OK(moe_x(..., &error)) with an `error` in scope; EXPECT_CODE also looks for a part of the message.
#define EXPECT_OK(call) EXPECT_EQ(call, MOE_OK) << error.message
#define ASSERT_OK(call) ASSERT_EQ(call, MOE_OK) << error.message
#define EXPECT_CODE(call, expected, part)                                                 \
  do {                                                                                    \
    EXPECT_EQ(call, expected) << error.message;                                           \
    EXPECT_EQ(error.code, expected);                                                      \
    EXPECT_NE(std::string(error.message).find(part), std::string::npos) << error.message; \
    EXPECT_EQ(std::string(error.message).find('\n'), std::string::npos) << error.message; \
  } while (false)

inline std::string tiny(const std::string &name = "qwen3-F32.gguf") {
  return std::string(MOE_TESTS_DIR) + "/golden/gguf/" + name;
}

// Where the models of these tests compute (device_test.cpp).
inline std::string test_device() {
  const char *device = std::getenv("MOE_TEST_DEVICE");
  return device ? device : "cpu";
}

inline OptionsHandle make_options(const Values &values) {
  OptionsHandle options;
  moe_error error = MOE_ERROR_INIT;
  EXPECT_OK(moe_options_create(&options, &error));
  for (const auto &[key, value] : values) EXPECT_OK(moe_options_set(options, key.c_str(), value.c_str(), &error));
  return options;
}

inline ModelHandle load_tiny(const std::string &name = "qwen3-F32.gguf") {
  ModelHandle model;
  moe_error error = MOE_ERROR_INIT;
  const OptionsHandle options = make_options({{"compute", "f32"}, {"threads", "2"}, {"device", test_device()}});
  EXPECT_OK(moe_model_load(tiny(name).c_str(), options, nullptr, &model, &error));
  return model;
}

inline std::string text_of(const moe_text *text) { return {moe_text_data(text), moe_text_length(text)}; }
inline Json json_of(const moe_text *text) { return Json::parse(text_of(text), "result"); }

inline void write_text(const std::string &path, const std::string &content) { std::ofstream(path, std::ios::binary) << content; }

// Prompt and completion rows: sums with `bias` added to the right answer.
inline std::string write_sums(const std::string &path, int rows, int bias = 0) {
  std::string lines;
  for (int i = 0; i < rows; i++) {
    lines += Json::object({{"prompt", text(i, " + ", i % 7, " =")}, {"completion", text(" ", i + i % 7 + bias)}}).dump() + "\n";
  }
  write_text(path, lines);
  return path;
}

// A hand-made batch of two sequences.
struct SmallBatch {
  std::vector<int32_t> tokens{5, 9, 20, 33, 7, 8, 40, 41, 42}, labels{9, 20, 33, -100, 8, 40, 41, 42, -100}, starts{0, 4, 9},
      domains;
  moe_batch view() const {
    moe_batch batch = MOE_BATCH_INIT;
    batch.n_tokens = static_cast<int64_t>(tokens.size());
    batch.n_sequences = static_cast<int64_t>(starts.size()) - 1;
    batch.tokens = tokens.data();
    batch.labels = labels.data();
    batch.sequence_starts = starts.data();
    batch.domains = domains.empty() ? nullptr : domains.data();
    return batch;
  }
};

// An adapter on the tiny model and its trainer, without data.
struct SmallTrainer {
  ModelHandle model = load_tiny();
  LoraHandle lora;
  TrainerHandle trainer;

  SmallTrainer() {
    moe_error error = MOE_ERROR_INIT;
    EXPECT_OK(moe_lora_create(model, nullptr, &lora, &error));
    EXPECT_OK(moe_trainer_create_lora(lora, nullptr, nullptr, nullptr, &trainer, &error));
  }
};

}  // namespace moe::test
