// Plain double-precision reference of the FFN mixture: every expert is its own feed-forward network, token by token.
// The loss whose gradients are taken is <dhbar, hbar> + <delta, y>; u, a0, b0, the gates and the factors are independent.
#pragma once
#include <cmath>
#include <vector>

#include "support/reference.h"

namespace moe::test {

using Doubles = std::vector<double>;

// W = scale B A, stored [out, in] as the product of the factors.
struct ReferenceDelta {
  int64_t rank = 0, in = 0, out = 0;
  double scale = 0;
  Doubles a, b;  // [rank, in], [out, rank]

  Doubles low(const double *x) const {  // A x
    Doubles result(static_cast<size_t>(rank));
    for (int64_t r = 0; r < rank; r++)
      for (int64_t j = 0; j < in; j++) result[static_cast<size_t>(r)] += a[static_cast<size_t>(r * in + j)] * x[j];
    return result;
  }
  void add(const double *x, double factor, double *y) const {  // y += factor scale B A x
    const Doubles u = low(x);
    for (int64_t o = 0; o < out; o++)
      for (int64_t r = 0; r < rank; r++)
        y[o] += factor * scale * b[static_cast<size_t>(o * rank + r)] * u[static_cast<size_t>(r)];
  }
  // dx += scale A^T B^T dy; da, db likewise
  void add_backward(const double *x, const double *dy, double *dx, Doubles &da, Doubles &db) const {
    const Doubles u = low(x);
    for (int64_t r = 0; r < rank; r++) {
      double v = 0;
      for (int64_t o = 0; o < out; o++) {
        v += dy[o] * b[static_cast<size_t>(o * rank + r)];
        db[static_cast<size_t>(o * rank + r)] += scale * dy[o] * u[static_cast<size_t>(r)];
      }
      for (int64_t j = 0; j < in; j++) {
        dx[j] += scale * v * a[static_cast<size_t>(r * in + j)];
        da[static_cast<size_t>(r * in + j)] += scale * v * x[j];
      }
    }
  }
};

struct ReferenceExpert {
  ReferenceDelta gate, up, down;
};

struct ReferenceMixture {
  int64_t tokens = 0, hidden = 0, intermediate = 0;
  Activation activation = Activation::silu;
  std::vector<ReferenceExpert> experts;
  std::vector<uint8_t> selected;  // [T, E]
  Doubles gates;                  // [T, E]
  Doubles u, a0, b0;              // [T, d], [T, f], [T, f]

  struct Outputs {
    Doubles hbar, y;  // [T, f], [T, d]
  };
  struct Gradients {
    Doubles da0, db0, du, dgates;
    std::vector<ReferenceExpert> experts;  // a and b hold the gradients
  };

  double phi(double x) const {
    if (activation == Activation::silu) return x / (1 + std::exp(-x));
    return 0.5 * x * (1 + std::tanh(kGelu * (x + 0.044715 * x * x * x)));
  }
  double slope(double x) const {
    if (activation == Activation::silu) {
      const double s = 1 / (1 + std::exp(-x));
      return s * (1 + x * (1 - s));
    }
    const double t = std::tanh(kGelu * (x + 0.044715 * x * x * x));
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * kGelu * (1 + 3 * 0.044715 * x * x);
  }
  bool is_selected(int64_t t, size_t i) const { return selected[static_cast<size_t>(t) * experts.size() + i]; }

  // The whole network of one expert (nullptr: the base): a, b, h, and what its down delta adds to the output.
  struct Network {
    Doubles a, b, h, y;
  };
  Network network(int64_t t, const ReferenceExpert *e) const {
    const size_t f = static_cast<size_t>(intermediate);
    const auto row = [f, t](const Doubles &x) {
      return Doubles(x.begin() + static_cast<int64_t>(f) * t, x.begin() + static_cast<int64_t>(f) * (t + 1));
    };
    Network n{row(a0), row(b0), Doubles(f), Doubles(static_cast<size_t>(hidden))};
    if (e) e->gate.add(&u[static_cast<size_t>(t * hidden)], 1, n.a.data());
    if (e) e->up.add(&u[static_cast<size_t>(t * hidden)], 1, n.b.data());
    for (size_t j = 0; j < f; j++) n.h[j] = phi(n.a[j]) * n.b[j];
    if (e) e->down.add(n.h.data(), 1, n.y.data());
    return n;
  }

