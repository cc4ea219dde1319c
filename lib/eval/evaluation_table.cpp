// The results of an evaluation as the tables of the terminal.
#include <algorithm>
#include <cstdarg>
#include <cstdio>

#include "eval/comparison.h"
#include "eval/evaluation.h"

namespace moe {
namespace {

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
    {"Code that passes its tests (pass@1)", "code_tests", &EvalResult::accuracy, &EvalResult::accuracy_low,
     &EvalResult::accuracy_high, &ModelMean::accuracy},
};

// What became of the programs.
std::string outcomes_table(const std::vector<EvalResult> &results) {
  Table table{{"domain", "model"}};
  table[0].insert(table[0].end(), kCodeOutcomes.begin(), kCodeOutcomes.end());
  for (const EvalResult &result : results) {
    if (result.evaluation_type != "code_tests") continue;
    std::vector<std::string> &row = table.emplace_back(std::vector{result.domain, result.model_name});
    for (const int64_t count : result.code_outcomes) row.push_back(std::to_string(count));
  }
  return table.size() == 1 ? "" : "Programs by outcome\n" + lay_out(table) + "\n";
}

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
  out += outcomes_table(results);
  for (const MixtureSummary &mixture : summarize_mixtures(results, options.seed))
    out += usage_table(results, mixture) + versus_table(mixture);
  return out;
}

}  // namespace moe
