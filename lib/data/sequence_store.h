// The tokens of a data set, written once and read at any place: in memory up to a limit, beyond it in a temporary file.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/scratch_file.h"

namespace moe {

class SequenceStore {
 public:
  explicit SequenceStore(uint64_t memory_limit) : limit_(memory_limit) {}

  // Appends the numbers and returns where they begin.
  uint64_t add(std::span<const int32_t> numbers);
  // `numbers` are appended to a vector.
  void read(uint64_t place, size_t count, std::vector<int32_t> &numbers) const;
  bool in_file() const { return file_.has_value(); }

 private:
  uint64_t limit_;               // bytes
  std::vector<int32_t> memory_;  // all, or what follows the file
  std::optional<ScratchFile> file_;
  uint64_t filed_ = 0;  // numbers in the file
};

}  // namespace moe
