// The projection with low-rank terms, composed of the simpler ops, against plain double-precision loops.
#include <gtest/gtest.h>

#include <array>

#include "base/error.h"
#include "support/reference.h"

namespace moe::test {
namespace {

using Doubles = std::vector<double>;

struct Term {
  int64_t rank;
  bool gated;
  float dropout;
};
struct Case {
  int64_t tokens, in, out;
  std::vector<Term> terms;
  DType dtype = DType::f32;
  bool bias = true;
  Store store = Store::set;
};
std::string text_of(const Case &c) {
  std::string terms;
  for (const Term &t : c.terms) terms += text(" ", t.rank, t.gated ? "g" : "", t.dropout > 0 ? "d" : "");
  return text("T ", c.tokens, ", ", c.in, " -> ", c.out, ", terms", terms, c.dtype == DType::f32 ? ", f32" : ", bf16",
              c.bias ? ", bias" : "", c.store == Store::add ? ", add" : "");
}

Doubles doubles(const RowsData &x) { return to_double(x.values()); }

struct Problem {
  Case c;
  RowsData x, dy;
  std::vector<float> w, bias, gates;                      // gates [T, terms]
  std::vector<std::array<std::vector<float>, 3>> arrays;  // A, B, u of each term
  std::vector<LowRankTerm> terms;

  explicit Problem(const Case &c_)
      : c(c_), x(random_rows(c.tokens, c.in, c.dtype, 1, 1, 2)), dy(random_rows(c.tokens, c.out, c.dtype, 2, 1, 1)),
        w(random_floats(c.out * c.in, 3, 1 / std::sqrt(static_cast<double>(c.in)))), bias(random_floats(c.out, 4)),
        gates(random_floats(c.tokens * static_cast<int64_t>(c.terms.size()), 5)), arrays(c.terms.size()) {
    if (c.dtype == DType::bf16) {  // a bf16 product rounds its f32 operands; bf16 values stay what they are
      for (float &value : w) value = bf16_to_float(float_to_bf16(value));
    }
    for (size_t i = 0; i < c.terms.size(); i++) {
      const int64_t rank = c.terms[i].rank;
      arrays[i] = {random_floats(rank * c.in, 10 + i, 1 / std::sqrt(static_cast<double>(c.in))),
                   random_floats(c.out * rank, 20 + i), std::vector<float>(static_cast<size_t>(c.tokens * rank), NAN)};
      if (c.dtype == DType::bf16) {
        for (float &value : arrays[i][0]) value = bf16_to_float(float_to_bf16(value));
        for (float &value : arrays[i][1]) value = bf16_to_float(float_to_bf16(value));
      }
      LowRankTerm term;
      term.factors = {rank, 0.5f + static_cast<float>(i), arrays[i][0].data(), arrays[i][1].data()};
      term.u = arrays[i][2].data();
      if (c.terms[i].gated) term.gate = &gates[i], term.gate_stride = static_cast<int64_t>(c.terms.size());
      term.dropout = c.terms[i].dropout, term.dropout_seed = 77, term.dropout_stream = i;
      terms.push_back(term);
    }
  }
  Matrix matrix() const { return {DType::f32, c.out, c.in, w.data()}; }
  double gate(size_t term, int64_t t) const {
    return c.terms[term].gated ? static_cast<double>(gates[static_cast<size_t>(t) * c.terms.size() + term]) : 1;
  }
  double scale(size_t term) const { return static_cast<double>(terms[term].factors.scale); }
  std::vector<float> scratch() const {
    return std::vector<float>(static_cast<size_t>(Backend::projection_scratch(c.tokens, c.in, c.out, terms)), NAN);
  }
  // drop(v) of a term, by the op that has a test of its own
  Doubles dropped(Backend &backend, size_t term, RowsData v) const {
    if (c.terms[term].dropout == 0) return doubles(v);
    RowsData out(c.tokens, v.n(), DType::f32);
    backend.dropout(c.tokens, v.n(), v.rows(), c.terms[term].dropout, 77, term, out.rows());
    return doubles(out);
  }
  Doubles factor(size_t term, size_t which) const { return to_double(arrays[term][which]); }
  RowsData output() const {
    return c.store == Store::add ? random_rows(c.tokens, c.out, DType::f32, 6, 1, 3) : RowsData(c.tokens, c.out, c.dtype, 3);
  }
};

// C[m, n] = sum_k a(m, k) b(k, n)
template <class A, class B>
Doubles product(int64_t m, int64_t n, int64_t k, A a, B b) {
  Doubles c(static_cast<size_t>(m * n));
  for (int64_t i = 0; i < m; i++)
    for (int64_t l = 0; l < k; l++)
      for (int64_t j = 0; j < n; j++) c[static_cast<size_t>(i * n + j)] += a(i, l) * b(l, j);
  return c;
}
auto plain(const Doubles &x, int64_t stride) {
  return [&x, stride](int64_t i, int64_t j) { return x[static_cast<size_t>(i * stride + j)]; };
}
auto transposed(const Doubles &x, int64_t stride) {
  return [&x, stride](int64_t i, int64_t j) { return x[static_cast<size_t>(j * stride + i)]; };
}

std::vector<Case> cases() {
  std::vector<Case> all;
  const std::vector<Term> none, one = {{4, false, 0}}, many = {{16, true, 0}, {0, false, 0}, {1, false, 0.25f}, {2, true, 0.5f}};
  for (const int64_t tokens : {1, 5, 33, 100}) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      all.push_back({tokens, 48, 100, none, dtype});
      all.push_back({tokens, 100, 48, one, dtype, false});
      all.push_back({tokens, 75, 61, {{7, false, 0}}, dtype});
      all.push_back({tokens, 37, 53, many, dtype});
    }
    all.push_back({tokens, 53, 37, many, DType::f32, true, Store::add});
    all.push_back({tokens, 53, 37, one, DType::f32, true, Store::add});
  }
  return all;
}

