// The report on itself: the command, versions, hashes, options in force, and what was left out.
#include "base/error.h"
#include "eval/report_sections.h"

namespace moe {
namespace {

std::string hash_html(const std::string &hash) {
  return hash.empty() ? "" : "<span class=\"hash\">" + escape_html(hash) + "</span>";
}

std::string value_text(const Json &value) {
  if (value.is_string()) return value.string();
  if (!value.is_array()) return value.is_null() ? "" : value.dump();
  std::string all;
  for (const Json &item : value.items()) all += (all.empty() ? "" : ", ") + value_text(item);
  return all;
}

std::string options_html(const Json *options) {
  std::vector<std::pair<std::string, std::string>> pairs;
  if (options && options->is_object())
    for (const auto &[name, value] : options->members()) pairs.emplace_back(name, escape_html(value_text(value)));
  return pairs_html(pairs);
}

std::string skipped_html(const Json &evaluation) {
  HtmlTable table("Rows that were left out for all models.", {"Domain", "Reason", "Rows", "First"});
  std::vector<std::string> seen;
  for (const Json &result : list_of(evaluation, "results")) {
    const std::string domain = string_of(result, "domain");
    const size_t known = seen.size();
    add_unique(seen, domain);
    const Json *skipped = result.find("skipped");
    if (seen.size() == known || !skipped || !skipped->is_object()) continue;
    for (const auto &[reason, rows] : skipped->members())
      table.row(domain,
                {text_cell(reason), {fixed_html(number_of(rows, "count"), 0)}, {fixed_html(number_of(rows, "first_row"), 0)}});
  }
  return table.html();
}

std::string inputs_html(const Json &run) {
  HtmlTable table("", {"Input", "Path", "sha256"});
  for (const Json &input : list_of(run, "inputs")) {
    const std::string name = string_of(input, "name");
    table.row(string_of(input, "option") + (name.empty() ? "" : " " + name),
              {text_cell(string_of(input, "path")), {hash_html(string_of(input, "sha256")), ""}});
  }
  return table.html();
}

std::string leaks_html(const Json &run) {
  const Json *leaks = run.find("leaks");
  if (!leaks || !leaks->is_object()) return "";
  const double same = number_of(*leaks, "same_prompt"), similar = number_of(*leaks, "similar");
  return text("<p>Of ", fixed_html(number_of(*leaks, "sequences"), 0), " held-out sequences ", fixed_html(same, 0),
              " have a prompt of the training data and ", fixed_html(similar, 0), " are similar to a training row.</p>\n");
}

std::string runs_html(const ReportInput &input) {
  std::string out;
  for (const TrainingRecord &record : input.training) {
    if (!record.summary.is_object()) continue;
    out += fold_html("Training of " + record.name,
                     pairs_html({{"Library", escape_html(string_of(record.summary, "library_version"))},
                                 {"Base model", escape_html(string_of(record.summary, "base_model_path"))},
                                 {"Base weights", hash_html(string_of(record.summary, "weights_fingerprint"))}}) +
                         options_html(record.summary.find("options")));
  }
  return out;
}

}  // namespace

std::string reproduce_section(const ReportInput &input) {
  const Json *run = input.evaluation.is_object() ? input.evaluation.find("run") : nullptr;
  std::string out;
  if (run && run->is_object()) {
    if (const std::string command = string_of(*run, "command"); !command.empty())
      out += "<pre><code>" + escape_html(command) + "</code></pre>\n";
    out += pairs_html({{"Library", escape_html(string_of(*run, "library_version"))},
                       {"Base model", escape_html(string_of(*run, "base_model_path"))},
                       {"Base weights", hash_html(string_of(*run, "weights_fingerprint"))},
                       {"Time", escape_html(string_of(*run, "time"))},
                       {"Compute", escape_html(string_of(*run, "compute"))}});
    out += inputs_html(*run) + leaks_html(*run) + skipped_html(input.evaluation) +
           fold_html("Options in force", options_html(run->find("options")));
  }
  return out + runs_html(input);
}

}  // namespace moe
