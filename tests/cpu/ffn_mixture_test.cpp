// The FFN mixture, fused and as the composite of simpler ops that it overrides, against a double-precision reference in which
// every expert is a whole network of its own, and against each other.
#include <gtest/gtest.h>

#include <algorithm>

#include "base/error.h"
#include "cpu/mixture_problem.h"

namespace moe::test {
namespace {

using namespace mixture;

// Of values that were added to `before`.
double nmse_of_sum(const std::vector<double> &expected, const std::vector<double> &before, const std::vector<float> &got) {
  std::vector<double> sum = expected;
  for (size_t i = 0; i < sum.size(); i++) sum[i] += before[i];
  return nmse(sum, got);
}

void expect_forward(Backend &backend, const Case &c, Form form) {
  SCOPED_TRACE(text(backend.name(), ", ", text_of(form), ": ", text_of(c)));
  Problem p(c);
  const Outputs got = forward(backend, p, form);
  const ReferenceMixture::Outputs expected = p.reference().forward();
  EXPECT_LT(nmse(expected.hbar, got.hbar.values()), tolerance(c.dtype));
  EXPECT_LT(nmse_of_sum(expected.y, doubles(random_rows(c.tokens, c.hidden, DType::f32, 8)), got.y.values()),
            tolerance(DType::f32));
  EXPECT_TRUE(got.hbar.gap_untouched());
  EXPECT_TRUE(got.y.gap_untouched());
}

void expect_backward(Backend &backend, const Case &c, Form form) {
  SCOPED_TRACE(text(backend.name(), ", ", text_of(form), ": ", text_of(c)));
  Problem p(c);
  const Gradients got = backward(backend, p, true, form), frozen = backward(backend, p, false, form);
  const ReferenceMixture::Gradients expected = p.reference().backward(doubles(p.dhbar), doubles(p.delta));
  EXPECT_LT(nmse(expected.da0, got.da0.values()), tolerance(c.dtype));
  EXPECT_LT(nmse(expected.db0, got.db0.values()), tolerance(c.dtype));
  EXPECT_LT(nmse_of_sum(expected.du, doubles(random_rows(c.tokens, c.hidden, DType::f32, 9)), got.du.values()),
            tolerance(DType::f32));
  // One number for a whole token: terms of both signs mostly cancel, and so few of them do not average out.
  EXPECT_LT(nmse(expected.dgates, got.dgates), 10 * tolerance(DType::f32));
  for (size_t i = 0; i < p.selected.size(); i++) EXPECT_TRUE(p.selected[i] || got.dgates[i] == 0) << i;
  for (size_t i = 0; i < c.ranks.size(); i++) {
    const ReferenceDelta *deltas[] = {&expected.experts[i].gate, &expected.experts[i].up, &expected.experts[i].down};
    for (size_t which = 0; which < 3; which++) {
      SCOPED_TRACE(text("expert ", i + 1, ", factor ", which));
      const Problem::Factors &f = got.factors[i][which];
      EXPECT_LT(nmse_of_sum(deltas[which]->a, std::vector<double>(f.a.size(), 0.25), f.a), tolerance(DType::f32));
      EXPECT_LT(nmse_of_sum(deltas[which]->b, std::vector<double>(f.b.size(), 0.25), f.b), tolerance(DType::f32));
    }
  }
  // Whether the experts train changes nothing else.
  EXPECT_TRUE(got.da0.same_bits(frozen.da0) && got.db0.same_bits(frozen.db0) && got.du.same_bits(frozen.du));
  EXPECT_TRUE(same_bits(got.dgates, frozen.dgates));
  EXPECT_TRUE(got.da0.gap_untouched() && got.du.gap_untouched());
}

const std::vector<Ranks> kOne = {{4, 2, 16}};
const std::vector<Ranks> kThree = {{16, 4, 2}, {1, 0, 4}, {0, 0, 1}};
const std::vector<Ranks> kFive = {{2, 16, 0}, {0, 0, 0}, {16, 16, 16}, {0, 1, 0}, {4, 4, 1}};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const int64_t tokens : {1, 5, 33, 100}) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      all.push_back({tokens, 48, 100, kOne, Activation::silu, dtype});
      all.push_back({tokens, 37, 53, kThree, Activation::gelu_tanh, dtype});
      all.push_back({tokens, 37, 53, kFive, Activation::silu, dtype});
    }
  }
  all.push_back({70, 33, 300, kThree});  // several strips of columns
  all.push_back({5, 33, 300, kThree, Activation::gelu_tanh, DType::bf16});
  all.push_back({9, 1, 1, kOne});
  all.push_back({20, 150, 140, {{40, 30, 130}}});  // ranks of more than one panel, and of one strip
  return all;
}

