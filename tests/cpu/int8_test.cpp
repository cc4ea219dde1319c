// Integer products of quantized weights with int8 activations, on every level. The rounding of the activations is checked by its
// own documented layout; after it the products must equal double-precision loops over the rounded values.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "support/expect_error.h"
#include "support/reference.h"
#include "support/stored_matrix.h"

namespace moe {
namespace {

using test::RowsData;
using test::Stored;

const DType kQuantized[] = {DType::q4_0, DType::q4_1, DType::q5_0, DType::q5_1, DType::q8_0,
                            DType::q2_k, DType::q3_k, DType::q4_k, DType::q5_k, DType::q6_k};

// i8 rows with memory of their own; at(t, j) reads the layout that the kernels document: [k] int8, then [k/32] scales.
struct Int8Rows {
  Int8Rows(int64_t tokens, int64_t k) : k(k), bytes(static_cast<size_t>(tokens * k * 3 / 2)) {}
  Rows rows() { return {bytes.data(), DType::i8, k}; }
  float number(int64_t t, int64_t offset, int64_t i) const {  // f32 number i of the array `offset` bytes behind the row's start
    float value;
    std::memcpy(&value, bytes.data() + t * k * 3 / 2 + offset + 4 * i, 4);
    return value;
  }
  int code(int64_t t, int64_t j) const { return static_cast<int8_t>(bytes[static_cast<size_t>(t * k * 3 / 2 + j)]); }
  double scale(int64_t t, int64_t j) const { return number(t, k, j / 32); }
  double at(int64_t t, int64_t j) const { return code(t, j) * scale(t, j); }
  int64_t k;
  std::vector<uint8_t> bytes;
};

Int8Rows rounded(Backend &backend, RowsData &x) {
  Int8Rows q(x.tokens(), x.n());
  backend.copy(x.tokens(), x.n(), x.rows(), q.rows(), Store::set);
  return q;
}

TEST(Int8, RoundsEachValueToTheNearestStepOfItsBlock) {
  for (const auto &backend : test::all_backends(2)) {
    SCOPED_TRACE(backend->name());
    for (const DType type : {DType::f32, DType::bf16}) {
      RowsData x = test::random_rows(5, 160, type, 3, 2.5);
      for (int64_t j = 32; j < 64; j++) x.set(2, j, 0);
      const Int8Rows q = rounded(*backend, x);
      for (int64_t t = 0; t < 5; t++) {
        for (int64_t block = 0; block < 5; block++) {
          double largest = 0, sums[2] = {0, 0};
          for (int64_t j = 32 * block; j < 32 * block + 32; j++) {
            largest = std::max(largest, std::abs(x.at(t, j)));
            sums[j % 32 / 16] += q.at(t, j);
            ASSERT_LE(std::abs(x.at(t, j) - q.at(t, j)), 0.5001 * q.scale(t, j)) << t << " " << j;
          }
          ASSERT_NEAR(q.scale(t, 32 * block), largest / 127, 1e-7 * largest);
          ASSERT_NEAR(q.number(t, 160 + 20, block), sums[0] + sums[1], 1e-5 * (1 + largest));
          for (int half = 0; half < 2; half++) ASSERT_NEAR(q.number(t, 160 + 40, 2 * block + half), sums[half], 1e-5 * (1 + largest));
        }
      }
    }
  }
}

class Int8Types : public testing::TestWithParam<DType> {};

TEST_P(Int8Types, ProductsEqualTheDoubleReferenceOfTheRoundedValues) {
  LARGE_CASE();
  const bool large = dtype_info(GetParam()).block_values == 256;
  uint64_t seed = 11;
  for (const int64_t k : large ? std::vector<int64_t>{256, 768} : std::vector<int64_t>{32, 96, 512, 576, 1056}) {
    for (const int64_t rows : {int64_t{1}, int64_t{37}, int64_t{130}}) {
      const Stored w(GetParam(), rows, k, seed++);
      for (const int64_t tokens : {1, 2, 3, 5, 8, 13, 16, 33, 40}) {
        SCOPED_TRACE(testing::Message() << "k " << k << ", rows " << rows << ", tokens " << tokens);
        RowsData x = test::random_rows(tokens, k, DType::f32, seed++);
        Int8Rows q(tokens, k);
        test::on_every_backend(
            [&](Backend &backend) {
              q = rounded(backend, x);
              RowsData y(tokens, rows, DType::f32, 3);
              backend.matmul(tokens, q.rows(), w.matrix, y.rows(), Store::set);
              return y;
            },
            [&](const RowsData &y) {
              EXPECT_TRUE(y.gap_untouched());
              std::vector<double> exact, unrounded;
              for (int64_t t = 0; t < tokens; t++) {
                for (int64_t r = 0; r < rows; r++) {
                  double sum = 0, full = 0, size = 0;
                  for (int64_t i = 0; i < k; i++) {
                    const double weight = w.values[static_cast<size_t>(r * k + i)];
                    sum += q.at(t, i) * weight;
                    full += x.at(t, i) * weight;
                    size += std::abs(q.at(t, i) * weight);
                  }
                  ASSERT_LE(std::abs(y.at(t, r) - sum), 3e-6 * size) << t << " " << r;
                  exact.push_back(sum);
                  unrounded.push_back(full);
                }
              }
              if (tokens * rows < 1000) return;  // fewer may sum to almost nothing
              EXPECT_LT(test::nmse(exact, y.values()), 1e-11);
              EXPECT_LT(test::nmse(unrounded, y.values()), 1e-4);
            });
      }
    }
  }
}

// Each of the products alone is held to the reference above.
TEST(Int8, ProjectionsOfTheSameRowsHaveTheBitsOfEach) {
  const Stored weights[] = {{DType::q4_1, 130, 768, 21}, {DType::q4_1, 37, 768, 22}, {DType::q6_k, 61, 768, 23},
                            {DType::q4_k, 1, 768, 24},   {DType::q4_k, 200, 768, 25}, {DType::f32, 19, 768, 26}};
  const std::vector<std::vector<int>> sets = {{0, 1}, {0, 1, 2}, {2, 3, 4}, {0, 1, 2, 3, 4}, {3}, {0, 5}};
  for (const auto &backend : test::all_backends(2)) {
    for (const int64_t tokens : {1, 2, 3, 8, 70}) {
      RowsData x = test::random_rows(tokens, 768, DType::f32, 27);
      Int8Rows q = rounded(*backend, x);
      for (const std::vector<int> &set : sets) {
        SCOPED_TRACE(testing::Message() << backend->name() << ", tokens " << tokens << ", " << set.size() << " from " << set[0]);
        std::vector<RowsData> joined, alone;
        std::vector<ProjectionPart> parts;
        for (const int i : set) {
          for (auto *outputs : {&joined, &alone}) outputs->emplace_back(tokens, weights[i].matrix.rows, i % 2 ? DType::bf16 : DType::f32, 3);
        }
        for (size_t i = 0; i < set.size(); i++) {
          const Matrix &w = weights[set[i]].matrix;
          parts.push_back({&w, {}, joined[i].rows()});
          backend->matmul(tokens, q.rows(), w, alone[i].rows(), Store::set);
        }
        backend->projections(tokens, q.rows(), parts, nullptr);
        for (size_t i = 0; i < set.size(); i++) {
          EXPECT_TRUE(joined[i].same_bits(alone[i])) << i;
          EXPECT_TRUE(joined[i].gap_untouched()) << i;
        }
      }
    }
  }
}

TEST_P(Int8Types, AddsAndRoundsToBf16) {
  const Stored w(GetParam(), 45, 256, 5);
  for (const auto &backend : test::all_backends(2)) {
    SCOPED_TRACE(backend->name());
    for (const int64_t tokens : {2, 9}) {
      RowsData x = test::random_rows(tokens, 256, DType::f32, 6), y(tokens, 45, DType::f32), narrow(tokens, 45, DType::bf16);
      RowsData sum = test::random_rows(tokens, 45, DType::f32, 7);
      const RowsData before = sum;
      Int8Rows q = rounded(*backend, x);
      backend->matmul(tokens, q.rows(), w.matrix, y.rows(), Store::set);
      backend->matmul(tokens, q.rows(), w.matrix, narrow.rows(), Store::set);
      backend->matmul(tokens, q.rows(), w.matrix, sum.rows(), Store::add);
      for (int64_t t = 0; t < tokens; t++) {
        for (int64_t r = 0; r < 45; r++) {
          ASSERT_EQ(narrow.at(t, r), bf16_to_float(float_to_bf16(static_cast<float>(y.at(t, r)))));
          ASSERT_NEAR(sum.at(t, r), before.at(t, r) + y.at(t, r), 1e-3);  // sums of terms up to 1e3 may cancel
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Quantized, Int8Types, testing::ValuesIn(kQuantized), [](const auto &type) { return std::string(dtype_info(type.param).name); });

// Pairs of byte products at the ends of the range pass 16 bits: the sum must still be exact.
TEST(Int8, SumsOfTheLargestProductsAreExact) {
  constexpr int64_t k = 64, rows = 40;
  for (const int sign : {1, -1}) {
    std::vector<uint8_t> bytes(static_cast<size_t>(rows * row_bytes(DType::q8_0, k)));
    for (size_t block = 0; block < bytes.size(); block += 34) {
      const uint16_t one = 0x3c00;
      std::memcpy(bytes.data() + block, &one, 2);
      std::memset(bytes.data() + block + 2, sign > 0 ? 127 : 0x80, 32);
    }
    for (const auto &backend : test::all_backends(1)) {
      SCOPED_TRACE(backend->name());
      for (const int64_t tokens : {1, 8}) {
        RowsData x(tokens, k, DType::f32), y(tokens, rows, DType::f32);
        for (int64_t t = 0; t < tokens; t++) {
          for (int64_t j = 0; j < k; j++) x.set(t, j, t % 2 ? -127.0f : 127.0f);
        }
        Int8Rows q = rounded(*backend, x);
        backend->matmul(tokens, q.rows(), {DType::q8_0, rows, k, bytes.data()}, y.rows(), Store::set);
        for (int64_t t = 0; t < tokens; t++) {
          for (int64_t r = 0; r < rows; r++) ASSERT_EQ(y.at(t, r), (t % 2 ? -127.0 : 127.0) * (sign > 0 ? 127 : -128) * k);
        }
      }
    }
  }
}

TEST(Int8, OpsThatWriteInt8RoundTheirF32Result) {
  constexpr int64_t tokens = 7, n = 1184;  // more than one piece of a gated activation
  for (const auto &backend : test::all_backends(2)) {
    SCOPED_TRACE(backend->name());
    RowsData x = test::random_rows(tokens, n, DType::f32, 1), b = test::random_rows(tokens, n, DType::bf16, 2), y(tokens, n, DType::f32);
    const std::vector<float> weight = test::random_floats(n, 3);
    Int8Rows direct(tokens, n);
    backend->rms_norm(tokens, n, x.rows(), weight.data(), 1e-5f, y.rows(), Store::set);
    backend->rms_norm(tokens, n, x.rows(), weight.data(), 1e-5f, direct.rows(), Store::set);
    EXPECT_EQ(direct.bytes, rounded(*backend, y).bytes);
    backend->gated_activation(tokens, n, Activation::silu, x.rows(), b.rows(), y.rows());
    backend->gated_activation(tokens, n, Activation::silu, x.rows(), b.rows(), direct.rows());
    EXPECT_EQ(direct.bytes, rounded(*backend, y).bytes);
  }
}

TEST(Int8, OtherWeightsTakeTheRoundedValues) {
  constexpr int64_t k = 96, rows = 21;
  for (const DType type : {DType::f32, DType::bf16}) {
    const Stored w(type, rows, k, 9);
    for (const auto &backend : test::all_backends(2)) {
      SCOPED_TRACE(backend->name());
      for (const int64_t tokens : {3, 30}) {
        RowsData x = test::random_rows(tokens, k, DType::f32, 10), y(tokens, rows, DType::f32);
        Int8Rows q = rounded(*backend, x);
        backend->matmul(tokens, q.rows(), w.matrix, y.rows(), Store::set);
        std::vector<double> expected;
        for (int64_t t = 0; t < tokens; t++) {
          for (int64_t r = 0; r < rows; r++) {
            double sum = 0;
            for (int64_t i = 0; i < k; i++) sum += q.at(t, i) * w.values[static_cast<size_t>(r * k + i)];
            expected.push_back(sum);
          }
        }
        EXPECT_LT(test::nmse(expected, y.values()), 1e-11);
      }
    }
  }
}

TEST(Int8, CrossEntropyOfRoundedHiddenStates) {
  constexpr int64_t vocabulary = 2500, d = 96;  // more than one chunk
  for (const DType type : {DType::q8_0, DType::q4_1}) {
    const Stored w(type, vocabulary, d, 21);
    for (const int64_t tokens : {2, 7, 50}) {
      RowsData x = test::random_rows(tokens, d, DType::f32, 22, 0.2);
      std::vector<int32_t> labels;
      for (int64_t t = 0; t < tokens; t++) labels.push_back(static_cast<int32_t>(test::random_bits(23, static_cast<uint64_t>(t)) % vocabulary));
      for (const auto &backend : test::all_backends(2)) {
        SCOPED_TRACE(testing::Message() << backend->name() << ", " << tokens << " tokens");
        Int8Rows q = rounded(*backend, x);
        std::vector<float> nll(static_cast<size_t>(tokens));
        backend->cross_entropy(tokens, q.rows(), w.matrix, labels.data(), nll.data(), 0, {});
        for (int64_t t = 0; t < tokens; t++) {
          double sum = 0, label = 0;
          for (int64_t v = 0; v < vocabulary; v++) {
            double z = 0;
            for (int64_t j = 0; j < d; j++) z += q.at(t, j) * w.values[static_cast<size_t>(v * d + j)];
            sum += std::exp(z);
            if (v == labels[static_cast<size_t>(t)]) label = z;
          }
          ASSERT_NEAR(nll[static_cast<size_t>(t)], std::log(sum) - label, 2e-4) << t;
        }
      }
    }
  }
  const auto backend = test::all_backends(1);
  const Stored plain(DType::f32, 40, d, 24);
  RowsData x = test::random_rows(1, d, DType::f32, 25);
  Int8Rows q = rounded(*backend[0], x);
  const int32_t label = 0;
  float nll = 0;
  EXPECT_FAILS(backend[0]->cross_entropy(1, q.rows(), plain.matrix, &label, &nll, 0, {}), Code::invalid, "int8 hidden states need quantized weights");
}

TEST(Int8, NotANumberStaysNotANumber) {
  const Stored w(DType::q4_1, 33, 64, 4);
  for (const auto &backend : test::all_backends(1)) {
    SCOPED_TRACE(backend->name());
    for (const float poison : {NAN, INFINITY}) {
      RowsData x = test::random_rows(1, 64, DType::f32, 8), y(1, 33, DType::f32);
      x.set(0, 40, poison);
      Int8Rows q = rounded(*backend, x);
      backend->matmul(1, q.rows(), w.matrix, y.rows(), Store::set);
      for (int64_t r = 0; r < 33; r++) ASSERT_FALSE(std::isfinite(y.at(0, r)));
    }
  }
}

}  // namespace
}  // namespace moe
