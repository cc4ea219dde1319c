// The results of an evaluation as JSON (docs/evaluation.md), as JSON lines per item, and as the table of the terminal.
#include <algorithm>
#include <cstdarg>
#include <cstdio>

#include "base/error.h"
#include "eval/comparison.h"
#include "eval/evaluation.h"

namespace moe {
namespace {

// ---- JSON ----------------------------------------------------------------------------------------------

Json interval_json(const Interval &interval) {
  Json json = Json::array();
  json.push(interval.low);
  json.push(interval.high);
  return json;
}

Json difference_json(const Difference &difference) {
  return Json::object({{"value", difference.value}, {"interval", interval_json(difference.interval)}});
}

Json skipped_json(const SkipReport &skipped) {
  Json json = Json::object();
  for (const auto &[reason, rows] : skipped.reasons())
    json.set(reason, Json::object({{"count", rows.count}, {"first_row", rows.first_row}}));
  return json;
}

Json usage_json(const EvalResult &result) {
  Json json = Json::object();
  for (size_t e = 0; e < result.entries.size(); e++) json.set(result.entries[e], result.usage[e]);
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
    const std::string norm = result.evaluation_type == "exact_match" ? "accuracy_flexible" : "acc_norm";
    json.set(norm, result.acc_norm);
    json.set(norm + "_interval", interval_json({result.acc_norm_low, result.acc_norm_high}));
    if (result.has_mutual_info) {
      json.set("acc_mutual_info", result.acc_mutual_info);
      json.set("acc_mutual_info_interval", interval_json({result.acc_mutual_info_low, result.acc_mutual_info_high}));
    }
    json.set("unparsed", result.unparsed);
  }
  if (result.has_loss) {
    json.set("mean_loss", result.mean_loss);
    json.set("loss_interval", interval_json({result.loss_low, result.loss_high}));
    json.set("perplexity", result.perplexity);
    json.set("loss_tokens", result.loss_tokens);
  }
  if (!result.usage.empty()) json.set("usage", usage_json(result));
  json.set("tokens", result.tokens);
  json.set("seconds", result.seconds);
  json.set("skipped", skipped_json(result.skipped));
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
                       {"seed", options.seed}});
}

template <class List>
Json numbers_json(const List &list) {
  Json json = Json::array();
  for (const auto &value : list) json.push(Json(value));
  return json;
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
    json.set("choice_log_likelihood", numbers_json(item.choice_log_likelihood));
    json.set("choice_bytes", numbers_json(item.choice_bytes));
    json.set("prediction", item.prediction);
    json.set("prediction_norm", item.prediction_norm);
    json.set("gold", item.gold);
    json.set("correct_norm", item.correct_norm);
    if (result.has_mutual_info) {
      json.set("choice_log_likelihood_alone", numbers_json(item.choice_log_likelihood_alone));
      json.set("prediction_mutual_info", item.prediction_mutual_info);
      json.set("correct_mutual_info", item.correct_mutual_info);
    }
  }
  if (result.evaluation_type == "exact_match") {
    json.set("generated", item.generated);
    json.set("parsed", item.parsed);
    json.set("unparsed", item.unparsed);
    json.set("correct_flexible", item.correct_norm);
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

// ---- table ---------------------------------------------------------------------------------------------

std::string format(const char *form, ...) __attribute__((format(printf, 1, 2)));
std::string format(const char *form, ...) {
  char buffer[160];
  va_list values;
  va_start(values, form);
  vsnprintf(buffer, sizeof buffer, form, values);
  va_end(values);
  return buffer;
}

using Table = std::vector<std::vector<std::string>>;

// Columns as wide as their widest cell, two spaces apart.
std::string lay_out(const Table &table) {
  std::vector<size_t> widths;
  for (const auto &row : table) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); i++) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string out;
  for (const auto &row : table) {
    std::string line;
    for (size_t i = 0; i < row.size(); i++) line += row[i] + std::string(widths[i] + 2 - row[i].size(), ' ');
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  return out;
}

template <class Value>
void add_unique(std::vector<Value> &list, const Value &value) {
  if (std::find(list.begin(), list.end(), value) == list.end()) list.push_back(value);
}

// Domains x models; `cell` gives "" where a result does not have the measure, `mean` a cell of the last row.
template <class Cell, class Mean>
std::string matrix(const std::string &title, const std::vector<EvalResult> &results, const std::string &type, Cell cell,
                   Mean mean) {
  std::vector<std::string> domains, models;
  for (const EvalResult &result : results) {
    if (cell(result).empty()) continue;
    add_unique(domains, result.domain);
    add_unique(models, result.model_name);
  }
  if (domains.empty()) return "";
  Table table{{"domain"}};
  table[0].insert(table[0].end(), models.begin(), models.end());
  for (const std::string &domain : domains) {
    std::vector<std::string> &row = table.emplace_back(1, domain);
    for (const std::string &model : models) {
      const auto found = std::find_if(results.begin(), results.end(), [&](const EvalResult &result) {
        return result.domain == domain && result.model_name == model && !cell(result).empty();
      });
      row.push_back(found == results.end() ? "-" : cell(*found));
    }
  }
  std::vector<std::string> means{"mean"};
  for (const ModelMean &one : means_over_domains(results, type))
    if (std::find(models.begin(), models.end(), one.name) != models.end()) means.push_back(mean(one));
  if (domains.size() > 1) table.push_back(means);
  return title + "\n" + lay_out(table) + "\n";
}

