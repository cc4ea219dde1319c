// Against values worked out by hand and in published tables.
#include "eval/statistics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace moe {
namespace {

TEST(Wilson, EqualsHandComputedIntervals) {
  // p = 0.8, n = 10, z = 1.959964: center (0.8 + 0.192073) / 1.384146, half 1.959964 / 1.384146 * sqrt(0.016 + 0.0096036)
  EXPECT_NEAR(wilson(8, 10).low, 0.490162, 1e-5);
  EXPECT_NEAR(wilson(8, 10).high, 0.943318, 1e-5);
  EXPECT_NEAR(wilson(50, 100).low, 0.403832, 1e-5);
  EXPECT_NEAR(wilson(50, 100).high, 0.596168, 1e-5);
  EXPECT_NEAR(wilson(0, 10).high, 0.277533, 1e-5);  // z^2 / (n + z^2)
  EXPECT_EQ(wilson(0, 10).low, 0);
  EXPECT_DOUBLE_EQ(wilson(10, 10).high, 1);
  EXPECT_EQ(wilson(0, 0).low, 0);
  EXPECT_EQ(wilson(0, 0).high, 1);
}

TEST(McNemar, EqualsHandComputedBinomials) {
  // 2 of 10: 2 (1 + 10 + 45) / 1024; mid-p less 45 / 1024
  EXPECT_NEAR(mcnemar(2, 8).p_exact, 112.0 / 1024, 1e-12);
  EXPECT_NEAR(mcnemar(2, 8).p_mid, (112.0 - 45.0) / 1024, 1e-12);
  EXPECT_NEAR(mcnemar(8, 2).p_exact, 112.0 / 1024, 1e-12);
  EXPECT_NEAR(mcnemar(0, 5).p_exact, 2.0 / 32, 1e-12);
  EXPECT_NEAR(mcnemar(0, 5).p_mid, 1.0 / 32, 1e-12);
  EXPECT_EQ(mcnemar(3, 3).p_exact, 1);
  EXPECT_EQ(mcnemar(0, 0).p_exact, 1);
  EXPECT_EQ(mcnemar(0, 0).p_mid, 1);
  EXPECT_NEAR(mcnemar(400, 500).p_exact, 0.000958, 2e-5);  // normal approximation with continuity: z = 99 / 30
}

TEST(Bootstrap, CoversTheStandardErrorOfAMean) {
  const int64_t n = 400;
  std::vector<double> values;
  for (int64_t i = 0; i < n; i++) values.push_back(static_cast<double>(i % 20));  // variance (20^2 - 1) / 12 = 33.25
  const auto mean = [&](const Draw &draw) {
    double sum = 0;
    for (int32_t i : draw[0]) sum += values[static_cast<size_t>(i)];
    return sum / n;
  };
  const Bootstrap result = bootstrap({&n, 1}, mean, 1, 4000);
  const double error = std::sqrt(33.25 / n);
  EXPECT_EQ(result.draws, 4000);
  EXPECT_NEAR(result.interval.low, 9.5 - 1.96 * error, 0.1 * error);
  EXPECT_NEAR(result.interval.high, 9.5 + 1.96 * error, 0.1 * error);
}

TEST(Bootstrap, DependsOnTheSeedOnlyAndDrawsInsideGroups) {
  const std::vector<int64_t> sizes = {7, 3};
  const auto statistic = [](const Draw &draw) {
    EXPECT_EQ(draw[0].size(), 7u);
    EXPECT_EQ(draw[1].size(), 3u);
    EXPECT_LT(*std::max_element(draw[0].begin(), draw[0].end()), 7);
    EXPECT_LT(*std::max_element(draw[1].begin(), draw[1].end()), 3);
    return std::accumulate(draw[0].begin(), draw[0].end(), 0.0) + 100 * std::accumulate(draw[1].begin(), draw[1].end(), 0.0);
  };
  const Bootstrap a = bootstrap(sizes, statistic, 4), b = bootstrap(sizes, statistic, 4), c = bootstrap(sizes, statistic, 5);
  EXPECT_EQ(a.interval.low, b.interval.low);
  EXPECT_EQ(a.interval.high, b.interval.high);
  EXPECT_TRUE(a.interval.low != c.interval.low || a.interval.high != c.interval.high);
}

TEST(Bootstrap, LeavesOutDrawsWithoutANumber) {
  const int64_t n = 2;
  const auto half = [](const Draw &draw) { return draw[0][0] == 0 ? std::nan("") : 1.0; };
  const Bootstrap result = bootstrap({&n, 1}, half, 1, 1000);
  EXPECT_NEAR(static_cast<double>(result.draws), 500, 80);
  EXPECT_EQ(result.interval.low, 1);
  EXPECT_TRUE(std::isnan(bootstrap(
                             {&n, 1}, [](const Draw &) { return INFINITY; }, 1)
                             .interval.low));
}

TEST(Calibration, IsTheMeanDistanceOfConfidenceAndAccuracyByBins) {
  // [0.6, 0.7): three, two of them right, mean 0.64; [0.9, 1]: one at 1.0, wrong.
  const std::vector<Confidence> predictions = {{0.61, true}, {0.69, false}, {0.62, true}, {1.0, false}};
  const Calibration result = calibration(predictions);
  ASSERT_EQ(result.bins.size(), 10u);
  EXPECT_EQ(result.bins[6].samples, 3);
  EXPECT_EQ(result.bins[6].correct, 2);
  EXPECT_NEAR(result.bins[6].confidence, 0.64, 1e-12);
  EXPECT_EQ(result.bins[9].samples, 1);
  EXPECT_NEAR(result.error, 0.75 * (2.0 / 3 - 0.64) + 0.25 * 1.0, 1e-12);
}

TEST(MacroF1, IsTheMeanOverTheClasses) {
  // Class 0: precision 1/2, recall 1; class 1: precision 1, recall 1/2; class 2 is right once and never predicted.
  const std::vector<Classified> items = {{0, 0}, {0, 1}, {1, 1}, {1, 1}, {0, 2}, {0, 0}};
  const double f0 = 2.0 * 2 / (4 + 2), f1 = 2.0 * 2 / (2 + 3), f2 = 0;
  EXPECT_NEAR(macro_f1(items), (f0 + f1 + f2) / 3, 1e-12);
  EXPECT_EQ(macro_f1({}), 0);
}

}  // namespace
}  // namespace moe
