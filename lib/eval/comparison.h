// Differences between models on the same items: per domain, and on the mean over domains. Every interval is a paired bootstrap:
// one draw of samples serves all models of a comparison.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "eval/evaluation.h"
#include "eval/statistics.h"

namespace moe {

struct Difference {
  double value = 0;  // first - second
  Interval interval;
};

// Two models on one domain and evaluation type.
struct PairComparison {
  std::string domain, evaluation_type, first, second;
  int64_t samples = 0;
  std::optional<McNemar> correct;  // where there is an accuracy
  std::optional<Difference> accuracy, loss;
};
std::vector<PairComparison> compare_pairs(const std::vector<EvalResult> &results, uint64_t seed);

// Means over domains of the token-weighted loss and of the accuracies; absent where a domain has none.
struct ModelMean {
  std::string name, type;
  std::optional<double> loss, accuracy, acc_norm, acc_mutual_info;  // the last two of multiple choice
};
// evaluation_type "": whatever a model has.
std::vector<ModelMean> means_over_domains(const std::vector<EvalResult> &results, const std::string &evaluation_type = "");

// What an adapter costs elsewhere: it against the base on its own domain, and on the mean over all others that have the measure.
struct Forgetting {
  std::string model, domain;  // domain "": none of the tasks has the adapter's name, all count as others
  std::optional<Difference> own_loss, own_accuracy, other_loss, other_accuracy;  // adapter - base
};
std::vector<Forgetting> measure_forgetting(const std::vector<EvalResult> &results, uint64_t seed);

// A mixture against every other model, on the means over domains.
struct Versus {
  std::string other, other_type;
  std::optional<Difference> loss, accuracy;  // mixture - other
};
struct RoutingAccuracy {
  std::string domain;              // "" = all domains together
  int64_t samples = 0, right = 0;  // items whose largest mean gate among the experts is that of the domain
  Interval interval;
};
struct MixtureSummary {
  std::string name;
  // (base - mixture) / (base - oracle) of the mean losses; absent without a base and an oracle, or when the oracle gains nothing.
  std::optional<Difference> recovered_share;
  std::vector<Versus> versus;
  std::vector<RoutingAccuracy> routing;
};
std::vector<MixtureSummary> summarize_mixtures(const std::vector<EvalResult> &results, uint64_t seed);

}  // namespace moe
