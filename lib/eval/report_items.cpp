// The report's list of items, each with the answers of all models. Without a script it is a list to open one by one.
#include <algorithm>
#include <cmath>
#include <map>

#include "base/error.h"
#include "eval/report_sections.h"

namespace moe {
namespace {

constexpr size_t kItemsShown = 300;  // of each domain: a browser holds some thousand items well

bool flag_of(const Json &json, const char *key) { return json.is_object() && json.bool_or(key, false, "report"); }

// Log-likelihoods of the choices under each model: the chosen one bold.
std::string choices_html(const Json &item, const std::vector<const Json *> &samples) {
  const std::vector<Json> &choices = list_of(item, "choices");
  const int64_t gold = item.integer_or("gold", -1, "report");
  std::vector<std::string> columns{"Choice"};
  std::vector<const Json *> scored;
  for (const Json *sample : samples) {
    if (list_of(*sample, "choice_log_likelihood").size() != choices.size()) continue;
    scored.push_back(sample);
    columns.push_back(string_of(*sample, "model"));
  }
  if (scored.empty()) return "";
  HtmlTable table("Log-likelihood of each choice, bold: chosen; ✓ the right one.", columns);
  for (size_t c = 0; c < choices.size(); c++) {
    std::vector<Cell> cells;
    for (const Json *sample : scored) {
      const std::string value = fixed_html(list_of(*sample, "choice_log_likelihood")[c].number(), 2);
      const bool chosen = sample->integer_or("prediction", -1, "report") == static_cast<int64_t>(c);
      cells.push_back({chosen ? "<b>" + value + "</b>" : value});
    }
    const bool right = gold == static_cast<int64_t>(c);
    table.row(text(right ? "✓ " : "", choices[c].string()), cells, right ? "own" : "");
  }
  return table.html();
}

// What was compared; of a program that was run, what became of it.
std::string read_as(const Json &sample) {
  const std::string outcome = string_of(sample, "outcome"), detail = string_of(sample, "detail");
  if (outcome.empty()) return string_of(sample, "parsed");
  return detail.empty() ? outcome : outcome + ": " + detail;
}

std::string answers_html(const std::vector<const Json *> &samples) {
  HtmlTable table("", {"Model", "Generated", "Read as", ""});
  for (const Json *sample : samples) {
    if (!sample->find("generated")) continue;
    table.row(string_of(*sample, "model"), {{escape_html(string_of(*sample, "generated")), "generated"},
                                            text_cell(read_as(*sample)),
                                            {flag_of(*sample, "correct") ? "✓" : ""}});
  }
  return table.html();
}

std::string losses_html(const std::vector<const Json *> &samples) {
  std::string out;
  for (const Json *sample : samples) {
    const double tokens = number_of(*sample, "nll_tokens");
    if (!(tokens > 0)) continue;
    out += text(out.empty() ? "Nats per token: " : " · ", escape_html(string_of(*sample, "model")), " ",
                fixed_html(number_of(*sample, "nll") / tokens, 3));
    const Json *routing = sample->find("routing");
    if (!routing) continue;
    std::string shares;
    for (const auto &[name, share] : routing->members())
      shares += text(shares.empty() ? "" : ", ", escape_html(name), " ", fixed_html(100 * share.number(), 0));
    out += " (" + shares + "&thinsp;%)";
  }
  return out.empty() ? "" : "<p class=\"note\">" + out + "</p>\n";
}

// "all": every model has it right, "none", "some"; "" without an accuracy.
std::string kind_of(size_t right, size_t judged) {
  return judged == 0 ? "" : right == judged ? "all" : right == 0 ? "none" : "some";
}

std::string item_html(const Json &item, const std::vector<const Json *> &samples) {
  const std::string id = string_of(item, "id"), domain = string_of(item, "domain"), prompt = string_of(item, "prompt"),
                    completion = string_of(item, "completion");
  size_t judged = 0, right = 0;
  for (const Json *sample : samples)
    if (sample->find("correct")) judged++, right += flag_of(*sample, "correct");
  const std::string &shown = prompt.empty() ? completion : prompt;
  const std::string head = shown.substr(0, std::min<size_t>(shown.size(), 240));
  std::string out =
      text("<details class=\"item\" data-domain=\"", escape_html(domain), "\" data-kind=\"", kind_of(right, judged),
           "\"><summary><span class=\"id\">", escape_html(id), "</span><span class=\"head\">", escape_html(head), "</span>");
  if (judged > 0) out += text("<span class=\"score\">", right, " of ", judged, " right</span>");
  out += text("</summary>\n<p class=\"prompt\">", escape_html(prompt),
              prompt.empty() || list_of(item, "choices").empty() ? "" : "</p>\n");
  if (list_of(item, "choices").empty()) out += text("<b>", escape_html(completion), "</b></p>\n");
  else if (prompt.empty()) out += "</p>\n";
  return out + choices_html(item, samples) + answers_html(samples) + losses_html(samples) + "</details>\n";
}

}  // namespace

std::string items_section(const ReportInput &input) {
  if (!input.evaluation.is_object()) return "";
  if (input.items.empty())
    return "<p class=\"note\">The items were not kept: run the evaluation with <code>--log-samples</code> to read them "
           "here.</p>\n";
  std::map<std::string, std::vector<const Json *>> by_id;
  for (const Json &sample : input.samples) by_id[string_of(sample, "id")].push_back(&sample);
  std::map<std::string, size_t> shown;
  std::vector<std::string> domains;
  std::string list;
  for (const Json &item : input.items) {
    const std::string domain = string_of(item, "domain");
    add_unique(domains, domain);
    if (shown[domain]++ < kItemsShown) list += item_html(item, by_id[string_of(item, "id")]);
  }
  std::string options, cut;
  for (const std::string &domain : domains) {
    options += text("<option>", escape_html(domain), "</option>");
    if (shown[domain] > kItemsShown)
      cut += text(" ", escape_html(domain), ": the first ", kItemsShown, " of ", shown[domain], ".");
  }
  return text(
      "<p class=\"note\">", input.items.size(), " items; each opens to its prompt and every model’s answer.", cut, "</p>\n",
      "<form class=\"filters\" hidden role=\"search\"><input type=\"search\" aria-label=\"Search the items\" "
      "placeholder=\"Search the items\">\n<select aria-label=\"Domain\"><option value=\"\">All domains</option>",
      options,
      "</select>\n<select aria-label=\"Outcome\"><option value=\"\">Any outcome</option><option value=\"all\">All models right"
      "</option><option value=\"some\">Models disagree</option><option value=\"none\">No model right</option></select>\n"
      "<output aria-live=\"polite\"></output></form>\n",
      list);
}

}  // namespace moe
