// Planted bugs: each is seen, with the message that says what it is, and its repaired twin passes. Those that only the checker
// of races sees stand apart; the plain programs say that they leave them to it.
#include <gtest/gtest.h>

#include "cuda_host/bugs.h"
#include "cuda_host/host.h"

namespace cuda_host {
namespace {

using namespace bugs;

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kAddressSanitizer = true;
#else
constexpr bool kAddressSanitizer = false;
#endif

struct Bugs : testing::Test {
  ~Bugs() override {
    set_seed(0);
    set_strict(false);
    set_async(false);
  }
};
struct RaceBugs : Bugs {
  void SetUp() override {
    if (!checks_races()) GTEST_SKIP() << "seen by the programs whose kernels are compiled for the checker of races";
  }
};

#define EXPECT_SEEN(bug, message) \
  EXPECT_TRUE(bug(true));         \
  EXPECT_EXIT(bug(false), testing::ExitedWithCode(kExit), message)

TEST_F(Bugs, DivergentBarrier) { EXPECT_SEEN(divergent_barrier, "divergent __syncthreads: thread 0 waits at bugs.cu"); }
TEST_F(Bugs, BarrierAfterAThreadReturned) {
  EXPECT_SEEN(barrier_after_return, "divergent __syncthreads: 63 of 64 threads wait, 1 have returned");
}
TEST_F(Bugs, BadShuffleMask) { EXPECT_SEEN(bad_shuffle_mask, "mask 0fffffff does not name it"); }
TEST_F(Bugs, ShuffleFromALaneOutsideTheMask) {
  EXPECT_SEEN(shuffle_from_absent_lane, "shuffles from lane 20, which is not in the mask");
}
TEST_F(Bugs, DivergentShuffle) { EXPECT_SEEN(divergent_shuffle, "(divergent warp|have returned)"); }
TEST_F(Bugs, UseAfterFree) { EXPECT_SEEN(use_after_free, "(use of freed device memory|outside of device allocations)"); }
TEST_F(Bugs, EndlessRecursion) {
  if (kAddressSanitizer || checks_races()) GTEST_SKIP() << "the tool changes the stack";
  EXPECT_SEEN(endless_recursion, "the stack of a thread is used up");
}
TEST_F(Bugs, WriteOutOfBounds) {
  if (kAddressSanitizer) GTEST_SKIP() << "AddressSanitizer ends the process with words of its own";
  EXPECT_SEEN(write_out_of_bounds, "(write 0 bytes behind a device allocation of 256|write of 4 bytes outside)");
}
TEST_F(Bugs, DynamicSharedOverrun) {
  if (kAddressSanitizer) GTEST_SKIP() << "AddressSanitizer ends the process with words of its own";
  EXPECT_SEEN(dynamic_shared_overrun, "(write behind the 256 bytes|into the 256 of dynamic shared)");
}
// Without the checker the thread that reads before another has written gets NaN.
TEST_F(Bugs, MissingBarrier) {
  EXPECT_TRUE(missing_barrier(true));
  if (checks_races()) {
    EXPECT_EXIT(missing_barrier(false), testing::ExitedWithCode(kExit), "uninitialised read|race");
  } else if (!kAddressSanitizer) {
    EXPECT_FALSE(missing_barrier(false));
  }
}
TEST_F(Bugs, HostReadOfDeviceMemory) {
  set_strict(true);
  EXPECT_SEEN(host_read_of_device_memory, "the host touches device memory");
}

struct AsyncBugs : Bugs {
  void SetUp() override { set_async(true); }
};
TEST_F(AsyncBugs, UnsynchronisedHostRead) {
  EXPECT_TRUE(unsynchronised_host_read(true));
  EXPECT_FALSE(unsynchronised_host_read(false));
  set_async(false);  // where all is done at once it goes unseen
  EXPECT_TRUE(unsynchronised_host_read(false));
}
TEST_F(AsyncBugs, StagingReusedTooEarly) {
  EXPECT_SEEN(staging_reused_too_early, "pinned memory was changed before its copy");
}
TEST_F(AsyncBugs, RingSlotReusedTooEarly) {
  for (uint64_t seed : {0, 1, 2, 3}) {
    set_seed(seed);
    EXPECT_TRUE(ring_slot_reused_too_early(true));
  }
  set_seed(0);
  EXPECT_SEEN(ring_slot_reused_too_early, "pinned memory was changed before its copy");
}
TEST_F(AsyncBugs, MissingEvent) {
  for (uint64_t seed : {0, 1, 2, 3}) {
    set_seed(seed);
    EXPECT_TRUE(missing_event(true));
  }
  set_seed(0);
  EXPECT_FALSE(missing_event(false));
}

TEST_F(RaceBugs, SharedOverrun) { EXPECT_SEEN(shared_overrun, "shared memory|outside"); }
TEST_F(RaceBugs, MissingSyncwarp) { EXPECT_SEEN(missing_syncwarp, "uninitialised read|race"); }
TEST_F(RaceBugs, NonAtomicAdd) { EXPECT_SEEN(non_atomic_add, "race: .* of 4 bytes of device memory"); }
TEST_F(RaceBugs, ReadOutOfBounds) { EXPECT_SEEN(read_out_of_bounds, "read of 4 bytes outside of device allocations"); }
TEST_F(RaceBugs, UninitialisedRead) { EXPECT_SEEN(uninitialised_read, "uninitialised read of 4 bytes of device memory"); }
TEST_F(RaceBugs, UninitialisedSharedRead) {
  EXPECT_SEEN(uninitialised_shared_read, "uninitialised read of 4 bytes of shared memory");
}
TEST_F(RaceBugs, RaceBetweenBlocks) { EXPECT_SEEN(race_between_blocks, "race: two writes .* of another block"); }
TEST_F(RaceBugs, RaceOfFillingLoops) { EXPECT_SEEN(race_of_filling_loops, "race: two writes .* of another block"); }
TEST_F(RaceBugs, MisalignedRead) { EXPECT_SEEN(misaligned_read, "misaligned access of 8 bytes"); }

}  // namespace
}  // namespace cuda_host
