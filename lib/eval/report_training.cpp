// The report on training runs: curves, their ends, and how the router's load was spread.
#include <cmath>

#include "base/error.h"
#include "eval/chart.h"
#include "eval/report_sections.h"

namespace moe {
namespace {

Curve curve_of(const TrainingRecord &record, const char *key, size_t colour) {
  Curve curve;
  curve.name = key;
  curve.colour = colour;
  for (const Json &line : record.metrics) {
    const double value = number_of(line, key);
    if (std::isfinite(value)) curve.at.emplace_back(number_of(line, "step"), value);
  }
  return curve;
}

// Exponential mean over about a twentieth of the steps.
Curve smoothed(Curve curve) {
  const double keep = 1 - 1 / std::max(1.0, static_cast<double>(curve.at.size()) / 20);
  double mean = 0, weight = 0;
  for (auto &[step, value] : curve.at) {
    mean = keep * mean + (1 - keep) * value;
    weight = keep * weight + (1 - keep);
    value = mean / weight;
  }
  return curve;
}

std::string curves_html(const TrainingRecord &record) {
  Curve raw = curve_of(record, "loss", 1), evaluation = curve_of(record, "eval_loss", 2);
  if (raw.at.empty()) return "";
  std::vector<Curve> curves{raw, smoothed(raw), evaluation};
  curves[0].faint = true;
  curves[2].points = true;
  std::string out = text("<figure><figcaption><b>", escape_html(record.name), "</b> loss, nats per token",
                         evaluation.at.empty() ? "" : "; points: held-out rows", "</figcaption>",
                         curves_svg("Loss of " + record.name + " over its steps", curves), "</figure>\n");
  std::vector<Curve> losses;
  std::vector<std::string> names;
  for (const char *key : {"balance_loss", "z_loss", "supervised_loss"}) {
    Curve curve = smoothed(curve_of(record, key, losses.size() + 3));
    if (curve.at.empty()) continue;
    losses.push_back(std::move(curve));
  }
  for (const Curve &curve : losses)
    out += text("<figure><figcaption><b>", escape_html(record.name), "</b> ", curve.name, "</figcaption>",
                curves_svg(curve.name + " of " + record.name + " over its steps", {curve}), "</figure>\n");
  return out;
}

std::string duration_html(double seconds) {
  if (!std::isfinite(seconds)) return "–";
  const auto whole = static_cast<long long>(seconds + 0.5);
  char buffer[48];
  if (whole >= 3600) std::snprintf(buffer, sizeof buffer, "%lld:%02lld:%02lld", whole / 3600, whole / 60 % 60, whole % 60);
  else std::snprintf(buffer, sizeof buffer, "%lld:%02lld", whole / 60, whole % 60);
  return buffer;
}

// Share of picks of each entry by router, as the summary of a router run holds it.
std::string usage_html(const ReportInput &input, const TrainingRecord &record) {
  const std::vector<Json> &routers = list_of(record.summary, "usage");
  if (routers.empty() || !routers.front().is_array()) return "";
  std::vector<std::string> names{"base"};
  for (const Json &result : list_of(input.evaluation, "results"))
    if (const Json *usage = result.find("usage"); usage && names.size() == 1)
      for (const auto &[name, share] : usage->members())
        if (name != "base") names.push_back(name);
  const size_t entries = routers.front().size();
  while (names.size() < entries) names.push_back(text("expert ", names.size()));
  names.resize(entries);
  std::vector<std::vector<double>> values(entries);
  for (const Json &router : routers)
    for (size_t e = 0; e < entries && e < router.size(); e++) values[e].push_back(router.items()[e].number());
  return text(
      "<h3>Load in training</h3>\n<p class=\"note\">Share of the picks of each entry, router by router (the FFN routers of all "
      "layers, "
      "then those of the attention), in the training of ",
      escape_html(record.name), ".</p>\n<figure class=\"heat\">",
      heat_map_svg("Share of picks by router in training", names, values, "router"), "</figure>\n");
}

}  // namespace

std::string training_section(const ReportInput &input) {
  HtmlTable table("Losses are means over the first and last ten logged steps. Memory is the peak of the process.",
                  {"Run", "Steps", "Tokens", "Loss first", "last", "Held-out", "Tokens/s", "Time", "Memory, GB"});
  std::string figures, loads;
  for (const TrainingRecord &record : input.training) {
    figures += curves_html(record);
    if (!record.summary.is_object()) continue;
    const auto number = [&](const char *key, double unit, int digits) {
      return Cell{fixed_html(unit * number_of(record.summary, key), digits)};
    };
    table.row(record.name, {number("steps", 1, 0),
                            number("tokens", 1, 0),
                            number("train_loss_first", 1, 3),
                            number("train_loss_last", 1, 3),
                            number("eval_loss", 1, 3),
                            number("tokens_per_s", 1, 0),
                            {duration_html(number_of(record.summary, "seconds"))},
                            number("peak_memory_bytes", 1e-9, 2)});
    loads += usage_html(input, record);
  }
  if (!figures.empty()) figures = "<div class=\"figures\">\n" + figures + "</div>\n";
  return table.html() + figures + loads;
}

}  // namespace moe
