// Products with stored weights against plain double-precision loops over the dequantized values: every weight type, both
// directions, few and many tokens, sizes that are no multiple of anything, one and two threads.
#include <gtest/gtest.h>

#include <cstring>

#include "support/reference.h"
#include "support/stored_matrix.h"
#include "tensor/dequantize.h"

namespace moe {
namespace {

using test::RowsData;
using test::Stored;

const DType kWeightTypes[] = {DType::f32,  DType::f16,  DType::bf16, DType::q4_0, DType::q4_1, DType::q5_0, DType::q5_1,
                              DType::q8_0, DType::q2_k, DType::q3_k, DType::q4_k, DType::q5_k, DType::q6_k};

std::vector<double> reference_forward(const RowsData &x, const Stored &w) {
  std::vector<double> y;
  for (int64_t t = 0; t < x.tokens(); t++) {
    for (int64_t o = 0; o < w.matrix.rows; o++) {
      double sum = 0;
      for (int64_t i = 0; i < w.matrix.columns; i++) sum += x.at(t, i) * w.values[static_cast<size_t>(o * w.matrix.columns + i)];
      y.push_back(sum);
    }
  }
  return y;
}

std::vector<double> reference_transposed(const RowsData &dy, const Stored &w) {
  std::vector<double> dx(static_cast<size_t>(dy.tokens() * w.matrix.columns), 0.0);
  for (int64_t t = 0; t < dy.tokens(); t++) {
    for (int64_t o = 0; o < w.matrix.rows; o++) {
      for (int64_t i = 0; i < w.matrix.columns; i++) {
        dx[static_cast<size_t>(t * w.matrix.columns + i)] += dy.at(t, o) * w.values[static_cast<size_t>(o * w.matrix.columns + i)];
      }
    }
  }
  return dx;
}

// bf16 operands are exact in f32 products; levels with bf16 dot products round the weights as well.
double product_tolerance(const Backend &backend, DType activations, DType weights) {
  const bool bf16_operands = test::is_cuda(backend) || test::has_bf16_operands(backend);  // tensor cores take bf16
  return bf16_operands && activations == DType::bf16 && weights != DType::bf16 ? 1e-5 : 1e-11;
}

class MatmulTypes : public testing::TestWithParam<DType> {};

TEST_P(MatmulTypes, ForwardAndTransposedEqualTheDoubleReference) {
  const int64_t columns = dtype_info(GetParam()).block_values == 1 ? 77 : 512;
  const Stored w(GetParam(), 83, columns, 3);
  for (int threads : {1, 2}) {
    for (const auto &backend : test::all_backends(threads)) {
      for (DType type : {DType::f32, DType::bf16}) {
        for (int64_t tokens : {1, 3, 8, 9, 37}) {
          RowsData x = test::random_rows(tokens, columns, type, 1, 1, 3), y(tokens, 83, DType::f32, 5);
          backend->matmul(tokens, x.rows(), w.matrix, y.rows(), Store::set);
          EXPECT_LT(test::nmse(reference_forward(x, w), y.values()), product_tolerance(*backend, type, GetParam())) << backend->name() << tokens;
          EXPECT_TRUE(y.gap_untouched());
          RowsData dy = test::random_rows(tokens, 83, type, 2, 1, 1), dx(tokens, columns, DType::f32, 2);
          backend->matmul_transposed(tokens, dy.rows(), w.matrix, dx.rows(), Store::set);
          EXPECT_LT(test::nmse(reference_transposed(dy, w), dx.values()), product_tolerance(*backend, type, GetParam())) << backend->name() << tokens;
          EXPECT_TRUE(dx.gap_untouched());
        }
      }
    }
  }
}
INSTANTIATE_TEST_SUITE_P(AllWeightTypes, MatmulTypes, testing::ValuesIn(kWeightTypes),
                         [](const auto &info) { return std::string(dtype_info(info.param).name); });

TEST(Matmul, EveryElementOfTheReductionCounts) {
  // a dropped or doubled k shows in a one-hot input for that k
  for (DType type : {DType::f32, DType::q4_1, DType::q4_k}) {
    const int64_t columns = type == DType::f32 ? 45 : 256;
    const Stored w(type, 40, columns, 9);
    for (const auto &backend : test::all_backends(1)) {
      for (int64_t tokens : {int64_t{1}, columns}) {
        for (int64_t first = 0; first < columns; first += tokens) {
          RowsData x(tokens, columns, DType::f32), y(tokens, 40, DType::f32);
          for (int64_t t = 0; t < tokens; t++) {
            for (int64_t i = 0; i < columns; i++) x.set(t, i, i == first + t ? 1.0f : 0.0f);
          }
          backend->matmul(tokens, x.rows(), w.matrix, y.rows(), Store::set);
          for (int64_t t = 0; t < tokens; t++) {
            for (int64_t o = 0; o < 40; o++) ASSERT_NEAR(y.at(t, o), w.values[static_cast<size_t>(o * columns + first + t)], 1e-6) << backend->name();
          }
        }
      }
    }
  }
}

TEST(Matmul, AddsToWhatStandsThereAndRoundsBf16Results) {
  const Stored w(DType::q8_0, 70, 64, 5);
  for (const auto &backend : test::all_backends(2)) {
    for (int64_t tokens : {2, 50}) {
      RowsData x = test::random_rows(tokens, 64, DType::f32, 1), once(tokens, 70, DType::f32), twice(tokens, 70, DType::f32), rounded(tokens, 70, DType::bf16);
      backend->matmul(tokens, x.rows(), w.matrix, once.rows(), Store::set);
      backend->matmul(tokens, x.rows(), w.matrix, twice.rows(), Store::set);
      backend->matmul(tokens, x.rows(), w.matrix, twice.rows(), Store::add);
      backend->matmul(tokens, x.rows(), w.matrix, rounded.rows(), Store::set);
      for (int64_t t = 0; t < tokens; t++) {
        for (int64_t o = 0; o < 70; o++) {
          EXPECT_NEAR(twice.at(t, o), 2 * once.at(t, o), 1e-4 * (1 + std::abs(once.at(t, o))));
          EXPECT_EQ(rounded.at(t, o), bf16_to_float(float_to_bf16(static_cast<float>(once.at(t, o)))));
        }
      }
    }
  }
}

TEST(Matmul, ThreadCountDoesNotChangeABit) {
  const Stored w(DType::q4_1, 200, 96, 5);
  for (const test::BackendMaker &make : test::backend_makers()) {
    for (int64_t tokens : {1, 5, 300}) {
      RowsData x = test::random_rows(tokens, 96, DType::bf16, 1), dy = test::random_rows(tokens, 200, DType::bf16, 2);
      RowsData y1(tokens, 200, DType::f32), y2 = y1, dx1(tokens, 96, DType::f32), dx2 = dx1;
      const auto one = make(1), three = make(3);
      one->matmul(tokens, x.rows(), w.matrix, y1.rows(), Store::set);
      three->matmul(tokens, x.rows(), w.matrix, y2.rows(), Store::set);
      one->matmul_transposed(tokens, dy.rows(), w.matrix, dx1.rows(), Store::set);
      three->matmul_transposed(tokens, dy.rows(), w.matrix, dx2.rows(), Store::set);
      EXPECT_TRUE(y1.same_bits(y2) && dx1.same_bits(dx2)) << make(1)->name();
    }
  }
}

TEST(Matmul, ARowDoesNotDependOnTheOtherRowsOfItsTile) {
  const Stored w(DType::q5_1, 64, 64, 5);
  for (const auto &backend : test::all_backends(1)) {
    RowsData x = test::random_rows(61, 64, DType::f32, 1), all(61, 64, DType::f32), part(17, 64, DType::f32);
    backend->matmul(61, x.rows(), w.matrix, all.rows(), Store::set);
    Rows tail = x.rows();
    tail.data = static_cast<float *>(tail.data) + 44 * tail.stride;
    backend->matmul(17, tail, w.matrix, part.rows(), Store::set);
    for (int64_t t = 0; t < 17; t++) {
      for (int64_t o = 0; o < 64; o++) EXPECT_EQ(all.at(44 + t, o), part.at(t, o));
    }
  }
}

TEST(OuterProduct, EqualsTheDoubleReferenceInBothLayouts) {
  for (const auto &backend : test::all_backends(2)) {
    for (DType type : {DType::f32, DType::bf16}) {
      for (int64_t m : {1, 4, 16, 19}) {
        for (int64_t n : {1, 31, 32, 100}) {
          const int64_t tokens = 53;
          RowsData v = test::random_rows(tokens, m, DType::f32, 1, 1, 2), x = test::random_rows(tokens, n, type, 2, 1, 3);
          std::vector<float> g = test::random_floats(m * n, 3), gt(g.size());
          std::vector<double> expected = test::to_double(g), expected_t(g.size());
          for (int64_t i = 0; i < m; i++) {
            for (int64_t j = 0; j < n; j++) {
              gt[static_cast<size_t>(j * m + i)] = g[static_cast<size_t>(i * n + j)];
              for (int64_t t = 0; t < tokens; t++) expected[static_cast<size_t>(i * n + j)] += v.at(t, i) * x.at(t, j);
              expected_t[static_cast<size_t>(j * m + i)] = expected[static_cast<size_t>(i * n + j)];
            }
          }
          backend->outer_product(tokens, m, n, v.rows(), x.rows(), g.data(), false);
          backend->outer_product(tokens, m, n, v.rows(), x.rows(), gt.data(), true);
          EXPECT_LT(test::nmse(expected, g), 1e-11) << backend->name() << " " << m << "x" << n;
          EXPECT_LT(test::nmse(expected_t, gt), 1e-11) << backend->name() << " " << m << "x" << n;
        }
      }
    }
  }
}

}  // namespace
}  // namespace moe