TEST(Projection, EqualsTheReference) {
  for (const auto &backend : all_backends(2)) {
    for (const Case &c : cases()) {
      SCOPED_TRACE(text(backend->name(), ": ", text_of(c)));
      Problem p(c);
      RowsData y = p.output();
      Doubles expected = c.store == Store::add ? doubles(y) : Doubles(static_cast<size_t>(c.tokens * c.out));
      std::vector<float> scratch = p.scratch();
      backend->projection(c.tokens, p.x.rows(), p.matrix(), c.bias ? p.bias.data() : nullptr, p.terms, y.rows(), c.store,
                          scratch.data());

      const Doubles x = doubles(p.x), w = to_double(p.w),
                    base = product(c.tokens, c.out, c.in, plain(x, c.in), transposed(w, c.in));
      for (size_t i = 0; i < base.size(); i++)
        expected[i] += base[i] + (c.bias ? static_cast<double>(p.bias[i % static_cast<size_t>(c.out)]) : 0);
      for (size_t i = 0; i < c.terms.size(); i++) {
        const int64_t r = c.terms[i].rank;
        const Doubles input = p.dropped(*backend, i, p.x), a = p.factor(i, 0), b = p.factor(i, 1);
        const Doubles u = product(c.tokens, r, c.in, plain(input, c.in), transposed(a, c.in));
        const Doubles delta = product(c.tokens, c.out, r, plain(u, r), transposed(b, r));
        EXPECT_LT(nmse(u, p.arrays[i][2]), tolerance(DType::f32)) << "u of term " << i;
        for (size_t j = 0; j < delta.size(); j++) {
          expected[j] += p.scale(i) * p.gate(i, static_cast<int64_t>(j) / c.out) * delta[j];
        }
      }
      EXPECT_LT(nmse(expected, y.values()), tolerance(c.dtype));
      EXPECT_TRUE(y.gap_untouched());
    }
  }
}

