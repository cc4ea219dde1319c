#include "base/arena.h"

#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "support/expect_error.h"

namespace moe {
namespace {

// The same cuts for measuring and for use, as a step does it.
void cut(Arena &arena) {
  arena.take<float>(3);
  const size_t mark = arena.mark();
  arena.take<double>(100);
  arena.release(mark);
  arena.take<char>(65);
}

TEST(Arena, MeasuringAgreesWithUse) {
  Arena plan;
  cut(plan);
  EXPECT_TRUE(plan.measuring());
  EXPECT_EQ(plan.peak(), 64u + 832u);
  EXPECT_EQ(plan.mark(), 64u + 128u);
  Arena arena(plan.peak());
  EXPECT_NO_THROW(cut(arena));
  EXPECT_EQ(arena.peak(), plan.peak());
  EXPECT_EQ(arena.mark(), plan.mark());
}

TEST(Arena, CutsAreAlignedDistinctAndWritable) {
  Arena arena(4096);
  char *previous_end = nullptr;
  for (size_t bytes : {1, 64, 65, 7}) {
    char *memory = arena.take<char>(bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(memory) % 64, 0u);
    EXPECT_GE(memory, previous_end);
    std::memset(memory, 1, bytes);
    previous_end = memory + bytes;
  }
}

TEST(Arena, ReleaseGivesTheSameMemoryAgain) {
  Arena arena(1024);
  arena.take<int>(1);
  const size_t mark = arena.mark();
  int *first = arena.take<int>(10);
  arena.release(mark);
  EXPECT_EQ(arena.take<int>(10), first);
}

TEST(Arena, APlanThatIsTooSmallIsAnErrorAndChangesNothing) {
  Arena arena(128);
  arena.take<char>(64);
  EXPECT_FAILS(arena.take<char>(65), Code::internal, "the plan of 128 bytes is too small: 64 are used and 65");
  EXPECT_EQ(arena.mark(), 64u);
  EXPECT_NO_THROW(arena.take<char>(64));
  EXPECT_FAILS(Arena(0).take<char>(1), Code::internal, "plan of 0 bytes");
}

TEST(Arena, SizesThatOverflowAreErrors) {
  Arena plan;
  EXPECT_FAILS(plan.take<double>(std::numeric_limits<size_t>::max() / 4), Code::format, "overflows");
  EXPECT_FAILS(plan.take_bytes(std::numeric_limits<size_t>::max()), Code::format, "overflows");
  EXPECT_FAILS(Arena(std::numeric_limits<size_t>::max() / 2), Code::no_memory, "cannot allocate");
}

}  // namespace
}  // namespace moe
