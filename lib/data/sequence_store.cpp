#include "data/sequence_store.h"

namespace moe {
namespace {

constexpr uint64_t kPiece = 4 << 20;  // bytes gathered for one write

}  // namespace

uint64_t SequenceStore::add(std::span<const int32_t> numbers) {
  const uint64_t place = filed_ + memory_.size();
  memory_.insert(memory_.end(), numbers.begin(), numbers.end());
  const uint64_t held = memory_.size() * sizeof(int32_t);
  if (held > (file_ ? kPiece : limit_)) {
    if (!file_) file_.emplace();
    file_->append(memory_.data(), held);
    filed_ += memory_.size();
    memory_ = {};
  }
  return place;
}

void SequenceStore::read(uint64_t place, size_t count, std::vector<int32_t> &numbers) const {
  if (place >= filed_) {
    const auto first = memory_.begin() + static_cast<ptrdiff_t>(place - filed_);
    numbers.insert(numbers.end(), first, first + static_cast<ptrdiff_t>(count));
    return;
  }
  const size_t before = numbers.size();
  numbers.resize(before + count);
  file_->read(place * sizeof(int32_t), numbers.data() + before, count * sizeof(int32_t));
}

}  // namespace moe
