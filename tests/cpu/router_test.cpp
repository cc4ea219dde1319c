// The token router: against a double-precision reference, its gradients against the slopes of the gates, the golden
// routings of Hugging Face models, and the facts that the forms and the selection promise.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "base/error.h"
#include "base/json.h"
#include "formats/safetensors.h"
#include "support/expect_error.h"
#include "support/reference.h"

namespace moe::test {
namespace {

using Doubles = std::vector<double>;

constexpr GateForm kForms[] = {GateForm::delta, GateForm::renormalised_delta, GateForm::weighted, GateForm::straight_through};
const char *name_of(GateForm form) {
  const char *names[] = {"delta", "renormalised_delta", "weighted", "straight_through"};
  return names[static_cast<int>(form)];
}

struct Case {
  int64_t tokens, hidden, experts, top_k;
  GateForm form = GateForm::delta;
  float temperature = 1;
  DType dtype = DType::f32;
  bool force_expert = false;
};
std::string text_of(const Case &c) {
  return text(name_of(c.form), ", T ", c.tokens, ", d ", c.hidden, ", E ", c.experts, ", k ", c.top_k, ", tau ", c.temperature,
              c.dtype == DType::f32 ? ", f32" : ", bf16", c.force_expert ? ", forced" : "");
}

struct State {
  std::vector<float> z, p, gates;
  std::vector<int32_t> picked;
  std::vector<uint8_t> selected;
  State(int64_t tokens, int64_t experts, int64_t k)
      : z(static_cast<size_t>(tokens * (experts + 1)), NAN), p(z), gates(static_cast<size_t>(tokens * experts), NAN),
        picked(static_cast<size_t>(tokens * k), -7), selected(gates.size(), 7) {}
  RouterState view() { return {z.data(), p.data(), picked.data(), selected.data(), gates.data()}; }
};

struct Problem {
  Case c;
  RowsData u;
  std::vector<float> weight, bias;
  explicit Problem(const Case &c_)
      : c(c_), u(random_rows(c.tokens, c.hidden, c.dtype, 1, 1, 3)),
        weight(random_floats((c.experts + 1) * c.hidden, 2, 1 / std::sqrt(static_cast<double>(c.hidden)))),
        bias(random_floats(c.experts + 1, 3, 0.1)) {}
  RouterShape shape() const {
    RouterShape s;
    s.tokens = c.tokens, s.hidden = c.hidden, s.experts = c.experts, s.top_k = c.top_k;
    s.temperature = c.temperature, s.form = c.form, s.force_expert = c.force_expert;
    return s;
  }
  State run(Backend &backend) {
    State state(c.tokens, c.experts, c.top_k);
    backend.router(shape(), u.rows(), weight.data(), bias.data(), state.view());
    return state;
  }
};

// ---- the reference ----

Doubles logits(const Problem &p, const Doubles &weight, const Doubles &bias, const Doubles &u) {
  const size_t n = static_cast<size_t>(p.c.experts + 1), d = static_cast<size_t>(p.c.hidden);
  Doubles z(static_cast<size_t>(p.c.tokens) * n);
  for (size_t t = 0; t < static_cast<size_t>(p.c.tokens); t++)
    for (size_t i = 0; i < n; i++) {
      z[t * n + i] = bias[i];
      for (size_t j = 0; j < d; j++) z[t * n + i] += weight[i * d + j] * u[t * d + j];
    }
  return z;
}
Doubles softmax(const double *z, size_t n, double temperature) {
  Doubles p(n);
  const double largest = *std::max_element(z, z + n);
  for (size_t i = 0; i < n; i++) p[i] = std::exp((z[i] - largest) / temperature);
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double &x : p) x /= sum;
  return p;
}
std::vector<int32_t> top_k(const Doubles &p, int64_t k) {
  std::vector<int32_t> order(p.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return p[static_cast<size_t>(a)] > p[static_cast<size_t>(b)]; });
  order.resize(static_cast<size_t>(k));
  return order;
}
// The gates as functions of p for a fixed selection. `slope` asks for the function whose gradient straight-through uses.
Doubles gates_of(const Case &c, const Doubles &p, const std::vector<int32_t> &picked, bool slope) {
  std::vector<int32_t> set;
  for (int32_t i : picked)
    if (i > 0) set.push_back(i);
  bool forced = false;
  if (c.force_expert && set.empty()) {
    forced = true;
    set.push_back(static_cast<int32_t>(std::max_element(p.begin() + 1, p.end()) - p.begin()));
  }
  double denominator = 1;
  if (c.form == GateForm::renormalised_delta) denominator = p[0];
  if (c.form == GateForm::weighted) denominator = set.size() < picked.size() ? p[0] : 0;
  if (c.form == GateForm::renormalised_delta || c.form == GateForm::weighted)
    for (int32_t i : set) denominator += p[static_cast<size_t>(i)];
  Doubles gates(static_cast<size_t>(c.experts));
  for (int32_t i : set) {
    const bool one = c.form == GateForm::straight_through && !slope && !forced;
    gates[static_cast<size_t>(i - 1)] = one ? 1 : p[static_cast<size_t>(i)] / denominator;
  }
  return gates;
}

