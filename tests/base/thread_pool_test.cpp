#include "base/thread_pool.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <numeric>
#include <stdexcept>
#include <thread>

#include "support/expect_error.h"

namespace moe {
namespace {

TEST(ThreadPool, RunsEveryTaskOnce) {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (const int64_t count : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> done(static_cast<size_t>(count));
      pool.run(count, [&](int64_t index, int thread) {
        EXPECT_GE(thread, 0);
        EXPECT_LT(thread, threads);
        ++done[static_cast<size_t>(index)];
      });
      for (const auto &times : done) EXPECT_EQ(times, 1);
    }
  }
}

TEST(ThreadPool, NoTwoTasksRunAtOnceOnOneThread) {
  ThreadPool pool(4);
  std::array<std::atomic<int>, 4> inside{};
  pool.run(2000, [&](int64_t, int thread) {
    EXPECT_EQ(inside[static_cast<size_t>(thread)]++, 0);
    --inside[static_cast<size_t>(thread)];
  });
}

TEST(ThreadPool, WhatTasksWroteIsSeenByTheCallerAndByTheNextRun) {
  ThreadPool pool(3);
  std::vector<int64_t> before(64, 0), after(64, 0);
  for (int round = 1; round <= 3000; ++round) {
    pool.run(
        64, [&](int64_t index, int) { after[static_cast<size_t>(index)] = before[static_cast<size_t>(index + round) % 64] + 1; });
    std::swap(before, after);
    ASSERT_EQ(std::accumulate(before.begin(), before.end(), int64_t{0}), int64_t{64} * round);
  }
}

TEST(ThreadPool, EndsRightAfterARun) {
  for (int round = 0; round < 20000; ++round) {
    ThreadPool pool(2);
    pool.run(2, [](int64_t, int) {});
  }
}

TEST(ThreadPool, WakesWorkersThatSleep) {
  ThreadPool pool(2);
  for (int round = 0; round < 3; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    std::atomic<int> met{0};
    pool.run(2, [&](int64_t, int) {  // each task waits for the other: both threads are needed
      ++met;
      const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(20);
      while (met < 2 && std::chrono::steady_clock::now() < limit) std::this_thread::yield();
    });
    EXPECT_EQ(met, 2);
  }
}

TEST(ThreadPool, SerializesItsCallers) {
  ThreadPool pool(2);
  std::atomic<int> running[4] = {};  // tasks of each caller
  std::atomic<int64_t> total{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&, caller] {
      for (int round = 0; round < 200; ++round) {
        pool.run(8, [&](int64_t index, int) {
          running[caller]++;
          for (int other = 0; other < 4; ++other) EXPECT_TRUE(other == caller || running[other] == 0);
          total += index;
          running[caller]--;
        });
      }
    });
  }
  for (auto &thread : callers) thread.join();
  EXPECT_EQ(total, 4 * 200 * 28);
}

TEST(ThreadPool, AnExceptionOfATaskReachesTheCallerAndThePoolLivesOn) {
  ThreadPool pool(2);
  for (int round = 0; round < 50; ++round) {
    EXPECT_THROW(pool.run(100,
                          [](int64_t index, int) {
                            if (index % 10 == 3) throw std::runtime_error("task");
                          }),
                 std::runtime_error);
    std::atomic<int> done{0};
    pool.run(100, [&](int64_t, int) { ++done; });
    ASSERT_EQ(done, 100);
  }
}

TEST(ThreadPool, WorkersBlockTheSignalsOfTheHost) {
  ThreadPool pool(2);
  std::atomic<int> met{0};
  std::atomic<bool> blocked{false};
  pool.run(2, [&](int64_t, int thread) {
    ++met;
    while (met < 2) std::this_thread::yield();
    if (thread == 0) return;
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    blocked = sigismember(&mask, SIGINT) == 1;
  });
  EXPECT_TRUE(blocked);
  sigset_t mask;
  pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  EXPECT_EQ(sigismember(&mask, SIGINT), 0);
}

#if defined(__linux__)
TEST(ThreadPool, BoundWorkersStayOnOneProcessorEachAndTheCallerIsLeftAlone) {
  const auto mask = [] {
    cpu_set_t set;
    EXPECT_EQ(sched_getaffinity(0, sizeof set, &set), 0);
    return set;
  };
  const cpu_set_t before = mask();
  constexpr int kThreads = 3;
  std::array<cpu_set_t, kThreads> seen;
  std::array<std::atomic<bool>, kThreads> came{};
  ThreadPool pool(kThreads, true);
  const auto all_came = [&] { return std::all_of(came.begin(), came.end(), [](const auto &c) { return c.load(); }); };
  pool.run(kThreads, [&](int64_t, int thread) {  // each thread takes one task, for none ends before all have one
    seen[static_cast<size_t>(thread)] = mask();
    came[static_cast<size_t>(thread)] = true;
    while (!all_came()) std::this_thread::yield();
  });
  EXPECT_TRUE(CPU_EQUAL(&seen[0], &before));
  for (int i = 1; i < kThreads; i++) EXPECT_EQ(CPU_COUNT(&seen[static_cast<size_t>(i)]), 1) << i;
  EXPECT_EQ(CPU_EQUAL(&seen[1], &seen[2]) != 0, CPU_COUNT(&before) == 1);
}
#endif

TEST(ThreadPool, RefusesLessThanOneThread) { EXPECT_FAILS(ThreadPool(0), Code::invalid, "at least 1, found 0"); }

}  // namespace
}  // namespace moe
