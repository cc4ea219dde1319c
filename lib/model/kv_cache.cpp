// Memory of a KvCache: per layer the keys, then the values, each [capacity, G * h]. Growing moves the positions that are filled,
// so what is appended leaves half as much room again for what will follow.
#include <algorithm>

#include "base/checked.h"
#include "base/error.h"
#include "model/inference_pass.h"

namespace moe {
namespace {

constexpr int64_t kSmallestRoom = 64;  // positions

}  // namespace

KvCache::KvCache(const BaseModel &model, int64_t capacity)
    : backend_(model.shared_backend()), layers_(model.config().layers), width_(model.config().kv_width()), type_(model.activation_type()) {
  reserve(capacity);
}

void KvCache::truncate(int64_t size) {
  if (size < 0 || size > size_) fail(Code::invalid, "truncate: expected 0 to ", size_, " positions, found ", size);
  size_ = size;
}

void KvCache::reserve(int64_t capacity) {
  if (capacity <= capacity_) return;
  const size_t row = static_cast<size_t>(row_bytes(type_, width_)), parts = static_cast<size_t>(2 * layers_), old_part = part_bytes();
  const size_t part = checked_multiply(row, static_cast<uint64_t>(capacity), "key/value cache");
  Memory grown = backend_->allocate(checked_multiply(part, parts, "key/value cache"));
  for (size_t i = 0; i < parts && size_ > 0; i++) {
    backend_->copy_bytes(grown.get() + i * part, data_.get() + i * old_part, row * static_cast<size_t>(size_));
  }
  data_ = std::move(grown);
  capacity_ = capacity;
}

void KvCache::make_room(int64_t tokens) {
  const int64_t needed = size_ + tokens;
  if (needed > capacity_) reserve(needed + needed / 2 + kSmallestRoom);
}

void KvCache::copy_from(const KvCache &other, int64_t positions) {
  if (other.backend_ != backend_ || other.layers_ != layers_ || other.width_ != width_ || other.type_ != type_) {
    fail(Code::invalid, "copy of a key/value cache: the other belongs to another model");
  }
  if (positions < 0 || positions > other.size_) {
    fail(Code::invalid, "copy of a key/value cache: expected 0 to ", other.size_, " positions, found ", positions);
  }
  if (this == &other) return truncate(positions);
  size_ = 0;  // nothing of the old content has to move
  make_room(positions);
  const size_t bytes = static_cast<size_t>(row_bytes(type_, width_) * positions);
  for (int64_t i = 0; i < 2 * layers_; i++) backend_->copy_bytes(part(i).data, other.part(i).data, bytes);
  size_ = positions;
}

Rows KvCache::keys(int64_t layer) const { return part(2 * layer); }
Rows KvCache::values(int64_t layer) const { return part(2 * layer + 1); }
uint64_t KvCache::bytes(const BaseModel &model, int64_t positions) {
  const DecoderConfig &config = model.config();
  return static_cast<uint64_t>(2 * config.layers * positions) * row_bytes(model.activation_type(), config.kv_width());
}
uint64_t KvCache::bytes() const { return static_cast<uint64_t>(2 * layers_) * part_bytes(); }

}  // namespace moe
