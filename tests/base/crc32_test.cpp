#include "base/crc32.h"

#include <gtest/gtest.h>

#include <string>

namespace moe {
namespace {

// Bit by bit, as ISO 3309 defines it.
uint32_t reference(std::string_view bytes) {
  uint32_t crc = ~0u;
  for (const char c : bytes) {
    crc ^= static_cast<uint8_t>(c);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
  }
  return ~crc;
}

TEST(Crc32, IsThePublishedOne) {
  EXPECT_EQ(crc32(""), 0u);
  EXPECT_EQ(crc32("123456789"), 0xCBF43926u);
}

TEST(Crc32, OfEveryLength) {
  std::string bytes;
  for (int i = 0; i < 100; ++i, bytes += static_cast<char>(i * 37)) EXPECT_EQ(crc32(bytes), reference(bytes)) << i;
}

}  // namespace
}  // namespace moe