struct Gradients {
  RowsData dx;
  std::vector<float> dgates;
  std::vector<std::array<std::vector<float>, 2>> factors;
};
template <class Op>  // a Backend, or the composite
Gradients backward(Op &backend, Problem &p) {
  const Case &c = p.c;
  Gradients g{c.store == Store::add ? random_rows(c.tokens, c.in, DType::f32, 7, 1, 3) : RowsData(c.tokens, c.in, c.dtype, 3),
              std::vector<float>(p.gates.size()),
              {}};
  RowsData y = p.output();
  std::vector<float> scratch = p.scratch();
  backend.projection(c.tokens, p.x.rows(), p.matrix(), nullptr, p.terms, y.rows(), c.store, scratch.data());
  g.factors.resize(c.terms.size());
  std::vector<LowRankTerm> terms = p.terms;
  for (size_t i = 0; i < terms.size(); i++) {
    g.factors[i][0].assign(p.arrays[i][0].size(), 0.25f);
    g.factors[i][1].assign(p.arrays[i][1].size(), 0.25f);
    terms[i].gradient = {g.factors[i][0].data(), g.factors[i][1].data()};
    if (c.terms[i].gated) terms[i].gate_gradient = &g.dgates[i];
  }
  scratch = p.scratch();
  backend.projection_backward(c.tokens, p.x.rows(), p.matrix(), terms, p.dy.rows(), g.dx.rows(), c.store, scratch.data());
  return g;
}

TEST(Projection, GradientsEqualTheReference) {
  for (const auto &backend : all_backends(2)) {
    for (const Case &c : cases()) {
      SCOPED_TRACE(text(backend->name(), ": ", text_of(c)));
      Problem p(c);
      const Gradients got = backward(*backend, p);
      const Doubles dy = doubles(p.dy), w = to_double(p.w);
      Doubles dx = product(c.tokens, c.in, c.out, plain(dy, c.out), plain(w, c.in));
      if (c.store == Store::add) {
        const Doubles before = doubles(random_rows(c.tokens, c.in, DType::f32, 7));
        for (size_t i = 0; i < dx.size(); i++) dx[i] += before[i];
      }
      Doubles dgates(p.gates.size());
      for (size_t i = 0; i < c.terms.size(); i++) {
        const int64_t r = c.terms[i].rank;
        const Doubles input = p.dropped(*backend, i, p.x), a = p.factor(i, 0), b = p.factor(i, 1);
        Doubles u = product(c.tokens, r, c.in, plain(input, c.in), transposed(a, c.in));
        Doubles v = product(c.tokens, r, c.out, plain(dy, c.out), plain(b, r));
        for (int64_t t = 0; t < c.tokens; t++)
          for (int64_t j = 0; j < r; j++) {
            const size_t at = static_cast<size_t>(t * r + j);
            if (c.terms[i].gated) dgates[static_cast<size_t>(t) * c.terms.size() + i] += p.scale(i) * u[at] * v[at];
            u[at] *= p.scale(i) * p.gate(i, t);
            v[at] *= p.scale(i) * p.gate(i, t);
          }
        Doubles da = product(r, c.in, c.tokens, transposed(v, r), plain(input, c.in)),
                db = product(c.out, r, c.tokens, transposed(dy, c.out), plain(u, r));
        for (double &value : da) value += 0.25;  // gradients are added
        for (double &value : db) value += 0.25;
        EXPECT_LT(nmse(da, got.factors[i][0]), tolerance(DType::f32)) << "A of term " << i;
        EXPECT_LT(nmse(db, got.factors[i][1]), tolerance(DType::f32)) << "B of term " << i;
        const Doubles back = product(c.tokens, c.in, r, plain(v, r), plain(a, c.in));
        RowsData rounded(c.tokens, c.in, DType::f32);
        for (int64_t t = 0; t < c.tokens; t++)
          for (int64_t j = 0; j < c.in; j++) rounded.set(t, j, static_cast<float>(back[static_cast<size_t>(t * c.in + j)]));
        const Doubles masked = p.dropped(*backend, i, rounded);
        for (size_t j = 0; j < dx.size(); j++) dx[j] += masked[j];
      }
      EXPECT_LT(nmse(dx, got.dx.values()), tolerance(c.dtype));
      EXPECT_LT(nmse(dgates, got.dgates), tolerance(DType::f32));
      EXPECT_TRUE(got.dx.gap_untouched());
    }
  }
}

