// The results of an evaluation as JSON and as JSON lines per item (docs/evaluation.md).
#include <cmath>
#include <set>

#include "base/error.h"
#include "eval/comparison.h"
#include "eval/evaluation.h"

namespace moe {
namespace {

Json interval_json(const Interval &interval) {
  Json json = Json::array();
  json.push(interval.low);
  json.push(interval.high);
  return json;
}

Json difference_json(const Difference &difference) {
  return Json::object({{"value", difference.value}, {"interval", interval_json(difference.interval)}});
}

// Rows of `columns` numbers, rounded: they are for looking at.
template <class Number>
Json rows_json(const std::vector<Number> &numbers, size_t columns) {
  Json rows = Json::array();
  for (size_t first = 0; first + columns <= numbers.size() && columns > 0; first += columns) {
    Json &row = rows.push(Json::array()).items().back();
    for (size_t i = first; i < first + columns; i++) row.push(std::round(1e5 * static_cast<double>(numbers[i])) / 1e5);
  }
  return rows;
}

Json usage_json(const EvalResult &result) {
  Json json = Json::object();
  for (size_t e = 0; e < result.entries.size(); e++) json.set(result.entries[e], result.usage[e]);
  return json;
}

Json calibration_json(const Calibration &calibration) {
  Json bins = Json::array();
  for (const CalibrationBin &bin : calibration.bins) {
    Json json = Json::object({{"samples", bin.samples}, {"correct_predictions", bin.correct}});
    bins.push(json.set("confidence", bin.samples > 0 ? Json(bin.confidence) : Json()));
  }
  return Json::object({{"expected_error", calibration.error}, {"bins", std::move(bins)}});
}

Json outcomes_json(const EvalResult &result) {
  Json json = Json::object();
  for (size_t i = 0; i < kCodeOutcomes.size(); i++) json.set(kCodeOutcomes[i], result.code_outcomes[i]);
  return json;
}

Json result_json(const EvalResult &result, const EvalOptions &options) {
  Json json = Json::object({{"domain", result.domain},
                            {"model", result.model_name},
                            {"model_type", result.model_type},
                            {"model_path", result.model_path},
                            {"dataset", result.dataset},
                            {"evaluation_type", result.evaluation_type},
                            {"prompt_template", result.template_name},
                            {"num_fewshot", options.num_fewshot},
                            {"seed", options.seed},
                            {"total_samples", result.total_samples}});
  if (result.evaluation_type != "loss") {
    json.set("correct_predictions", result.correct);
    json.set("accuracy", result.accuracy);
    json.set("accuracy_interval", interval_json({result.accuracy_low, result.accuracy_high}));
    const bool code = result.evaluation_type == "code_tests";
    const std::string norm = code ? "exact_match" : result.evaluation_type == "exact_match" ? "accuracy_flexible" : "acc_norm";
    json.set(norm, result.acc_norm);
    json.set(norm + "_interval", interval_json({result.acc_norm_low, result.acc_norm_high}));
    if (result.has_mutual_info) {
      json.set("acc_mutual_info", result.acc_mutual_info);
      json.set("acc_mutual_info_interval", interval_json({result.acc_mutual_info_low, result.acc_mutual_info_high}));
    }
    if (result.has_macro_f1) json.set("macro_f1", result.macro_f1);
    if (result.has_f1) json.set("f1", result.f1).set("f1_interval", interval_json({result.f1_low, result.f1_high}));
    if (code) json.set("outcomes", outcomes_json(result));
    else json.set("unparsed", result.unparsed);
  }
  if (result.evaluation_type == "multiple_choice") json.set("calibration", calibration_json(result.calibration));
  if (result.has_loss) {
    json.set("mean_loss", result.mean_loss);
    json.set("loss_interval", interval_json({result.loss_low, result.loss_high}));
    json.set("perplexity", result.perplexity);
    json.set("loss_tokens", result.loss_tokens);
  }
  if (!result.usage.empty()) json.set("usage", usage_json(result));
  if (!result.layer_usage.empty()) json.set("usage_by_layer", rows_json(result.layer_usage, result.entries.size()));
  if (!result.fewshot_dataset.empty())
    json.set("fewshot", Json::object({{"dataset", result.fewshot_dataset}, {"rows", Json::array_of(result.fewshot_rows)}}));
  json.set("tokens", result.tokens);
  json.set("seconds", result.seconds);
  json.set("skipped", result.skipped.to_json());
  return json;
}

Json pair_json(const PairComparison &pair) {
  Json json = Json::object({{"domain", pair.domain},
                            {"evaluation_type", pair.evaluation_type},
                            {"first", pair.first},
                            {"second", pair.second},
                            {"samples", pair.samples}});
  if (pair.correct) {
    json.set("mcnemar", Json::object({{"first_only", pair.correct->first_only},
                                      {"second_only", pair.correct->second_only},
                                      {"p_exact", pair.correct->p_exact},
                                      {"p_mid", pair.correct->p_mid}}));
  }
  if (pair.accuracy) json.set("accuracy_difference", difference_json(*pair.accuracy));
  if (pair.loss) json.set("loss_difference", difference_json(*pair.loss));
  return json;
}

Json mixture_json(const MixtureSummary &mixture) {
  Json json = Json::object({{"model", mixture.name}});
  json.set("recovered_share", mixture.recovered_share ? difference_json(*mixture.recovered_share) : Json());
  Json versus = Json::array(), routing = Json::array();
  for (const Versus &one : mixture.versus) {
    Json entry = Json::object({{"model", one.other}, {"model_type", one.other_type}});
    if (one.loss) entry.set("loss_difference", difference_json(*one.loss));
    if (one.accuracy) entry.set("accuracy_difference", difference_json(*one.accuracy));
    versus.push(std::move(entry));
  }
  for (const RoutingAccuracy &one : mixture.routing) {
    routing.push(Json::object({{"domain", one.domain.empty() ? Json() : Json(one.domain)},
                               {"samples", one.samples},
                               {"right_expert", one.right},
                               {"accuracy", static_cast<double>(one.right) / static_cast<double>(one.samples)},
                               {"interval", interval_json(one.interval)}}));
  }
  json.set("versus", std::move(versus));
  json.set("routing_accuracy", std::move(routing));
  return json;
}

Json options_json(const EvalOptions &options) {
  return Json::object({{"scoring", options.scoring},
                       {"max_length", options.max_length},
                       {"max_new_tokens", options.max_new_tokens},
                       {"num_fewshot", options.num_fewshot},
                       {"losses", options.losses},
                       {"allow_code_execution", options.allow_code_execution},
                       {"seed", options.seed}});
}

Json forgetting_json(const Forgetting &forgetting) {
  Json json = Json::object({{"model", forgetting.model}});
  json.set("domain", forgetting.domain.empty() ? Json() : Json(forgetting.domain));
  const auto set = [&](const char *key, const std::optional<Difference> &value) {
    if (value) json.set(key, difference_json(*value));
  };
  set("own_loss_difference", forgetting.own_loss);
  set("own_accuracy_difference", forgetting.own_accuracy);
  set("other_loss_difference", forgetting.other_loss);
  set("other_accuracy_difference", forgetting.other_accuracy);
  return json;
}

Json trace_json(const EvalResult &result, const RoutingTrace &trace) {
  return Json::object({{"model", result.model_name},
                       {"domain", result.domain},
                       {"id", trace.id},
                       {"entries", Json::array_of(result.entries)},
                       {"texts", Json::array_of(trace.texts)},
                       {"weights", rows_json(trace.weights, result.entries.size())}});
}

Json item_json(const EvalResult &result, const EvalItem &item) {
  Json json = Json::object({{"id", item.id},
                            {"domain", result.domain},
                            {"model", result.model_name},
                            {"evaluation_type", result.evaluation_type},
                            {"row", item.row},
                            {"prompt_sha256", item.prompt_sha256},
                            {"reference", item.reference}});
  if (result.evaluation_type == "multiple_choice") {
    json.set("choice_log_likelihood", Json::array_of(item.choice_log_likelihood));
    json.set("choice_bytes", Json::array_of(item.choice_bytes));
    json.set("prediction", item.prediction);
    json.set("prediction_norm", item.prediction_norm);
    json.set("gold", item.gold);
    json.set("correct_norm", item.correct_norm);
    if (result.has_mutual_info) {
      json.set("choice_log_likelihood_alone", Json::array_of(item.choice_log_likelihood_alone));
      json.set("prediction_mutual_info", item.prediction_mutual_info);
      json.set("correct_mutual_info", item.correct_mutual_info);
    }
  }
  if (result.evaluation_type == "exact_match") {
    json.set("generated", item.generated);
    json.set("parsed", item.parsed);
    json.set("unparsed", item.unparsed);
    json.set("correct_flexible", item.correct_norm);
    if (result.has_f1) json.set("f1", item.f1);
  }
  if (result.evaluation_type == "code_tests") {
    json.set("generated", item.generated);
    json.set("outcome", kCodeOutcomes[static_cast<size_t>(item.code.outcome)]);
    if (!item.code.detail.empty()) json.set("detail", item.code.detail);
  }
  if (result.evaluation_type != "loss") json.set("correct", item.correct);
  if (result.has_loss) {
    json.set("nll", item.nll);
    json.set("nll_tokens", item.nll_tokens);
  }
  if (!item.routing.empty()) {
    Json routing = Json::object();
    for (size_t e = 0; e < item.routing.size() && e < result.entries.size(); e++) {
      routing.set(result.entries[e], static_cast<double>(item.routing[e]));
    }
    json.set("routing", std::move(routing));
  }
  return json;
}

}  // namespace

Json evaluation_json(const std::vector<EvalResult> &results, const EvalOptions &options, const Json &run) {
  Json json =
      Json::object({{"format", "libmoe.evaluation"}, {"format_version", 1}, {"run", run}, {"options", options_json(options)}});
  Json rows = Json::array(), means = Json::array(), pairs = Json::array(), mixtures = Json::array();
  for (const EvalResult &result : results) rows.push(result_json(result, options));
  for (const ModelMean &mean : means_over_domains(results)) {
    Json entry = Json::object({{"model", mean.name}, {"model_type", mean.type}});
    if (mean.loss) entry.set("mean_loss", *mean.loss);
    if (mean.accuracy) entry.set("accuracy", *mean.accuracy);
    if (mean.acc_norm) entry.set("acc_norm", *mean.acc_norm);
    if (mean.acc_mutual_info) entry.set("acc_mutual_info", *mean.acc_mutual_info);
    means.push(std::move(entry));
  }
  for (const PairComparison &pair : compare_pairs(results, options.seed)) pairs.push(pair_json(pair));
  for (const MixtureSummary &mixture : summarize_mixtures(results, options.seed)) mixtures.push(mixture_json(mixture));
  json.set("results", std::move(rows));
  json.set("means_over_domains", std::move(means));
  json.set("comparisons", std::move(pairs));
  json.set("mixtures", std::move(mixtures));
  Json forgetting = Json::array(), traces = Json::array();
  for (const Forgetting &one : measure_forgetting(results, options.seed)) forgetting.push(forgetting_json(one));
  for (const EvalResult &result : results)
    for (const RoutingTrace &trace : result.traces) traces.push(trace_json(result, trace));
  json.set("forgetting", std::move(forgetting));
  json.set("routing_traces", std::move(traces));
  return json;
}

std::string evaluation_items(const std::vector<EvalResult> &results) {
  std::set<std::string> written;
  std::string lines;
  for (const EvalResult &result : results) {
    for (const EvalItem &item : result.items) {
      if (!written.insert(item.id).second) continue;
      Json json = Json::object({{"id", item.id},
                                {"domain", result.domain},
                                {"row", item.row},
                                {"prompt_sha256", item.prompt_sha256},
                                {"prompt", item.prompt},
                                {"completion", item.completion}});
      if (!item.choices.empty()) json.set("choices", Json::array_of(item.choices)).set("gold", item.gold);
      lines += json.set("reference", item.reference).dump() + "\n";
    }
  }
  return lines;
}

std::string evaluation_samples(const std::vector<EvalResult> &results) {
  std::string lines;
  for (const EvalResult &result : results)
    for (const EvalItem &item : result.items) lines += item_json(result, item).dump() + "\n";
  return lines;
}

}  // namespace moe
