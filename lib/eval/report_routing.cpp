// The report on routing: shares of the experts by domain and by layer, what a mixture gains, and texts coloured by expert.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "eval/chart.h"
#include "eval/report_sections.h"

namespace moe {
namespace {

std::vector<std::string> names_of(const Json &usage) {
  std::vector<std::string> names;
  for (const auto &[name, share] : usage.members()) names.push_back(name);
  return names;
}

// rows[layer][entry] as values[entry][layer].
std::vector<std::vector<double>> turned(const std::vector<Json> &rows, size_t entries) {
  std::vector<std::vector<double>> values(entries);
  for (const Json &row : rows) {
    if (!row.is_array() || row.size() != entries) fail(Code::format, "report: shares by layer: expected lists of ", entries);
    for (size_t e = 0; e < entries; e++) values[e].push_back(row.items()[e].is_number() ? row.items()[e].number() : 0);
  }
  return values;
}

std::string bar_html(const Json &usage) {
  std::string out = "<span class=\"bar\">";
  size_t entry = 0;
  for (const auto &[name, share] : usage.members())
    out += text("<i class=\"e", colour_of(entry++), "\" style=\"width:", fixed_html(100 * share.number(), 2), "%\"></i>");
  return out + "</span>";
}

// "96.3 % of 80" of a domain, "–" where the mixture has no expert of that name.
std::string routed_right_html(const Json &mixture, const std::string &domain) {
  for (const Json &one : list_of(mixture, "routing_accuracy")) {
    if (string_of(one, "domain") != domain) continue;
    const Interval interval = interval_of(one, "interval");
    return text(fixed_html(100 * number_of(one, "accuracy"), 1), "&thinsp;% <small>", fixed_html(100 * interval.low, 1), " – ",
                fixed_html(100 * interval.high, 1), "</small>");
  }
  return "–";
}

std::string heat_maps_html(const Json &evaluation, const std::string &model) {
  std::string figures;
  std::vector<std::string> seen;
  for (const Json &result : list_of(evaluation, "results")) {
    const std::string domain = string_of(result, "domain");
    const std::vector<Json> &rows = list_of(result, "usage_by_layer");
    const Json *usage = result.find("usage");
    if (string_of(result, "model") != model || rows.empty() || !usage) continue;
    if (std::find(seen.begin(), seen.end(), domain) != seen.end()) continue;
    seen.push_back(domain);
    const std::vector<std::string> names = names_of(*usage);
    const auto values = turned(rows, names.size());
    figures += text("<figure class=\"heat\"><figcaption><b>", escape_html(domain), "</b></figcaption>",
                    heat_map_svg("Weight of each expert by layer on " + domain, names, values, "layer"), "</figure>\n");
    std::vector<std::string> columns{"Layer"};
    columns.insert(columns.end(), names.begin(), names.end());
    HtmlTable numbers("", columns);
    for (size_t layer = 0; layer < rows.size(); layer++) {
      std::vector<Cell> cells;
      for (const auto &entry : values) cells.push_back({fixed_html(100 * entry[layer], 1)});
      numbers.row(text(layer), cells);
    }
    figures += fold_html("Numbers of " + domain + ", %", numbers.html());
  }
  return figures;
}

std::string mixture_html(const Json &evaluation, const Json &mixture) {
  const std::string model = string_of(mixture, "model");
  std::vector<std::string> names, seen;
  std::string rows_html;
  for (const Json &result : list_of(evaluation, "results"))
    if (const Json *usage = result.find("usage"); usage && names.empty() && string_of(result, "model") == model)
      names = names_of(*usage);
  if (names.empty()) return "";
  std::vector<std::string> columns{"Domain", "Shares"};
  columns.insert(columns.end(), names.begin(), names.end());
  columns.push_back("Right expert first");
  HtmlTable table(
      "Mean weight of each expert over all tokens and layers, %; the base has what the experts leave. Right expert first: items "
      "whose "
      "largest mean weight among the experts is that of their domain, with its 95&nbsp;% interval.",
      columns);
  for (const Json &result : list_of(evaluation, "results")) {
    const std::string domain = string_of(result, "domain");
    const Json *usage = result.find("usage");
    if (!usage || string_of(result, "model") != model || std::find(seen.begin(), seen.end(), domain) != seen.end()) continue;
    seen.push_back(domain);
    std::vector<Cell> cells{{bar_html(*usage), ""}};
    for (const std::string &name : names)
      cells.push_back({fixed_html(100 * number_of(*usage, name.c_str()), 1), name == domain ? "n own" : "n"});
    cells.push_back({routed_right_html(mixture, domain)});
    table.row(domain, cells);
  }
  std::string out = text("<h3>", escape_html(model), "</h3>\n", legend_html(names), table.html());
  if (const std::string maps = heat_maps_html(evaluation, model); !maps.empty())
    out += text("<h3>", escape_html(model),
                " by layer</h3>\n<p class=\"note\">Mean weight of each expert in each layer: the stronger the colour, "
                "the larger.</p>\n",
                maps);
  return out;
}

// What a mixture is worth beside every other model.
std::string versus_html(const Json &mixture) {
  HtmlTable table("Mean over the domains with paired 95&nbsp;% intervals. A negative loss is better.",
                  {string_of(mixture, "model") + " minus", "Loss, nats", "Accuracy, points"});
  for (const Json &one : list_of(mixture, "versus")) {
    table.row(string_of(one, "model"), {{difference_html(one.find("loss_difference"), false, 1, 3)},
                                        {difference_html(one.find("accuracy_difference"), false, 100, 1)}});
  }
  return table.html();
}

// The strongest expert colours a token, its weight is the strength.
std::string trace_html(const Json &trace, const std::vector<std::string> &names) {
  const std::vector<Json> &texts = list_of(trace, "texts"), &weights = list_of(trace, "weights");
  if (texts.size() != weights.size())
    fail(Code::format, "report: a routing trace has ", texts.size(), " texts and ", weights.size(), " weights");
  std::string out;
  for (size_t t = 0; t < texts.size(); t++) {
    const std::string &piece = texts[t].string();
    const std::vector<Json> &row = weights[t].items();
    if (piece.empty() || row.size() != names.size() || row.size() < 2) continue;
    size_t best = 1;
    std::string all;
    for (size_t e = 0; e < row.size(); e++) {
      if (e > 0 && row[e].number() > row[best].number()) best = e;
      all += text(e ? ", " : "", escape_html(names[e]), " ", fixed_html(100 * row[e].number(), 0));
    }
    out += text("<i class=\"e", colour_of(best), "\" style=\"--a:", fixed_html(row[best].number(), 2), "\" title=\"", all, "\">",
                escape_html(piece), "</i>");
  }
  return out;
}

}  // namespace

std::string routing_section(const ReportInput &input) {
  std::string out;
  for (const Json &mixture : list_of(input.evaluation, "mixtures")) {
    out += mixture_html(input.evaluation, mixture);
    if (const std::string versus = versus_html(mixture); !versus.empty())
      out += text("<h3>", escape_html(string_of(mixture, "model")), " against the others</h3>\n", versus);
  }
  return out;
}

std::string tokens_section(const Json &evaluation) {
  std::string out, legend_of;
  for (const Json &trace : list_of(evaluation, "routing_traces")) {
    std::vector<std::string> names;
    std::string joined;
    for (const Json &name : list_of(trace, "entries")) names.push_back(name.string()), joined += name.string() + "\n";
    if (out.empty())
      out +=
          "<p class=\"note\">Each token has the colour of the expert with the largest weight there, mean over the layers, the "
          "stronger the "
          "larger; without colour the base does nearly all. A pointer on a token shows all weights in %.</p>\n";
    if (joined != legend_of) out += legend_html(names);
    legend_of = joined;
    out +=
        text("<h3>", escape_html(string_of(trace, "domain")), " <small>", escape_html(string_of(trace, "id")), ", ",
             escape_html(string_of(trace, "model")), "</small></h3>\n<p class=\"tokens\">", trace_html(trace, names), "</p>\n");
  }
  return out;
}

}  // namespace moe
