// Counter-based random numbers: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as
// 1, 2, 3"). A value is a pure function of (seed, stream, index), so nothing has to be saved to resume
// and any thread can compute any value.
#pragma once
#include <array>
#include <cstdint>

namespace moe {

class Random {
 public:
  Random(uint64_t seed, uint64_t stream) : seed_(seed), stream_(stream) {}

  std::array<uint32_t, 4> block(uint64_t index) const;   // the 4 words of counter (index, stream) under key seed
  uint32_t word(uint64_t index) const;                   // word index % 4 of block index / 4
  double uniform(uint64_t index) const;                  // in [0, 1), 53 bits; blocks of its own: uses words 0, 1 of block(index)
  double normal(uint64_t index) const;                   // standard normal by Box-Muller from block(index)
  uint64_t below(uint64_t index, uint64_t bound) const;  // uniform in [0, bound), without modulo bias beyond 2^-64

 private:
  uint64_t seed_, stream_;
};

}  // namespace moe