struct Losses {
  Doubles balance;
  double z = 0;
  std::vector<int32_t> starts, entries;
  Doubles supervised;
};
// The loss whose gradient router_backward takes: <dgates, gates> plus the router's own terms, selection fixed to `picked`.
double loss(const Problem &p, const Doubles &weight, const Doubles &bias, const Doubles &u, const std::vector<int32_t> &picked,
            const Doubles &dgates, const Losses &losses) {
  const size_t n = static_cast<size_t>(p.c.experts + 1), k = static_cast<size_t>(p.c.top_k);
  const Doubles z = logits(p, weight, bias, u);
  double sum = 0;
  for (size_t t = 0; t < static_cast<size_t>(p.c.tokens); t++) {
    const Doubles probabilities = softmax(&z[t * n], n, static_cast<double>(p.c.temperature));
    const std::vector<int32_t> of_token(picked.begin() + static_cast<int64_t>(t * k),
                                        picked.begin() + static_cast<int64_t>((t + 1) * k));
    const Doubles gates = gates_of(p.c, probabilities, of_token, true);
    for (size_t i = 0; i + 1 < n; i++) sum += gates[i] * dgates[t * (n - 1) + i];
    for (size_t i = 0; i < losses.balance.size(); i++) sum += losses.balance[i] * probabilities[i];
    double exponentials = 0;
    for (size_t i = 0; i < n; i++) exponentials += std::exp(z[t * n + i]);
    sum += losses.z / 2 * std::log(exponentials) * std::log(exponentials);
    for (size_t s = 0; s < losses.entries.size(); s++) {
      const bool inside = static_cast<int32_t>(t) >= losses.starts[s] && static_cast<int32_t>(t) < losses.starts[s + 1];
      if (inside && losses.entries[s] >= 0) sum += losses.supervised[s] * probabilities[static_cast<size_t>(losses.entries[s])];
    }
  }
  return sum;
}
Doubles slopes(Doubles values, const std::function<double(const Doubles &)> &function) {
  Doubles result(values.size());
  for (size_t i = 0; i < values.size(); i++) {
    const double kept = values[i], step = 1e-5;
    values[i] = kept + step;
    const double above = function(values);
    values[i] = kept - step;
    result[i] = (above - function(values)) / (2 * step);
    values[i] = kept;
  }
  return result;
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const GateForm form : kForms) {
    for (const int64_t k : {1, 2, 4}) {
      if (form == GateForm::weighted && k == 1) continue;
      all.push_back({33, 37, 3, k, form});
      all.push_back({5, 48, 5, k, form, 0.7f, DType::bf16});
      all.push_back({70, 16, 64, k, form, 2});
    }
    all.push_back({1, 1, 1, 2, form});
    if (form != GateForm::weighted) all.push_back({33, 37, 3, 1, form, 0.7f, DType::f32, true});
  }
  return all;
}

