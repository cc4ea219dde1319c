// The vector kernels of every level against plain double-precision loops, at lengths around the register widths.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>

#include "base/random.h"
#include "support/reference.h"

namespace moe::test {
namespace {

const int64_t kLengths[] = {1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 127, 130, 257, 1009};

void on_every_level(const std::function<void(const cpu::Kernels &)> &body) {
  for (const cpu::Kernels *kernels : all_kernels()) {
    SCOPED_TRACE(kernels->level);
    body(*kernels);
  }
}

// Units in the last place of the float nearest to `expected`, subnormal spacing below the normal range.
double ulps(double expected, float got) {
  const double spacing = std::max(std::ldexp(1.0, std::ilogb(expected) - 23), 0x1p-149);
  return std::abs(static_cast<double>(got) - expected) / spacing;
}

float exp_of(const cpu::Kernels &k, float x) {
  float y = 0;
  k.exp_shifted(1, &x, 0, &y);
  return y;
}

TEST(Vector, ExpIsWithinTwoUlpsOverItsWholeRange) {
  on_every_level([](const cpu::Kernels &k) {
    std::vector<float> x, y;
    for (double v = -103; v < 88.72; v += 0.00037) x.push_back(static_cast<float>(v));
    y.resize(x.size());
    k.exp_shifted(static_cast<int64_t>(x.size()), x.data(), 0, y.data());
    double worst = 0;
    for (size_t i = 0; i < x.size(); i++) worst = std::max(worst, ulps(std::exp(static_cast<double>(x[i])), y[i]));
    EXPECT_LT(worst, 2);
  });
}

TEST(Vector, ExpOfSpecialValues) {
  on_every_level([](const cpu::Kernels &k) {
    EXPECT_EQ(exp_of(k, 0), 1);
    EXPECT_EQ(exp_of(k, -INFINITY), 0);
    EXPECT_EQ(exp_of(k, -1e30f), 0);
    EXPECT_EQ(exp_of(k, -104.5f), 0);
    EXPECT_EQ(exp_of(k, INFINITY), INFINITY);
    EXPECT_EQ(exp_of(k, 88.8f), INFINITY);
    EXPECT_TRUE(std::isfinite(exp_of(k, 88.722f)));
    EXPECT_TRUE(std::isnan(exp_of(k, NAN)));
  });
}

TEST(Vector, ExpShiftedReturnsTheSumAndWorksInPlace) {
  on_every_level([](const cpu::Kernels &k) {
    for (int64_t n : kLengths) {
      std::vector<float> x = random_floats(n, 3, 4), y(x.size());
      std::vector<double> expected;
      double sum = 0;
      for (float v : x) sum += expected.emplace_back(std::exp(static_cast<double>(v) - 2.5));
      const float got = k.exp_shifted(n, x.data(), 2.5f, y.data());
      EXPECT_NEAR(got, sum, 1e-6 * sum) << n;
      EXPECT_LT(nmse(expected, y), 1e-13) << n;
      EXPECT_EQ(k.exp_shifted(n, x.data(), 2.5f, x.data()), got);
      EXPECT_TRUE(same_bits(x, y)) << n;
    }
  });
}

TEST(Vector, ReductionsMatchDoubleSums) {
  on_every_level([](const cpu::Kernels &k) {
    for (int64_t n : kLengths) {
      const std::vector<float> x = random_floats(n, 1), y = random_floats(n, 2);
      double dot = 0, sum = 0, size = 0;
      for (size_t i = 0; i < x.size(); i++) {
        dot += static_cast<double>(x[i]) * y[i];
        sum += x[i];
        size += std::abs(x[i]) * (1 + std::abs(y[i]));
      }
      EXPECT_NEAR(k.dot(n, x.data(), y.data()), dot, 3e-7 * size) << n;
      EXPECT_NEAR(k.sum(n, x.data()), sum, 3e-7 * size) << n;
      EXPECT_EQ(k.max(n, x.data()), *std::max_element(x.begin(), x.end())) << n;
    }
    EXPECT_EQ(k.dot(0, nullptr, nullptr), 0);
    EXPECT_EQ(k.sum(0, nullptr), 0);
    EXPECT_EQ(k.max(0, nullptr), -INFINITY);
  });
}

TEST(Vector, EveryElementCountsInAReduction) {
  on_every_level([](const cpu::Kernels &k) {
    for (int64_t n : kLengths) {
      const std::vector<float> ones(static_cast<size_t>(n), 1.0f);
      for (int64_t i = 0; i < n; i++) {
        std::vector<float> hot(static_cast<size_t>(n));
        hot[static_cast<size_t>(i)] = 3;
        ASSERT_EQ(k.dot(n, hot.data(), ones.data()), 3) << n << " " << i;
        ASSERT_EQ(k.sum(n, hot.data()), 3) << n << " " << i;
        for (float &v : hot) v -= 10;
        ASSERT_EQ(k.max(n, hot.data()), -7) << n << " " << i;
      }
    }
  });
}

TEST(Vector, ResultsDoNotDependOnTheAddress) {
  on_every_level([](const cpu::Kernels &k) {
    const int64_t n = 333;
    const std::vector<float> x = random_floats(n, 5), y = random_floats(n, 6);
    std::vector<float> h(x.size());
    k.gated_silu(n, x.data(), y.data(), h.data());
    for (size_t offset = 1; offset < 17; offset++) {
      std::vector<float> a(x.size() + offset), b(x.size() + 1), c(x.size() + offset);
      std::copy(x.begin(), x.end(), a.begin() + static_cast<std::ptrdiff_t>(offset));
      std::copy(y.begin(), y.end(), b.begin() + 1);
      EXPECT_EQ(k.dot(n, a.data() + offset, b.data() + 1), k.dot(n, x.data(), y.data()));
      EXPECT_EQ(k.sum(n, a.data() + offset), k.sum(n, x.data()));
      k.gated_silu(n, a.data() + offset, b.data() + 1, c.data() + offset);
      EXPECT_EQ(std::memcmp(c.data() + offset, h.data(), h.size() * sizeof(float)), 0);
    }
  });
}

TEST(Vector, LinearFunctionsTouchTheirElementsOnly) {
  on_every_level([](const cpu::Kernels &k) {
    for (int64_t n : kLengths) {
      const size_t count = static_cast<size_t>(n);
      const std::vector<float> x = random_floats(n, 7), y = random_floats(n, 8);
      const auto padded = [&](std::vector<float> v) {
        v.resize(count + 20, 77.0f);
        return v;
      };
      std::vector<float> axpy = padded(y), scaled = padded({}), product = padded({}), total = padded(y);
      k.axpy(n, 0.3f, x.data(), axpy.data());
      k.scale(n, 0.3f, x.data(), scaled.data());
      k.multiply(n, x.data(), y.data(), product.data());
      k.add(n, x.data(), total.data());
      for (size_t i = 0; i < count; i++) {
        ASSERT_NEAR(axpy[i], y[i] + 0.3 * x[i], 1e-6);
        ASSERT_EQ(scaled[i], 0.3f * x[i]);
        ASSERT_EQ(product[i], x[i] * y[i]);
        ASSERT_EQ(total[i], x[i] + y[i]);
      }
      for (const auto *v : {&axpy, &scaled, &product, &total})
        for (size_t i = count; i < count + 20; i++) ASSERT_EQ((*v)[i], 77.0f) << n;
    }
  });
}

TEST(Vector, Bf16ConversionIsTheReferenceConversion) {
  std::vector<float> x = {
      0.0f, -0.0f, INFINITY, -INFINITY, std::bit_cast<float>(0x7f800001u), std::bit_cast<float>(0xffffffffu), 3.4e38f, 1e-45f};
  for (uint64_t i = 0; i < 200003; i++) x.push_back(std::bit_cast<float>(static_cast<uint32_t>(random_bits(9, i))));
  for (uint32_t high = 0; high < 0x10000; high += 7) x.push_back(std::bit_cast<float>(high << 16 | 0x8000));  // ties
  const int64_t n = static_cast<int64_t>(x.size());
  on_every_level([&](const cpu::Kernels &k) {
    std::vector<uint16_t> narrow(x.size());
    k.to_bf16(x.data(), n, narrow.data());
    for (size_t i = 0; i < x.size(); i++) ASSERT_EQ(narrow[i], float_to_bf16(x[i])) << std::bit_cast<uint32_t>(x[i]);
    std::vector<uint16_t> all(0x10000);
    for (size_t i = 0; i < all.size(); i++) all[i] = static_cast<uint16_t>(i);
    std::vector<float> wide(all.size());
    k.to_f32(all.data(), 0x10000, wide.data());
    for (size_t i = 0; i < all.size(); i++) ASSERT_EQ(std::bit_cast<uint32_t>(wide[i]), static_cast<uint32_t>(i) << 16);
  });
}

TEST(Vector, Bf16TailsTouchTheirElementsOnly) {
  on_every_level([&](const cpu::Kernels &k) {
    for (int64_t n : kLengths) {
      const std::vector<float> x = random_floats(n, 10);
      std::vector<uint16_t> narrow(x.size() + 20, 0x1234);
      std::vector<float> wide(x.size() + 20, 77.0f);
      k.to_bf16(x.data(), n, narrow.data());
      k.to_f32(narrow.data(), n, wide.data());
      for (size_t i = 0; i < narrow.size(); i++) {
        ASSERT_EQ(narrow[i], i < x.size() ? float_to_bf16(x[i]) : 0x1234);
        ASSERT_EQ(wide[i], i < x.size() ? bf16_to_float(narrow[i]) : 77.0f);
      }
    }
  });
}

TEST(Vector, TransposeMovesEveryElement) {
  on_every_level([&](const cpu::Kernels &k) {
    for (int64_t rows : {1, 3, 4, 7, 16, 29, 32}) {
      for (int64_t columns : {1, 2, 4, 5, 13, 64, 71, 200}) {
        const int64_t ldi = columns + 3, ldo = rows + 2;
        const std::vector<float> in = random_floats(rows * ldi, 11);
        std::vector<float> out(static_cast<size_t>(columns * ldo), 77.0f);
        k.transpose(rows, columns, in.data(), ldi, out.data(), ldo);
        for (int64_t j = 0; j < columns; j++)
          for (int64_t i = 0; i < ldo; i++)
            ASSERT_EQ(out[static_cast<size_t>(j * ldo + i)], i < rows ? in[static_cast<size_t>(i * ldi + j)] : 77.0f);
      }
    }
  });
}

TEST(Vector, DropoutDrawsTheWordsOfPhilox) {
  const uint64_t seed = 0x0123456789abcdefu, stream = 0xfedcba9876543210u;
  const uint32_t threshold = 0x60000000u;
  on_every_level([&](const cpu::Kernels &k) {
    for (int64_t n : kLengths) {
      for (uint64_t first : {uint64_t{0}, uint64_t{160}, uint64_t{0x7fffffff0}}) {
        const std::vector<float> x = random_floats(n, 12);
        std::vector<float> y(x.size() + 20, 77.0f);
        k.dropout(n, x.data(), seed, stream, first, threshold, 1.5f, y.data());
        for (size_t j = 0; j < x.size(); j++) {
          const uint32_t word = Random(seed, stream).block(first + j / 64 * 16 + j % 16)[j / 16 % 4];
          ASSERT_EQ(y[j], word >= threshold ? 1.5f * x[j] : 0.0f) << n << " " << j;
        }
        for (size_t j = x.size(); j < y.size(); j++) ASSERT_EQ(y[j], 77.0f);
      }
    }
  });
}

}  // namespace
}  // namespace moe::test
