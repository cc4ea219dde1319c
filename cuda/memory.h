// What the backend owns on a device, each released by its destructor.
#pragma once
#include <algorithm>
#include <cstddef>
#include <utility>

#include "cuda/device.h"

namespace moe::cuda {

class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  explicit DeviceBuffer(size_t bytes) : bytes_(bytes) { check(cudaMalloc(&data_, bytes), "memory of the device"); }
  ~DeviceBuffer() { cudaFree(data_); }
  DeviceBuffer(DeviceBuffer &&other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  DeviceBuffer &operator=(DeviceBuffer &&other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  void *data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  void *data_ = nullptr;
  size_t bytes_ = 0;
};

// Memory of the host that the device reads by itself, while the host goes on.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  ~PinnedBuffer() {
    if (data_) cudaFreeHost(data_);
  }
  PinnedBuffer(const PinnedBuffer &) = delete;
  void create(size_t bytes) {
    void *data = nullptr;
    check(cudaMallocHost(&data, bytes), "pinned memory of the host");
    data_ = static_cast<std::byte *>(data);
  }
  std::byte *data() const { return data_; }

 private:
  std::byte *data_ = nullptr;
};

// Contents are undefined after each call; a step that has run once allocates nothing.
class GrowingBuffer {
 public:
  static size_t size_for(size_t bytes) { return bytes + bytes / 4; }
  void *at_least(size_t bytes) {
    if (buffer_.bytes() < bytes) {
      buffer_ = DeviceBuffer();  // first give back: both may not fit
      buffer_ = DeviceBuffer(size_for(bytes));
    }
    return buffer_.data();
  }

 private:
  DeviceBuffer buffer_;
};

class Stream {
 public:
  Stream() = default;
  ~Stream() {
    if (stream_) cudaStreamDestroy(stream_);
  }
  Stream(const Stream &) = delete;
  void create() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "a stream"); }
  cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

class Event {
 public:
  Event() = default;
  ~Event() {
    if (event_) cudaEventDestroy(event_);
  }
  Event(const Event &) = delete;
  void create() { check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "an event"); }
  void record(cudaStream_t stream) { check(cudaEventRecord(event_, stream), "an event"); }
  void wait() { check(cudaEventSynchronize(event_), "the work of the device"); }  // at once if it was never recorded

 private:
  cudaEvent_t event_ = nullptr;
};

class Blas {
 public:
  Blas() = default;
  ~Blas() {
    if (handle_) cublasDestroy(handle_);
  }
  Blas(const Blas &) = delete;
  void create(cudaStream_t stream) {
    check(cublasCreate(&handle_), "cuBLAS");
    check(cublasSetStream(handle_, stream), "cuBLAS");
  }
  cublasHandle_t get() const { return handle_; }

 private:
  cublasHandle_t handle_ = nullptr;
};

}  // namespace moe::cuda