TEST(Router, EqualsTheReference) {
  for (const auto &backend : all_backends(2)) {
    for (const Case &c : cases()) {
      SCOPED_TRACE(text(backend->name(), ": ", text_of(c)));
      Problem p(c);
      const State got = p.run(*backend);
      const size_t n = static_cast<size_t>(c.experts + 1);
      const Doubles z = logits(p, to_double(p.weight), to_double(p.bias), to_double(p.u.values()));
      Doubles probabilities, gates;
      std::vector<int32_t> picked;
      for (size_t t = 0; t < static_cast<size_t>(c.tokens); t++) {
        const Doubles row = softmax(&z[t * n], n, static_cast<double>(c.temperature));
        const std::vector<int32_t> best = top_k(row, c.top_k);
        const Doubles g = gates_of(c, row, best, false);
        probabilities.insert(probabilities.end(), row.begin(), row.end());
        gates.insert(gates.end(), g.begin(), g.end());
        picked.insert(picked.end(), best.begin(), best.end());
        for (size_t i = 0; i + 1 < n; i++) EXPECT_EQ(got.selected[t * (n - 1) + i], g[i] != 0) << t << " " << i;
      }
      EXPECT_EQ(got.picked, picked);
      EXPECT_LT(nmse(z, got.z), 1e-11);
      EXPECT_LT(nmse(probabilities, got.p), 1e-11);
      EXPECT_LT(nmse(gates, got.gates), 1e-11);
    }
  }
}

// With random router losses of all three kinds on top. Central differences of a double-precision loss are good to 1e-9.
TEST(Router, GradientsEqualTheSlopesOfTheLoss) {
  for (const Case &c : cases()) {
    Problem p(c);
    const int64_t entries = c.experts + 1;
    const std::vector<float> dgates = random_floats(c.tokens * c.experts, 4), balance = random_floats(entries, 5, 0.3);
    std::vector<int32_t> starts = {0, static_cast<int32_t>(c.tokens / 3), static_cast<int32_t>(c.tokens / 3),
                                   static_cast<int32_t>(c.tokens / 2), static_cast<int32_t>(c.tokens)};
    const std::vector<int32_t> supervised_entry = {static_cast<int32_t>(c.experts), 0, -1, 0};
    const std::vector<float> supervised = {-0.3f, 0.9f, 5.0f, 0.4f};
    RouterLossGradient gradient;
    gradient.balance = balance.data(), gradient.z = 0.2f, gradient.sequences = 4;
    gradient.starts = starts.data(), gradient.supervised_entry = supervised_entry.data(), gradient.supervised = supervised.data();
    Losses losses{to_double(balance), static_cast<double>(gradient.z), starts, supervised_entry, to_double(supervised)};

    const State reference_state = p.run(*cpu_backend(*cpu::kernels_of("scalar"), 1));
    const Doubles weight = to_double(p.weight), bias = to_double(p.bias), u = to_double(p.u.values()), g = to_double(dgates);
    const auto &picked = reference_state.picked;
    const bool large = c.experts > 8;  // the slopes of the bias say enough there
    const Doubles dbias = slopes(bias, [&](const Doubles &x) { return loss(p, weight, x, u, picked, g, losses); });
    const Doubles dweight =
        large ? Doubles{} : slopes(weight, [&](const Doubles &x) { return loss(p, x, bias, u, picked, g, losses); });
    const Doubles du =
        large ? Doubles{} : slopes(u, [&](const Doubles &x) { return loss(p, weight, bias, x, picked, g, losses); });

    for (const auto &backend : all_backends(2)) {
      SCOPED_TRACE(text(backend->name(), ": ", text_of(c)));
      State state = p.run(*backend);
      ASSERT_EQ(state.picked, picked);
      std::vector<float> dz(state.z.size(), NAN), got_weight(p.weight.size(), 0.5f), got_bias(p.bias.size(), 0.5f);
      RowsData got_u(c.tokens, c.hidden, DType::f32, 1);
      for (int64_t t = 0; t < c.tokens; t++)
        for (int64_t j = 0; j < c.hidden; j++) got_u.set(t, j, 0.5f);
      backend->router_backward(p.shape(), p.u.rows(), p.weight.data(), state.view(), dgates.data(), gradient, dz.data(),
                               got_weight.data(), got_bias.data(), got_u.rows());
      const auto expect_sum = [](Doubles expected, const std::vector<float> &got, const char *name) {
        for (double &x : expected) x += 0.5;  // they are added
        EXPECT_LT(nmse(expected, got), 1e-11) << name;
      };
      expect_sum(dbias, got_bias, "bias");
      if (large) continue;
      expect_sum(dweight, got_weight, "weight");
      expect_sum(du, got_u.values(), "u");
    }
  }
}

