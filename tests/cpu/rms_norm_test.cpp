// Root mean square normalization against double precision; its backward against central differences of that reference.
#include <gtest/gtest.h>

#include <cmath>

#include "support/expect_error.h"
#include "support/reference.h"

namespace moe::test {
namespace {

constexpr DType kTypes[] = {DType::f32, DType::bf16};
constexpr float kEpsilon = 1e-5f;

std::vector<double> norm(const std::vector<double> &x, const std::vector<float> &w) {
  double squares = 0;
  for (double v : x) squares += v * v;
  const double r = 1 / std::sqrt(squares / static_cast<double>(x.size()) + static_cast<double>(kEpsilon));
  std::vector<double> y;
  for (size_t j = 0; j < x.size(); j++) y.push_back(x[j] * r * static_cast<double>(w[j]));
  return y;
}
std::vector<double> row_of(const RowsData &x, int64_t t) {
  std::vector<double> row;
  for (int64_t j = 0; j < x.n(); j++) row.push_back(x.at(t, j));
  return row;
}

TEST(RmsNorm, MatchesDoublePrecision) {
  for (int64_t n : {1, 2, 19, 64, 257, 1500}) {
    for (DType from : kTypes) {
      for (DType to : kTypes) {
        const int64_t tokens = 23;
        RowsData x = random_rows(tokens, n, from, 1, 3, 4);
        const std::vector<float> w = random_floats(n, 2);
        std::vector<double> expected;
        for (int64_t t = 0; t < tokens; t++)
          for (double v : norm(row_of(x, t), w)) expected.push_back(v);
        on_every_backend(
            [&](Backend &backend) {
              RowsData y(tokens, n, to, 1);
              backend.rms_norm(tokens, n, x.rows(), w.data(), kEpsilon, y.rows(), Store::set);
              return y;
            },
            [&](const RowsData &y) {
              EXPECT_TRUE(y.gap_untouched());
              EXPECT_LT(nmse(expected, y.values()), tolerance(to)) << n;
            });
      }
    }
  }
}

TEST(RmsNorm, AddsToF32RowsOnly) {
  const int64_t tokens = 5, n = 33;
  RowsData x = random_rows(tokens, n, DType::bf16, 1), start = random_rows(tokens, n, DType::f32, 2);
  const std::vector<float> w = random_floats(n, 3);
  std::vector<double> expected;
  for (int64_t t = 0; t < tokens; t++)
    for (int64_t j = 0; j < n; j++) expected.push_back(start.at(t, j) + norm(row_of(x, t), w)[static_cast<size_t>(j)]);
  on_every_backend(
      [&](Backend &backend) {
        RowsData y = start;
        backend.rms_norm(tokens, n, x.rows(), w.data(), kEpsilon, y.rows(), Store::add);
        return y;
      },
      [&](const RowsData &y) { EXPECT_LT(nmse(expected, y.values()), tolerance(DType::f32)); });
  auto backend = std::move(all_backends(1).front());
  EXPECT_FAILS(backend->rms_norm(tokens, n, start.rows(), w.data(), kEpsilon, x.rows(), Store::add), Code::invalid, "rms_norm");
}

TEST(RmsNorm, WorksInPlace) {
  const int64_t tokens = 5, n = 33;
  const std::vector<float> w = random_floats(n, 3);
  for (DType type : kTypes) {
    const RowsData x = random_rows(tokens, n, type, 1);
    for (const auto &backend : all_backends(1)) {
      RowsData source = x, in_place = x, y(tokens, n, type);
      backend->rms_norm(tokens, n, source.rows(), w.data(), kEpsilon, y.rows(), Store::set);
      backend->rms_norm(tokens, n, in_place.rows(), w.data(), kEpsilon, in_place.rows(), Store::set);
      EXPECT_TRUE(y.same_bits(in_place)) << backend->name();
    }
  }
}

TEST(RmsNorm, ZeroRowsStayFinite) {
  const std::vector<float> w = random_floats(7, 3);
  for (const auto &backend : all_backends(1)) {
    RowsData x = random_rows(2, 7, DType::f32, 1, 0), y(2, 7, DType::f32);
    backend->rms_norm(2, 7, x.rows(), w.data(), kEpsilon, y.rows(), Store::set);
    for (float v : y.values()) EXPECT_EQ(v, 0);
  }
}

// dL/dx_j of L = <dy, norm(x)> by central differences in double precision.
std::vector<double> differences(std::vector<double> x, const std::vector<float> &w, const std::vector<double> &dy) {
  std::vector<double> gradient;
  const auto loss = [&] {
    double sum = 0;
    const std::vector<double> y = norm(x, w);
    for (size_t i = 0; i < y.size(); i++) sum += dy[i] * y[i];
    return sum;
  };
  for (double &v : x) {
    const double kept = v, step = 1e-5;
    v = kept + step;
    const double above = loss();
    v = kept - step;
    gradient.push_back((above - loss()) / (2 * step));
    v = kept;
  }
  return gradient;
}

TEST(RmsNorm, BackwardMatchesCentralDifferences) {
  for (int64_t n : {2, 5, 31, 64, 129}) {
    for (DType type : kTypes) {
      for (Store store : {Store::set, Store::add}) {
        const int64_t tokens = 9;
        const DType to = store == Store::add ? DType::f32 : type;
        RowsData x = random_rows(tokens, n, type, 1, 2), dy = random_rows(tokens, n, type, 2, 1, 3),
                 start = random_rows(tokens, n, to, 3);
        const std::vector<float> w = random_floats(n, 4);
        std::vector<double> expected;
        for (int64_t t = 0; t < tokens; t++) {
          const std::vector<double> row = differences(row_of(x, t), w, row_of(dy, t));
          for (int64_t j = 0; j < n; j++)
            expected.push_back(row[static_cast<size_t>(j)] + (store == Store::add ? start.at(t, j) : 0));
        }
        on_every_backend(
            [&](Backend &backend) {
              RowsData dx = start;
              backend.rms_norm_backward(tokens, n, x.rows(), w.data(), kEpsilon, dy.rows(), dx.rows(), store);
              return dx;
            },
            // two nearly equal numbers are subtracted where n is small: rounding counts against what was subtracted
            [&](const RowsData &dx) { EXPECT_LT(nmse(expected, dx.values()), tolerance(to) * (n < 5 ? 1000 : 1)) << n; });
      }
    }
  }
}

}  // namespace
}  // namespace moe::test
