// AdamW against the golden runs of PyTorch's definition and against double precision over 1000 steps; the sum of squares.
#include <gtest/gtest.h>

#include <cmath>

#include "base/json.h"
#include "formats/safetensors.h"
#include "support/reference.h"

namespace moe::test {
namespace {

struct Parameters {
  std::vector<float> p, m, v;
  explicit Parameters(std::vector<float> start) : p(std::move(start)), m(p.size()), v(p.size()) {}
  void step(Backend &backend, const float *gradient, const AdamW &options) {
    backend.adamw(static_cast<int64_t>(p.size()), p.data(), gradient, m.data(), v.data(), options);
  }
};

// The definition, element by element.
struct DoubleParameters {
  std::vector<double> p, m, v;
  explicit DoubleParameters(const std::vector<float> &start) : p(start.begin(), start.end()), m(p.size()), v(p.size()) {}
  void step(const std::vector<float> &gradient, const AdamW &o) {
    const double b1 = o.beta1, b2 = o.beta2, lr = o.learning_rate, t = static_cast<double>(o.step);
    const double correction1 = 1 - std::pow(b1, t), correction2 = 1 - std::pow(b2, t);
    for (size_t i = 0; i < p.size(); i++) {
      const double g = static_cast<double>(gradient[i]) * o.gradient_scale;
      m[i] = b1 * m[i] + (1 - b1) * g;
      v[i] = b2 * v[i] + (1 - b2) * g * g;
      p[i] *= 1 - lr * o.weight_decay;
      p[i] -= lr * (m[i] / correction1) / (std::sqrt(v[i] / correction2) + o.epsilon);
    }
  }
};

std::vector<float> golden(const Safetensors &file, const std::string &name) { return file.read_floats(file.at(name)); }

TEST(AdamWStep, FollowsTheGoldenRuns) {
  const std::string folder = std::string(MOE_TESTS_DIR) + "/golden/optim/";
  const Safetensors file(folder + "adamw.safetensors");
  const Json expected = read_json(folder + "expected.json");
  const std::vector<float> start = golden(file, "start"), gradients = golden(file, "gradients");
  const size_t n = start.size(), steps = gradients.size() / n;
  ASSERT_GT(steps, 0u);
  for (const std::string name : {"plain", "decay", "fast"}) {
    const Json &setting = expected.at("adamw", folder).at(name, folder);
    const std::vector<float> path = golden(file, name + ".parameters");
    AdamW options;
    options.learning_rate = static_cast<float>(setting.number_at("lr", folder));
    options.beta1 = static_cast<float>(setting.at("betas", folder).items()[0].number());
    options.beta2 = static_cast<float>(setting.at("betas", folder).items()[1].number());
    options.epsilon = static_cast<float>(setting.number_at("eps", folder));
    options.weight_decay = static_cast<float>(setting.number_at("weight_decay", folder));
    for (const auto &backend : all_backends(1)) {
      SCOPED_TRACE(name + " " + backend->name());
      Parameters parameters(start);
      for (size_t step = 0; step < steps; step++) {
        options.step = static_cast<int64_t>(step) + 1;
        parameters.step(*backend, &gradients[step * n], options);
        for (size_t i = 0; i < n; i++)
          ASSERT_NEAR(parameters.p[i], path[step * n + i], 1e-6) << "step " << step << " element " << i;
      }
      EXPECT_LT(nmse(to_double(golden(file, name + ".final_m")), parameters.m), 1e-11);
      // beta2 = 0.999 as a float makes 1 - beta2 differ by 1e-5; the bias correction takes it out of the step again
      EXPECT_LT(nmse(to_double(golden(file, name + ".final_v")), parameters.v), 1e-9);
    }
  }
}

TEST(AdamWStep, StaysWithDoublePrecisionForAThousandSteps) {
  LARGE_CASE();
  AdamW options;
  options.learning_rate = 3e-4f;
  options.weight_decay = 0.1f;
  options.gradient_scale = 0.37f;
  const int64_t n = 16501;  // more than one tile
  const std::vector<float> start = random_floats(n, 1), direction = random_floats(n, 2, 0.01);
  std::vector<float> gradient(direction.size());
  DoubleParameters expected(start);
  std::vector<Parameters> runs;
  const auto one = all_backends(1), two = all_backends(2);
  runs.assign(2 * one.size(), Parameters(start));
  for (int64_t step = 1; step <= 1000; step++) {
    options.step = step;
    // a steady direction and noise around it
    const float turn = static_cast<float>(std::cos(static_cast<double>(step)));
    for (size_t i = 0; i < gradient.size(); i++) gradient[i] = direction[i] * (1 + 2 * turn) + 0.001f * turn;
    expected.step(gradient, options);
    for (size_t i = 0; i < one.size(); i++) {
      runs[2 * i].step(*one[i], gradient.data(), options);
      runs[2 * i + 1].step(*two[i], gradient.data(), options);
    }
  }
  for (size_t i = 0; i < one.size(); i++) {
    SCOPED_TRACE(one[i]->name());
    EXPECT_LT(nmse(expected.p, runs[2 * i].p), 1e-11);
    EXPECT_LT(nmse(expected.m, runs[2 * i].m), 1e-11);
    EXPECT_LT(nmse(expected.v, runs[2 * i].v), 1e-11);
    EXPECT_TRUE(same_bits(runs[2 * i].p, runs[2 * i + 1].p));
  }
}

TEST(AdamWStep, ZeroGradientsOnlyDecay) {
  AdamW options;
  options.learning_rate = 0.5f;
  options.weight_decay = 0.25f;
  for (const auto &backend : all_backends(1)) {
    Parameters parameters(std::vector<float>(19, 8.0f));
    const std::vector<float> zero(19);
    parameters.step(*backend, zero.data(), options);
    for (float p : parameters.p) EXPECT_EQ(p, 7);
  }
}

TEST(SumOfSquares, IsExactForIntegersAndEqualForAnyThreads) {
  for (int64_t n : {0, 1, 5, 4096, 4099, 65537, 300007}) {
    std::vector<float> x(static_cast<size_t>(n));
    double expected = 0;
    for (size_t i = 0; i < x.size(); i++) {
      x[i] = static_cast<float>(static_cast<int>(random_bits(1, i) % 1000) - 500);
      expected += static_cast<double>(x[i]) * x[i];
    }
    const std::vector<float> y = random_floats(n, 2);
    const auto one = all_backends(1), two = all_backends(2);
    for (size_t i = 0; i < one.size(); i++) {
      EXPECT_EQ(one[i]->sum_of_squares(n, x.data()), expected) << n;
      EXPECT_EQ(one[i]->sum_of_squares(n, y.data()), two[i]->sum_of_squares(n, y.data())) << n;
    }
  }
}

TEST(SumOfSquares, DoesNotOverflowF32) {
  const std::vector<float> x = {3e38f, 3.2e38f};
  for (const auto &backend : all_backends(1)) EXPECT_TRUE(std::isfinite(backend->sum_of_squares(2, x.data())));
}

}  // namespace
}  // namespace moe::test