TEST(FfnMixture, EqualsWholeNetworksTokenByToken) {
  for (const auto &backend : all_backends(2))
    for (const Case &c : cases())
      for (const Form form : kForms) expect_forward(*backend, c, form);
}

TEST(FfnMixture, GradientsEqualThoseOfWholeNetworks) {
  for (const auto &backend : all_backends(2))
    for (const Case &c : cases())
      for (const Form form : kForms) expect_backward(*backend, c, form);
}

TEST(FfnMixture, FusedEqualsTheComposite) {
  for (const auto &backend : all_backends(2)) {
    for (const Case &c : cases()) {
      SCOPED_TRACE(text(backend->name(), ": ", text_of(c)));
      Problem p(c);
      const Outputs fused = forward(*backend, p), composite = forward(*backend, p, Form::composite);
      EXPECT_LT(nmse(doubles(composite.hbar), fused.hbar.values()), tolerance(c.dtype));
      EXPECT_LT(nmse(doubles(composite.y), fused.y.values()), tolerance(DType::f32));
      for (const bool train : {true, false}) {
        const Gradients got = backward(*backend, p, train), expected = backward(*backend, p, train, Form::composite);
        EXPECT_LT(nmse(doubles(expected.da0), got.da0.values()), tolerance(c.dtype));
        EXPECT_LT(nmse(doubles(expected.db0), got.db0.values()), tolerance(c.dtype));
        EXPECT_LT(nmse(doubles(expected.du), got.du.values()), tolerance(DType::f32));
        EXPECT_LT(nmse(to_double(expected.dgates), got.dgates), 10 * tolerance(DType::f32));
        for (size_t i = 0; i < c.ranks.size(); i++)
          for (size_t which = 0; which < 3; which++) {
            SCOPED_TRACE(text("expert ", i + 1, ", factor ", which));
            EXPECT_LT(nmse(to_double(expected.factors[i][which].a), got.factors[i][which].a), tolerance(DType::f32));
            EXPECT_LT(nmse(to_double(expected.factors[i][which].b), got.factors[i][which].b), tolerance(DType::f32));
          }
      }
    }
  }
}

TEST(FfnMixture, TokensThatSelectNothingGetTheBitsOfTheBase) {
  for (const auto &backend : all_backends(2)) {
    for (const Form form : kForms) {
      for (const int64_t tokens : {3, 40}) {
        SCOPED_TRACE(text(backend->name(), ", ", text_of(form), ", T ", tokens));
        Problem p({tokens, 37, 53, kFive, Activation::silu, DType::bf16});
        std::fill(p.selected.begin(), p.selected.end(), uint8_t{0});
        std::fill(p.gates.begin(), p.gates.end(), 0.0f);
        const Outputs got = forward(*backend, p, form);
        RowsData base(tokens, 53, DType::bf16, 4), da(tokens, 53, DType::bf16, 2), db(tokens, 53, DType::bf16);
        backend->gated_activation(tokens, 53, Activation::silu, p.a0.rows(), p.b0.rows(), base.rows());
        EXPECT_TRUE(got.hbar.same_bits(base));
        EXPECT_TRUE(got.y.same_bits(random_rows(tokens, 37, DType::f32, 8, 1, 1)));
        backend->gated_activation_backward(tokens, 53, Activation::silu, p.a0.rows(), p.b0.rows(), p.dhbar.rows(), da.rows(),
                                           db.rows());
        const Gradients g = backward(*backend, p, true, form);
        EXPECT_TRUE(g.da0.same_bits(da) && g.db0.same_bits(db));
        EXPECT_TRUE(g.du.same_bits(random_rows(tokens, 37, DType::f32, 9, 1, 1)));
        for (const float x : g.dgates) EXPECT_EQ(x, 0);
        for (const auto &expert : g.factors)
          for (const Problem::Factors &f : expert) {
            for (const float x : f.a) EXPECT_EQ(x, 0.25f);
            for (const float x : f.b) EXPECT_EQ(x, 0.25f);
          }
      }
    }
  }
}

