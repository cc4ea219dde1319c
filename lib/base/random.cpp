#include "base/random.h"

#include <cmath>
#include <numbers>

namespace moe {
namespace {

// 53 bits of two words as a number in [0, 1).
double unit(uint32_t low, uint32_t high) {
  const uint64_t bits = uint64_t{high} << 32 | low;
  return static_cast<double>(bits >> 11) * 0x1.0p-53;
}

}  // namespace

std::array<uint32_t, 4> Random::block(uint64_t index) const {
  constexpr uint32_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;
  constexpr uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;
  std::array<uint32_t, 4> c = {static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), static_cast<uint32_t>(stream_),
                               static_cast<uint32_t>(stream_ >> 32)};
  uint32_t key0 = static_cast<uint32_t>(seed_), key1 = static_cast<uint32_t>(seed_ >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{kMultiplier0} * c[0];
    const uint64_t product1 = uint64_t{kMultiplier1} * c[2];
    c = {static_cast<uint32_t>(product1 >> 32) ^ c[1] ^ key0, static_cast<uint32_t>(product1),
         static_cast<uint32_t>(product0 >> 32) ^ c[3] ^ key1, static_cast<uint32_t>(product0)};
    key0 += kWeyl0;
    key1 += kWeyl1;
  }
  return c;
}

uint32_t Random::word(uint64_t index) const { return block(index / 4)[index % 4]; }

double Random::uniform(uint64_t index) const {
  const auto words = block(index);
  return unit(words[0], words[1]);
}

// sqrt(-2 ln(1 - u)) cos(2 pi v): 1 - u is in (0, 1], so the logarithm is finite.
double Random::normal(uint64_t index) const {
  const auto words = block(index);
  const double radius = std::sqrt(-2.0 * std::log(1.0 - unit(words[0], words[1])));
  return radius * std::cos(2.0 * std::numbers::pi * unit(words[2], words[3]));
}

// The high half of the 128-bit product of a 64-bit word and the bound.
uint64_t Random::below(uint64_t index, uint64_t bound) const {
  __extension__ using uint128 = unsigned __int128;
  const auto words = block(index);
  const uint64_t bits = uint64_t{words[1]} << 32 | words[0];
  return static_cast<uint64_t>(static_cast<uint128>(bits) * bound >> 64);
}

}  // namespace moe
