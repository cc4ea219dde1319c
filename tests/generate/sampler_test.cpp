// Sampling: the distributions of Hugging Face's processors, draws that follow them and depend on seed and position only.
#include "generate/sampler.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <limits>
#include <set>

#include "support/expect_error.h"
#include "support/golden.h"
#include "support/reference.h"

namespace moe {
namespace {

using test::golden_path;

SamplerOptions options_of(const Json &settings, const std::string &source) {
  SamplerOptions options;
  options.do_sample = true;
  options.temperature = settings.number_or("temperature", 1, source);
  options.top_k = settings.integer_or("top_k", 0, source);
  options.top_p = settings.number_or("top_p", 1, source);
  options.min_p = settings.number_or("min_p", 0, source);
  options.repetition_penalty = settings.number_or("repetition_penalty", 1, source);
  return options;
}

// Typical sampling and frequency and presence penalties are no options of this version.
bool in_scope(const Json &settings) { return !settings.find("typical_p") && !settings.find("frequency_penalty"); }

TEST(Sampler, DistributionsEqualHuggingFace) {
  const std::string source = golden_path("sampling/expected.json");
  const Json expected = read_json(source);
  const Safetensors inputs(golden_path("sampling/inputs.safetensors")), tensors(golden_path("sampling/expected.safetensors"));
  const auto logits = test::golden_floats(inputs, "logits");
  const auto history = inputs.read_integers(inputs.at("history"));
  const size_t rows = 3, v = logits.size() / rows, h = history.size() / rows;
  int cases = 0;
  for (const auto &[name, settings] : expected.at("cases", source).members()) {
    if (!in_scope(settings)) continue;
    SCOPED_TRACE(name);
    cases++;
    const SamplerOptions options = options_of(settings, source);
    const auto wanted = test::golden_floats(tensors, name);
    for (size_t row = 0; row < rows; row++) {
      std::vector<double> got;
      sampling_distribution(options, std::span(logits).subspan(row * v, v), std::span(history).subspan(row * h, h), got);
      ASSERT_EQ(got.size(), v);
      int64_t kept = 0;
      for (size_t i = 0; i < v; i++) {
        EXPECT_NEAR(got[i], wanted[row * v + i], 1e-6) << "row " << row << " token " << i;
        kept += got[i] > 0;
      }
      EXPECT_EQ(kept, settings.at("kept", source).items()[row].integer()) << "row " << row;
    }
  }
  EXPECT_EQ(cases, 19);
}

TEST(Sampler, TopKKeepsTiesOfTheKth) {
  SamplerOptions options;
  options.do_sample = true;
  options.top_k = 2;
  std::vector<double> p;
  sampling_distribution(options, std::vector<float>{1, 3, 2, 2, 2, 0}, {}, p);
  EXPECT_EQ(p[0], 0);
  EXPECT_EQ(p[5], 0);
  for (int i : {2, 3, 4}) EXPECT_GT(p[static_cast<size_t>(i)], 0);
}

// Against sorting everything, on a large vocabulary with ties and k beyond the heap.
TEST(Sampler, FastTopKAndTopPEqualFullSorting) {
  const size_t v = 50000;
  std::vector<float> logits = test::random_floats(v, 5, 3);
  for (size_t i = 0; i < v; i += 7) logits[i] = std::round(logits[i]);
  for (const auto &[k, p] : {std::pair<int64_t, double>{50, 1.0}, {1500, 1.0}, {0, 0.9}, {0, 0.01}, {300, 0.7}, {0, 0.9999}}) {
    SamplerOptions options;
    options.do_sample = true;
    options.top_k = k;
    options.top_p = p;
    std::vector<double> got;
    sampling_distribution(options, logits, {}, got);

    std::vector<size_t> order(v);
    for (size_t i = 0; i < v; i++) order[i] = i;
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return logits[a] > logits[b]; });
    size_t n = v;
    if (k > 0) {
      n = static_cast<size_t>(k);
      while (n < v && logits[order[n]] == logits[order[static_cast<size_t>(k) - 1]]) n++;
    }
    double total = 0, before = 0, kept_total = 0;
    for (size_t i = 0; i < n; i++) total += std::exp(static_cast<double>(logits[order[i]]));
    std::vector<double> wanted(v, 0);
    for (size_t i = 0; i < n; i++) {
      const double weight = std::exp(static_cast<double>(logits[order[i]]));
      if (i > 0 && before / total >= p) break;
      wanted[order[i]] = weight;
      kept_total += weight;
      before += weight;
    }
    for (size_t i = 0; i < v; i++)
      ASSERT_NEAR(got[i], wanted[i] / kept_total, 1e-12) << "k " << k << " p " << p << " token " << i;
  }
}

TEST(Sampler, GreedyTakesTheLargestAndTheLowestIdOfEquals) {
  const std::vector<float> logits = {-1, 4, 4, 0};
  const Sampled sampled = sample({}, logits, {}, 0);
  EXPECT_EQ(sampled.token, 1);
  double total = 0;
  for (float z : logits) total += std::exp(static_cast<double>(z));
  EXPECT_NEAR(sampled.log_probability, 4 - std::log(total), 1e-6);
}