// <dy, y> is what the gradients belong to: its slopes in x, a gate and the factors, by central differences of the op in f32.
TEST(Projection, GradientsAreTheSlopesOfTheForwardPass) {
  LARGE_CASE();
  const auto backend = best_backend(1);
  Problem p({6, 11, 13, {{3, true, 0.25f}, {2, false, 0}}});
  const auto loss = [&] {
    RowsData y = p.output();
    std::vector<float> scratch = p.scratch();
    backend->projection(p.c.tokens, p.x.rows(), p.matrix(), p.bias.data(), p.terms, y.rows(), Store::set, scratch.data());
    double sum = 0;
    for (int64_t t = 0; t < p.c.tokens; t++)
      for (int64_t j = 0; j < p.c.out; j++) sum += y.at(t, j) * p.dy.at(t, j);
    return sum;
  };
  const Gradients g = backward(*backend, p);
  const auto slope = [&](float &value) {  // the loss is linear in each value, so a large step costs nothing
    const float kept = value;
    value = kept + 0.5f;
    const double above = loss();
    value = kept - 0.5f;
    const double below = loss();
    value = kept;
    return above - below;
  };
  for (size_t i = 0; i < 2; i++)
    for (size_t which = 0; which < 2; which++)
      for (size_t j = 0; j < p.arrays[i][which].size(); j++) {
        EXPECT_NEAR(g.factors[i][which][j] - 0.25f, slope(p.arrays[i][which][j]), 1e-3) << i << " " << which << " " << j;
      }
  for (size_t j = 0; j < p.gates.size(); j += 2) EXPECT_NEAR(g.dgates[j], slope(p.gates[j]), 1e-3) << j;
  auto *x = static_cast<float *>(p.x.rows().data);
  for (int64_t t = 0; t < p.c.tokens; t++)
    for (int64_t j = 0; j < p.c.in; j++) EXPECT_NEAR(g.dx.at(t, j), slope(x[t * p.x.rows().stride + j]), 1e-3) << t << " " << j;
}

TEST(Projection, WithoutInputGradientOnlyTheTermsAreFilled) {
  for (const auto &backend : all_backends(2)) {
    Problem p({33, 37, 53, {{4, true, 0}, {2, false, 0.5f}}});
    const Gradients all = backward(*backend, p);
    std::vector<LowRankTerm> terms = p.terms;
    std::vector<float> a(p.arrays[0][0].size(), 0.25f), b(p.arrays[1][1].size(), 0.25f), scratch = p.scratch();
    terms[0].gradient.a = a.data();
    terms[1].gradient.b = b.data();
    backend->projection_backward(33, p.x.rows(), p.matrix(), terms, p.dy.rows(), Rows{}, Store::set, scratch.data());
    EXPECT_TRUE(same_bits(a, all.factors[0][0])) << backend->name();
    EXPECT_TRUE(same_bits(b, all.factors[1][1])) << backend->name();
  }
}

TEST(Projection, ZeroFactorsGiveTheBitsOfThePlainProduct) {
  for (const auto &backend : all_backends(2)) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      for (const int64_t tokens : {3, 40}) {
        Problem p({tokens, 37, 53, {{4, true, 0}}, dtype, false});
        std::fill(p.arrays[0][1].begin(), p.arrays[0][1].end(), 0.0f);
        RowsData plain(tokens, 53, dtype), y(tokens, 53, dtype);
        std::vector<float> scratch = p.scratch();
        backend->matmul(tokens, p.x.rows(), p.matrix(), plain.rows(), Store::set);
        backend->projection(tokens, p.x.rows(), p.matrix(), nullptr, p.terms, y.rows(), Store::set, scratch.data());
        EXPECT_TRUE(y.same_bits(plain)) << backend->name();
      }
    }
  }
}

TEST(Projection, ThreadsDoNotChangeABit) {
  for (const BackendMaker &make : backend_makers()) {
    Problem p({150, 70, 90, {{16, true, 0}, {3, false, 0.5f}}, DType::bf16});
    const Gradients one = backward(*make(1), p), two = backward(*make(2), p);
    EXPECT_TRUE(one.dx.same_bits(two.dx) && same_bits(one.dgates, two.dgates)) << make(1)->name();
    for (size_t i = 0; i < 2; i++)
      for (size_t which = 0; which < 2; which++)
        EXPECT_TRUE(same_bits(one.factors[i][which], two.factors[i][which])) << make(1)->name();
  }
}

