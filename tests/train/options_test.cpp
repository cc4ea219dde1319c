// Schedules against the golden learning rates; bounds of the options; target usage of the router's entries.
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.h"
#include "support/expect_error.h"
#include "support/golden.h"
#include "train/options.h"
#include "train/target_usage.h"

namespace moe {
namespace {

TEST(Schedule, EqualsTheGoldenLearningRatesPastTheEnd) {
  const Json schedules = read_json(test::golden_path("optim/expected.json")).at("schedules", "optim");
  const struct {
    const char *name;
    ScheduleKind kind;
  } cases[] = {{"constant", ScheduleKind::constant},     {"constant_warmup_5", ScheduleKind::constant}, {"linear_warmup_3", ScheduleKind::linear},
               {"linear_warmup_0", ScheduleKind::linear}, {"cosine_warmup_4", ScheduleKind::cosine}};
  for (const auto &c : cases) {
    const Json &golden = schedules.at(c.name, "optim");
    const double base = golden.number_at("base_lr", c.name);
    const int64_t steps = golden.integer_at("total_steps", c.name), warmup = golden.integer_or("warmup", 0, c.name);
    const auto &rates = golden.find("learning_rates")->items();
    for (size_t i = 0; i < rates.size(); i++) {
      EXPECT_NEAR(base * learning_rate_factor(c.kind, static_cast<int64_t>(i), steps, warmup), rates[i].number(), 1e-15) << c.name << " " << i;
    }
  }
}

TEST(Schedule, WarmupIsRoundedUp) {
  EXPECT_EQ(warmup_steps(0.03, 100), 3);
  EXPECT_EQ(warmup_steps(0.03, 10), 1);
  EXPECT_EQ(warmup_steps(0, 10), 0);
}

TEST(TrainOptions, OutOfRangeNamesTheOption) {
  TrainOptions options;
  options.expert_learning_rate = 11;
  EXPECT_FAILS(options.check(), Code::invalid, "expert_learning_rate: expected 0 to 10, found 11");
  options = {};
  options.batch_size = 0;
  try {
    options.check();
    FAIL();
  } catch (const Error &error) {
    EXPECT_EQ(error.code(), Code::invalid);
    EXPECT_NE(error.message().find("batch_size"), std::string::npos);
  }
  options = {};
  options.learning_rate = std::nan("");
  EXPECT_THROW(options.check(), Error);
}

TEST(TargetUsage, SharesFollowTheTokensOfTheDomains) {
  const std::vector<float> target = default_target_usage({700, 200, 100}, 1);
  EXPECT_NEAR(target[0], 0.25, 1e-6);
  EXPECT_NEAR(target[1], 0.75 * 0.7, 1e-6);
  EXPECT_NEAR(target[3], 0.75 * 0.1, 1e-6);
}

TEST(TargetUsage, NoEntryExceedsOneOverKAndTheTargetIsReachable) {
  for (int64_t k : {2, 3}) {
    const std::vector<float> target = default_target_usage({9000, 500, 500}, k);
    double sum = 0;
    for (float x : target) {
      EXPECT_LE(x, 1.0 / static_cast<double>(k) + 1e-6);
      EXPECT_GT(x, 0);
      sum += x;
    }
    EXPECT_NEAR(sum, 1, 1e-6);
  }
}

TEST(TargetUsage, AUsersTargetIsCheckedWithItsRange) {
  RouterConfig router;
  router.experts = 2;
  router.top_k = 2;
  EXPECT_EQ(checked_target_usage({0.5f, 0.3f, 0.2f}, router).size(), 3u);
  for (const std::vector<float> &bad : {std::vector<float>{0.6f, 0.2f, 0.2f}, {0.5f, 0.5f, 0.0f}, {0.5f, 0.5f}, {0.4f, 0.3f, 0.2f}}) {
    EXPECT_THROW(checked_target_usage(bad, router), Error);
  }
}

}  // namespace
}  // namespace moe
