#include "tensor/shared_array.h"

namespace moe {

SharedArray::SharedArray(const SharedArray &other) : size_(other.size_) {
  const std::lock_guard<std::mutex> lock(other.mutex_);
  if (other.newest_ == Newest::zeros) return;
  other.bring_to_host();
  host_ = other.host_;
  newest_ = Newest::host;
}

SharedArray &SharedArray::operator=(SharedArray other) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (size_ != other.size_ || other.newest_ == Newest::zeros) memory_ = Memory(nullptr, nullptr);
  size_ = other.size_;
  host_ = std::move(other.host_);
  newest_ = other.newest_;
  return *this;
}

void SharedArray::bring_to_host() const {
  if (host_.size() != size_) host_.assign(size_, 0.0f);
  if (newest_ == Newest::device) backend_->download(host_.data(), brought_, size_ * sizeof(float));
  newest_ = memory_ && newest_ != Newest::host ? Newest::same : Newest::host;
}

std::span<const float> SharedArray::host() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  bring_to_host();
  return host_;
}

std::span<float> SharedArray::host() {
  const std::lock_guard<std::mutex> lock(mutex_);
  bring_to_host();
  newest_ = Newest::host;
  return host_;
}

float *SharedArray::bring(const std::shared_ptr<Backend> &backend, bool writes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (memory_ && backend_ != backend) {
    bring_to_host();
    memory_ = Memory(nullptr, nullptr);
  }
  if (backend->host_memory()) {
    bring_to_host();
    if (brought_ != host_.data()) brought_ = host_.data();
    return brought_;
  }
  if (!memory_) {
    memory_ = backend->allocate(size_ * sizeof(float));
    backend_ = backend;
    brought_ = reinterpret_cast<float *>(memory_.get());
    if (newest_ != Newest::zeros) newest_ = Newest::host;
  }
  if (newest_ == Newest::zeros) backend->fill(static_cast<int64_t>(size_), 0, brought_), newest_ = Newest::device;
  if (newest_ == Newest::host) backend->upload(brought_, host_.data(), size_ * sizeof(float)), newest_ = Newest::same;
  if (writes) newest_ = Newest::device;
  return brought_;
}

}  // namespace moe
