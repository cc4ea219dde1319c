// A pool of persistent threads that runs numbered tasks. The caller is thread 0. Which thread runs a
// task never changes what the task computes, so results are bit-equal for any number of threads as long
// as tasks are cut by fixed tiles and never by the thread count.
// Waiting threads spin briefly, then sleep.
#pragma once
#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace moe {

class ThreadPool {
 public:
  // threads >= 1; threads - 1 workers are started. With bound_workers each stays on one processor, where the system does that; the
  // caller's thread is left alone.
  explicit ThreadPool(int threads, bool bound_workers = false);
  ~ThreadPool();
  ThreadPool(const ThreadPool &) = delete;
  ThreadPool &operator=(const ThreadPool &) = delete;

  int threads() const { return threads_; }

  // Calls task(index, thread) for index in [0, count); returns when all are done. Tasks should not throw; when one
  // does, the tasks not yet begun are left out and the first exception is thrown again here.
  // Calls from several user threads are serialized; a task must not call run of its own pool.
  template <class Task>
  void run(int64_t count, Task &&task) {
    using T = std::remove_reference_t<Task>;
    run_erased(
        count, [](void *context, int64_t index, int thread) { (*static_cast<T *>(context))(index, thread); },
        const_cast<void *>(static_cast<const void *>(&task)));
  }

 private:
  using Function = void (*)(void *context, int64_t index, int thread);
  void run_erased(int64_t count, Function function, void *context);
  void worker(int thread);
  void take_tasks(int thread) noexcept;
  void stop();

  int threads_;
  std::vector<std::thread> workers_;
  std::mutex callers_;

  // The job. Written by the caller while no worker is inside.
  Function function_ = nullptr;
  void *context_ = nullptr;
  int64_t count_ = 0;
  std::exception_ptr error_;
  std::atomic<bool> failed_{false};
  std::atomic<bool> stop_{false};

  alignas(64) std::atomic<int64_t> next_{0};    // the next task
  alignas(64) std::atomic<uint32_t> epoch_{0};  // odd while a job is open
  alignas(64) std::atomic<int32_t> inside_{0};  // workers that may be looking at the job
};

}  // namespace moe
