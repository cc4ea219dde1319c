// The process around the library: a child after a fork, failing allocations, and what of the host stays as it was.
#include <fenv.h>
#include <locale.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <new>

#include "api/api.h"
#include "support/needs.h"

namespace {

// The n-th allocation from now on this thread fails; -1 = none.
thread_local int64_t countdown = -1;
thread_local bool failed = false;

void *allocate(size_t bytes) {
  if (countdown >= 0 && countdown-- == 0) {
    failed = true;
    return nullptr;
  }
  return std::malloc(bytes ? bytes : 1);
}

}  // namespace

// noinline: the compiler must not see that memory of new comes from malloc, or it warns of a mismatch.
#define REPLACED __attribute__((noinline))
REPLACED void *operator new(size_t bytes) {
  void *memory = allocate(bytes);
  if (!memory) throw std::bad_alloc();
  return memory;
}
REPLACED void *operator new[](size_t bytes) { return operator new(bytes); }
REPLACED void *operator new(size_t bytes, const std::nothrow_t &) noexcept { return allocate(bytes); }
REPLACED void *operator new[](size_t bytes, const std::nothrow_t &) noexcept { return allocate(bytes); }
REPLACED void operator delete(void *memory) noexcept { std::free(memory); }
REPLACED void operator delete[](void *memory) noexcept { std::free(memory); }
REPLACED void operator delete(void *memory, size_t) noexcept { std::free(memory); }
REPLACED void operator delete[](void *memory, size_t) noexcept { std::free(memory); }

