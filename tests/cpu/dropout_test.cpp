// Dropout is a pure function of (seed, stream, t, column) with the exact probability, and its own backward.
#include <gtest/gtest.h>

#include <cmath>

#include "base/random.h"
#include "support/expect_error.h"
#include "support/reference.h"

namespace moe::test {
namespace {

RowsData dropped(Backend &backend, RowsData &x, float p, uint64_t seed, uint64_t stream, DType to) {
  RowsData y(x.tokens(), x.n(), to);
  backend.dropout(x.tokens(), x.n(), x.rows(), p, seed, stream, y.rows());
  return y;
}

TEST(Dropout, KeepsWhereTheWordOfTheElementReachesTheThreshold) {
  const double p = 0.3f;
  const uint32_t threshold = static_cast<uint32_t>(std::llround(p * 0x1p32));
  for (DType from : {DType::f32, DType::bf16}) {
    for (DType to : {DType::f32, DType::bf16}) {
      for (int64_t n : {1, 13, 64, 150}) {
        RowsData x = random_rows(29, n, from, 1);
        on_every_backend([&](Backend &backend) { return dropped(backend, x, 0.3f, 7, 9, to); },
                             [&](const RowsData &y) {
                               const int64_t row_blocks = (n + 63) / 64 * 16;
                               for (int64_t t = 0; t < x.tokens(); t++) {
                                 for (int64_t j = 0; j < n; j++) {
                                   const uint64_t block = static_cast<uint64_t>(t * row_blocks + j / 64 * 16 + j % 16);
                                   const bool kept = Random(7, 9).block(block)[static_cast<size_t>(j / 16 % 4)] >= threshold;
                                   const double expected = kept ? x.at(t, j) / (1 - p) : 0;
                                   ASSERT_NEAR(y.at(t, j), expected, std::abs(expected) * (to == DType::bf16 ? 0x1p-8 : 2e-7));
                                 }
                               }
                             });
      }
    }
  }
}

TEST(Dropout, KeepsTheExpectedShare) {
  auto backend = std::move(all_backends(1).back());
  const int64_t tokens = 400, n = 1000;
  RowsData x(tokens, n, DType::f32);
  for (int64_t t = 0; t < tokens; t++)
    for (int64_t j = 0; j < n; j++) x.set(t, j, 1);
  for (float p : {0.05f, 0.5f, 0.9f}) {
    const std::vector<float> y = dropped(*backend, x, p, 11, 12, DType::f32).values();
    double kept = 0;
    for (float v : y) kept += v != 0;
    const double count = static_cast<double>(y.size()), deviation = std::sqrt(p * (1 - p) * count);
    EXPECT_NEAR(kept, (1 - p) * count, 4 * deviation) << p;
  }
}

TEST(Dropout, SeedAndStreamChangeTheMaskAndZeroProbabilityIsACopy) {
  auto backend = std::move(all_backends(1).back());
  RowsData x = random_rows(20, 100, DType::f32, 1);
  const RowsData y = dropped(*backend, x, 0.5f, 1, 2, DType::f32);
  EXPECT_TRUE(y.same_bits(dropped(*backend, x, 0.5f, 1, 2, DType::f32)));
  EXPECT_FALSE(y.same_bits(dropped(*backend, x, 0.5f, 3, 2, DType::f32)));
  EXPECT_FALSE(y.same_bits(dropped(*backend, x, 0.5f, 1, 3, DType::f32)));
  EXPECT_TRUE(x.same_bits(dropped(*backend, x, 0, 1, 2, DType::f32)));
}

TEST(Dropout, RefusesProbabilitiesOutsideTheirRange) {
  auto backend = std::move(all_backends(1).front());
  RowsData x = random_rows(1, 1, DType::f32, 1);
  for (float p : {-0.1f, 1.0f, NAN}) EXPECT_FAILS(dropped(*backend, x, p, 1, 2, DType::f32), Code::invalid, "probability");
}

}  // namespace
}  // namespace moe::test