TEST(Router, GradientsOfFrozenPartsAreNotAskedFor) {
  Problem p({20, 12, 3, 2});
  const auto backend = best_backend(2);
  State state = p.run(*backend);
  const std::vector<float> dgates = random_floats(60, 4);
  std::vector<float> dz(80, NAN), other(80, NAN), dweight(48), dbias(4);
  RowsData du = random_rows(20, 12, DType::f32, 5);
  backend->router_backward(p.shape(), p.u.rows(), p.weight.data(), state.view(), dgates.data(), {}, dz.data(), dweight.data(),
                           dbias.data(), {});
  backend->router_backward(p.shape(), p.u.rows(), p.weight.data(), state.view(), dgates.data(), {}, other.data(), nullptr,
                           nullptr, du.rows());
  EXPECT_TRUE(same_bits(dz, other));
  for (const float x : dz) EXPECT_TRUE(std::isfinite(x));
}

TEST(Router, TiesGoToTheLowestIndex) {
  for (const auto &backend : all_backends(1)) {
    Problem p({3, 8, 6, 3});
    std::fill(p.weight.begin(), p.weight.end(), 0.0f);
    p.bias = {1, 2, 1, 2, 1, 2, 1};
    EXPECT_EQ(p.run(*backend).picked, (std::vector<int32_t>{1, 3, 5, 1, 3, 5, 1, 3, 5}));
    p.bias = {1, 1, 1, 1, 1, 1, 1};
    EXPECT_EQ(p.run(*backend).picked, (std::vector<int32_t>{0, 1, 2, 0, 1, 2, 0, 1, 2}));
  }
}

// Far below the largest entry p is 0 in f32; the ranking still tells them apart.
TEST(Router, RanksEntriesWhoseProbabilityVanishes) {
  Problem p({1, 8, 3, 4});
  std::fill(p.weight.begin(), p.weight.end(), 0.0f);
  p.bias = {-300, -250, 0, -200};
  EXPECT_EQ(p.run(*best_backend(1)).picked, (std::vector<int32_t>{2, 3, 1, 0}));
}

TEST(Router, GatesOfTheWeightedFormSumToOneWithTheBase) {
  const auto backend = best_backend(2);
  for (const int64_t k : {2, 3, 6}) {
    Problem p({40, 24, 5, k, GateForm::weighted});
    const State s = p.run(*backend);
    for (size_t t = 0; t < 40; t++) {
      double picked = 0, base = 0, gates = 0;
      for (size_t i = 0; i < static_cast<size_t>(k); i++) {
        const auto entry = static_cast<size_t>(s.picked[t * static_cast<size_t>(k) + i]);
        picked += static_cast<double>(s.p[t * 6 + entry]);
        if (entry == 0) base = static_cast<double>(s.p[t * 6]);
      }
      for (size_t i = 0; i < 5; i++) gates += static_cast<double>(s.gates[t * 5 + i]);
      EXPECT_NEAR(gates + base / picked, 1, 1e-6);
    }
  }
}