// The reference itself: its gradients are the slopes of its loss.
TEST(FfnMixture, ReferenceGradientsEqualCentralDifferences) {
  for (const Activation activation : {Activation::silu, Activation::gelu_tanh}) {
    Problem p({4, 7, 9, kFive, activation});
    ReferenceMixture r = p.reference();
    const Doubles dhbar = doubles(p.dhbar), delta = doubles(p.delta);
    const ReferenceMixture::Gradients g = r.backward(dhbar, delta);
    const auto check = [&](Doubles &values, const Doubles &gradients, const char *name) {
      for (size_t i = 0; i < values.size(); i++) {
        const double kept = values[i], step = 1e-6;
        values[i] = kept + step;
        const double above = r.loss(dhbar, delta);
        values[i] = kept - step;
        const double below = r.loss(dhbar, delta);
        values[i] = kept;
        EXPECT_NEAR(gradients[i], (above - below) / (2 * step), 2e-7 * (1 + std::abs(gradients[i]))) << name << "[" << i << "]";
      }
    };
    check(r.u, g.du, "u");
    check(r.a0, g.da0, "a0");
    check(r.b0, g.db0, "b0");
    for (size_t i = 0; i < r.experts.size(); i++) {
      check(r.experts[i].gate.a, g.experts[i].gate.a, "gate a");
      check(r.experts[i].gate.b, g.experts[i].gate.b, "gate b");
      check(r.experts[i].up.a, g.experts[i].up.a, "up a");
      check(r.experts[i].up.b, g.experts[i].up.b, "up b");
      check(r.experts[i].down.a, g.experts[i].down.a, "down a");
      check(r.experts[i].down.b, g.experts[i].down.b, "down b");
    }
    Doubles selected_gradients = g.dgates;
    check(r.gates, selected_gradients, "gates");  // a gate that is not selected has slope 0
  }
}

// Invariant 1: with B = 0 the mixture is the base, bit for bit, whatever the gates.
TEST(FfnMixture, ZeroFactorsGiveTheBitsOfTheBase) {
  for (const auto &backend : all_backends(2)) {
    for (Case c : cases()) {
      SCOPED_TRACE(text(backend->name(), ": ", text_of(c)));
      Problem p(c);
      for (auto &expert : p.factors)
        for (Problem::Factors &f : expert) std::fill(f.b.begin(), f.b.end(), 0.0f);
      RowsData base(c.tokens, c.intermediate, c.dtype, 4);
      backend->gated_activation(c.tokens, c.intermediate, c.activation, p.a0.rows(), p.b0.rows(), base.rows());
      for (const Form form : kForms) {
        const Outputs got = forward(*backend, p, form);
        EXPECT_TRUE(got.hbar.same_bits(base)) << text_of(form);
        EXPECT_TRUE(got.y.same_bits(random_rows(c.tokens, c.hidden, DType::f32, 8, 1, 1))) << text_of(form);
        const Gradients g = backward(*backend, p, false, form);  // h_i = h_0 and no down output: no gate can matter
        for (const float x : g.dgates) EXPECT_EQ(x, 0) << text_of(form);
      }
    }
  }
}

TEST(FfnMixture, ZeroGatesGiveTheBitsOfTheBase) {
  for (const auto &backend : all_backends(1)) {
    for (const int64_t tokens : {3, 40}) {
      Problem p({tokens, 37, 53, kFive});
      std::fill(p.gates.begin(), p.gates.end(), 0.0f);
      const Outputs got = forward(*backend, p);
      RowsData base(tokens, 53, DType::f32, 4);
      backend->gated_activation(tokens, 53, Activation::silu, p.a0.rows(), p.b0.rows(), base.rows());
      EXPECT_TRUE(got.hbar.same_bits(base)) << backend->name();
    }
  }
}

