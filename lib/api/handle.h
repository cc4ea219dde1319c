// Handles: what stands behind the opaque pointers of moe.h. A handle is a mark of its type, the process that made it, and a
// shared pointer to what it means (its core), so that parents and children may be freed in any order, also while a call on
// another thread still works with the core.
#pragma once
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <memory>

#include "api/fence.h"

namespace moe::api {

// Who works with something that changes: one writer, or any number of readers. Never waits: overlapping use is a mistake of the
// caller, told as Code::busy.
class Use {
 public:
  bool start_writing() {
    int32_t nobody = 0;
    return users_.compare_exchange_strong(nobody, -1, std::memory_order_acquire);
  }
  bool start_reading() {
    int32_t users = users_.load(std::memory_order_relaxed);
    while (users >= 0) {
      if (users_.compare_exchange_weak(users, users + 1, std::memory_order_acquire)) return true;
    }
    return false;
  }
  void end_writing() { users_.store(0, std::memory_order_release); }
  void end_reading() { users_.fetch_sub(1, std::memory_order_release); }

 private:
  std::atomic<int32_t> users_{0};  // -1: one writer
};

[[noreturn]] inline void fail_busy(const char *what) {
  fail(Code::busy, what, ": in use by another call (on another thread, or the one this callback belongs to)");
}

class Writing {
 public:
  Writing(Use &use, const char *what) : use_(use) {
    if (!use.start_writing()) fail_busy(what);
  }
  ~Writing() { use_.end_writing(); }
  Writing(const Writing &) = delete;

 private:
  Use &use_;
};

class Reading {
 public:
  // `use` may be nullptr: nothing to hold.
  Reading(Use *use, const char *what) : use_(use) {
    if (use && !use->start_reading()) fail_busy(what);
  }
  ~Reading() {
    if (use_) use_->end_reading();
  }
  Reading(const Reading &) = delete;

 private:
  Use *use_;
};

template <class CoreType, uint64_t kMark>
struct Handle {
  using Core = CoreType;
  uint64_t mark = kMark;
  pid_t process = getpid();
  std::shared_ptr<Core> core;

  static constexpr uint64_t kOwnMark = kMark;
};

// What a handle means, or an error: NULL, of another type (or freed), or of the process before a fork.
template <class H>
const std::shared_ptr<typename H::Core> &core_of(const H *handle, const char *type) {
  if (!handle) fail(Code::invalid, type, ": the handle is NULL");
  if (handle->mark != H::kOwnMark) fail(Code::invalid, type, ": the handle is of another type or was freed");
  if (handle->process != getpid()) fail(Code::state, type, ": the handle was made before a fork; the child may only free it");
  return handle->core;
}

// For getters: nullptr where core_of would fail.
template <class H>
typename H::Core *peek(const H *handle) noexcept {
  return handle && handle->mark == H::kOwnMark ? handle->core.get() : nullptr;
}

template <class H>
H *make_handle(std::shared_ptr<typename H::Core> core) {
  H *handle = new H;
  handle->core = std::move(core);
  return handle;
}

// In a child process the threads of the parent do not exist: what the core owns is left as it is instead of being taken apart.
template <class H>
void free_handle(H **address) noexcept {
  if (!address || !*address) return;
  H *handle = *address;
  *address = nullptr;
  if (handle->mark != H::kOwnMark) return;
  if (handle->process != getpid()) {
    alignas(std::shared_ptr<typename H::Core>) unsigned char kept[sizeof handle->core];
    new (kept) std::shared_ptr<typename H::Core>(std::move(handle->core));
  }
  handle->mark = 0;
  delete handle;
}

}  // namespace moe::api
