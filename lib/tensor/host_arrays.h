// Small arrays that the host makes for a pass and that ops read by pointer: indices, positions, weights of losses. Where a
// backend has memory of its own they are joined and uploaded at once; else ops read them where they are.
#pragma once
#include <span>
#include <vector>

#include "tensor/backend.h"

namespace moe {

class HostArrays {
 public:
  // Elements of 4 bytes, which stay where they are until the pass is over. Returns the number of the array.
  template <class T>
  size_t add(std::span<const T> values) {
    static_assert(sizeof(T) == sizeof(Word));
    parts_.push_back({values.data(), words_, values.size()});
    words_ += values.size();
    return parts_.size() - 1;
  }
  // Memory of the backend that bring() needs for `words` elements in all.
  static size_t bytes(const Backend &ops, size_t words) { return ops.host_memory() ? 0 : words * sizeof(Word); }
  size_t words() const { return words_; }
  void bring(Backend &ops, void *memory);
  template <class T>
  const T *at(size_t array) const {
    return static_cast<const T *>(parts_[array].data);
  }

 private:
  using Word = uint32_t;
  struct Part {
    const void *data;
    size_t first, count;
  };
  std::vector<Part> parts_;
  size_t words_ = 0;
};

// What ops left at `from`, on the host; waits for it.
template <class T>
std::vector<T> downloaded(Backend &ops, const T *from, size_t count) {
  std::vector<T> values(count);
  ops.download(values.data(), from, count * sizeof(T));
  return values;
}

}  // namespace moe
