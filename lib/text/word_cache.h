// Remembers the tokens of short pieces: most words of a text are among a few thousand. Direct mapped, so that a look-up
// is one comparison and the newest word wins.
#pragma once
#include <array>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace moe {

class WordCache {
 public:
  static constexpr size_t kMaxBytes = 24, kMaxTokens = 6;

  struct Key {
    std::array<uint64_t, 3> words{};
    uint64_t length = 0;
    bool operator==(const Key &) const = default;
  };
  struct Slot {
    Key key;  // length 0: free
    uint32_t count = 0;
    std::array<int32_t, kMaxTokens> ids{};
  };

  WordCache() : slots_(kSlots) {}

  // `word` has 1 to kMaxBytes bytes.
  static Key key_of(std::string_view word) {
    Key key;
    key.length = word.size();
    const char *at = word.data();
    size_t left = word.size(), i = 0;
    for (; left >= 8; left -= 8, at += 8) std::memcpy(&key.words[i++], at, 8);
    if (left >= 4) {
      uint32_t low, high;
      std::memcpy(&low, at, 4);
      std::memcpy(&high, at + left - 4, 4);
      key.words[i] = low | static_cast<uint64_t>(high) << (8 * (left - 4));
    } else if (left > 0) {
      const auto byte = [&](size_t n) { return static_cast<uint64_t>(static_cast<uint8_t>(at[n])) << (8 * n); };
      key.words[i] = byte(0) | byte(left / 2) | byte(left - 1);
    }
    return key;
  }

  Slot &slot_of(const Key &key) {
    const uint64_t mixed =
        key.words[0] * 0x9E3779B97F4A7C15 ^ key.words[1] * 0xD6E8FEB86659FD93 ^ key.words[2] * 0xA0761D6478BD642F;
    return slots_[(mixed ^ mixed >> 32) * 0x9E3779B97F4A7C15 >> (64 - kSlotBits)];
  }

 private:
  static constexpr int kSlotBits = 13;
  static constexpr size_t kSlots = size_t{1} << kSlotBits;
  std::vector<Slot> slots_;
};

}  // namespace moe
