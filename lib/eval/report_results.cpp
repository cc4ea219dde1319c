// The report's tables of measures: domains x models, pairs of models, forgetting, calibration.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "eval/chart.h"
#include "eval/code_execution.h"
#include "eval/report_sections.h"

namespace moe {
namespace {

struct MeasureTable {
  const char *title, *type;  // type "": any
  const char *value, *interval, *mean, *note;
  bool percent;            // else nats
  const char *difference;  // in the comparisons, or nullptr
};
constexpr MeasureTable kMeasures[] = {
    {"Multiple choice accuracy", "multiple_choice", "accuracy", "accuracy_interval", "accuracy",
     "Items whose right choice has the largest log-likelihood, %.", true, "accuracy_difference"},
    {"Multiple choice accuracy per byte", "multiple_choice", "acc_norm", "acc_norm_interval", "acc_norm",
     "acc_norm: the log-likelihood is divided by the bytes of the choice, %.", true, nullptr},
    {"Multiple choice accuracy by what the prompt adds", "multiple_choice", "acc_mutual_info", "acc_mutual_info_interval",
     "acc_mutual_info", "The gain of the log-likelihood over that after the last line of the prompt alone, %.", true, nullptr},
    {"Multiple choice macro-F1", "multiple_choice", "macro_f1", "", "", "Mean over the choices, as classes, of their F1, %.", true,
     nullptr},
    {"Exact match", "exact_match", "accuracy", "accuracy_interval", "accuracy", "Generated answers that equal the reference, %.",
     true, "accuracy_difference"},
    {"Exact match of the last number", "exact_match", "accuracy_flexible", "accuracy_flexible_interval", "",
     "The last number of the generated text equals the reference, %.", true, nullptr},
    {"F1 of the words", "exact_match", "f1", "f1_interval", "", "Mean overlap of the words of answer and reference, %.", true,
     nullptr},
    {"Code that passes its tests", "code_tests", "accuracy", "accuracy_interval", "accuracy",
     "pass@1: one generated program for each item, run with the tests of its row, %.", true, "accuracy_difference"},
    {"Held-out loss", "", "mean_loss", "loss_interval", "mean_loss", "Nats per token of the right completion; smaller is better.",
     false, "loss_difference"},
};

bool has(const Json &result, const MeasureTable &measure) {
  if (*measure.type && string_of(result, "evaluation_type") != measure.type) return false;
  return std::isfinite(number_of(result, measure.value));
}

const Json *find_result(const Json &evaluation, const std::string &domain, const std::string &model,
                        const MeasureTable &measure) {
  for (const Json &result : list_of(evaluation, "results"))
    if (string_of(result, "domain") == domain && string_of(result, "model") == model && has(result, measure)) return &result;
  return nullptr;
}

struct Change {
  double value = 0;
  Interval interval;
  bool certain() const { return interval.low > 0 || interval.high < 0; }
};

Change change_of(const Json &difference, bool reversed) {
  const double value = number_of(difference, "value");
  const Interval interval = interval_of(difference, "interval");
  return reversed ? Change{-value, {-interval.high, -interval.low}} : Change{value, interval};
}

// "▲" where a model is better than the base by more than the interval of the paired difference, "▼" where it is worse.
std::string mark_against_base(const Json &evaluation, const Json &result, const std::string &base, const MeasureTable &measure) {
  if (!measure.difference || base.empty()) return "";
  if (string_of(result, "model") == base) return "<span class=\"mark\"></span>";
  const std::string domain = string_of(result, "domain"), model = string_of(result, "model");
  for (const Json &pair : list_of(evaluation, "comparisons")) {
    const std::string first = string_of(pair, "first"), second = string_of(pair, "second");
    const bool forward = first == model && second == base, reversed = first == base && second == model;
    if (string_of(pair, "domain") != domain || !(forward || reversed)) continue;
    const Json *difference = pair.find(measure.difference);
    if (!difference || (*measure.type && string_of(pair, "evaluation_type") != measure.type)) continue;
    const Change change = change_of(*difference, reversed);
    if (!change.certain()) break;
    const bool better = (change.value > 0) == measure.percent;
    return better ? "<span class=\"mark up\" title=\"better than the base\">▲</span>"
                  : "<span class=\"mark down\" title=\"worse than the base\">▼</span>";
  }
  return "<span class=\"mark\"></span>";
}

std::string number_html(const MeasureTable &measure, double value) {
  return measure.percent ? fixed_html(100 * value, 1) : fixed_html(value, 3);
}

std::string matrix_html(const Json &evaluation, const Overview &overview, const MeasureTable &measure) {
  std::vector<std::string> domains, models;
  for (const Json &result : list_of(evaluation, "results")) {
    if (!has(result, measure)) continue;
    add_unique(domains, string_of(result, "domain"));
    add_unique(models, string_of(result, "model"));
  }
  if (domains.empty()) return "";
  std::vector<std::string> columns{"Domain"};
  columns.insert(columns.end(), models.begin(), models.end());
  std::string caption = measure.note;
  if (*measure.interval) caption += " Below each value its 95&nbsp;% interval.";
  if (measure.difference && !overview.base.empty())
    caption += " ▲ better, ▼ worse than the base: the paired interval of the difference leaves out zero.";
  HtmlTable table(caption, columns, "matrix");
  std::string figures;
  for (const std::string &domain : domains) {
    std::vector<Cell> cells;
    std::vector<ForestRow> forest;
    int reference = -1;
    for (const std::string &model : models) {
      const Json *result = find_result(evaluation, domain, model, measure);
      if (!result) {
        cells.push_back({"–", "n"});
        continue;
      }
      const double value = number_of(*result, measure.value);
      const Interval interval = interval_of(*result, measure.interval);
      const double unit = measure.percent ? 100 : 1;
      std::string shown = number_html(measure, value) + mark_against_base(evaluation, *result, overview.base, measure);
      if (std::isfinite(interval.low))
        shown += text("<small>", number_html(measure, interval.low), " – ", number_html(measure, interval.high), "</small>");
      cells.push_back({shown, model == domain ? "n own" : "n"});
      if (model == overview.base) reference = static_cast<int>(forest.size());
      forest.push_back({model, unit * value, {unit * interval.low, unit * interval.high}});
    }
    table.row(domain, cells);
    if (measure.difference && forest.size() > 1)
      figures += text("<figure><figcaption><b>", escape_html(domain), "</b> ",
                      measure.percent ? "accuracy, %" : "loss, nats per token", "</figcaption>",
                      forest_svg(text(measure.title, ", ", domain), forest, measure.percent ? 1 : 3, reference), "</figure>\n");
  }
  if (domains.size() == overview.domains.size() && domains.size() > 1 && *measure.mean) {
    std::vector<Cell> means;
    for (const std::string &model : models) {
      double mean = NAN;
      for (const Json &one : list_of(evaluation, "means_over_domains"))
        if (string_of(one, "model") == model) mean = number_of(one, measure.mean);
      means.push_back({number_html(measure, mean) + (measure.difference ? "<span class=\"mark\"></span>" : ""), "n"});
    }
    table.row("mean", means, "mean");
  }
  return text("<h3>", measure.title, "</h3>\n", table.html(),
              figures.empty() ? "" : "<div class=\"figures\">\n" + figures + "</div>\n");
}

// A pair as a row; the base comes second.
void add_pair(HtmlTable &table, const Json &pair, const Overview &overview) {
  const std::string one = string_of(pair, "first"), other = string_of(pair, "second");
  const bool reversed = one == overview.base;
  const Json *mcnemar = pair.find("mcnemar");
  std::string only = "–", p = "–";
  if (mcnemar && mcnemar->is_object()) {
    const double first = number_of(*mcnemar, "first_only"), second = number_of(*mcnemar, "second_only");
    only = text(fixed_html(reversed ? second : first, 0), " / ", fixed_html(reversed ? first : second, 0));
    const double value = number_of(*mcnemar, "p_exact");
    p = value < 0.001 ? "&lt;&thinsp;0.001" : fixed_html(value, 3);
  }
  table.row(string_of(pair, "domain"),
            {{text(escape_html(reversed ? other : one), " − ", escape_html(reversed ? one : other)), ""},
             {fixed_html(number_of(pair, "samples"), 0)},
             {difference_html(pair.find("accuracy_difference"), reversed, 100, 1)},
             {only},
             {p},
             {difference_html(pair.find("loss_difference"), reversed, 1, 3)}});
}

std::string outcomes_html(const Json &evaluation) {
  std::vector<std::string> columns{"Domain", "Model"};
  columns.insert(columns.end(), kCodeOutcomes.begin(), kCodeOutcomes.end());
  HtmlTable table("Generated programs by what became of them; failed: an assertion of the tests.", columns);
  bool any = false;
  for (const Json &result : list_of(evaluation, "results")) {
    const Json *outcomes = result.find("outcomes");
    if (!outcomes || !outcomes->is_object()) continue;
    std::vector<Cell> cells{{escape_html(string_of(result, "model")), ""}};
    for (const char *outcome : kCodeOutcomes) cells.push_back({fixed_html(number_of(*outcomes, outcome), 0)});
    table.row(string_of(result, "domain"), cells);
    any = true;
  }
  return any ? "<h3>Programs by outcome</h3>\n" + table.html() : "";
}

}  // namespace

std::string difference_html(const Json *difference, bool reversed, double unit, int digits) {
  if (!difference || !difference->is_object()) return "–";
  const Change change = change_of(*difference, reversed);
  const std::string value = signed_html(unit * change.value, digits);
  return text(change.certain() ? "<b>" + value + "</b>" : value, " <small>", signed_html(unit * change.interval.low, digits),
              " to ", signed_html(unit * change.interval.high, digits), "</small>");
}

std::string results_section(const Json &evaluation) {
  const Overview overview = overview_of(evaluation);
  std::string out;
  for (const MeasureTable &measure : kMeasures) out += matrix_html(evaluation, overview, measure);
  return out + outcomes_html(evaluation);
}

std::string comparisons_section(const Json &evaluation) {
  const Overview overview = overview_of(evaluation);
  const std::vector<std::string> columns{"Domain", "Difference", "Items", "Accuracy, points", "Right alone", "p", "Loss, nats"};
  HtmlTable first(
      "Differences on the same items with paired 95&nbsp;% bootstrap intervals, bold where the interval leaves out zero. Right "
      "alone: items that "
      "only the one or only the other model has right; p: McNemar’s exact test on them. Nothing is corrected for the number of "
      "comparisons.",
      columns);
  HtmlTable others("", columns);
  for (const Json &pair : list_of(evaluation, "comparisons")) {
    const auto asked = [&](const std::string &model) {
      return model == overview.base ||
             std::find(overview.mixtures.begin(), overview.mixtures.end(), model) != overview.mixtures.end();
    };
    add_pair(asked(string_of(pair, "first")) || asked(string_of(pair, "second")) ? first : others, pair, overview);
  }
  return first.html() + fold_html("All other pairs", others.html());
}

std::string forgetting_section(const Json &evaluation) {
  HtmlTable table(
      "Each adapter against the base on its own domain and on the mean over all others, with paired 95&nbsp;% intervals: what it "
      "gained at home, "
      "what it lost elsewhere. A loss that rises is worse.",
      {"Adapter", "Own domain: loss", "accuracy, points", "Others: loss", "accuracy, points"});
  for (const Json &one : list_of(evaluation, "forgetting")) {
    table.row(string_of(one, "model"), {{difference_html(one.find("own_loss_difference"), false, 1, 3)},
                                        {difference_html(one.find("own_accuracy_difference"), false, 100, 1)},
                                        {difference_html(one.find("other_loss_difference"), false, 1, 3)},
                                        {difference_html(one.find("other_accuracy_difference"), false, 100, 1)}});
  }
  return table.html();
}

std::string calibration_section(const Json &evaluation) {
  const Overview overview = overview_of(evaluation);
  std::vector<std::string> columns{"Domain"};
  columns.insert(columns.end(), overview.models.begin(), overview.models.end());
  HtmlTable table(
      "Expected calibration error in points: the mean distance of a model’s confidence in its choice (softmax of the "
      "log-likelihoods of the "
      "choices) from its accuracy, over ten bins of equal width. 0: a choice made with 70&nbsp;% confidence is right in "
      "70&nbsp;% of the items.",
      columns, "matrix");
  for (const std::string &domain : overview.domains) {
    std::vector<Cell> cells;
    bool any = false;
    for (const std::string &model : overview.models) {
      double error = NAN;
      for (const Json &result : list_of(evaluation, "results")) {
        const Json *calibration = result.find("calibration");
        if (calibration && string_of(result, "domain") == domain && string_of(result, "model") == model)
          error = number_of(*calibration, "expected_error");
      }
      any |= std::isfinite(error);
      cells.push_back({fixed_html(100 * error, 1)});
    }
    if (any) table.row(domain, cells);
  }
  return table.html();
}

}  // namespace moe
