// Comparisons of models on the same items, from results made by hand: pairs, mixtures, forgetting, the printed table.
#include "eval/comparison.h"

#include <gtest/gtest.h>

namespace moe {
namespace {

// Made-up items: two domains of two samples, one token each.
EvalResult made_up(const std::string &domain, const std::string &model, const std::string &type, std::vector<double> nll,
                   std::vector<int> correct) {
  EvalResult result;
  result.domain = domain;
  result.model_name = model;
  result.model_type = type;
  result.evaluation_type = "multiple_choice";
  result.has_loss = true;
  result.total_samples = static_cast<int64_t>(nll.size());
  for (size_t i = 0; i < nll.size(); i++) {
    EvalItem item;
    item.nll = nll[i];
    item.nll_tokens = 1;
    item.correct = correct[i] != 0;
    if (type == "moe") item.routing = {0.5f, domain == "a" ? 0.4f : 0.3f, domain == "a" ? 0.1f : 0.2f};
    result.items.push_back(item);
  }
  if (type == "moe") result.domain_entry = domain == "a" ? 1 : 2;
  return result;
}

TEST(Comparison, EqualsHandComputedValues) {
  const std::vector<EvalResult> results = {made_up("a", "base", "base", {4, 4, 4}, {0, 0, 1}),
                                           made_up("a", "mix", "moe", {3, 3, 3}, {1, 1, 0}),
                                           made_up("a", "oracle", "oracle", {2, 2, 2}, {1, 1, 1}),
                                           made_up("b", "base", "base", {6, 6}, {0, 0}),
                                           made_up("b", "mix", "moe", {3, 3}, {1, 0}),
                                           made_up("b", "oracle", "oracle", {2, 2}, {1, 1})};
  const auto mixtures = summarize_mixtures(results, 1);
  ASSERT_EQ(mixtures.size(), 1u);
  ASSERT_TRUE(mixtures[0].recovered_share);
  EXPECT_NEAR(mixtures[0].recovered_share->value, (5.0 - 3.0) / (5.0 - 2.0), 1e-12);
  EXPECT_NEAR(mixtures[0].recovered_share->interval.low, 2.0 / 3, 1e-12);  // equal samples: no spread
  EXPECT_NEAR(mixtures[0].recovered_share->interval.high, 2.0 / 3, 1e-12);
  ASSERT_EQ(mixtures[0].versus.size(), 2u);
  EXPECT_NEAR(mixtures[0].versus[0].loss->value, -2, 1e-12);
  EXPECT_NEAR(mixtures[0].versus[0].accuracy->value, (2.0 / 3 + 0.5) / 2 - (1.0 / 3 + 0) / 2, 1e-12);
  ASSERT_EQ(mixtures[0].routing.size(), 3u);
  EXPECT_EQ(mixtures[0].routing[0].right, 3);
  EXPECT_EQ(mixtures[0].routing[1].right, 0);  // the expert of "a" has the larger gate
  EXPECT_EQ(mixtures[0].routing[2].right, 3);
  EXPECT_EQ(mixtures[0].routing[2].samples, 5);
  const auto pairs = compare_pairs(results, 1);
  ASSERT_EQ(pairs.size(), 6u);
  EXPECT_EQ(pairs[0].correct->first_only, 1);
  EXPECT_EQ(pairs[0].correct->second_only, 2);
  EXPECT_NEAR(pairs[0].loss->value, 1, 1e-12);
  const auto means = means_over_domains(results);
  ASSERT_EQ(means.size(), 3u);
  EXPECT_NEAR(*means[0].loss, 5, 1e-12);
}

TEST(Comparison, ForgettingIsTheAdapterAgainstTheBaseAtHomeAndElsewhere) {
  const std::vector<EvalResult> results = {
      made_up("a", "base", "base", {4, 4}, {0, 0}),     made_up("a", "a", "lora", {3, 3}, {1, 0}),
      made_up("a", "joint", "lora", {3.5, 3.5}, {0, 0}), made_up("b", "base", "base", {5, 5}, {1, 1}),
      made_up("b", "a", "lora", {6, 6}, {1, 0}),         made_up("b", "joint", "lora", {4, 4}, {1, 1}),
      made_up("c", "base", "base", {7, 7}, {1, 1}),      made_up("c", "a", "lora", {9, 9}, {0, 0}),
      made_up("c", "joint", "lora", {7, 7}, {1, 1})};
  const std::vector<Forgetting> all = measure_forgetting(results, 1);
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].domain, "a");
  EXPECT_NEAR(all[0].own_loss->value, -1, 1e-12);
  EXPECT_NEAR(all[0].own_accuracy->value, 0.5, 1e-12);
  EXPECT_NEAR(all[0].other_loss->value, (1 + 2) / 2.0, 1e-12);
  EXPECT_NEAR(all[0].other_accuracy->value, (-0.5 - 1) / 2.0, 1e-12);
  EXPECT_NEAR(all[0].other_loss->interval.high, 1.5, 1e-12);  // equal samples: no spread
  EXPECT_EQ(all[1].domain, "");  // no task of its name: all domains are others
  EXPECT_FALSE(all[1].own_loss);
  EXPECT_NEAR(all[1].other_loss->value, (-0.5 - 1 + 0) / 3.0, 1e-12);
}

TEST(Comparison, TheTableHasBothAccuracies) {
  std::vector<EvalResult> results = {made_up("a", "base", "base", {4, 4}, {0, 1}), made_up("b", "base", "base", {4, 4}, {0, 1})};
  for (EvalResult &result : results) {
    for (EvalItem &item : result.items) item.correct_norm = true;
    result.accuracy = 0.5, result.accuracy_low = 0.25, result.accuracy_high = 0.75;
    result.acc_norm = 1, result.acc_norm_low = 0.875, result.acc_norm_high = 1;
  }
  const std::string table = evaluation_table(results);
  const size_t norm = table.find("(acc_norm), %");
  ASSERT_NE(norm, std::string::npos) << table;
  EXPECT_LT(table.find("50.0 [25.0, 75.0]"), norm) << table;
  EXPECT_NE(table.find("100.0 [87.5, 100.0]", norm), std::string::npos) << table;
  EXPECT_NE(table.find("mean    100.0\n", norm), std::string::npos) << table;
  EXPECT_NEAR(*means_over_domains(results)[0].acc_norm, 1, 1e-12);
  for (EvalResult &result : results) result.evaluation_type = "exact_match";
  EXPECT_FALSE(means_over_domains(results)[0].acc_norm);
}

TEST(Comparison, WithoutAGainOfTheOracleThereIsNoShare) {
  const std::vector<EvalResult> results = {made_up("a", "base", "base", {2, 2}, {0, 0}),
                                           made_up("a", "mix", "moe", {3, 3}, {0, 0}),
                                           made_up("a", "oracle", "oracle", {2, 2}, {0, 0})};
  EXPECT_FALSE(summarize_mixtures(results, 1)[0].recovered_share);
}

}  // namespace
}  // namespace moe