// Invariant 2: one expert with gate 1 is the model whose weights have that adapter merged in.
TEST(FfnMixture, GateOneEqualsTheMergedNetwork) {
  const int64_t T = 21, d = 29, f = 61, rank = 5;
  const std::vector<float> g = random_floats(f * d, 11, 0.2), up = random_floats(f * d, 12, 0.2),
                           down = random_floats(d * f, 13, 0.2);
  const auto merged = [](std::vector<float> w, const LowRank &l, int64_t out, int64_t in) {
    for (int64_t o = 0; o < out; o++)
      for (int64_t j = 0; j < in; j++) {
        double sum = 0;
        for (int64_t r = 0; r < l.rank; r++)
          sum += static_cast<double>(l.b[o * l.rank + r]) * static_cast<double>(l.a[r * in + j]);
        w[static_cast<size_t>(o * in + j)] += l.scale * static_cast<float>(sum);
      }
    return w;
  };
  for (const auto &backend : all_backends(2)) {
    Problem p({T, d, f, {{rank, rank, rank}, {2, 2, 2}}});
    for (int64_t t = 0; t < T; t++) {
      p.selected[static_cast<size_t>(2 * t)] = 1, p.selected[static_cast<size_t>(2 * t + 1)] = 0;
      p.gates[static_cast<size_t>(2 * t)] = 1, p.gates[static_cast<size_t>(2 * t + 1)] = 0;
    }
    const auto network = [&](const std::vector<float> &wg, const std::vector<float> &wu, const std::vector<float> &wd,
                             bool mixture) {
      RowsData a(T, f, DType::f32), b(T, f, DType::f32), h(T, f, DType::f32), y(T, d, DType::f32);
      backend->matmul(T, p.u.rows(), {DType::f32, f, d, wg.data()}, a.rows(), Store::set);
      backend->matmul(T, p.u.rows(), {DType::f32, f, d, wu.data()}, b.rows(), Store::set);
      for (int64_t t = 0; t < T; t++)
        for (int64_t j = 0; j < d; j++) y.set(t, j, 0);
      if (mixture) backend->ffn_mixture(p.shape(), p.experts, p.u.rows(), a.rows(), b.rows(), h.rows(), y.rows());
      else backend->gated_activation(T, f, Activation::silu, a.rows(), b.rows(), h.rows());
      backend->matmul(T, h.rows(), {DType::f32, d, f, wd.data()}, y.rows(), Store::add);
      return y.values();
    };
    const MixtureExpert &e = p.experts[0];
    const std::vector<float> one = network(merged(g, e.gate, f, d), merged(up, e.up, f, d), merged(down, e.down, d, f), false);
    EXPECT_LT(nmse(to_double(one), network(g, up, down, true)), 1e-11) << backend->name();
  }
}

// Invariant 5: the order in which the experts stand means nothing.
TEST(FfnMixture, PermutedExpertsGiveTheSameOutput) {
  const int64_t T = 40, E = 3, order[] = {2, 0, 1};
  for (const auto &backend : all_backends(1)) {
    Problem p({T, 37, 53, kThree});
    const Outputs first = forward(*backend, p);
    const Gradients first_gradients = backward(*backend, p, false);
    const std::vector<MixtureExpert> experts = p.experts;
    const std::vector<uint8_t> selected = p.selected;
    const std::vector<float> gates = p.gates;
    for (int64_t i = 0; i < E; i++) {
      p.experts[static_cast<size_t>(i)] = experts[static_cast<size_t>(order[i])];
      for (int64_t t = 0; t < T; t++) {
        p.selected[static_cast<size_t>(t * E + i)] = selected[static_cast<size_t>(t * E + order[i])];
        p.gates[static_cast<size_t>(t * E + i)] = gates[static_cast<size_t>(t * E + order[i])];
      }
    }
    const Outputs second = forward(*backend, p);
    EXPECT_LT(nmse(doubles(first.hbar), second.hbar.values()), 1e-12) << backend->name();
    EXPECT_LT(nmse(doubles(first.y), second.y.values()), 1e-12) << backend->name();
    const Gradients second_gradients = backward(*backend, p, false);
    EXPECT_LT(nmse(doubles(first_gradients.du), second_gradients.du.values()), 1e-12) << backend->name();
  }
}