// Invariant 5: with every entry picked nothing is cut off, and all forms but straight-through are the softmax itself.
TEST(Router, AllEntriesPickedIsDenseMixing) {
  const auto backend = best_backend(2);
  for (const GateForm form : {GateForm::delta, GateForm::renormalised_delta, GateForm::weighted}) {
    Problem p({40, 24, 5, 6, form});
    const State s = p.run(*backend);
    for (size_t t = 0; t < 40; t++)
      for (size_t i = 0; i < 5; i++) EXPECT_NEAR(s.gates[t * 5 + i], s.p[t * 6 + i + 1], 1e-6) << name_of(form);
  }
}

// Invariant 3, at k = 1: the router has a gradient even where the base wins.
TEST(Router, ForcedExpertsCarryAGradientWhereTheBaseWins) {
  const auto backend = best_backend(2);
  for (const GateForm form : {GateForm::delta, GateForm::renormalised_delta, GateForm::straight_through}) {
    Case c{30, 16, 4, 1, form, 1, DType::f32, true};
    Problem p(c);
    p.bias[0] = 20;  // always the base
    State forced = p.run(*backend);
    p.c.force_expert = false;
    State plain = p.run(*backend);
    for (size_t t = 0; t < 30; t++) {
      EXPECT_EQ(forced.picked[t], 0);
      EXPECT_EQ(std::count(&plain.selected[t * 4], &plain.selected[t * 4] + 4, 1), 0);
      ASSERT_EQ(std::count(&forced.selected[t * 4], &forced.selected[t * 4] + 4, 1), 1);
      const auto best = static_cast<size_t>(std::max_element(&forced.p[t * 5 + 1], &forced.p[t * 5] + 5) - &forced.p[t * 5]);
      EXPECT_GT(forced.gates[t * 4 + best - 1], 0);
      EXPECT_LT(forced.gates[t * 4 + best - 1], 1e-3f);
    }
    const std::vector<float> dgates(120, 1.0f);
    std::vector<float> dz(150), dweight(80), dbias(5);
    p.c.force_expert = true;
    backend->router_backward(p.shape(), p.u.rows(), p.weight.data(), forced.view(), dgates.data(), {}, dz.data(), dweight.data(),
                             dbias.data(), {});
    for (size_t t = 0; t < 30; t++) EXPECT_NE(dz[t * 5], 0) << name_of(form);
  }
}

TEST(Router, SelectionBiasChangesThePickButNotTheWeights) {
  const auto backend = best_backend(2);
  Problem p({40, 24, 5, 2});
  const State plain = p.run(*backend);
  const std::vector<float> bias = {-100, 0, 0, 0, 100, 0};
  RouterShape shape = p.shape();
  shape.bias_for_selection = bias.data();
  State biased(40, 5, 2);
  backend->router(shape, p.u.rows(), p.weight.data(), p.bias.data(), biased.view());
  EXPECT_TRUE(same_bits(plain.p, biased.p));
  for (size_t t = 0; t < 40; t++) {
    const int32_t first = biased.picked[2 * t], second = biased.picked[2 * t + 1];
    EXPECT_TRUE(first == 4 || second == 4);
    EXPECT_TRUE(first != 0 && second != 0);
    EXPECT_GE(biased.p[t * 6 + static_cast<size_t>(first)], biased.p[t * 6 + static_cast<size_t>(second)]);
    EXPECT_EQ(biased.gates[t * 5 + 3], biased.p[t * 6 + 4]);
  }
}

TEST(Router, ThreadsDoNotChangeABit) {
  for (const BackendMaker &make : backend_makers()) {
    Problem p({200, 48, 7, 2, GateForm::renormalised_delta});
    const std::vector<float> dgates = random_floats(1400, 4);
    std::vector<std::vector<float>> results[2];
    for (const int threads : {1, 2}) {
      const auto backend = make(threads);
      State s = p.run(*backend);
      std::vector<float> dz(1600), dweight(8 * 48), dbias(8), du(200 * 48);
      backend->router_backward(p.shape(), p.u.rows(), p.weight.data(), s.view(), dgates.data(), {}, dz.data(), dweight.data(),
                               dbias.data(), f32_rows(du.data(), 48));
      results[threads - 1] = {s.z, s.p, s.gates, dz, dweight, dbias, du};
    }
    for (size_t i = 0; i < results[0].size(); i++)
      EXPECT_TRUE(same_bits(results[0][i], results[1][i])) << make(1)->name() << " " << i;
  }
}

