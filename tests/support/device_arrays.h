// Arrays in the memory of a backend, given back together.
#pragma once
#include <memory>
#include <vector>

#include "tensor/backend.h"

namespace moe::test {

class DeviceArrays {
 public:
  explicit DeviceArrays(Backend &backend) : backend_(backend) {}
  template <class T>
  T *take(size_t count) {
    memory_.push_back(backend_.allocate(count * sizeof(T)));
    return reinterpret_cast<T *>(memory_.back().get());
  }
  template <class T>
  T *put(const std::vector<T> &values) {
    T *const to = take<T>(values.size());
    backend_.upload(to, values.data(), values.size() * sizeof(T));
    return to;
  }

 private:
  Backend &backend_;
  std::vector<Memory> memory_;
};

}  // namespace moe::test