TEST(FfnMixture, ThreadsDoNotChangeABit) {
  for (const BackendMaker &make : backend_makers()) {
    const auto one = make(1), two = make(2), five = make(5);
    for (const Case &c : {Case{5, 48, 300, kFive}, Case{200, 48, 300, kFive, Activation::gelu_tanh, DType::bf16}}) {
      SCOPED_TRACE(text(make(1)->name(), ": ", text_of(c)));
      Problem p(c);
      const Outputs first = forward(*one, p);
      const Gradients expected = backward(*one, p, true);
      for (Backend *backend : {two.get(), five.get()}) {
        const Outputs got = forward(*backend, p);
        EXPECT_TRUE(got.hbar.same_bits(first.hbar) && got.y.same_bits(first.y));
        const Gradients g = backward(*backend, p, true);
        EXPECT_TRUE(g.da0.same_bits(expected.da0) && g.db0.same_bits(expected.db0) && g.du.same_bits(expected.du));
        EXPECT_TRUE(same_bits(g.dgates, expected.dgates));
        for (size_t i = 0; i < c.ranks.size(); i++)
          for (size_t which = 0; which < 3; which++) {
            EXPECT_TRUE(same_bits(g.factors[i][which].a, expected.factors[i][which].a));
            EXPECT_TRUE(same_bits(g.factors[i][which].b, expected.factors[i][which].b));
          }
      }
    }
  }
}

// Invariant 7: what other tokens hold and select changes no bit of a token.
TEST(FfnMixture, TokensAreIndependent) {
  const int64_t T = 100, d = 48, f = 100;
  for (const auto &backend : all_backends(1)) {
    Problem p({T, d, f, kFive});
    const Outputs before = forward(*backend, p);
    for (int64_t t = 50; t < T; t++) {
      for (int64_t j = 0; j < d; j++) p.u.set(t, j, -p.u.values()[static_cast<size_t>(j)]);
      for (int64_t i = 0; i < 5; i++) {
        p.selected[static_cast<size_t>(t * 5 + i)] ^= 1;
        p.gates[static_cast<size_t>(t * 5 + i)] = p.selected[static_cast<size_t>(t * 5 + i)] ? 0.5f : 0;
      }
    }
    const Outputs after = forward(*backend, p);
    for (int64_t t = 0; t < 50; t++) {
      for (int64_t j = 0; j < f; j++) EXPECT_EQ(before.hbar.at(t, j), after.hbar.at(t, j)) << backend->name();
      for (int64_t j = 0; j < d; j++) EXPECT_EQ(before.y.at(t, j), after.y.at(t, j)) << backend->name();
    }
  }
}

// Only the wanted gradients are computed; the others stay away.
TEST(FfnMixture, SingleFactorsCanTrain) {
  for (const auto &backend : all_backends(2)) {
    Problem p({33, 37, 53, {{4, 2, 3}}});
    const ReferenceMixture::Gradients expected = p.reference().backward(doubles(p.dhbar), doubles(p.delta));
    const ReferenceExpert &e = expected.experts[0];
    const Doubles *wanted[] = {&e.gate.a, &e.gate.b, &e.up.a, &e.up.b, &e.down.a, &e.down.b};
    for (size_t which = 0; which < 6; which++) {
      std::vector<MixtureExpert> experts = p.experts;
      float **slots[] = {&experts[0].gate_gradient.a, &experts[0].gate_gradient.b, &experts[0].up_gradient.a,
                         &experts[0].up_gradient.b,   &experts[0].down_gradient.a, &experts[0].down_gradient.b};
      for (const Form form : kForms) {
        std::vector<float> gradient(wanted[which]->size());
        *slots[which] = gradient.data();
        RowsData da0(33, 53, DType::f32), db0(33, 53, DType::f32);
        std::vector<float> dgates(33);
        backward(*backend, p, experts, da0.rows(), db0.rows(), Rows{}, dgates.data(), form);
        EXPECT_LT(nmse(*wanted[which], gradient), 1e-11) << backend->name() << ", " << text_of(form) << ", factor " << which;
      }
    }
  }
}

}  // namespace
}  // namespace moe::test
