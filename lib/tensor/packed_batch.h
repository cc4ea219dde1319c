// A packed batch: sequences one after another, nothing padded. Sequence s is tokens
// [starts[s], starts[s+1]); positions restart at 0 in each. labels[t] is what position t must predict
// (already shifted), -100 = not supervised.
#pragma once
#include <cstdint>
#include <vector>

namespace moe {

inline constexpr int32_t kNoLabel = -100;

struct PackedBatch {
  std::vector<int32_t> tokens;     // [T]
  std::vector<int32_t> positions;  // [T]
  std::vector<int32_t> starts;     // [S + 1], starts[0] = 0, starts[S] = T
  std::vector<int32_t> labels;     // [T]
  std::vector<int32_t> domains;    // [S] expert index of the sample's domain (1-based; 0 = base, -1 = unknown), or empty

  int64_t size() const { return static_cast<int64_t>(tokens.size()); }
  int64_t sequences() const { return static_cast<int64_t>(starts.size()) - 1; }
  int64_t supervised() const {
    int64_t count = 0;
    for (int32_t label : labels) count += label != kNoLabel;
    return count;
  }
};

}  // namespace moe