TEST(Sampler, RepetitionPenaltyCountsInGreedyToo) {
  SamplerOptions options;
  options.repetition_penalty = 2;
  const std::vector<float> logits = {1, 4, 3, -1};
  EXPECT_EQ(sample(options, logits, std::vector<int32_t>{1, 1, 1}, 0).token, 2);  // once: 4 / 2 < 3
  EXPECT_EQ(sample(options, std::vector<float>{-2, -1.5f}, std::vector<int32_t>{1}, 0).token, 0);
}

TEST(Sampler, LogProbabilityIsThatOfTheModelBeforeTheOptions) {
  SamplerOptions options;
  options.do_sample = true;
  options.top_k = 1;
  options.temperature = 0.1;
  const std::vector<float> logits = {0, 1, 2};
  EXPECT_NEAR(sample(options, logits, {}, 3).log_probability, 2 - std::log(1 + std::exp(1.0) + std::exp(2.0)), 1e-6);
}

TEST(Sampler, LogSumExpEqualsDoublePrecision) {
  for (const size_t n : {1u, 5u, 16u, 17u, 4096u, 4099u, 262144u}) {
    for (const double deviation : {0.01, 5.0, 40.0}) {
      const std::vector<float> logits = test::random_floats(static_cast<int64_t>(n), n, deviation);
      const double top = *std::max_element(logits.begin(), logits.end());
      double total = 0;
      for (float z : logits) total += std::exp(z - top);
      EXPECT_NEAR(log_sum_exp(logits), top + std::log(total), 4e-7) << n << " logits, deviation " << deviation;
    }
  }
}

TEST(Sampler, DrawsFollowTheDistribution) {
  SamplerOptions options;
  options.do_sample = true;
  options.top_p = 0.95;
  options.seed = 12;
  const std::vector<float> logits = {0.5f, -1, 2, 1, -6};
  std::vector<double> p;
  sampling_distribution(options, logits, {}, p);
  std::vector<int> count(5, 0);
  const int draws = 40000;
  for (int n = 0; n < draws; n++) count[static_cast<size_t>(sample(options, logits, {}, static_cast<uint64_t>(n)).token)]++;
  for (size_t i = 0; i < 5; i++) EXPECT_NEAR(count[i] / static_cast<double>(draws), p[i], 4 * std::sqrt(p[i] / draws) + 1e-9);
}

TEST(Sampler, DrawDependsOnSeedAndPositionOnly) {
  SamplerOptions options;
  options.do_sample = true;
  const std::vector<float> logits = test::random_floats(1000, 3);
  std::set<int32_t> tokens;
  for (uint64_t position = 0; position < 20; position++) {
    const int32_t token = sample(options, logits, {}, position).token;
    EXPECT_EQ(token, sample(options, logits, {}, position).token);
    tokens.insert(token);
  }
  EXPECT_GT(tokens.size(), 10u);
  options.seed = 1;
  int same = 0;
  for (uint64_t position = 0; position < 20; position++) same += tokens.contains(sample(options, logits, {}, position).token);
  EXPECT_LT(same, 10);
}

TEST(Sampler, BadOptionsAreNamed) {
  const auto fails = [](auto change, const char *part) {
    SamplerOptions options;
    change(options);
    EXPECT_FAILS(options.check(), Code::invalid, part);
  };
  fails([](SamplerOptions &o) { o.temperature = 0; }, "temperature");
  fails([](SamplerOptions &o) { o.temperature = std::nan(""); }, "temperature");
  fails([](SamplerOptions &o) { o.top_k = -1; }, "top_k");
  fails([](SamplerOptions &o) { o.top_p = 0; }, "top_p");
  fails([](SamplerOptions &o) { o.top_p = 1.1; }, "top_p");
  fails([](SamplerOptions &o) { o.min_p = -0.1; }, "min_p");
  fails([](SamplerOptions &o) { o.repetition_penalty = 0; }, "repetition_penalty");
}

TEST(Sampler, ALogitOfMinusInfinityNeverComes) {
  std::vector<float> logits(40, -std::numeric_limits<float>::infinity());
  logits[17] = -3;
  logits[30] = -4;
  SamplerOptions options;
  options.do_sample = true;
  for (uint64_t n = 0; n < 50; n++) {
    const int32_t token = sample(options, logits, {}, n).token;
    EXPECT_TRUE(token == 17 || token == 30) << token;
  }
}

TEST(Sampler, LogitsThatAreNoNumbersAreRefused) {
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    for (const size_t at : {0u, 3u, 20u, 33u}) {
      std::vector<float> logits(34, 1.0f);
      logits[at] = bad;
      EXPECT_FAILS(sample({}, logits, {}, 0), Code::numeric, "logits");
    }
  }
  EXPECT_FAILS(sample({}, std::vector<float>(40, -std::numeric_limits<float>::infinity()), {}, 0), Code::numeric, "logits");
  EXPECT_FAILS(sample({}, {}, {}, 0), Code::invalid, "no logits");
  SamplerOptions options;
  options.repetition_penalty = 1.5;
  EXPECT_FAILS(sample(options, std::vector<float>{1, 2}, std::vector<int32_t>{2}, 0), Code::invalid, "history");
}

}  // namespace
}  // namespace moe