TEST(Router, RefusesWhatHasNoMeaning) {
  const auto backend = best_backend(1);
  const auto run = [&](Case c) {
    Problem p({c.tokens, c.hidden, c.experts, 2});
    p.c = c;
    State state(c.tokens, c.experts, 8);
    backend->router(p.shape(), p.u.rows(), p.weight.data(), p.bias.data(), state.view());
  };
  EXPECT_FAILS(run({2, 8, 3, 1, GateForm::weighted}), Code::invalid, "weighted");
  EXPECT_FAILS(run({2, 8, 3, 5}), Code::invalid, "top_k");
  EXPECT_FAILS(run({2, 8, 3, 0}), Code::invalid, "top_k");
  EXPECT_FAILS(run({2, 8, 3, 2, GateForm::delta, 0}), Code::invalid, "temperature");
}

// The stored logits of every layer give the stored probabilities, picks and gates, for every form, k and temperature.
TEST(Router, GoldenRoutings) {
  for (const char *model : {"qwen3", "gemma3_text", "llama"}) {
    const std::string folder = std::string(MOE_TESTS_DIR) + "/golden/mixture/" + model + "/";
    const Json expected = read_json(folder + "expected.json");
    int layers = 0;
    for (const auto &[name, settings] : expected.at("cases", folder).members()) {
      const Safetensors file(folder + name + ".safetensors");
      const std::string form = settings.string_at("form", name);
      for (int layer = 0; file.find(text("layers.", layer, ".router_logits")); layer++, layers++) {
        SCOPED_TRACE(text(model, "/", name, ", layer ", layer));
        const auto tensor = [&](const char *what) -> const TensorInfo & { return file.at(text("layers.", layer, ".", what)); };
        const TensorInfo &logits = tensor("router_logits");
        const int64_t T = logits.shape[0], entries = logits.shape[1];
        Case c{T, entries, entries - 1, settings.integer_at("k", name)};
        c.temperature = static_cast<float>(settings.number_at("tau", name));
        for (const GateForm known : kForms)
          if (form == name_of(known)) c.form = known;
        ASSERT_EQ(form, name_of(c.form));
        Problem p(c);  // an identity router whose input is the logits
        const std::vector<float> z = file.read_floats(logits);
        for (int64_t t = 0; t < T; t++)
          for (int64_t i = 0; i < entries; i++) p.u.set(t, i, z[static_cast<size_t>(t * entries + i)]);
        for (int64_t i = 0; i < entries * entries; i++) p.weight[static_cast<size_t>(i)] = i % (entries + 1) == 0 ? 1 : 0;
        std::fill(p.bias.begin(), p.bias.end(), 0.0f);

        const State got = p.run(*best_backend(2));
        EXPECT_EQ(got.picked, file.read_integers(tensor("chosen")));
        const std::vector<float> probabilities = file.read_floats(tensor("probs")), gates = file.read_floats(tensor("gates"));
        for (size_t i = 0; i < probabilities.size(); i++) EXPECT_NEAR(got.p[i], probabilities[i], 1e-6);
        for (int64_t t = 0; t < T; t++)
          for (int64_t i = 1; i < entries; i++) {
            EXPECT_NEAR(got.gates[static_cast<size_t>(t * (entries - 1) + i - 1)], gates[static_cast<size_t>(t * entries + i)],
                        1e-6);
          }
      }
    }
    EXPECT_GE(layers, 16);
  }
}

}  // namespace
}  // namespace moe::test
