#include "eval/report.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "base/error.h"
#include "base/file.h"
#include "eval/report_page.h"
#include "eval/report_sections.h"

namespace moe {
namespace {

std::string filled(std::string_view page, std::string_view mark, const std::string &value) {
  const size_t at = page.find(mark);
  return text(page.substr(0, at), value, page.substr(at + mark.size()));
}

std::string fact(const std::string &value, const std::string &name) {
  return value.empty() ? "" : text("<div><dt>", name, "</dt><dd>", value, "</dd></div>\n");
}

std::string share_html(double value, const Interval &interval, double unit, int digits) {
  if (!std::isfinite(value)) return "";
  std::string out = fixed_html(unit * value, digits) + (unit == 100 ? "&thinsp;%" : "");
  if (std::isfinite(interval.low))
    out +=
        text(" <small>", fixed_html(unit * interval.low, digits), " to ", fixed_html(unit * interval.high, digits), "</small>");
  return out;
}

// The numbers one asks for first.
std::string facts_html(const Json &evaluation) {
  const Overview overview = overview_of(evaluation);
  std::map<std::string, int64_t> samples;
  for (const Json &result : list_of(evaluation, "results"))
    samples[string_of(result, "domain")] = result.integer_or("total_samples", 0, kEvaluationFile);
  int64_t items = 0;
  for (const auto &[domain, count] : samples) items += count;
  std::string out = fact(text(overview.domains.size()), "domains") + fact(text(overview.models.size()), "models") +
                    fact(text(items), "items, the same for every model");
  for (const Json &mixture : list_of(evaluation, "mixtures")) {
    if (const Json *share = mixture.find("recovered_share"); share && share->is_object())
      out += fact(share_html(number_of(*share, "value"), interval_of(*share, "interval"), 1, 2),
                  "of the oracle's gain recovered by " + escape_html(string_of(mixture, "model")));
    for (const Json &routing : list_of(mixture, "routing_accuracy")) {
      if (string_of(routing, "domain").empty())
        out += fact(share_html(number_of(routing, "accuracy"), interval_of(routing, "interval"), 100, 1),
                    "of the items routed to their expert");
    }
  }
  return "<dl class=\"facts\">\n" + out + "</dl>\n";
}

std::string base_model_of(const ReportInput &input) {
  if (const Json *run = input.evaluation.is_object() ? input.evaluation.find("run") : nullptr)
    return string_of(*run, "base_model");
  for (const TrainingRecord &record : input.training)
    if (record.summary.is_object()) return string_of(record.summary, "base_model");
  return "";
}

std::string header_html(const ReportInput &input, const std::string &title) {
  std::string note;
  if (const Json *run = input.evaluation.is_object() ? input.evaluation.find("run") : nullptr) {
    note = escape_html(string_of(*run, "time"));
    if (const std::string version = string_of(*run, "library_version"); !version.empty())
      note += (note.empty() ? "" : " · ") + ("libmoe " + escape_html(version));
    if (const std::string compute = string_of(*run, "compute"); !compute.empty()) note += " · compute " + escape_html(compute);
  }
  return text("<header>\n<h1>", escape_html(title), "</h1>\n", note.empty() ? "" : "<p class=\"note\">" + note + "</p>\n",
              input.evaluation.is_object() ? facts_html(input.evaluation) : "");
}

std::string with_slash_removed(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

}  // namespace

// ---- reading -------------------------------------------------------------------------------------------

const std::vector<Json> &list_of(const Json &json, const char *key) {
  static const std::vector<Json> none;
  const Json *found = json.is_object() ? json.find(key) : nullptr;
  if (!found || found->is_null()) return none;
  if (!found->is_array()) fail(Code::format, "report: '", key, "': expected a list");
  return found->items();
}

double number_of(const Json &json, const char *key) {
  return json.is_object() ? json.number_or(key, std::numeric_limits<double>::quiet_NaN(), "report") : std::nan("");
}

std::string string_of(const Json &json, const char *key) { return json.is_object() ? json.string_or(key, "", "report") : ""; }

Interval interval_of(const Json &json, const char *key) {
  const std::vector<Json> &ends = list_of(json, key);
  if (ends.size() != 2 || !ends[0].is_number() || !ends[1].is_number()) return {std::nan(""), std::nan("")};
  return {ends[0].number(), ends[1].number()};
}

void add_unique(std::vector<std::string> &list, const std::string &value) {
  if (std::find(list.begin(), list.end(), value) == list.end()) list.push_back(value);
}

Overview overview_of(const Json &evaluation) {
  Overview overview;
  for (const Json &result : list_of(evaluation, "results")) {
    const std::string model = string_of(result, "model"), type = string_of(result, "model_type");
    add_unique(overview.domains, string_of(result, "domain"));
    add_unique(overview.models, model);
    if (type == "base") overview.base = model;
    if (type == "moe") add_unique(overview.mixtures, model);
  }
  return overview;
}

std::vector<Json> json_lines(std::string_view text, const std::string &source) {
  std::vector<Json> lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.find_first_not_of(" \t\r") != std::string_view::npos) lines.push_back(Json::parse(line, source));
  }
  return lines;
}

