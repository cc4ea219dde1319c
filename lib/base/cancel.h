// A flag that any thread may raise and that long work looks at once per layer, step or token.
#pragma once
#include <atomic>

#include "base/error.h"

namespace moe {

class Cancel {
 public:
  void fire() { fired_.store(true, std::memory_order_relaxed); }
  bool fired() const { return fired_.load(std::memory_order_relaxed); }

 private:
  std::atomic<bool> fired_{false};
};

inline void check_cancel(const Cancel *cancel) {
  if (cancel && cancel->fired()) fail(Code::cancelled, "cancelled by the caller");
}

}  // namespace moe
