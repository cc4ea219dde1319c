// Memory of a step: one aligned block, sized before the first step, from which buffers are cut by moving
// a mark. No allocation happens inside a step. Measuring mode hands out null pointers and only counts, so
// that the memory plan runs the same code as the step and cannot disagree with it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/checked.h"

namespace moe {

// Memory of the host or of a device, with what gives it back.
using Memory = std::unique_ptr<std::byte, void (*)(std::byte *) noexcept>;

class Arena {
 public:
  Arena();                            // measuring: take() returns nullptr and counts
  explicit Arena(size_t bytes);       // owns `bytes` of the host, 2 MiB pages where the system gives them
  Arena(Memory memory, size_t bytes)  // owns memory that may be a device's
      : base_(std::move(memory)), capacity_(bytes) {}
  Arena(const Arena &) = delete;
  Arena &operator=(const Arena &) = delete;

  bool measuring() const { return base_ == nullptr; }
  // `count` elements of T, 64-byte aligned, contents undefined. Code::internal when the plan was too small.
  template <class T>
  T *take(size_t count) {
    return static_cast<T *>(take_bytes(checked_multiply(count, sizeof(T), "arena")));
  }
  void *take_bytes(size_t bytes);
  size_t mark() const { return used_; }
  void release(size_t mark) { used_ = mark; }  // gives back everything taken since mark()
  size_t peak() const { return peak_; }        // the largest use so far
  size_t capacity() const { return capacity_; }

 private:
  Memory base_;
  size_t capacity_ = 0, used_ = 0, peak_ = 0;
};

}  // namespace moe
