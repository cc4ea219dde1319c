// Gated activations against double precision; their backward against central differences of that reference.
#include <gtest/gtest.h>

#include <cmath>

#include "support/reference.h"

namespace moe::test {
namespace {

constexpr DType kTypes[] = {DType::f32, DType::bf16};
constexpr Activation kActivations[] = {Activation::silu, Activation::gelu_tanh};

double phi(Activation activation, double a) {
  if (activation == Activation::silu) return a / (1 + std::exp(-a));
  return 0.5 * a * (1 + std::tanh(std::sqrt(2 / 3.141592653589793) * (a + 0.044715 * a * a * a)));
}
double slope(Activation activation, double a) { return (phi(activation, a + 1e-5) - phi(activation, a - 1e-5)) / 2e-5; }

struct Shape {
  int64_t tokens, f;
};
const Shape kShapes[] = {{1, 1}, {3, 17}, {5, 1024}, {29, 1031}, {2, 2500}};

TEST(GatedActivation, MatchesDoublePrecision) {
  for (const Shape s : kShapes) {
    for (Activation activation : kActivations) {
      for (DType from : kTypes) {
        for (DType to : kTypes) {
          RowsData a = random_rows(s.tokens, s.f, from, 1, 3, 2), b = random_rows(s.tokens, s.f, from, 2, 1, 1);
          std::vector<double> expected;
          for (int64_t t = 0; t < s.tokens; t++)
            for (int64_t j = 0; j < s.f; j++) expected.push_back(phi(activation, a.at(t, j)) * b.at(t, j));
          on_every_backend(
              [&](Backend &backend) {
                RowsData h(s.tokens, s.f, to, 3);
                backend.gated_activation(s.tokens, s.f, activation, a.rows(), b.rows(), h.rows());
                return h;
              },
              [&](const RowsData &h) {
                EXPECT_TRUE(h.gap_untouched());
                EXPECT_LT(nmse(expected, h.values()), tolerance(to)) << s.f;
                EXPECT_LT(largest_error(expected, h.values()), to == DType::bf16 ? 5e-3 : 2e-6) << s.f;
              });
        }
      }
    }
  }
}

TEST(GatedActivation, IsExactFarOut) {
  for (const auto &backend : all_backends(1)) {
    for (Activation activation : kActivations) {
      RowsData a(1, 6, DType::f32), b(1, 6, DType::f32), h(1, 6, DType::f32), da(1, 6, DType::f32), db(1, 6, DType::f32);
      const float far[] = {100, -200, 1e30f, -1e30f, 3e38f, 0};
      for (int64_t j = 0; j < 6; j++) {
        a.set(0, j, far[j]);
        b.set(0, j, 1);
      }
      backend->gated_activation(1, 6, activation, a.rows(), b.rows(), h.rows());
      backend->gated_activation_backward(1, 6, activation, a.rows(), b.rows(), b.rows(), da.rows(), db.rows());
      for (int64_t j = 0; j < 6; j++) {
        EXPECT_EQ(h.at(0, j), far[j] > 0 ? static_cast<double>(far[j]) : 0) << far[j];
        EXPECT_EQ(da.at(0, j), far[j] > 0 ? 1 : far[j] < 0 ? 0 : 0.5) << far[j];
        EXPECT_EQ(db.at(0, j), h.at(0, j));
      }
    }
  }
}

TEST(GatedActivation, BackwardMatchesCentralDifferences) {
  for (const Shape s : kShapes) {
    for (Activation activation : kActivations) {
      for (DType type : kTypes) {
        RowsData a = random_rows(s.tokens, s.f, type, 1, 3), b = random_rows(s.tokens, s.f, type, 2),
                 dh = random_rows(s.tokens, s.f, type, 3);
        std::vector<double> expected;  // da beside db
        for (int64_t t = 0; t < s.tokens; t++) {
          for (int64_t j = 0; j < s.f; j++) expected.push_back(dh.at(t, j) * b.at(t, j) * slope(activation, a.at(t, j)));
          for (int64_t j = 0; j < s.f; j++) expected.push_back(dh.at(t, j) * phi(activation, a.at(t, j)));
        }
        on_every_backend(
            [&](Backend &backend) {
              RowsData d(s.tokens, 2 * s.f, type);
              Rows da = d.rows(), db = d.rows();
              db.data = static_cast<char *>(db.data) + s.f * (type == DType::f32 ? 4 : 2);
              backend.gated_activation_backward(s.tokens, s.f, activation, a.rows(), b.rows(), dh.rows(), da, db);
              return d;
            },
            [&](const RowsData &d) {
              EXPECT_LT(nmse(expected, d.values()), tolerance(type)) << s.f;
              EXPECT_LT(largest_error(expected, d.values()), type == DType::bf16 ? 5e-3 : 2e-6) << s.f;
            });
      }
    }
  }
}

}  // namespace
}  // namespace moe::test
