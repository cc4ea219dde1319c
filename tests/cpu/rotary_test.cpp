// Rotary embedding with and without the norm of each head against double precision and central differences.
#include <gtest/gtest.h>

#include <cmath>

#include "support/reference.h"

namespace moe::test {
namespace {

constexpr float kEpsilon = 1e-6f;

struct Rotation {
  int64_t tokens, heads, h;
  std::vector<int32_t> positions;
  std::vector<float> inverse_frequency;
  float factor = 1;

  Rotation(int64_t tokens, int64_t heads, int64_t h, float factor = 1) : tokens(tokens), heads(heads), h(h), factor(factor) {
    for (int64_t t = 0; t < tokens; t++) positions.push_back(static_cast<int32_t>(t * t * 7));
    for (int64_t j = 0; j < h / 2; j++) {
      const double exponent = -2 * static_cast<double>(j) / static_cast<double>(h);
      inverse_frequency.push_back(static_cast<float>(std::pow(10000.0, exponent)));
    }
  }
  std::vector<float> table(Backend &backend) const {
    std::vector<float> out(static_cast<size_t>(tokens * h));
    backend.rotary_table(tokens, h, positions.data(), inverse_frequency.data(), factor, out.data());
    return out;
  }
  // one head at token t
  std::vector<double> apply(int64_t t, std::vector<double> x, const std::vector<float> &weight) const {
    if (!weight.empty()) {
      double squares = 0;
      for (double v : x) squares += v * v;
      const double r = 1 / std::sqrt(squares / static_cast<double>(h) + static_cast<double>(kEpsilon));
      for (size_t j = 0; j < x.size(); j++) x[j] *= r * static_cast<double>(weight[j]);
    }
    std::vector<double> y(x.size());
    const size_t half = x.size() / 2;
    for (size_t j = 0; j < half; j++) {
      const double angle = positions[static_cast<size_t>(t)] * static_cast<double>(inverse_frequency[j]);
      const double c = factor * std::cos(angle), s = factor * std::sin(angle);
      y[j] = x[j] * c - x[j + half] * s;
      y[j + half] = x[j + half] * c + x[j] * s;
    }
    return y;
  }
};
const Rotation kRotations[] = {{1, 1, 2}, {5, 3, 6}, {11, 7, 12, 1.25f}, {6, 2, 64}, {4, 3, 130}};

std::vector<double> head_of(const RowsData &x, int64_t t, int64_t head, int64_t h) {
  std::vector<double> row;
  for (int64_t j = 0; j < h; j++) row.push_back(x.at(t, head * h + j));
  return row;
}

TEST(Rotary, TableHoldsCosinesThenSines) {
  for (const Rotation &r : kRotations) {
    for (const auto &backend : all_backends(2)) {
      const std::vector<float> table = r.table(*backend);
      for (int64_t t = 0; t < r.tokens; t++) {
        for (int64_t j = 0; j < r.h / 2; j++) {
          const double angle =
              r.positions[static_cast<size_t>(t)] * static_cast<double>(r.inverse_frequency[static_cast<size_t>(j)]);
          EXPECT_NEAR(table[static_cast<size_t>(t * r.h + j)], r.factor * std::cos(angle), 1e-7);
          EXPECT_NEAR(table[static_cast<size_t>(t * r.h + r.h / 2 + j)], r.factor * std::sin(angle), 1e-7);
        }
      }
    }
  }
}

TEST(Rotary, MatchesDoublePrecision) {
  for (const Rotation &r : kRotations) {
    for (DType from : {DType::f32, DType::bf16}) {
      for (DType to : {DType::f32, DType::bf16}) {
        for (bool normed : {false, true}) {
          const int64_t n = r.heads * r.h;
          RowsData x = random_rows(r.tokens, n, from, 1, 2, 5);
          const std::vector<float> weight = normed ? random_floats(r.h, 2) : std::vector<float>{};
          std::vector<double> expected;
          for (int64_t t = 0; t < r.tokens; t++)
            for (int64_t head = 0; head < r.heads; head++)
              for (double v : r.apply(t, head_of(x, t, head, r.h), weight)) expected.push_back(v);
          on_every_backend(
              [&](Backend &backend) {
                const std::vector<float> table = r.table(backend);
                RowsData y(r.tokens, n, to, 1);
                backend.rotary(r.tokens, r.heads, r.h, x.rows(), normed ? weight.data() : nullptr, kEpsilon, table.data(),
                               y.rows());
                return y;
              },
              [&](const RowsData &y) {
                EXPECT_TRUE(y.gap_untouched());
                EXPECT_LT(nmse(expected, y.values()), tolerance(to)) << r.h;
              });
        }
      }
    }
  }
}

TEST(Rotary, WorksInPlace) {
  const Rotation r(5, 3, 22);
  for (DType type : {DType::f32, DType::bf16}) {
    for (bool normed : {false, true}) {
      const std::vector<float> weight = random_floats(r.h, 2);
      const float *w = normed ? weight.data() : nullptr;
      const RowsData start = random_rows(r.tokens, r.heads * r.h, type, 1),
                     dstart = random_rows(r.tokens, r.heads * r.h, type, 2);
      for (const auto &backend : all_backends(1)) {
        const std::vector<float> table = r.table(*backend);
        RowsData x = start, in_place = start, y(r.tokens, r.heads * r.h, type);
        backend->rotary(r.tokens, r.heads, r.h, x.rows(), w, kEpsilon, table.data(), y.rows());
        backend->rotary(r.tokens, r.heads, r.h, in_place.rows(), w, kEpsilon, table.data(), in_place.rows());
        EXPECT_TRUE(y.same_bits(in_place)) << backend->name();
        RowsData dy = dstart, dx(r.tokens, r.heads * r.h, type);
        backend->rotary_backward(r.tokens, r.heads, r.h, x.rows(), w, kEpsilon, table.data(), dy.rows(), dx.rows());
        backend->rotary_backward(r.tokens, r.heads, r.h, x.rows(), w, kEpsilon, table.data(), dy.rows(), dy.rows());
        EXPECT_TRUE(dx.same_bits(dy)) << backend->name();
      }
    }
  }
}

TEST(Rotary, BackwardMatchesCentralDifferences) {
  for (const Rotation &r : kRotations) {
    for (DType type : {DType::f32, DType::bf16}) {
      for (bool normed : {false, true}) {
        if (normed && r.h < 6) continue;  // the gradient of a normed pair is a difference of nearly equal numbers
        const int64_t n = r.heads * r.h;
        RowsData x = random_rows(r.tokens, n, type, 1, 2), dy = random_rows(r.tokens, n, type, 3);
        const std::vector<float> weight = normed ? random_floats(r.h, 2) : std::vector<float>{};
        std::vector<double> expected;
        for (int64_t t = 0; t < r.tokens; t++) {
          for (int64_t head = 0; head < r.heads; head++) {
            std::vector<double> values = head_of(x, t, head, r.h);
            const std::vector<double> d = head_of(dy, t, head, r.h);
            const auto loss = [&] {
              const std::vector<double> y = r.apply(t, values, weight);
              double sum = 0;
              for (size_t i = 0; i < y.size(); i++) sum += d[i] * y[i];
              return sum;
            };
            for (double &v : values) {
              const double kept = v, step = 1e-5;
              v = kept + step;
              const double above = loss();
              v = kept - step;
              expected.push_back((above - loss()) / (2 * step));
              v = kept;
            }
          }
        }
        on_every_backend(
            [&](Backend &backend) {
              const std::vector<float> table = r.table(backend);
              RowsData dx(r.tokens, n, type);
              backend.rotary_backward(r.tokens, r.heads, r.h, normed ? x.rows() : Rows{}, normed ? weight.data() : nullptr,
                                      kEpsilon, table.data(), dy.rows(), dx.rows());
              return dx;
            },
            [&](const RowsData &dx) { EXPECT_LT(nmse(expected, dx.values()), tolerance(type)) << r.h; });
      }
    }
  }
}

}  // namespace
}  // namespace moe::test
