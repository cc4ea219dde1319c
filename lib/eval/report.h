// report.html: one page that holds everything an evaluation and the training before it left, made from their files. It needs no
// network and no script, reads in the dark, on a telephone and on paper; a small script only filters its list of items.
#pragma once
#include <string>
#include <vector>

#include "base/json.h"

namespace moe {

struct TrainingRecord {
  std::string name;           // of the adapter, or "router"
  Json summary;               // *_training_summary.json, null while it runs
  std::vector<Json> metrics;  // metrics.jsonl; steps that stand twice after a resume are taken from the later lines
};

struct ReportInput {
  Json evaluation;                   // evaluation_results.json, or null
  std::vector<Json> items, samples;  // evaluation_items.jsonl, evaluation_samples.jsonl
  std::vector<TrainingRecord> training;
};

// A training output folder. Code::format when it has no metrics.jsonl.
TrainingRecord read_training(const std::string &folder);
// The folders of the training runs that the models of an evaluation come from, as far as they are there: of
// <folder>/final_adapter its folder, of a bundle <bundle>_router.
std::vector<std::string> training_folders(const Json &evaluation);
// `results`: evaluation_results.json or its folder; the items are read from beside it. "" = no evaluation.
// `training`: folders; empty = training_folders().
ReportInput read_report_input(const std::string &results, const std::vector<std::string> &training);
// The lines of a JSONL text.
std::vector<Json> json_lines(std::string_view text, const std::string &source);

std::string report_html(const ReportInput &input);

}  // namespace moe