// A line that a crash cut off is no reason to show nothing.
TrainingRecord read_training(const std::string &given) {
  const std::string folder = with_slash_removed(given), metrics = join_path(folder, "metrics.jsonl");
  if (!file_exists(metrics)) fail(Code::format, folder, ": expected metrics.jsonl of a training run");
  TrainingRecord record;
  record.name = base_name(folder);
  const std::string lines = read_file(metrics);
  std::map<std::pair<int64_t, bool>, Json> by_step;  // (step, of an evaluation)
  for (size_t at = 0; at < lines.size();) {
    const size_t end = std::min(lines.find('\n', at), lines.size());
    const std::string_view line = std::string_view(lines).substr(at, end - at);
    at = end + 1;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    Json json;
    try {
      json = Json::parse(line, metrics);
    } catch (const Error &) {
      continue;
    }
    if (!json.is_object() || json.find("event") || !json.find("step")) continue;
    const std::pair key{json.integer_at("step", metrics), json.find("eval_loss") != nullptr};
    by_step[key] = std::move(json);
  }
  for (auto &[key, json] : by_step) record.metrics.push_back(std::move(json));
  for (const std::string &name : list_folder(folder)) {
    if (!name.ends_with("_training_summary.json")) continue;
    record.summary = read_json(join_path(folder, name));
    record.name = string_of(record.summary, "domain");
  }
  return record;
}

std::vector<std::string> training_folders(const Json &evaluation) {
  std::vector<std::string> folders;
  for (const Json &result : list_of(evaluation, "results")) {
    const std::string path = with_slash_removed(string_of(result, "model_path")), type = string_of(result, "model_type");
    std::string folder;
    if (type == "lora" && base_name(path) == "final_adapter") folder = parent_path(path);
    if (type == "moe") folder = path + "_router";
    if (!folder.empty() && file_exists(join_path(folder, "metrics.jsonl"))) add_unique(folders, folder);
  }
  return folders;
}

ReportInput read_report_input(const std::string &results, const std::vector<std::string> &training) {
  ReportInput input;
  if (!results.empty()) {
    const std::string file = folder_exists(results) ? join_path(results, kEvaluationFile) : results, folder = parent_path(file);
    input.evaluation = read_json(file);
    if (!input.evaluation.is_object() || string_of(input.evaluation, "format") != "libmoe.evaluation")
      fail(Code::format, file, ": expected the format libmoe.evaluation");
    for (auto [lines, name] : {std::pair{&input.items, "evaluation_items.jsonl"}, {&input.samples, "evaluation_samples.jsonl"}}) {
      const std::string path = join_path(folder, name);
      if (file_exists(path)) *lines = json_lines(read_file(path), path);
    }
  }
  for (const std::string &folder : training.empty() ? training_folders(input.evaluation) : training)
    input.training.push_back(read_training(folder));
  return input;
}

// ---- the page ------------------------------------------------------------------------------------------

std::string report_html(const ReportInput &input) {
  struct Section {
    const char *id, *title;
    std::string html;
  };
  const Json &evaluation = input.evaluation;
  const Section sections[] = {{"results", "Results", results_section(evaluation)},
                              {"comparisons", "Paired comparisons", comparisons_section(evaluation)},
                              {"forgetting", "Forgetting", forgetting_section(evaluation)},
                              {"routing", "Routing", routing_section(input)},
                              {"tokens", "Routing of tokens", tokens_section(evaluation)},
                              {"calibration", "Calibration", calibration_section(evaluation)},
                              {"training", "Training", training_section(input)},
                              {"items", "Items", items_section(input)},
                              {"reproduce", "How to reproduce", reproduce_section(input)}};
  const std::string kind = evaluation.is_object() ? "Evaluation" : "Training", base = base_model_of(input),
                    title = base.empty() ? kind : kind + " of " + base;
  std::string links, parts;
  for (const Section &section : sections) {
    if (section.html.empty()) continue;
    links += text("<li><a href=\"#", section.id, "\">", section.title, "</a></li>\n");
    parts += section_html(section.id, section.title, section.html);
  }
  const std::string body = text(header_html(input, title), "<nav aria-label=\"Sections\"><ul>\n", links,
                                "</ul></nav>\n</header>\n<main>\n", parts, "</main>");
  // The body first: the mark of the title stands before it, so that no text in it can be taken for one.
  return filled(filled(kReportPage, "{{body}}", body), "{{title}}", escape_html(title));
}

}  // namespace moe
