// Inference: gives logits of the last token of each segment or the NLL of given labels. A segment appends to a key/value cache, or
// has none and is a sequence of its own, or the continuation of one in the same call, whose keys are forgotten after each layer.
// Segments of one call are computed together and see nothing of each other but a common beginning.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/arena.h"
#include "base/cancel.h"
#include "model/mixture.h"

namespace moe {

// Keys (after the rotation) and values of one sequence, every layer, in the model's activation type and its backend's memory.
class KvCache {
 public:
  KvCache(const BaseModel &model, int64_t capacity);  // positions
  int64_t size() const { return size_; }
  void truncate(int64_t size);                        // forgets the positions from `size` on
  void reserve(int64_t capacity);
  void make_room(int64_t tokens);                     // for so many more, and some that may follow
  void copy_from(const KvCache &other, int64_t positions);  // the first `positions` of another cache of the same model
  Rows keys(int64_t layer) const;                     // [capacity, G * h]
  Rows values(int64_t layer) const;
  uint64_t bytes() const;
  static uint64_t bytes(const BaseModel &model, int64_t positions);  // of a cache with room for them
  void advance(int64_t tokens) { size_ += tokens; }   // called by the pass when all layers have been written

 private:
  size_t part_bytes() const { return static_cast<size_t>(row_bytes(type_, width_ * capacity_)); }  // keys or values of a layer
  Rows part(int64_t index) const { return {data_.get() + static_cast<size_t>(index) * part_bytes(), type_, width_}; }

  std::shared_ptr<Backend> backend_;
  int64_t layers_, width_, capacity_ = 0, size_ = 0;
  DType type_;
  Memory data_{nullptr, nullptr};
};

struct Segment {
  std::span<const int32_t> tokens;      // appended after cache->size() positions
  KvCache *cache = nullptr;             // nullptr: nothing is kept, the sequence is whole
  int32_t prefix = -1;                  // without a cache: index of the segment that it continues. That one has no cache and no
  int64_t prefix_tokens = 0;            // prefix, and all that continue it follow at once; this many of its tokens come first
  const KvCache *front = nullptr;       // without a cache: what comes before all that; the same for a segment and those that continue it
  float *logits = nullptr;              // [V] of the last token, or nullptr
  std::span<const int32_t> labels;      // [tokens] what each must predict, -100 = none; or empty
  float *nll = nullptr;                 // [tokens], written where labels are given (0 where -100)
  float *routing = nullptr;             // [tokens, E + 1] mean over the layers of the weight of each entry (base = 1 - sum of gates), or nullptr
  double *usage = nullptr;              // [layers, E + 1] the weight of each entry is added for every token, or nullptr
};

// Scratch memory of inference on one model, kept from call to call and only growing; one per session or evaluation, one thread at a time.
class InferenceScratch {
 public:
  Arena &arena(Backend &backend, size_t bytes) {  // empty, with room for `bytes`
    if (!arena_ || arena_->capacity() < bytes) {
      arena_.reset();
      arena_ = std::make_unique<Arena>(backend.allocate(bytes), bytes);
    }
    arena_->release(0);
    return *arena_;
  }
  uint64_t bytes() const { return arena_ ? arena_->capacity() : 0; }

 private:
  std::unique_ptr<Arena> arena_;
};

// Long segments with a cache are cut into pieces of at most 512 tokens inside; one without is computed at once, with all that
// continue it. Token ids are checked against the vocabulary.
void inference_pass(const BaseModel &model, const Overlay &overlay, std::span<Segment> segments, InferenceScratch &scratch,
                    const Cancel *cancel = nullptr);
// Scratch memory that a pass over these segments takes.
uint64_t inference_pass_bytes(const BaseModel &model, const Overlay &overlay, std::span<Segment> segments);

}  // namespace moe
