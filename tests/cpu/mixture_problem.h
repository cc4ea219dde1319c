// Inputs of the FFN mixture and its two forms: what the tests of the fused op and of the default that it overrides share.
#pragma once
#include <algorithm>
#include <array>

#include "base/error.h"
#include "cpu/mixture_reference.h"

namespace moe::test::mixture {

struct Ranks {
  int64_t gate, up, down;
};

struct Case {
  int64_t tokens, hidden, intermediate;
  std::vector<Ranks> ranks;  // one for each expert
  Activation activation = Activation::silu;
  DType dtype = DType::f32;  // of the activations; y, dhbar and du are f32
};

inline std::string text_of(const Case &c) {
  return text("T ", c.tokens, ", d ", c.hidden, ", f ", c.intermediate, ", experts ", c.ranks.size(),
              c.activation == Activation::silu ? ", silu" : ", gelu", c.dtype == DType::f32 ? ", f32" : ", bf16");
}

inline std::vector<double> doubles(const RowsData &x) { return to_double(x.values()); }

// One set of inputs in both forms: the library's arrays, and the reference on the same (rounded) values.
struct Problem {
  Case c;
  RowsData u, a0, b0, delta, dhbar;
  std::vector<uint8_t> selected;
  std::vector<float> gates;
  struct Factors {
    std::vector<float> a, b;
  };
  std::vector<std::array<Factors, 3>> factors;
  std::vector<MixtureExpert> experts;

  explicit Problem(const Case &c_)
      : c(c_), u(random_rows(c.tokens, c.hidden, c.dtype, 1, 1, 3)), a0(random_rows(c.tokens, c.intermediate, c.dtype, 2, 1, 5)),
        b0(random_rows(c.tokens, c.intermediate, c.dtype, 3, 1, 0)), delta(random_rows(c.tokens, c.hidden, c.dtype, 4, 1, 1)),
        dhbar(random_rows(c.tokens, c.intermediate, DType::f32, 5, 1, 2)) {
    const size_t count = static_cast<size_t>(c.tokens) * c.ranks.size();
    selected.resize(count);
    gates.resize(count);
    for (size_t i = 0; i < count; i++) {
      selected[i] = random_uniform(6, i) < 0.5;
      gates[i] = selected[i] ? static_cast<float>(random_uniform(7, i)) : 0;
    }
    factors.resize(c.ranks.size());
    for (size_t i = 0; i < c.ranks.size(); i++) {
      const Ranks &r = c.ranks[i];
      MixtureExpert e;
      e.gate = low_rank(i, 0, r.gate, c.hidden, c.intermediate);
      e.up = low_rank(i, 1, r.up, c.hidden, c.intermediate);
      e.down = low_rank(i, 2, r.down, c.intermediate, c.hidden);
      experts.push_back(e);
    }
  }

  LowRank low_rank(size_t expert, size_t which, int64_t rank, int64_t in, int64_t out) {
    if (rank == 0) return {};
    Factors &f = factors[expert][which];
    f.a = random_floats(rank * in, 100 + 10 * expert + which, 1 / std::sqrt(static_cast<double>(in)));
    f.b = random_floats(rank * out, 200 + 10 * expert + which, 1 / std::sqrt(static_cast<double>(rank)));
    return {rank, 0.5f + 0.25f * static_cast<float>(which), f.a.data(), f.b.data()};
  }

  FfnMixtureShape shape() const {
    return {c.tokens,     c.hidden,        c.intermediate, static_cast<int64_t>(c.ranks.size()),
            c.activation, selected.data(), gates.data()};
  }

  ReferenceMixture reference() const {
    ReferenceMixture r;
    r.tokens = c.tokens, r.hidden = c.hidden, r.intermediate = c.intermediate, r.activation = c.activation;
    r.selected = selected;
    r.gates = to_double(gates);
    r.u = doubles(u), r.a0 = doubles(a0), r.b0 = doubles(b0);
    for (size_t i = 0; i < experts.size(); i++) {
      const auto delta_of = [&](const LowRank &l, size_t which, int64_t in, int64_t out) {
        return ReferenceDelta{
            l.rank, in, out, static_cast<double>(l.scale), to_double(factors[i][which].a), to_double(factors[i][which].b)};
      };
      r.experts.push_back({delta_of(experts[i].gate, 0, c.hidden, c.intermediate),
                           delta_of(experts[i].up, 1, c.hidden, c.intermediate),
                           delta_of(experts[i].down, 2, c.intermediate, c.hidden)});
    }
    return r;
  }
};

// The backend's own op, or the default it overrides.
enum class Form { fused, composite };
inline constexpr Form kForms[] = {Form::fused, Form::composite};
inline const char *text_of(Form form) { return form == Form::fused ? "fused" : "composite"; }

struct Outputs {
  RowsData hbar, y;
};
inline Outputs forward(Backend &backend, Problem &p, Form form = Form::fused) {
  Outputs out{RowsData(p.c.tokens, p.c.intermediate, p.c.dtype, 4), random_rows(p.c.tokens, p.c.hidden, DType::f32, 8, 1, 1)};
  const FfnMixtureShape shape = p.shape();
  const Rows u = p.u.rows(), a0 = p.a0.rows(), b0 = p.b0.rows(), hbar = out.hbar.rows(), y = out.y.rows();
  if (form == Form::fused) backend.ffn_mixture(shape, p.experts, u, a0, b0, hbar, y);
  else backend.Backend::ffn_mixture(shape, p.experts, u, a0, b0, hbar, y);
  return out;
}

struct Gradients {
  RowsData da0, db0, du;
  std::vector<float> dgates;
  std::vector<std::array<Problem::Factors, 3>> factors;
};
inline void backward(Backend &backend, Problem &p, std::span<const MixtureExpert> experts, Rows da0, Rows db0, Rows du,
                     float *dgates, Form form) {
  const FfnMixtureShape shape = p.shape();
  const Rows u = p.u.rows(), a0 = p.a0.rows(), b0 = p.b0.rows(), dhbar = p.dhbar.rows(), delta = p.delta.rows();
  if (form == Form::fused) backend.ffn_mixture_backward(shape, experts, u, a0, b0, dhbar, delta, da0, db0, du, dgates);
  else backend.Backend::ffn_mixture_backward(shape, experts, u, a0, b0, dhbar, delta, da0, db0, du, dgates);
}
inline Gradients backward(Backend &backend, Problem &p, bool train_experts, Form form = Form::fused) {
  Gradients g{RowsData(p.c.tokens, p.c.intermediate, p.c.dtype, 2),
              RowsData(p.c.tokens, p.c.intermediate, p.c.dtype),
              random_rows(p.c.tokens, p.c.hidden, DType::f32, 9, 1, 1),
              std::vector<float>(p.gates.size(), std::nanf("")),
              {}};
  std::vector<MixtureExpert> experts = p.experts;
  g.factors.resize(experts.size());
  for (size_t i = 0; train_experts && i < experts.size(); i++) {
    LowRankGradient *gradients[] = {&experts[i].gate_gradient, &experts[i].up_gradient, &experts[i].down_gradient};
    for (size_t which = 0; which < 3; which++) {
      g.factors[i][which].a.assign(p.factors[i][which].a.size(), 0.25f);  // gradients are added
      g.factors[i][which].b.assign(p.factors[i][which].b.size(), 0.25f);
      *gradients[which] = {g.factors[i][which].a.data(), g.factors[i][which].b.data()};
    }
  }
  backward(backend, p, experts, g.da0.rows(), g.db0.rows(), g.du.rows(), g.dgates.data(), form);
  return g;
}

}  // namespace moe::test::mixture
