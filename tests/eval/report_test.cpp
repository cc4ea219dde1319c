// The report: what it shows, that it shows it as text, and that the markup is sound.
#include "eval/report.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/file.h"
#include "eval/chart.h"
#include "eval/evaluation.h"
#include "eval/html.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace moe {
namespace {

// What is wrong with the nesting of a page's elements, or "": every element that is opened is closed, in order, and every
// attribute stands in double quotes. Read by rules of its own, so that a text that got out of its place shows.
std::string unsound(const std::string &page) {
  constexpr const char *kVoid[] = {"meta", "input", "br"};
  std::vector<std::string> open;
  for (size_t at = page.find('<'); at != std::string::npos; at = page.find('<', at)) {
    if (page.compare(at, 9, "<!DOCTYPE") == 0) {
      at = page.find('>', at);
      continue;
    }
    const bool closes = page[at + 1] == '/';
    size_t end = at + 1 + closes;
    while (end < page.size() && (std::isalnum(static_cast<unsigned char>(page[end])))) end++;
    const std::string name = page.substr(at + 1 + closes, end - at - 1 - closes);
    if (name.empty()) return "a loose '<' at: " + page.substr(at, 60);
    bool quoted = false;
    while (end < page.size() && (quoted || page[end] != '>')) quoted ^= page[end++] == '"';
    if (end == page.size()) return "an element without an end: " + page.substr(at, 60);
    const bool empty = page[end - 1] == '/';
    if (closes) {
      if (open.empty() || open.back() != name)
        return "</" + name + "> closes " + (open.empty() ? "nothing" : open.back()) + " at: " + page.substr(at, 60);
      open.pop_back();
    } else if (!empty && std::none_of(std::begin(kVoid), std::end(kVoid), [&](const char *one) { return name == one; })) {
      open.push_back(name);
      if (name == "style" || name == "script") end = page.find("</" + name, end) - 1;
    }
    at = end + 1;
  }
  return open.empty() ? "" : "left open: " + open.back();
}

size_t count(const std::string &page, const std::string &part) {
  size_t found = 0;
  for (size_t at = page.find(part); at != std::string::npos; at = page.find(part, at + part.size())) found++;
  return found;
}

const std::string kHostile =
    std::string("</script><script>alert(1)</script> \"quoted\" 'single' & <b>bold</b> {{body}} {{title}}\0end\xFF", 92);

// Two domains under a base, an adapter and a mixture.
ReportInput made_up(const std::string &name) {
  std::vector<EvalResult> results;
  for (const std::string &domain : {name, std::string("math")}) {
    for (const auto &[model, type] : {std::pair<std::string, std::string>{"base", "base"}, {name, "lora"}, {"moe", "moe"}}) {
      EvalResult result;
      result.domain = domain;
      result.model_name = model;
      result.model_type = type;
      result.model_path = "models/" + model;
      result.evaluation_type = "multiple_choice";
      result.has_loss = true;
      result.total_samples = 2;
      result.accuracy = type == "base" ? 0.5 : 1, result.accuracy_low = 0.25, result.accuracy_high = 1;
      result.mean_loss = type == "base" ? 3.25 : 2.125, result.loss_low = 2, result.loss_high = 4;
      for (int i = 0; i < 2; i++) {
        EvalItem item;
        item.id = domain + "/" + std::to_string(i + 1);
        item.prompt = "Question: " + name;
        item.completion = " yes";
        item.choices = {"yes", name};
        item.choice_log_likelihood = {-1.25, -2.5};
        item.choice_bytes = {3, 5};
        item.prediction = item.gold = 0;
        item.correct = type != "base" || i == 0;
        item.nll = type == "base" ? 3.25 : 2.125;
        item.nll_tokens = 1;
        item.reference = name;
        if (type == "moe") item.routing = {0.25f, 0.5f, 0.25f};
        result.items.push_back(item);
      }
      if (type == "moe") {
        result.entries = {"base", name, "math"};
        result.domain_entry = domain == name ? 1 : 2;
        result.usage = {0.25, 0.5, 0.25};
        result.layer_usage = {0.3, 0.4, 0.3, 0.2, 0.6, 0.2};
        result.traces = {{result.items[0].id, {"Ques", "tion " + name}, {0.25f, 0.5f, 0.25f, 0.1f, 0.2f, 0.7f}}};
      }
      results.push_back(result);
    }
  }
  const Json run = Json::object(
      {{"library_version", "9.9"},
       {"base_model", name},
       {"base_model_path", "models/" + name},
       {"weights_fingerprint", "00ff"},
       {"time", "2026-01-31T12:00:00Z"},
       {"command", "moe-eval run --tasks '" + name + "'"},
       {"inputs", Json::array().push(Json::object({{"option", "tasks"}, {"name", name}, {"path", name}, {"sha256", "abc123"}}))},
       {"options", Json::object({{"tasks", name}})}});
  ReportInput input;
  input.evaluation = Json::parse(evaluation_json(results, {}, run).dump(), "evaluation");
  input.items = json_lines(evaluation_items(results), "items");
  input.samples = json_lines(evaluation_samples(results), "samples");
  TrainingRecord record;
  record.name = name;
  record.summary = Json::object({{"domain", name}, {"steps", 3}, {"train_loss_first", 4.5}, {"peak_memory_bytes", 1500000000}});
  for (int step = 1; step <= 3; step++) record.metrics.push_back(Json::object({{"step", step}, {"loss", 4.5 / step}}));
  record.metrics.push_back(Json::object({{"step", 3}, {"eval_loss", 2.0}}));
  input.training.push_back(record);
  return input;
}

TEST(Report, ShowsWhatBecameOfPrograms) {
  EvalResult result;
  result.domain = "code";
  result.model_name = result.model_type = "base";
  result.evaluation_type = "code_tests";
  result.total_samples = 7;
  result.code_outcomes = {1, 2, 0, 4, 0};
  EvalItem item;
  item.id = "code/1";
  item.generated = "x = <1>";
  item.code = {CodeOutcome::failed, "x < 2"};
  result.items = {item};
  ReportInput input;
  input.evaluation = Json::parse(evaluation_json({result}, {}, Json::object({})).dump(), "evaluation");
  input.items = json_lines(evaluation_items({result}), "items");
  input.samples = json_lines(evaluation_samples({result}), "samples");
  const std::string page = report_html(input);
  EXPECT_EQ(unsound(page), "");
  EXPECT_NE(page.find("Code that passes its tests"), std::string::npos);
  EXPECT_NE(page.find("Programs by outcome"), std::string::npos);
  EXPECT_NE(page.find("failed: x &lt; 2"), std::string::npos);
  EXPECT_EQ(report_html(made_up("medical")).find("Programs by outcome"), std::string::npos);
}

TEST(Report, ShowsTheMatrixTheComparisonsAndTheRest) {
  const std::string page = report_html(made_up("medical"));
  EXPECT_EQ(unsound(page), "");
  EXPECT_NE(page.find("<h1>Evaluation of medical</h1>"), std::string::npos);
  for (const char *id :
       {"results", "comparisons", "forgetting", "routing", "tokens", "calibration", "training", "items", "reproduce"}) {
    EXPECT_EQ(count(page, text("<section id=\"", id, "\"")), 1u) << id;
    EXPECT_EQ(count(page, text("href=\"#", id, "\"")), 1u) << id;
  }
  EXPECT_NE(page.find(">50.0<"), std::string::npos);          // accuracy of the base
  EXPECT_NE(page.find("25.0 – 100.0"), std::string::npos);    // its interval
  EXPECT_NE(page.find(">2.125<"), std::string::npos);         // a loss
  EXPECT_NE(page.find("medical − base"), std::string::npos);  // the base comes second
  EXPECT_NE(page.find("<b>\u22121.125</b>"), std::string::npos) << "the loss of medical - base, certain";
  EXPECT_NE(page.find(">1 / 0<"), std::string::npos) << "items that only the adapter has right";
  EXPECT_NE(page.find("layer 1: 60.0 %"), std::string::npos) << "the heat map";
  EXPECT_NE(page.find("title=\"base 10, medical 20, math 70\""), std::string::npos) << "weights of a token";
  EXPECT_NE(page.find("moe-eval run --tasks &#39;medical&#39;"), std::string::npos);
  EXPECT_NE(page.find("abc123"), std::string::npos);
  EXPECT_EQ(count(page, "<details class=\"item\""), 4u);
  EXPECT_NE(page.find("data-kind=\"some\""), std::string::npos);
}

TEST(Report, NeedsNoNetworkAndStandsWithoutItsScript) {
  const std::string page = report_html(made_up("medical"));
  for (const char *outside : {"http:", "https:", "src=", "@import", "url("})
    EXPECT_EQ(page.find(outside), std::string::npos) << outside;
  EXPECT_EQ(count(page, "<script"), 1u);
  EXPECT_NE(page.find("<form class=\"filters\" hidden"), std::string::npos) << "what needs the script stays hidden without it";
  EXPECT_EQ(page.find("onclick"), std::string::npos);
  EXPECT_EQ(count(page, "<svg"), count(page, "role=\"img\" aria-label=\""));
}

TEST(Report, HostileTextsStayText) {
  const ReportInput input = made_up(kHostile);
  const std::string page = report_html(input), plain = report_html(made_up("x"));
  EXPECT_EQ(unsound(page), "");
  EXPECT_EQ(count(page, "<script"), 1u);
  EXPECT_EQ(count(page, "</script"), 1u);
  EXPECT_EQ(page.find("<b>bold"), std::string::npos);
  EXPECT_EQ(page.find('\0'), std::string::npos);
  EXPECT_EQ(page.find('\xFF'), std::string::npos);
  EXPECT_EQ(count(page, "<section"), count(plain, "<section"));
  EXPECT_EQ(count(page, "<body"), 1u);
  EXPECT_NE(page.find("&lt;/script&gt;&lt;script&gt;alert(1)"), std::string::npos);
}

TEST(Report, AnythingMayBeMissing) {
  EXPECT_EQ(unsound(report_html({})), "");
  ReportInput training;
  training.training = made_up("legal").training;
  const std::string page = report_html(training);
  EXPECT_EQ(unsound(page), "");
  EXPECT_NE(page.find("<section id=\"training\""), std::string::npos);
  EXPECT_EQ(page.find("<section id=\"results\""), std::string::npos);
  ReportInput bare = made_up("legal");
  bare.items.clear(), bare.samples.clear(), bare.training.clear();
  EXPECT_NE(report_html(bare).find("--log-samples"), std::string::npos);
  bare.evaluation = Json::object({{"results", "x"}});
  EXPECT_FAILS(report_html(bare), Code::format, "results");
}

TEST(Report, ReadsTheFilesOfAnEvaluationAndOfItsTraining) {
  const test::TemporaryFolder folder;
  const ReportInput input = made_up("medical");
  make_folders(folder / "evaluation");
  make_folders(folder / "medical");
  write_file_atomic(folder / "evaluation/evaluation_results.json", input.evaluation.dump());
  write_file_atomic(folder / "evaluation/evaluation_items.jsonl", input.items[0].dump() + "\n\n" + input.items[1].dump());
  // Steps 2 and 3 stand twice, as after a resume; the last line was cut off.
  write_file_atomic(
      folder / "medical/metrics.jsonl",
      "{\"step\": 1, \"loss\": 4}\n{\"step\": 2, \"loss\": 9}\n{\"step\": 3, \"loss\": 9}\n{\"event\": \"resumed\", \"step\": "
      "1}\n"
      "{\"step\": 2, \"loss\": 3}\n{\"step\": 3, \"loss\": 2}\n{\"step\": 3, \"eval_loss\": 1}\n{\"step\": 4, \"lo");
  write_file_atomic(folder / "medical/m_training_summary.json", "{\"domain\": \"the medical one\"}");
  const ReportInput read = read_report_input(folder / "evaluation", {folder / "medical/"});
  EXPECT_EQ(read.items.size(), 2u);
  ASSERT_EQ(read.training.size(), 1u);
  EXPECT_EQ(read.training[0].name, "the medical one");
  ASSERT_EQ(read.training[0].metrics.size(), 4u);
  EXPECT_EQ(read.training[0].metrics[1].number_at("loss", ""), 3);
  EXPECT_EQ(read.training[0].metrics[2].number_at("loss", ""), 2);
  EXPECT_EQ(read.training[0].metrics[3].number_at("eval_loss", ""), 1);
  EXPECT_FAILS(read_report_input("", {folder / "evaluation"}), Code::format, "metrics.jsonl");
  write_file_atomic(folder / "evaluation/evaluation_results.json", "{}");
  EXPECT_FAILS(read_report_input(folder / "evaluation", {}), Code::format, "libmoe.evaluation");
}

TEST(Html, EscapesWhatHasAMeaningAndWhatHasNone) {
  EXPECT_EQ(escape_html("a<b>&\"'\n\t\xC3\xA9"), "a&lt;b&gt;&amp;&quot;&#39;\n\t\xC3\xA9");
  EXPECT_EQ(escape_html(std::string("\0\x1B\xC3", 3)), "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(escape_html("a\r\nb"), "a\nb");
  EXPECT_EQ(fixed_html(-1.25, 1), "\u22121.2");
  EXPECT_EQ(fixed_html(-0.01, 1), "0.0");
  EXPECT_EQ(fixed_html(std::nan(""), 1), "–");
  EXPECT_EQ(signed_html(0.25, 2), "+0.25");
  EXPECT_EQ(signed_html(0.001, 2), "0.00");
}

TEST(Chart, PlacesValuesInProportion) {
  // Three points on a straight line stay on one.
  const std::string svg = curves_svg("t", {{"loss", 1, false, false, {{0, 4}, {5, 3}, {10, 2}}}});
  const char *path = std::strstr(svg.c_str(), "class=\"line s1\" d=\"M");
  ASSERT_TRUE(path);
  double x[3], y[3];
  ASSERT_EQ(std::sscanf(path, "class=\"line s1\" d=\"M%lf %lfL%lf %lfL%lf %lf", x, y, x + 1, y + 1, x + 2, y + 2), 6);
  EXPECT_NEAR(x[1] - x[0], x[2] - x[1], 0.11);
  EXPECT_NEAR(y[1] - y[0], y[2] - y[1], 0.11);
  EXPECT_GT(y[1], y[0]);  // a smaller loss is further down
  EXPECT_EQ(curves_svg("t", {}), "");
  const std::string forest = forest_svg("t", {{"a<b", 50, {40, 60}}, {"none", NAN, {NAN, NAN}}}, 1, 0);
  EXPECT_NE(forest.find("a&lt;b"), std::string::npos);
  EXPECT_EQ(forest.find("nan"), std::string::npos) << forest;
}

}  // namespace
}  // namespace moe