// A backend that computes projections as the composite of tensor/backend.cpp does, over all tokens.
struct Composite {
  Backend &backend;
  void projection(int64_t tokens, Rows x, const Matrix &w, const float *bias, std::span<LowRankTerm> terms, Rows y, Store store,
                  float *scratch) {
    backend.Backend::projection(tokens, x, w, bias, terms, y, store, scratch);
  }
  void projection_backward(int64_t tokens, Rows x, const Matrix &w, std::span<LowRankTerm> terms, Rows dy, Rows dx, Store store,
                           float *scratch) {
    backend.Backend::projection_backward(tokens, x, w, terms, dy, dx, store, scratch);
  }
};

// Terms with gates, of which none, one, some and all tokens have one other than 0, beside terms without.
struct RoutedProblem : Problem {
  explicit RoutedProblem(int64_t tokens, DType dtype, Store store = Store::set)
      : Problem({tokens, 64, 150, {{16, true, 0}, {3, true, 0}, {5, false, 0}, {40, true, 0}, {0, true, 0}, {7, true, 0}}, dtype, true,
                 store}) {
    for (int64_t t = 0; t < tokens; t++) {
      set_gate(t, 0, 0);
      if (t != tokens / 2) set_gate(t, 1, 0);
      if (random_uniform(8, static_cast<uint64_t>(t)) < 0.75) set_gate(t, 3, 0);
    }
  }
  void set_gate(int64_t t, size_t term, float value) { gates[static_cast<size_t>(t) * c.terms.size() + term] = value; }
  bool active(int64_t t, size_t term) const { return !c.terms[term].gated || gate(term, t) != 0; }
};

constexpr int64_t kRoutedTokens[] = {1, 5, 9, 33, 150, 700};

TEST(Projection, RoutedTermsEqualTheComposite) {
  for (const auto &backend : all_backends(2)) {
    Composite composite{*backend};
    for (const int64_t tokens : kRoutedTokens) {
      for (const DType dtype : {DType::f32, DType::bf16}) {
        for (const Store store : {Store::set, Store::add}) {
          RoutedProblem p(tokens, dtype, store);
          SCOPED_TRACE(text(backend->name(), ": ", text_of(p.c)));
          RowsData expected = p.output(), y = p.output();
          std::vector<float> scratch = p.scratch();
          composite.projection(tokens, p.x.rows(), p.matrix(), p.bias.data(), p.terms, expected.rows(), store, scratch.data());
          scratch = p.scratch();
          backend->projection(tokens, p.x.rows(), p.matrix(), p.bias.data(), p.terms, y.rows(), store, scratch.data());
          EXPECT_LT(nmse(doubles(expected), y.values()), tolerance(y.dtype()));
          EXPECT_TRUE(y.gap_untouched());

          const Gradients got = backward(*backend, p), wanted = backward(composite, p);
          EXPECT_LT(nmse(doubles(wanted.dx), got.dx.values()), tolerance(got.dx.dtype()));
          EXPECT_TRUE(got.dx.gap_untouched());
          for (size_t i = 0; i < p.terms.size(); i++) {
            for (size_t which = 0; which < 2 && p.c.terms[i].rank > 0; which++)
              EXPECT_LT(nmse(to_double(wanted.factors[i][which]), got.factors[i][which]), tolerance(DType::f32)) << i << " " << which;
            for (int64_t t = 0; t < tokens; t++) {  // the gate gradient of a token that is left out may be 0
              const size_t at = static_cast<size_t>(t) * p.terms.size() + i;
              if (!p.active(t, i)) continue;
              EXPECT_NEAR(wanted.dgates[at], got.dgates[at], 2e-4 * (1 + std::abs(wanted.dgates[at])));
            }
          }
        }
      }
    }
  }
}

