#include "base/random.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

namespace moe {
namespace {

using Words = std::array<uint32_t, 4>;

// The known-answer vectors that the authors of Philox publish with their Random123 library (kat_vectors, philox4x32 10).
TEST(Random, EqualsThePublishedVectors) {
  EXPECT_EQ(Random(0, 0).block(0), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Random(~0ull, ~0ull).block(~0ull), (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Random(0x299f31d0a4093822, 0x0370734413198a2e).block(0x85a308d3243f6a88),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Random, WordsAreTheBlocksInOrder) {
  const Random random(7, 9);
  for (uint64_t i = 0; i < 13; ++i) EXPECT_EQ(random.word(i), random.block(i / 4)[i % 4]);
}

TEST(Random, SeedStreamAndIndexEachChangeTheValue) {
  const std::set<uint32_t> values = {Random(1, 1).word(0),
                                     Random(2, 1).word(0),
                                     Random(1, 2).word(0),
                                     Random(1, 1).word(4),
                                     Random(uint64_t{1} << 32 | 1, 1).word(0),
                                     Random(1, uint64_t{1} << 32 | 1).word(0)};
  EXPECT_EQ(values.size(), 6u);
}

TEST(Random, UniformFillsTheUnitIntervalEvenly) {
  const Random random(3, 4);
  constexpr int kCount = 100000, kBins = 20;
  std::array<int, kBins> bins{};
  double sum = 0;
  for (int i = 0; i < kCount; ++i) {
    const double value = random.uniform(static_cast<uint64_t>(i));
    ASSERT_GE(value, 0.0);
    ASSERT_LT(value, 1.0);
    ++bins[static_cast<size_t>(value * kBins)];
    sum += value;
  }
  EXPECT_NEAR(sum / kCount, 0.5, 5 * std::sqrt(1.0 / 12 / kCount));
  double chi_square = 0;
  for (const int bin : bins) chi_square += std::pow(bin - kCount / kBins, 2) / (kCount / kBins);
  EXPECT_LT(chi_square, 43.8);  // 99.9 % of chi square with 19 degrees of freedom
}

TEST(Random, NormalHasTheMomentsOfTheStandardNormal) {
  const Random random(5, 6);
  constexpr int kCount = 200000;
  double sum = 0, squares = 0, fourth = 0, tail = 0;
  for (uint64_t i = 0; i < kCount; ++i) {
    const double x = random.normal(i);
    ASSERT_TRUE(std::isfinite(x));
    sum += x, squares += x * x, fourth += x * x * x * x, tail += x > 1.959964;
  }
  EXPECT_NEAR(sum / kCount, 0.0, 5 / std::sqrt(kCount));
  EXPECT_NEAR(squares / kCount, 1.0, 5 * std::sqrt(2.0 / kCount));
  EXPECT_NEAR(fourth / kCount, 3.0, 5 * std::sqrt(96.0 / kCount));
  EXPECT_NEAR(tail / kCount, 0.025, 5 * std::sqrt(0.025 / kCount));
}

TEST(Random, BelowStaysBelowItsBoundAndReachesAllValues) {
  const Random random(8, 1);
  for (const uint64_t bound : {1ull, 2ull, 7ull, 1ull << 33, ~0ull}) {
    for (uint64_t i = 0; i < 1000; ++i) ASSERT_LT(random.below(i, bound), bound);
  }
  std::array<int, 7> counts{};
  for (uint64_t i = 0; i < 70000; ++i) ++counts[random.below(i, 7)];
  for (const int count : counts) EXPECT_NEAR(count, 10000, 500);
  EXPECT_GT(random.below(0, ~0ull) >> 32, 0u);
}

}  // namespace
}  // namespace moe
