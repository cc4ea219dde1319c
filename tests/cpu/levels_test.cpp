// Which level of the kernels a machine gets. MOE_EXPECTED_LEVEL names it where the processor is known: under emulation.
#include <gtest/gtest.h>

#include <cstdlib>
#include <optional>

#include "support/expect_error.h"
#include "support/reference.h"

namespace moe {
namespace {

// Sets or removes an environment variable until the end of the scope.
class Environment {
 public:
  Environment(const char *name, const char *value) : name_(name) {
    if (const char *old = std::getenv(name)) old_ = old;
    set(value);
  }
  ~Environment() { set(old_ ? old_->c_str() : nullptr); }

 private:
  void set(const char *value) { value ? setenv(name_, value, 1) : unsetenv(name_); }
  const char *name_;
  std::optional<std::string> old_;
};

TEST(Levels, WithoutACapTheBestOfTheProcessorIsTaken) {
  const Environment none("MOE_CPU_LEVEL", nullptr);
  const std::string level = cpu::best_kernels().level;
  const auto all = test::all_kernels();
  if (const char *expected = std::getenv("MOE_EXPECTED_LEVEL")) {
    EXPECT_EQ(level, expected);
    EXPECT_EQ(all.back()->level, level) << "the processor has more than its level";
  } else if (level != all.back()->level) {
    EXPECT_STREQ(all.back()->level, "avx512_bf16") << "only this level waits to be asked for";
    EXPECT_EQ(level, "avx512_vnni");
  }
}

TEST(Levels, ACapIsKept) {
  for (const cpu::Kernels *kernels : test::all_kernels()) {
    const Environment cap("MOE_CPU_LEVEL", kernels->level);
    EXPECT_EQ(&cpu::best_kernels(), kernels);
  }
}

TEST(Levels, AnUnknownNameIsRefusedWithTheKnownOnes) {
  const Environment cap("MOE_CPU_LEVEL", "sse9");
  EXPECT_FAILS(cpu::best_kernels(), Code::invalid, "found 'sse9'");
  EXPECT_FAILS(cpu::best_kernels(), Code::invalid, "scalar, ");
}

}  // namespace
}  // namespace moe