TEST(Projection, RoutedTermsTakeInt8Rows) {
  for (const auto &backend : all_backends(2)) {
    for (const int64_t tokens : kRoutedTokens) {
      RoutedProblem p(tokens, DType::f32);
      std::vector<uint8_t> bytes(static_cast<size_t>(tokens * row_bytes(DType::i8, p.c.in)));
      const Rows x{bytes.data(), DType::i8, p.c.in};
      backend->copy(tokens, p.c.in, p.x.rows(), x, Store::set);
      RowsData expected = p.output(), y = p.output();
      std::vector<float> scratch = p.scratch();
      backend->Backend::projection(tokens, x, p.matrix(), nullptr, p.terms, expected.rows(), Store::set, scratch.data());
      backend->projection(tokens, x, p.matrix(), nullptr, p.terms, y.rows(), Store::set, scratch.data());
      EXPECT_LT(nmse(doubles(expected), y.values()), tolerance(DType::f32)) << backend->name() << ", T " << tokens;
    }
  }
}

TEST(Projection, TermsThatNoTokenSelectsChangeNoBit) {
  for (const auto &backend : all_backends(2)) {
    for (const int64_t tokens : {3, 100}) {
      RoutedProblem p(tokens, DType::f32);
      std::fill(p.gates.begin(), p.gates.end(), 0.0f);
      std::vector<LowRankTerm> ungated = {p.terms[2]};
      RowsData expected = p.output(), y = p.output();
      std::vector<float> scratch = p.scratch();
      backend->projection(tokens, p.x.rows(), p.matrix(), nullptr, ungated, expected.rows(), Store::set, scratch.data());
      backend->projection(tokens, p.x.rows(), p.matrix(), nullptr, p.terms, y.rows(), Store::set, scratch.data());
      EXPECT_TRUE(y.same_bits(expected)) << backend->name();
      const Gradients g = backward(*backend, p);
      for (const size_t i : {0, 1, 3, 5}) {
        for (const auto &gradient : g.factors[i])
          for (const float value : gradient) ASSERT_EQ(value, 0.25f) << backend->name() << ", term " << i;
      }
    }
  }
}

TEST(Projection, ThreadsDoNotChangeABitOfRoutedTerms) {
  for (const BackendMaker &make : backend_makers()) {
    const auto one = make(1), two = make(2);
    for (const int64_t tokens : kRoutedTokens) {
      RoutedProblem p(tokens, DType::bf16);
      RowsData first = p.output(), second = p.output();
      std::vector<float> scratch = p.scratch();
      one->projection(tokens, p.x.rows(), p.matrix(), p.bias.data(), p.terms, first.rows(), Store::set, scratch.data());
      two->projection(tokens, p.x.rows(), p.matrix(), p.bias.data(), p.terms, second.rows(), Store::set, scratch.data());
      EXPECT_TRUE(first.same_bits(second)) << one->name();
      const Gradients a = backward(*one, p), b = backward(*two, p);
      EXPECT_TRUE(a.dx.same_bits(b.dx) && same_bits(a.dgates, b.dgates)) << one->name();
      for (size_t i = 0; i < p.terms.size(); i++)
        for (size_t which = 0; which < 2; which++) EXPECT_TRUE(same_bits(a.factors[i][which], b.factors[i][which])) << one->name();
    }
  }
}

TEST(RowDots, AddScaledDotProductsAtAStride) {
  for (const auto &backend : all_backends(2)) {
    for (const int64_t n : {1, 16, 37}) {
      RowsData x = random_rows(70, n, DType::f32, 1, 1, 1), y = random_rows(70, n, DType::bf16, 2, 1, 2);
      std::vector<float> out(210, 0.5f);
      backend->row_dots(70, n, x.rows(), y.rows(), 1.5f, out.data() + 1, 3);
      Doubles expected(210, 0.5);
      for (int64_t t = 0; t < 70; t++)
        for (int64_t j = 0; j < n; j++) expected[static_cast<size_t>(3 * t + 1)] += 1.5 * x.at(t, j) * y.at(t, j);
      EXPECT_LT(nmse(expected, out), 1e-11) << backend->name();
    }
  }
}

}  // namespace
}  // namespace moe::test
