// The vocabulary head with cross-entropy against plain double-precision loops, whose gradient is checked by central differences.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "support/expect_error.h"
#include "support/reference.h"

namespace moe::test {
namespace {

using Values = std::vector<double>;

// A stored matrix with the exact values it stands for. Quantized blocks are random bytes under small scales.
struct Weights {
  Matrix matrix;
  std::vector<uint8_t> bytes;
  std::vector<float> values;
};
Weights make_weights(DType type, int64_t rows, int64_t columns, double deviation = 0.3) {
  Weights w;
  const size_t count = static_cast<size_t>(rows * columns);
  w.bytes.resize(static_cast<size_t>(rows * row_bytes(type, columns)));
  const auto put = [&](size_t at, uint16_t x) { std::memcpy(w.bytes.data() + at, &x, 2); };
  if (type == DType::f32) {
    const std::vector<float> x = random_floats(rows * columns, 7, deviation);
    std::memcpy(w.bytes.data(), x.data(), w.bytes.size());
  } else if (type == DType::bf16) {
    const std::vector<uint16_t> x = to_bf16(random_floats(rows * columns, 7, deviation));
    std::memcpy(w.bytes.data(), x.data(), w.bytes.size());
  } else {
    const DTypeInfo &info = dtype_info(type);
    for (size_t i = 0; i < w.bytes.size(); i++) w.bytes[i] = static_cast<uint8_t>(random_bits(7, i));
    for (size_t block = 0; block < count / static_cast<size_t>(info.block_values); block++) {
      const size_t at = block * static_cast<size_t>(info.block_bytes);
      const float u = static_cast<float>(1 + random_uniform(8, block));
      if (type == DType::q8_0) put(at, float_to_f16(0.004f * u));
      if (type == DType::q4_1) put(at, float_to_f16(0.06f * u)), put(at + 2, float_to_f16(-0.45f * u));
      if (type == DType::q4_k) put(at, float_to_f16(0.001f * u)), put(at + 2, float_to_f16(0.007f * u));
      if (type == DType::q6_k) put(at + 208, float_to_f16(0.0002f * u));
    }
  }
  w.values.resize(count);
  dequantize(type, w.bytes.data(), static_cast<int64_t>(count), w.values.data());
  w.matrix = {type, rows, columns, w.bytes.data()};
  return w;
}

struct Reference {
  Values nll, dh;
};
Reference reference(int64_t n, const Values &hidden, const Weights &w, const std::vector<int32_t> &labels, double scale) {
  const int64_t V = w.matrix.rows, d = w.matrix.columns;
  Reference r{Values(static_cast<size_t>(n)), Values(static_cast<size_t>(n * d))};
  Values z(static_cast<size_t>(V));
  for (int64_t t = 0; t < n; t++) {
    double maximum = -INFINITY, sum = 0;
    for (int64_t v = 0; v < V; v++) {
      double dot = 0;
      for (int64_t j = 0; j < d; j++) dot += hidden[static_cast<size_t>(t * d + j)] * w.values[static_cast<size_t>(v * d + j)];
      maximum = std::max(maximum, z[static_cast<size_t>(v)] = dot);
    }
    const double label_logit = z[static_cast<size_t>(labels[static_cast<size_t>(t)])];
    for (double &x : z) sum += x = std::exp(x - maximum);
    r.nll[static_cast<size_t>(t)] = maximum + std::log(sum) - label_logit;
    for (int64_t v = 0; v < V; v++) {
      const double weight = scale * (z[static_cast<size_t>(v)] / sum - (v == labels[static_cast<size_t>(t)] ? 1 : 0));
      for (int64_t j = 0; j < d; j++) r.dh[static_cast<size_t>(t * d + j)] += weight * w.values[static_cast<size_t>(v * d + j)];
    }
  }
  return r;
}

std::vector<int32_t> random_labels(int64_t n, int64_t V) {
  std::vector<int32_t> labels;
  for (int64_t t = 0; t < n; t++)
    labels.push_back(static_cast<int32_t>(random_bits(9, static_cast<uint64_t>(t)) % static_cast<uint64_t>(V)));
  labels.front() = static_cast<int32_t>(V - 1);
  labels.back() = 0;
  return labels;
}

struct Result {
  std::vector<float> nll;
  RowsData dh;
};
Result run(Backend &backend, RowsData &hidden, const Weights &w, const std::vector<int32_t> &labels, float scale,
           int64_t gap = 0) {
  Result r{std::vector<float>(labels.size(), NAN), RowsData(hidden.tokens(), hidden.n(), DType::f32, gap)};
  backend.cross_entropy(hidden.tokens(), hidden.rows(), w.matrix, labels.data(), r.nll.data(), scale, r.dh.rows());
  return r;
}
std::vector<float> run_loss(Backend &backend, RowsData &hidden, const Weights &w, const std::vector<int32_t> &labels) {
  std::vector<float> nll(labels.size(), NAN);
  backend.cross_entropy(hidden.tokens(), hidden.rows(), w.matrix, labels.data(), nll.data(), 1, Rows{});
  return nll;
}

TEST(CrossEntropyReference, ItsGradientIsTheCentralDifference) {
  const Weights w = make_weights(DType::f32, 11, 5);
  Values hidden = to_double(random_floats(3 * 5, 1));
  const std::vector<int32_t> labels = random_labels(3, 11);
  const Reference r = reference(3, hidden, w, labels, 0.25);
  const auto loss = [&] {
    double sum = 0;
    for (double x : reference(3, hidden, w, labels, 1).nll) sum += 0.25 * x;
    return sum;
  };
  for (size_t i = 0; i < hidden.size(); i++) {
    const double kept = hidden[i];
    hidden[i] = kept + 1e-6;
    const double above = loss();
    hidden[i] = kept - 1e-6;
    const double below = loss();
    hidden[i] = kept;
    ASSERT_NEAR((above - below) / 2e-6, r.dh[i], 1e-8);
  }
}

TEST(CrossEntropy, MatchesTheReferenceForEveryKindOfWeight) {
  struct Case {
    DType type;
    int64_t V, d;
  };
  for (const Case &c : {Case{DType::f32, 1000, 20}, Case{DType::f32, 37, 576}, Case{DType::bf16, 1500, 65},
                        Case{DType::q8_0, 1111, 96}, Case{DType::q4_1, 700, 32}, Case{DType::q4_k, 600, 256},
                        Case{DType::q6_k, 515, 256}, Case{DType::f32, 1, 7}, Case{DType::f32, 70, 3000}}) {
    const Weights w = make_weights(c.type, c.V, c.d, 2 / std::sqrt(static_cast<double>(c.d)));
    for (int64_t n : {1, 2, 8, 9, 53}) {
      RowsData hidden = random_rows(n, c.d, DType::f32, 5);
      const std::vector<int32_t> labels = random_labels(n, c.V);
      const Reference expected = reference(n, to_double(hidden.values()), w, labels, 0.125);
      for (const auto &backend : all_backends(2)) {
        SCOPED_TRACE(text(backend->name(), " ", dtype_info(c.type).name, " V ", c.V, " d ", c.d, " n ", n));
        const Result got = run(*backend, hidden, w, labels, 0.125f, 3);
        const std::vector<float> loss = run_loss(*backend, hidden, w, labels);
        if (c.V == 1) {
          for (float x : got.nll) EXPECT_EQ(x, 0);
          for (float x : got.dh.values()) EXPECT_NEAR(x, 0, 1e-7);
          continue;
        }
        EXPECT_LT(nmse(expected.nll, got.nll), tolerance(DType::f32)) << "nll";
        EXPECT_LT(nmse(expected.nll, loss), tolerance(DType::f32)) << "nll alone";
        EXPECT_LT(nmse(expected.dh, got.dh.values()), tolerance(DType::f32)) << "dh";
        EXPECT_TRUE(got.dh.gap_untouched());
      }
    }
  }
}

TEST(CrossEntropy, ManyRowsMatchTheReference) {
  LARGE_CASE();
  const Weights w = make_weights(DType::q8_0, 3000, 64);
  const int64_t n = 1100;  // three blocks of rows
  RowsData hidden = random_rows(n, 64, DType::f32, 5);
  const std::vector<int32_t> labels = random_labels(n, 3000);
  const Reference expected = reference(n, to_double(hidden.values()), w, labels, 1);
  for (const auto &backend : all_backends(2)) {
    const Result got = run(*backend, hidden, w, labels, 1);
    EXPECT_LT(nmse(expected.nll, got.nll), tolerance(DType::f32)) << backend->name();
    EXPECT_LT(nmse(expected.dh, got.dh.values()), tolerance(DType::f32)) << backend->name();
    EXPECT_TRUE(same_bits(got.nll, run_loss(*backend, hidden, w, labels))) << backend->name();
  }
}

TEST(CrossEntropy, TakesBf16RowsWithGaps) {
  struct Case {
    int64_t tokens, V, d;
  };
  for (const Case &c : {Case{3, 300, 33}, Case{40, 300, 33}, Case{40, 300, 36}, Case{70, 1111, 64}, Case{130, 517, 576}}) {
    const Weights w = make_weights(DType::f32, c.V, c.d, 2 / std::sqrt(static_cast<double>(c.d)));
    RowsData hidden = random_rows(c.tokens, c.d, DType::bf16, 5, 1, 12);
    const std::vector<int32_t> labels = random_labels(c.tokens, c.V);
    const Reference expected = reference(c.tokens, to_double(hidden.values()), w, labels, 1);
    for (const auto &backend : all_backends(2)) {
      SCOPED_TRACE(text(backend->name(), " V ", c.V, " d ", c.d, " n ", c.tokens));
      const bool rounds = has_bf16_operands(*backend) && c.d % cpu::kBf16Step == 0;  // other widths are multiplied in f32
      const double most = tolerance(rounds ? DType::bf16 : DType::f32);
      EXPECT_LT(nmse(expected.nll, run_loss(*backend, hidden, w, labels)), most);
      EXPECT_LT(nmse(expected.dh, run(*backend, hidden, w, labels, 1).dh.values()), most);
    }
  }
}

// A row whose label has nearly all of the probability: what is left of its gradient is small beside the label's weights.
TEST(CrossEntropy, TheGradientOfACertainLabelIsNotRoundedAway) {
  constexpr int64_t kRows = 40, kVocabulary = 500, kWidth = 64;
  const Weights w = make_weights(DType::f32, kVocabulary, kWidth, 0.75);
  const std::vector<int32_t> labels = random_labels(kRows, kVocabulary);
  RowsData hidden(kRows, kWidth, DType::bf16);
  for (int64_t t = 0; t < kRows; t++) {
    const int64_t label = labels[static_cast<size_t>(t)];
    for (int64_t j = 0; j < kWidth; j++) hidden.set(t, j, static_cast<float>(w.values[static_cast<size_t>(label * kWidth + j)]));
  }
  const Reference expected = reference(kRows, to_double(hidden.values()), w, labels, 1);
  double largest = 0;
  for (const double nll : expected.nll) largest = std::max(largest, nll);
  ASSERT_LT(largest, 1e-2);
  for (const auto &backend : all_backends(2)) {
    const double most = has_bf16_operands(*backend) ? 1e-3 : 1e-8;
    EXPECT_LT(nmse(expected.dh, run(*backend, hidden, w, labels, 1).dh.values()), most) << backend->name();
  }
}

TEST(CrossEntropy, LargeLogitsDoNotOverflow) {
  const Weights w = make_weights(DType::f32, 900, 64, 3);
  RowsData hidden = random_rows(20, 64, DType::f32, 5, 10);  // logits of some hundred
  const std::vector<int32_t> labels = random_labels(20, 900);
  const Reference expected = reference(20, to_double(hidden.values()), w, labels, 1);
  for (const auto &backend : all_backends(1)) {
    const Result got = run(*backend, hidden, w, labels, 1);
    EXPECT_LT(nmse(expected.nll, got.nll), tolerance(DType::f32)) << backend->name();
    EXPECT_LT(nmse(expected.dh, got.dh.values()), 1e-8) << backend->name();
  }
}

TEST(CrossEntropy, EqualLogitsGiveTheLogarithmOfTheVocabulary) {
  const Weights w = make_weights(DType::q8_0, 5000, 32);
  RowsData hidden(10, 32, DType::f32);
  for (int64_t t = 0; t < 10; t++)
    for (int64_t j = 0; j < 32; j++) hidden.set(t, j, 0);
  for (const auto &backend : all_backends(2)) {
    for (float x : run_loss(*backend, hidden, w, random_labels(10, 5000)))
      EXPECT_NEAR(x, std::log(5000.0), 1e-6) << backend->name();
  }
}

TEST(CrossEntropy, IsBitEqualForAnyNumberOfThreads) {
  LARGE_CASE();
  const Weights w = make_weights(DType::q8_0, 2111, 64);
  for (int64_t n : {2, 70, 600}) {
    RowsData hidden = random_rows(n, 64, DType::f32, 5);
    const std::vector<int32_t> labels = random_labels(n, 2111);
    for (const BackendMaker &make : backend_makers()) {
      const Result one = run(*make(1), hidden, w, labels, 1);
      const std::vector<float> loss = run_loss(*make(1), hidden, w, labels);
      for (int threads : {2, 3}) {
        const Result more = run(*make(threads), hidden, w, labels, 1);
        EXPECT_TRUE(same_bits(one.nll, more.nll) && one.dh.same_bits(more.dh)) << make(1)->name() << " " << threads;
        EXPECT_TRUE(same_bits(loss, run_loss(*make(threads), hidden, w, labels)))
            << make(1)->name() << " " << threads;
      }
    }
  }
}

TEST(CrossEntropy, ANumberThatIsNotOneReachesItsRowOnly) {
  const Weights w = make_weights(DType::f32, 700, 33);
  for (int64_t n : {5, 30}) {
    RowsData hidden = random_rows(n, 33, DType::f32, 5);
    hidden.set(1, 7, NAN);
    const std::vector<int32_t> labels = random_labels(n, 700);
    for (const auto &backend : all_backends(1)) {
      const Result got = run(*backend, hidden, w, labels, 1);
      const std::vector<float> loss = run_loss(*backend, hidden, w, labels);
      for (int64_t t = 0; t < n; t++) {
        EXPECT_EQ(std::isnan(got.nll[static_cast<size_t>(t)]), t == 1) << backend->name();
        EXPECT_EQ(std::isnan(loss[static_cast<size_t>(t)]), t == 1) << backend->name();
        EXPECT_EQ(std::isnan(got.dh.at(t, 2)), t == 1) << backend->name();
      }
    }
  }
}

TEST(CrossEntropy, RefusesLabelsOutsideTheVocabulary) {
  const Weights w = make_weights(DType::f32, 10, 4);
  RowsData hidden = random_rows(2, 4, DType::f32, 5);
  const auto backend = best_backend(1);
  EXPECT_FAILS(run_loss(*backend, hidden, w, {3, 10}), Code::invalid, "row 1");
  EXPECT_FAILS(run_loss(*backend, hidden, w, {-1, 0}), Code::invalid, "row 0");
}

}  // namespace
}  // namespace moe::test
