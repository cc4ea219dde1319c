// How a job opens and closes. The caller writes the job and makes epoch_ odd. A worker that sees an odd epoch enters:
// it counts itself in inside_, and stays only if the epoch is still odd. The caller closes by making the epoch even and
// then waits until inside_ is zero. Both orders are sequentially consistent, so either the worker sees the closed
// epoch or the caller sees the worker. A worker that wakes too late is never waited for.
#include "base/thread_pool.h"

#include <pthread.h>
#include <signal.h>

#include <chrono>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/processors.h"

namespace moe {
namespace {

void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Waits until the value is no longer `old`: spins for about 30 microseconds (steps of a model follow each other at once),
// then sleeps.
template <class T>
void wait_while(const std::atomic<T> &value, T old) {
  constexpr auto kSpin = std::chrono::microseconds(30);
  const auto start = std::chrono::steady_clock::now();
  do {
    for (int i = 0; i < 64; ++i) {
      if (value.load(std::memory_order_acquire) != old) return;
      pause();
    }
  } while (std::chrono::steady_clock::now() - start < kSpin);
  value.wait(old, std::memory_order_acquire);
}

// Signals are the host's: threads started inside this scope block all of them.
class BlockSignals {
 public:
  BlockSignals() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~BlockSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};

}  // namespace

ThreadPool::ThreadPool(int threads, bool bound_workers) : threads_(threads) {
  if (threads < 1) fail(Code::invalid, "threads: expected at least 1, found ", threads);
  const BlockSignals block;
  try {
    workers_.reserve(static_cast<size_t>(threads - 1));
    for (int i = 1; i < threads; ++i) {
      workers_.emplace_back([this, i, bound_workers] {
        if (bound_workers) bind_thread(i);
        worker(i);
      });
    }
  } catch (const std::system_error &error) {
    const size_t started = workers_.size() + 1;
    stop();
    fail(Code::no_memory, "threads: the system gave ", started, " of ", threads, ": ", error.what());
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
  stop_.store(true);
  epoch_.fetch_add(2);
  epoch_.notify_all();
  for (std::thread &thread : workers_) thread.join();
  workers_.clear();
}

void ThreadPool::worker(int thread) {
  for (uint32_t seen = epoch_.load();; seen = epoch_.load()) {
    if (seen % 2 == 1) {
      inside_.fetch_add(1);
      seen = epoch_.load();
      if (seen % 2 == 1) take_tasks(thread);
      if (inside_.fetch_sub(1) == 1) inside_.notify_all();
    }
    if (stop_.load()) return;  // after the last look at the epoch: whoever saw the one of stop() must not wait for another
    wait_while(epoch_, seen);
  }
}

void ThreadPool::take_tasks(int thread) noexcept {
  try {
    for (int64_t index; (index = next_.fetch_add(1, std::memory_order_relaxed)) < count_;) function_(context_, index, thread);
  } catch (...) {
    next_.store(count_, std::memory_order_relaxed);
    if (!failed_.exchange(true)) error_ = std::current_exception();
  }
}

void ThreadPool::run_erased(int64_t count, Function function, void *context) {
  if (count <= 0) return;
  const std::lock_guard lock(callers_);
  function_ = function;
  context_ = context;
  count_ = count;
  next_.store(0, std::memory_order_relaxed);
  if (threads_ == 1 || count == 1) {
    take_tasks(0);
  } else {
    epoch_.fetch_add(1);
    epoch_.notify_all();
    take_tasks(0);
    epoch_.fetch_add(1);
    for (int32_t inside; (inside = inside_.load()) != 0;) wait_while(inside_, inside);
  }
  if (failed_.exchange(false)) std::rethrow_exception(std::exchange(error_, nullptr));
}

}  // namespace moe
