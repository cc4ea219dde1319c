// The option `device` through the C API. The program runs twice: with MOE_TEST_DEVICE=cuda all models of its tests compute on the
// CUDA backend, which opens a shared object that plays a GPU on the CPU (tests/cuda_host), and whose controls these tests use.
#include <dlfcn.h>

#include "api/api.h"

namespace moe::test {
namespace {

bool on_device() { return test_device() != "cpu"; }

template <class Function>
Function control(const char *name) {
  void *object = dlopen("libmoe_cuda.so", RTLD_NOW | RTLD_NOLOAD);
  void *symbol = object ? dlsym(object, name) : nullptr;
  if (!symbol) throw std::runtime_error(std::string("no such control: ") + name);
  return reinterpret_cast<Function>(symbol);
}
void fail_allocation(int n) { control<void (*)(int)>("cuda_host_fail_allocation")(n); }
void break_device(bool on) { control<void (*)(int)>("cuda_host_break_device")(on ? 1 : 0); }
void set_devices(int count) { control<void (*)(int)>("cuda_host_set_devices")(count); }
int64_t live_bytes() { return control<int64_t (*)()>("cuda_host_live_bytes")(); }

#define NEEDS_DEVICE() \
  if (!on_device()) GTEST_SKIP() << "a test of the run with MOE_TEST_DEVICE=cuda, which needs the headers of the CUDA Toolkit"

TEST(Device, AnotherWordIsRefusedWithTheChoices) {
  moe_error error = MOE_ERROR_INIT;
  const OptionsHandle options = make_options({});
  for (const char *word : {"gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:12345", "CUDA"}) {
    EXPECT_CODE(moe_options_set(options, "device", word, &error), MOE_ERR_INVALID, "device: expected cpu|cuda|cuda:N");
  }
  for (const char *word : {"cpu", "cuda", "cuda:0", "cuda:15"}) EXPECT_OK(moe_options_set(options, "device", word, &error));
}

// Here there is none, or it opens: whatever is missing is said by name, and doctor says the same.
TEST(Device, WhatIsMissingIsSaid) {
  if (on_device()) GTEST_SKIP() << "there is a device";
  moe_error error = MOE_ERROR_INIT;
  ModelHandle model;
  TextHandle text;
  ASSERT_OK(moe_doctor(nullptr, &text, &error));
  const std::string doctor = json_of(text).at("cuda", "doctor").string();
  const int32_t status = moe_model_load(tiny().c_str(), make_options({{"device", "cuda"}}), nullptr, &model, &error);
  if (status == MOE_OK) {
    EXPECT_EQ(doctor.rfind("cuda:0", 0), 0u) << doctor;
    return;
  }
  EXPECT_TRUE(status == MOE_ERR_DEVICE || status == MOE_ERR_UNSUPPORTED) << status;
  EXPECT_EQ(doctor, error.message);
  const bool named = doctor.find("driver") != std::string::npos || doctor.find("CUDA part of the library") != std::string::npos;
  EXPECT_TRUE(named) << doctor;
}

TEST(Device, ADriverWithoutDevicesAndNoDriverAreToldApart) {
  NEEDS_DEVICE();
  moe_error error = MOE_ERROR_INIT;
  ModelHandle model = load_tiny();
  const OptionsHandle options = make_options({{"device", "cuda:0"}});
  set_devices(0);
  EXPECT_CODE(moe_model_load(tiny().c_str(), options, nullptr, &model, &error), MOE_ERR_DEVICE, "finds no device");
  set_devices(-1);
  EXPECT_CODE(moe_model_load(tiny().c_str(), options, nullptr, &model, &error), MOE_ERR_DEVICE, "no driver");
  set_devices(1);
  EXPECT_CODE(moe_model_load(tiny().c_str(), make_options({{"device", "cuda:3"}}), nullptr, &model, &error), MOE_ERR_DEVICE,
              "device 3");
  EXPECT_OK(moe_model_load(tiny().c_str(), options, nullptr, &model, &error));
}

TEST(Device, TheModelTellsWhereItComputes) {
  NEEDS_DEVICE();
  moe_error error = MOE_ERROR_INIT;
  TextHandle info;
  ASSERT_OK(moe_model_info(load_tiny(), &info, &error));
  EXPECT_EQ(json_of(info).at("backend", "info").string().rfind("cuda:0 sm_", 0), 0u);
}

// Whichever allocation of the device fails, it is MOE_ERR_NOMEM, nothing stays behind, and the next try gets through.
TEST(Device, OutOfItsMemoryIsAnErrorWithTheNumbersOfThePlan) {
  NEEDS_DEVICE();
  moe_error error = MOE_ERROR_INIT;
  int model_failures = 0, trainer_failures = 0;
  { ModelHandle opened = load_tiny(); }
  const int64_t before = live_bytes();
  ModelHandle model;
  for (int32_t status = MOE_ERR_NOMEM; status != MOE_OK; model_failures++) {
    fail_allocation(model_failures + 1);
    status = moe_model_load(tiny().c_str(), make_options({{"device", "cuda"}, {"compute", "f32"}}), nullptr, &model, &error);
    fail_allocation(0);
    ASSERT_TRUE(status == MOE_OK || status == MOE_ERR_NOMEM) << error.message;
    if (status != MOE_OK) {
      ASSERT_EQ(live_bytes(), before);
    }
  }
  EXPECT_GT(model_failures, 1);

  LoraHandle lora;
  ASSERT_OK(moe_lora_create(model, nullptr, &lora, &error));
  TrainerHandle trainer;
  for (int32_t status = MOE_ERR_NOMEM; status != MOE_OK; trainer_failures++) {
    fail_allocation(trainer_failures + 1);
    status = moe_trainer_create_lora(lora, nullptr, nullptr, nullptr, &trainer, &error);
    fail_allocation(0);
    if (status != MOE_OK) {
      EXPECT_CODE(status, MOE_ERR_NOMEM, "the run needs");
      EXPECT_NE(std::string(error.message).find(" weights, "), std::string::npos) << error.message;
      EXPECT_NE(std::string(error.message).find(" optimizer, "), std::string::npos) << error.message;
    }
  }
  EXPECT_GT(trainer_failures, 3);  // parameters, gradients, moments

  SmallBatch small;
  const moe_batch batch = small.view();
  int step_failures = 0;
  for (int32_t status = MOE_ERR_NOMEM; status != MOE_OK; step_failures++) {
    fail_allocation(step_failures + 1);
    status = moe_lora_train_step(trainer, &batch, nullptr, &error);
    fail_allocation(0);
    ASSERT_TRUE(status == MOE_OK || status == MOE_ERR_NOMEM) << error.message;
  }
  EXPECT_EQ(moe_trainer_steps_done(trainer), 1);
}

// A device that fails fails for its models only, which can still be freed.
TEST(Device, OneThatBreaksPoisonsItsHandlesAndNothingElse) {
  NEEDS_DEVICE();
  moe_error error = MOE_ERROR_INIT;
  SmallBatch small;
  const moe_batch batch = small.view();
  {
    SmallTrainer training;
    SessionHandle session;
    const int32_t tokens[] = {5, 9, 20};
    ASSERT_OK(moe_session_create(training.model, nullptr, nullptr, &session, &error));
    ASSERT_OK(moe_session_append(session, tokens, 3, &error));
    ASSERT_OK(moe_lora_train_step(training.trainer, &batch, nullptr, &error));
    break_device(true);
    for (int i = 0; i < 2; i++) {
      EXPECT_CODE(moe_lora_train_step(training.trainer, &batch, nullptr, &error), MOE_ERR_DEVICE, "illegal memory access");
      EXPECT_CODE(moe_session_append(session, tokens, 3, &error), MOE_ERR_DEVICE, "illegal memory access");
    }
    const TemporaryFolder folder;
    EXPECT_CODE(moe_lora_save(training.lora, (folder / "adapter").c_str(), &error), MOE_ERR_DEVICE, "illegal memory access");
    EXPECT_FALSE(std::filesystem::exists(folder / "adapter"));

    ModelHandle on_cpu;  // the same process goes on without the device
    SessionHandle other;
    ASSERT_OK(moe_model_load(tiny().c_str(), make_options({{"device", "cpu"}}), nullptr, &on_cpu, &error));
    ASSERT_OK(moe_session_create(on_cpu, nullptr, nullptr, &other, &error));
    EXPECT_OK(moe_session_append(other, tokens, 3, &error));
  }
  break_device(false);
  SmallTrainer again;
  EXPECT_OK(moe_lora_train_step(again.trainer, &batch, nullptr, &error));
}

}  // namespace
}  // namespace moe::test