struct AccuracyTable {
  const char *title, *type;
  double EvalResult::*value, EvalResult::*low, EvalResult::*high;
  std::optional<double> ModelMean::*mean;
};
constexpr AccuracyTable kAccuracyTables[] = {
    {"Multiple choice accuracy", "multiple_choice", &EvalResult::accuracy, &EvalResult::accuracy_low, &EvalResult::accuracy_high,
     &ModelMean::accuracy},
    {"Multiple choice accuracy per byte of the answer (acc_norm)", "multiple_choice", &EvalResult::acc_norm,
     &EvalResult::acc_norm_low, &EvalResult::acc_norm_high, &ModelMean::acc_norm},
    {"Multiple choice accuracy by what the prompt adds (acc_mutual_info)", "multiple_choice", &EvalResult::acc_mutual_info,
     &EvalResult::acc_mutual_info_low, &EvalResult::acc_mutual_info_high, &ModelMean::acc_mutual_info},
    {"Exact match", "exact_match", &EvalResult::accuracy, &EvalResult::accuracy_low, &EvalResult::accuracy_high,
     &ModelMean::accuracy},
};

std::string usage_table(const std::vector<EvalResult> &results, const MixtureSummary &mixture) {
  Table table;
  std::vector<std::string> seen;
  for (const EvalResult &result : results) {
    if (result.model_name != mixture.name || result.usage.empty()) continue;
    if (std::find(seen.begin(), seen.end(), result.domain) != seen.end()) continue;
    seen.push_back(result.domain);
    if (table.empty()) {
      table.push_back({"domain"});
      table[0].insert(table[0].end(), result.entries.begin(), result.entries.end());
      table[0].push_back("right expert");
    }
    std::vector<std::string> &row = table.emplace_back(1, result.domain);
    for (const double share : result.usage) row.push_back(format("%.3f", share));
    const auto routed = std::find_if(mixture.routing.begin(), mixture.routing.end(),
                                     [&](const auto &one) { return one.domain == result.domain; });
    if (routed == mixture.routing.end()) row.push_back("-");
    else
      row.push_back(format("%.1f %% of %lld", 100.0 * static_cast<double>(routed->right) / static_cast<double>(routed->samples),
                           static_cast<long long>(routed->samples)));
  }
  return table.empty() ? ""
                       : "Routing of " + mixture.name + ": mean weight of each expert, items routed to the right one\n" +
                             lay_out(table) + "\n";
}

std::string versus_table(const MixtureSummary &mixture) {
  Table table{{mixture.name + " minus", "loss", "accuracy, points"}};
  const auto cell = [](const std::optional<Difference> &difference, double unit, const char *form) {
    if (!difference) return std::string("-");
    return format(form, unit * difference->value, unit * difference->interval.low, unit * difference->interval.high);
  };
  for (const Versus &one : mixture.versus) {
    table.push_back({one.other, cell(one.loss, 1, "%+.4f [%+.4f, %+.4f]"), cell(one.accuracy, 100, "%+.1f [%+.1f, %+.1f]")});
  }
  std::string out = "Mean over domains, paired 95 % bootstrap intervals\n" + lay_out(table);
  if (mixture.recovered_share) {
    const Difference &share = *mixture.recovered_share;
    out += format("recovered share (base - %s) / (base - oracle): %.3f [%.3f, %.3f]\n", mixture.name.substr(0, 60).c_str(),
                  share.value, share.interval.low, share.interval.high);
  }
  return out + "\n";
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
  return json;
}

std::string evaluation_samples(const std::vector<EvalResult> &results) {
  std::string lines;
  for (const EvalResult &result : results)
    for (const EvalItem &item : result.items) lines += item_json(result, item).dump() + "\n";
  return lines;
}

std::string evaluation_table(const std::vector<EvalResult> &results, const EvalOptions &options) {
  const auto loss = [](const EvalResult &result) {
    return result.has_loss ? format("%.4f [%.4f, %.4f]", result.mean_loss, result.loss_low, result.loss_high) : std::string();
  };
  const auto mean_loss = [](const ModelMean &mean) { return mean.loss ? format("%.4f", *mean.loss) : std::string("-"); };
  std::string out = matrix("Held-out loss, nats per token [95 % interval]", results, "", loss, mean_loss);
  for (const AccuracyTable &table : kAccuracyTables) {
    const auto accuracy = [&](const EvalResult &result) {
      if (result.evaluation_type != table.type) return std::string();
      if (table.value == &EvalResult::acc_mutual_info && !result.has_mutual_info) return std::string();
      return format("%.1f [%.1f, %.1f]", 100 * result.*table.value, 100 * result.*table.low, 100 * result.*table.high);
    };
    const auto mean_accuracy = [&](const ModelMean &mean) {
      return mean.*table.mean ? format("%.1f", 100 * *(mean.*table.mean)) : std::string("-");
    };
    out += matrix(std::string(table.title) + ", % [95 % interval]", results, table.type, accuracy, mean_accuracy);
  }
  for (const MixtureSummary &mixture : summarize_mixtures(results, options.seed))
    out += usage_table(results, mixture) + versus_table(mixture);
  return out;
}

}  // namespace moe