  Outputs forward() const {
    Outputs out{Doubles(a0.size()), Doubles(u.size())};
    for (int64_t t = 0; t < tokens; t++) {
      const Network base = network(t, nullptr);
      double *hbar = &out.hbar[static_cast<size_t>(t * intermediate)], *y = &out.y[static_cast<size_t>(t * hidden)];
      for (int64_t j = 0; j < intermediate; j++) hbar[j] = base.h[static_cast<size_t>(j)];
      for (size_t i = 0; i < experts.size(); i++) {
        if (!is_selected(t, i)) continue;
        const Network n = network(t, &experts[i]);
        const double g = gates[static_cast<size_t>(t) * experts.size() + i];
        for (int64_t j = 0; j < intermediate; j++) hbar[j] += g * (n.h[static_cast<size_t>(j)] - base.h[static_cast<size_t>(j)]);
        for (int64_t j = 0; j < hidden; j++) y[j] += g * n.y[static_cast<size_t>(j)];
      }
    }
    return out;
  }

  double loss(const Doubles &dhbar, const Doubles &delta) const {
    const Outputs out = forward();
    double sum = 0;
    for (size_t i = 0; i < dhbar.size(); i++) sum += dhbar[i] * out.hbar[i];
    for (size_t i = 0; i < delta.size(); i++) sum += delta[i] * out.y[i];
    return sum;
  }

  Gradients backward(const Doubles &dhbar, const Doubles &delta) const {
    Gradients g{Doubles(a0.size()), Doubles(b0.size()), Doubles(u.size()), Doubles(gates.size()), experts};
    for (ReferenceExpert &e : g.experts)
      for (ReferenceDelta *d : {&e.gate, &e.up, &e.down}) {
        d->a.assign(d->a.size(), 0);
        d->b.assign(d->b.size(), 0);
      }
    for (int64_t t = 0; t < tokens; t++)
      token_backward(t, &dhbar[static_cast<size_t>(t * intermediate)], &delta[static_cast<size_t>(t * hidden)], g);
    return g;
  }

 private:
  static constexpr double kGelu = 0.79788456080286535588;  // sqrt(2 / pi)

  void token_backward(int64_t t, const double *dhbar, const double *delta, Gradients &g) const {
    const size_t f = static_cast<size_t>(intermediate), at_f = static_cast<size_t>(t) * f, at_d = static_cast<size_t>(t * hidden);
    const Network base = network(t, nullptr);
    double rest = 1;
    for (size_t i = 0; i < experts.size(); i++) {
      if (!is_selected(t, i)) continue;
      const ReferenceExpert &e = experts[i];
      ReferenceExpert &ge = g.experts[i];
      const size_t at = static_cast<size_t>(t) * experts.size() + i;
      const double gate = gates[at];
      rest -= gate;
      const Network n = network(t, &e);
      for (int64_t j = 0; j < hidden; j++) g.dgates[at] += delta[j] * n.y[static_cast<size_t>(j)];
      Doubles gated_delta(delta, delta + hidden), dh(f), da(f), db(f);
      for (double &x : gated_delta) x *= gate;
      e.down.add_backward(n.h.data(), gated_delta.data(), dh.data(), ge.down.a, ge.down.b);
      for (size_t j = 0; j < f; j++) {
        g.dgates[at] += dhbar[j] * (n.h[j] - base.h[j]);
        dh[j] += gate * dhbar[j];
        da[j] = dh[j] * n.b[j] * slope(n.a[j]);
        db[j] = dh[j] * phi(n.a[j]);
        g.da0[at_f + j] += da[j];
        g.db0[at_f + j] += db[j];
      }
      e.gate.add_backward(&u[at_d], da.data(), &g.du[at_d], ge.gate.a, ge.gate.b);
      e.up.add_backward(&u[at_d], db.data(), &g.du[at_d], ge.up.a, ge.up.b);
    }
    for (size_t j = 0; j < f; j++) {
      g.da0[at_f + j] += rest * dhbar[j] * base.b[j] * slope(base.a[j]);
      g.db0[at_f + j] += rest * dhbar[j] * phi(base.a[j]);
    }
  }
};

}  // namespace moe::test