namespace moe::test {
namespace {

// Runs `call` with the first, second, ... allocation failing until it gets through; every failure must be MOE_ERR_NOMEM.
template <class Call>
int survive_allocation_failures(Call call, int64_t stride = 1) {
  int failures = 0;
  for (int64_t n = 0; n < 1000000; n += stride) {
    moe_error error = MOE_ERROR_INIT;
    failed = false;
    countdown = n;
    const int32_t status = call(&error);
    countdown = -1;
    if (!failed) {
      EXPECT_EQ(status, MOE_OK) << error.message;
      return failures;
    }
    failures++;
    EXPECT_TRUE(status == MOE_ERR_NOMEM || status == MOE_OK) << n << ": " << status << " " << error.message;
    if (testing::Test::HasFailure()) return failures;
  }
  ADD_FAILURE() << "never got through";
  return failures;
}

TEST(Allocation, FailureIsAnErrorEverywhere) {
  NEEDS_UTF8PROC();
  moe_error error = MOE_ERROR_INIT;
  const OptionsHandle options = make_options({{"rank", "2"}, {"max_steps", "9"}, {"max_new_tokens", "4"}, {"threads", "1"}});
  const TemporaryFolder folder;
  const std::string model_path = tiny(), adapter_path = folder / "a";  // nothing but the library allocates inside a call
  EXPECT_GT(survive_allocation_failures([&](moe_error *e) {
              return moe_options_set(options, "data", "a=some/long/path/to/a/file,b=another/long/path", e);
            }),
            2);
  EXPECT_GT(survive_allocation_failures(
                [&](moe_error *e) {
                  ModelHandle model;
                  return moe_model_load(model_path.c_str(), options, nullptr, &model, e);
                },
                7),
            20);

  ModelHandle model;
  LoraHandle lora;
  TrainerHandle trainer;
  ASSERT_OK(moe_model_load(tiny().c_str(), options, nullptr, &model, &error));
  EXPECT_GT(survive_allocation_failures([&](moe_error *e) {
              LoraHandle one;
              return moe_lora_create(model, options, &one, e);
            }),
            5);
  ASSERT_OK(moe_lora_create(model, options, &lora, &error));
  EXPECT_GT(survive_allocation_failures([&](moe_error *e) {
              TrainerHandle one;
              return moe_trainer_create_lora(lora, nullptr, options, nullptr, &one, e);
            }),
            2);
  ASSERT_OK(moe_trainer_create_lora(lora, nullptr, options, nullptr, &trainer, &error));
  const SmallBatch small;
  const moe_batch batch = small.view();
  EXPECT_GT(survive_allocation_failures([&](moe_error *e) { return moe_lora_train_step(trainer, &batch, nullptr, e); }), 5);
  EXPECT_GT(survive_allocation_failures(
                [&](moe_error *e) {
                  SessionHandle session;
                  const int32_t status = moe_session_create(model, options, nullptr, &session, e);
                  return status ? status : moe_generate(session, "1 + 1", 5, options, nullptr, nullptr, nullptr, e);
                },
                3),
            10);
  EXPECT_GT(survive_allocation_failures([&](moe_error *e) { return moe_lora_save(lora, adapter_path.c_str(), e); }, 11), 5);
  LoraHandle again;
  EXPECT_OK(moe_lora_load(model, adapter_path.c_str(), nullptr, &again, &error));
}

// What the child of a fork finds: exit status 0 when all is as promised.
int in_child(const std::function<bool()> &check) {
  const pid_t child = fork();
  if (child == 0) _exit(check() ? 0 : 1);
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(Fork, TheChildMayOnlyFree) {
  NEEDS_UTF8PROC();
  moe_error error = MOE_ERROR_INIT;
  moe_model *model = nullptr;
  moe_session *session = nullptr;
  moe_options *options = nullptr;
  ASSERT_OK(moe_options_create(&options, &error));
  ASSERT_OK(moe_options_set(options, "threads", "4", &error));
  ASSERT_OK(moe_model_load(tiny().c_str(), options, nullptr, &model, &error));
  ASSERT_OK(moe_session_create(model, nullptr, nullptr, &session, &error));
  EXPECT_EQ(in_child([&] {
              moe_error inner = MOE_ERROR_INIT;
              moe_session *other = nullptr;
              alarm(20);  // a join of threads that do not exist would never end
              const bool refused = moe_generate(session, "a", 1, nullptr, nullptr, nullptr, nullptr, &inner) == MOE_ERR_STATE &&
                                   std::string(inner.message).find("fork") != std::string::npos &&
                                   moe_session_create(model, nullptr, nullptr, &other, &inner) == MOE_ERR_STATE &&
                                   moe_options_set(options, "rank", "1", &inner) == MOE_ERR_STATE;
              moe_session_free(&session);
              moe_model_free(&model);
              moe_options_free(&options);
              return refused && !session && !model && !options;
            }),
            0);
  EXPECT_OK(moe_generate(session, "a", 1, nullptr, nullptr, nullptr, nullptr, &error));
  moe_session_free(&session);
  moe_model_free(&model);
  moe_options_free(&options);
}

TEST(Fork, TheChildCanLoadItsOwn) {
  NEEDS_UTF8PROC();
  EXPECT_EQ(in_child([] {
              alarm(20);
              moe_model *model = nullptr;
              moe_session *session = nullptr;
              moe_generation *generation = nullptr;
              const bool good = moe_model_load(tiny().c_str(), nullptr, nullptr, &model, nullptr) == MOE_OK &&
                                moe_session_create(model, nullptr, nullptr, &session, nullptr) == MOE_OK &&
                                moe_generate(session, "a", 1, nullptr, nullptr, nullptr, &generation, nullptr) == MOE_OK;
              moe_generation_free(&generation);
              moe_session_free(&session);
              moe_model_free(&model);
              return good;
            }),
            0);
}

size_t open_descriptors() {
  size_t count = 0;
  for (const auto &entry : std::filesystem::directory_iterator("/proc/self/fd")) count += entry.exists() || true;
  return count;
}

TEST(Host, StaysAsItWas) {
  NEEDS_UTF8PROC();
  if (!std::filesystem::exists("/proc/self/fd")) GTEST_SKIP() << "needs /proc";
  const size_t descriptors = open_descriptors();
  const std::string locale = setlocale(LC_ALL, nullptr);
  const int rounding = fegetround();
  struct sigaction before {
  }, after{};
  sigaction(SIGINT, nullptr, &before);
  {
    moe_error error = MOE_ERROR_INIT;
    const TemporaryFolder folder;
    const ModelHandle model = load_tiny();
    LoraHandle lora;
    SessionHandle session;
    ASSERT_OK(moe_lora_create(model, nullptr, &lora, &error));
    ASSERT_OK(moe_lora_save(lora, (folder / "a").c_str(), &error));
    ASSERT_OK(moe_session_create(model, nullptr, nullptr, &session, &error));
    ASSERT_OK(moe_generate(session, "a", 1, nullptr, nullptr, nullptr, nullptr, &error));
  }
  sigaction(SIGINT, nullptr, &after);
  EXPECT_EQ(open_descriptors(), descriptors);
  EXPECT_EQ(setlocale(LC_ALL, nullptr), locale);
  EXPECT_EQ(fegetround(), rounding);
  EXPECT_EQ(before.sa_handler, after.sa_handler);
}

}  // namespace
}  // namespace moe::test
