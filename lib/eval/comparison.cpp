#include "eval/comparison.h"

#include <algorithm>
#include <cmath>

namespace moe {
namespace {

using Column = std::vector<const EvalResult *>;  // one result per domain, of one model

// Domains and models in the order of their first result.
std::vector<std::string> domains_of(const std::vector<EvalResult> &results) {
  std::vector<std::string> domains;
  for (const EvalResult &result : results)
    if (std::find(domains.begin(), domains.end(), result.domain) == domains.end()) domains.push_back(result.domain);
  return domains;
}

std::vector<std::pair<std::string, std::string>> models_of(const std::vector<EvalResult> &results) {
  std::vector<std::pair<std::string, std::string>> models;  // name, type
  for (const EvalResult &result : results) {
    const std::pair<std::string, std::string> model{result.model_name, result.model_type};
    if (std::find(models.begin(), models.end(), model) == models.end()) models.push_back(model);
  }
  return models;
}

bool has_accuracy(const EvalResult &result) { return result.evaluation_type != "loss"; }
bool has_acc_norm(const EvalResult &result) { return result.evaluation_type == "multiple_choice"; }
bool has_mutual_info(const EvalResult &result) { return result.has_mutual_info; }
bool has_loss(const EvalResult &result) { return result.has_loss; }

// The results of a model that have the measure, one for each of the domains; empty when one has none.
template <class Has>
Column column_of(const std::vector<EvalResult> &results, const std::vector<std::string> &domains, const std::string &model,
                 Has has) {
  Column column;
  for (const std::string &domain : domains) {
    const auto found = std::find_if(results.begin(), results.end(), [&](const EvalResult &result) {
      return result.domain == domain && result.model_name == model && has(result);
    });
    if (found == results.end()) return {};
    column.push_back(&*found);
  }
  return column;
}

template <class Has>
Column column_of(const std::vector<EvalResult> &results, const std::string &model, Has has) {
  return column_of(results, domains_of(results), model, has);
}

double loss_of(const EvalResult &result, const std::vector<int32_t> &drawn) {
  double nll = 0, tokens = 0;
  for (const int32_t i : drawn) {
    const EvalItem &item = result.items[static_cast<size_t>(i)];
    nll += item.nll;
    tokens += static_cast<double>(item.nll_tokens);
  }
  return nll / tokens;
}

template <bool EvalItem::*correct>
double share_of(const EvalResult &result, const std::vector<int32_t> &drawn) {
  int64_t count = 0;
  for (const int32_t i : drawn) count += result.items[static_cast<size_t>(i)].*correct;
  return static_cast<double>(count) / static_cast<double>(drawn.size());
}
constexpr auto accuracy_of = share_of<&EvalItem::correct>;

using Measure = double (*)(const EvalResult &, const std::vector<int32_t> &);

// Mean over the domains of a measure on the drawn samples.
double mean_of(const Column &column, const Draw &draw, Measure measure) {
  double sum = 0;
  for (size_t d = 0; d < column.size(); d++) sum += measure(*column[d], draw[d]);
  return sum / static_cast<double>(column.size());
}

std::vector<int64_t> sizes_of(const Column &column) {
  std::vector<int64_t> sizes;
  for (const EvalResult *result : column) sizes.push_back(static_cast<int64_t>(result->items.size()));
  return sizes;
}

Draw everything(const Column &column) {
  Draw draw;
  for (const EvalResult *result : column) {
    std::vector<int32_t> &all = draw.emplace_back(result->items.size());
    for (size_t i = 0; i < all.size(); i++) all[i] = static_cast<int32_t>(i);
  }
  return draw;
}

Difference difference(const Column &first, const Column &second, Measure measure, uint64_t seed) {
  const auto value = [&](const Draw &draw) { return mean_of(first, draw, measure) - mean_of(second, draw, measure); };
  return {value(everything(first)), bootstrap(sizes_of(first), value, seed).interval};
}

McNemar count_disagreements(const EvalResult &first, const EvalResult &second) {
  int64_t first_only = 0, second_only = 0;
  for (size_t i = 0; i < first.items.size(); i++) {
    first_only += first.items[i].correct && !second.items[i].correct;
    second_only += !first.items[i].correct && second.items[i].correct;
  }
  return mcnemar(first_only, second_only);
}

std::optional<Difference> recovered_share(const Column &base, const Column &mixture, const Column &oracle, uint64_t seed) {
  if (base.empty() || mixture.empty() || oracle.empty()) return {};
  const auto gain = [&](const Column &column, const Draw &draw) {
    return mean_of(base, draw, loss_of) - mean_of(column, draw, loss_of);
  };
  const Draw all = everything(base);
  if (!(gain(oracle, all) > 0)) return {};
  const auto share = [&](const Draw &draw) {
    const double possible = gain(oracle, draw);
    return possible > 0 ? gain(mixture, draw) / possible : std::nan("");  // a draw without a gain has no share
  };
  return Difference{share(all), bootstrap(sizes_of(base), share, seed).interval};
}

// The right expert has the largest mean gate among the experts; the base does not compete.
bool routed_right(const EvalItem &item, int32_t entry) {
  if (item.routing.size() < 2) return false;
  return std::max_element(item.routing.begin() + 1, item.routing.end()) - item.routing.begin() == entry;
}

std::vector<RoutingAccuracy> routing_accuracy(const std::vector<EvalResult> &results, const std::string &model) {
  std::vector<RoutingAccuracy> by_domain;
  RoutingAccuracy all;
  for (const EvalResult &result : results) {
    const auto known = [&](const RoutingAccuracy &one) { return one.domain == result.domain; };
    if (result.model_name != model || result.domain_entry < 0 || std::any_of(by_domain.begin(), by_domain.end(), known)) continue;
    RoutingAccuracy one;
    one.domain = result.domain;
    one.samples = static_cast<int64_t>(result.items.size());
    for (const EvalItem &item : result.items) one.right += routed_right(item, result.domain_entry);
    one.interval = wilson(one.right, one.samples);
    all.samples += one.samples;
    all.right += one.right;
    by_domain.push_back(one);
  }
  if (by_domain.empty()) return {};
  all.interval = wilson(all.right, all.samples);
  by_domain.push_back(all);
  return by_domain;
}

// First - second on the mean over those of the domains that have the measure.
template <class Has>
std::optional<Difference> compare_means(const std::vector<EvalResult> &results, const std::vector<std::string> &domains,
                                        const std::string &first, const std::string &second, Has has, Measure measure,
                                        uint64_t seed) {
  std::vector<std::string> measured;
  for (const std::string &domain : domains)
    if (!column_of(results, {domain}, first, has).empty()) measured.push_back(domain);
  const Column one = column_of(results, measured, first, has), other = column_of(results, measured, second, has);
  if (one.empty() || other.empty()) return {};
  return difference(one, other, measure, seed);
}

}  // namespace

std::vector<PairComparison> compare_pairs(const std::vector<EvalResult> &results, uint64_t seed) {
  std::vector<PairComparison> pairs;
  for (size_t i = 0; i < results.size(); i++) {
    for (size_t j = i + 1; j < results.size(); j++) {
      const EvalResult &first = results[i], &second = results[j];
      if (first.domain != second.domain || first.evaluation_type != second.evaluation_type) continue;
      PairComparison pair{
          first.domain, first.evaluation_type, first.model_name, second.model_name, first.total_samples, {}, {}, {}};
      if (has_accuracy(first)) {
        pair.correct = count_disagreements(first, second);
        pair.accuracy = difference({&first}, {&second}, accuracy_of, seed);
      }
      if (first.has_loss && second.has_loss) pair.loss = difference({&first}, {&second}, loss_of, seed);
      pairs.push_back(std::move(pair));
    }
  }
  return pairs;
}

std::vector<ModelMean> means_over_domains(const std::vector<EvalResult> &results, const std::string &evaluation_type) {
  const auto wanted = [&](const EvalResult &result) {
    return evaluation_type.empty() || result.evaluation_type == evaluation_type;
  };
  std::vector<ModelMean> means;
  for (const auto &[name, type] : models_of(results)) {
    const auto mean = [&, &model = name](bool (*has)(const EvalResult &), Measure measure) -> std::optional<double> {
      const Column column = column_of(results, model, [&](const auto &result) { return has(result) && wanted(result); });
      if (column.empty()) return {};
      return mean_of(column, everything(column), measure);
    };
    means.push_back({name, type, mean(has_loss, loss_of), mean(has_accuracy, accuracy_of),
                     mean(has_acc_norm, share_of<&EvalItem::correct_norm>),
                     mean(has_mutual_info, share_of<&EvalItem::correct_mutual_info>)});
  }
  return means;
}

std::vector<Forgetting> measure_forgetting(const std::vector<EvalResult> &results, uint64_t seed) {
  std::string base;
  for (const EvalResult &result : results)
    if (result.model_type == "base") base = result.model_name;
  const std::vector<std::string> domains = domains_of(results);
  std::vector<Forgetting> all;
  for (const auto &[name, type] : models_of(results)) {
    if (type != "lora" || base.empty()) continue;
    std::vector<std::string> own, others;
    for (const std::string &domain : domains) (domain == name ? own : others).push_back(domain);
    const auto loss = [&, &model = name](const auto &part) {
      return compare_means(results, part, model, base, has_loss, loss_of, seed);
    };
    const auto accuracy = [&, &model = name](const auto &part) {
      return compare_means(results, part, model, base, has_accuracy, accuracy_of, seed);
    };
    all.push_back({name, own.empty() ? "" : name, loss(own), accuracy(own), loss(others), accuracy(others)});
  }
  return all;
}

std::vector<MixtureSummary> summarize_mixtures(const std::vector<EvalResult> &results, uint64_t seed) {
  const auto models = models_of(results);
  const auto losses_of_type = [&](const char *wanted) {
    for (const auto &[name, type] : models)
      if (type == wanted) return column_of(results, name, has_loss);
    return Column();
  };
  std::vector<MixtureSummary> summaries;
  for (const auto &[name, type] : models) {
    if (type != "moe") continue;
    MixtureSummary summary;
    summary.name = name;
    const Column losses = column_of(results, name, has_loss), accuracies = column_of(results, name, has_accuracy);
    summary.recovered_share = recovered_share(losses_of_type("base"), losses, losses_of_type("oracle"), seed);
    for (const auto &[other, other_type] : models) {
      if (other == name) continue;
      const Column other_losses = column_of(results, other, has_loss), other_accuracies = column_of(results, other, has_accuracy);
      Versus versus{other, other_type, {}, {}};
      if (!losses.empty() && !other_losses.empty()) versus.loss = difference(losses, other_losses, loss_of, seed);
      if (!accuracies.empty() && !other_accuracies.empty())
        versus.accuracy = difference(accuracies, other_accuracies, accuracy_of, seed);
      summary.versus.push_back(std::move(versus));
    }
    summary.routing = routing_accuracy(results, name);
    summaries.push_back(std::move(summary));
  }
  return summaries;
}

}  // namespace moe
