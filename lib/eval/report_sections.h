// The sections of the report; "" where the input has nothing for one.
#pragma once
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "eval/html.h"
#include "eval/report.h"
#include "eval/statistics.h"

namespace moe {

constexpr const char *kEvaluationFile = "evaluation_results.json";

// ---- reading: a key that is absent is nothing, one of another kind is Code::format ----
const std::vector<Json> &list_of(const Json &json, const char *key);  // empty when absent
double number_of(const Json &json, const char *key);                  // NaN when absent
std::string string_of(const Json &json, const char *key);             // "" when absent
Interval interval_of(const Json &json, const char *key);              // NaN when absent
// A difference {"value", "interval"} times unit, bold where the interval leaves out zero; reversed: of the other sign. "–" for none.
std::string difference_html(const Json *difference, bool reversed, double unit, int digits);
void add_unique(std::vector<std::string> &list, const std::string &value);

// What is known of an evaluation before its numbers.
struct Overview {
  std::vector<std::string> domains, models;  // in the order of the file
  std::string base;                          // name of the base model's column, or ""
  std::vector<std::string> mixtures;
};
Overview overview_of(const Json &evaluation);

// ---- sections ----
std::string results_section(const Json &evaluation);      // the matrix of every measure
std::string comparisons_section(const Json &evaluation);  // pairs of models
std::string forgetting_section(const Json &evaluation);
std::string calibration_section(const Json &evaluation);
std::string routing_section(const ReportInput &input);  // shares by domain and by layer, what a mixture gains
std::string tokens_section(const Json &evaluation);     // texts coloured by expert
std::string training_section(const ReportInput &input);
std::string items_section(const ReportInput &input);
std::string reproduce_section(const ReportInput &input);

}  // namespace moe
