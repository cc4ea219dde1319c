// Floats that the host and the ops of a backend both work on: parameters, gradients, moments. Where the backend computes in
// memory of the host there is one array. Else each side has one, and what one side wrote is copied when the other asks for it.
// Any thread may ask for the host's side; bring() belongs to a pass.
#pragma once
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "tensor/backend.h"

namespace moe {

class SharedArray {
 public:
  explicit SharedArray(size_t size = 0) : size_(size) {}  // zeros, without memory until it is asked for
  SharedArray(const SharedArray &other);                  // the numbers; where they are used is not copied
  SharedArray &operator=(SharedArray other);

  size_t size() const { return size_; }
  std::span<const float> host() const;
  std::span<float> host();  // to write, until the next bring()

  // Before a pass: where the ops of `backend` find the numbers, brought up to date. `writes`: the ops change them. An array that
  // another backend used moves.
  float *bring(const std::shared_ptr<Backend> &backend, bool writes);
  float *brought() const { return brought_; }  // what bring() returned last

 private:
  enum class Newest : uint8_t { zeros, host, device, same };  // where the numbers are, or that nobody has written any
  void bring_to_host() const;

  mutable std::mutex mutex_;
  size_t size_;
  mutable std::vector<float> host_;  // empty until it is asked for
  mutable Newest newest_ = Newest::zeros;
  std::shared_ptr<Backend> backend_;  // whose memory this is
  Memory memory_{nullptr, nullptr};   // nothing where ops read host_
  float *brought_ = nullptr;
};

}  // namespace moe
