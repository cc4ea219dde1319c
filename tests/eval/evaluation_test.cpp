// The whole evaluation on small models: same items for every model, the oracle's shortcut, the report.
#include "eval/evaluation.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/sha256.h"
#include "data/example_file.h"
#include "data/tokenize.h"
#include "eval/comparison.h"
#include "eval/exact_match.h"
#include "eval/journal.h"
#include "support/brute_force.h"
#include "support/expect_error.h"
#include "support/needs.h"
#include "support/temporary_folder.h"
#include "support/tiny_model.h"

namespace moe {
namespace {

class Evaluation : public testing::Test {
 protected:
  void SetUp() override {
    NEEDS_UTF8PROC();
    std::string choices, sums;
    for (int i = 0; i < 14; i++) {
      choices += Json::object({{"question", text("What is number ", i, "?")},
                               {"opa", text("the ", i)},
                               {"opb", text("red ", i * i)},
                               {"opc", "n"},
                               {"opd", "a long answer, " + std::string(static_cast<size_t>(i), 'x')},
                               {"cop", i % 4}})
                     .dump() +
                 "\n";
      sums += Json::object({{"question", text("How much is ", i, " and ", i, "?")},
                            {"answer", text(i, " + ", i, " = ", 2 * i, "\n#### ", 2 * i)}})
                  .dump() +
              "\n";
    }
    write_file_atomic(folder_ / "choices.jsonl", choices);
    write_file_atomic(folder_ / "sums.jsonl", sums);
    for (const char *domain : {"medical", "math"})
      adapters_.emplace_back(domain, test::noisy_adapter(*model_, adapters_.size() + 20, 0.2f));
    mixture_ = test::noisy_mixture(*model_, {"medical", "math"}, 31, 0.2f);
    tasks_ = {{"medical", folder_ / "choices.jsonl", "", 0}, {"math", folder_ / "sums.jsonl", "", 0}};
    models_ = {{"base", "base", "", nullptr, nullptr, {}}};
    for (const auto &[domain, adapter] : adapters_)
      models_.push_back({domain + "-lora", "lora", "adapters/" + domain, adapter, nullptr, {}});
    models_.push_back({"mixture", "moe", "bundle", nullptr, mixture_, {}});
    models_.push_back({"oracle", "oracle", "", nullptr, nullptr, adapters_});
    options_.max_new_tokens = 8;
  }

  std::vector<EvalResult> run(const EvalProgress &progress = nullptr) {
    return evaluate(*model_, models_, tasks_, options_, progress, nullptr);
  }
  static const EvalResult &find(const std::vector<EvalResult> &results, const std::string &domain, const std::string &model,
                                const std::string &type) {
    for (const EvalResult &result : results)
      if (result.domain == domain && result.model_name == model && result.evaluation_type == type) return result;
    throw std::runtime_error("no result " + domain + " " + model + " " + type);
  }

  std::shared_ptr<const BaseModel> model_ = test::tiny_model();
  test::TemporaryFolder folder_;
  std::vector<std::pair<std::string, std::shared_ptr<Adapter>>> adapters_;
  std::shared_ptr<Mixture> mixture_;
  std::vector<EvalTask> tasks_;
  std::vector<EvalModel> models_;
  EvalOptions options_;
};

TEST_F(Evaluation, LossesAreThoseOfTrainingsMasks) {
  const auto results = run();
  ASSERT_EQ(results.size(), 10u);
  const ExampleTokenizer tokenizer(*model_->tokenizer(), nullptr, options_.max_length);
  for (const auto &[domain, type] : {std::pair{"medical", "multiple_choice"}, {"math", "loss"}}) {
    const auto examples =
        read_examples(folder_ / (std::string(domain) == "medical" ? "choices.jsonl" : "sums.jsonl"), "", 0).examples;
    const EvalResult &result = find(results, domain, "mixture", type);
    ASSERT_EQ(result.items.size(), examples.size());
    double total = 0;
    int64_t count = 0;
    for (size_t i = 0; i < examples.size(); i++) {
      std::vector<TokenizedExample> sequences;
      std::string reason;
      ASSERT_TRUE(tokenizer.tokenize(examples[i], sequences, reason));
      const auto nll = test::token_nll(*model_, {nullptr, mixture_.get()}, sequences[0].tokens);
      double sum = 0;
      for (size_t t = 0; t + 1 < nll.size(); t++) sum += sequences[0].labels[t] == kNoLabel ? 0 : (count++, nll[t + 1]);
      EXPECT_NEAR(result.items[i].nll, sum, 2e-3);
      total += sum;
    }
    EXPECT_EQ(result.loss_tokens, count);
    EXPECT_NEAR(result.mean_loss, total / static_cast<double>(count), 1e-5);
    EXPECT_NEAR(result.perplexity, std::exp(result.mean_loss), 1e-9);
    EXPECT_LT(result.loss_low, result.mean_loss);
    EXPECT_GT(result.loss_high, result.mean_loss);
  }
}

TEST_F(Evaluation, EveryModelSeesTheSameItemsAndTheOracleIsTheAdapterOfTheDomain) {
  const auto results = run();
  for (const std::string domain : {"medical", "math"}) {
    const std::string type = domain == std::string("medical") ? "multiple_choice" : "loss";
    const EvalResult &base = find(results, domain, "base", type), &oracle = find(results, domain, "oracle", type);
    const EvalResult &adapter = find(results, domain, domain + "-lora", type);
    EXPECT_EQ(oracle.mean_loss, adapter.mean_loss);
    EXPECT_EQ(oracle.correct, adapter.correct);
    EXPECT_NE(oracle.mean_loss, base.mean_loss);
    EXPECT_EQ(oracle.model_type, "oracle");
    EXPECT_EQ(adapter.model_path, "adapters/" + domain);
    for (size_t i = 0; i < base.items.size(); i++) {
      EXPECT_EQ(base.items[i].id, adapter.items[i].id);
      EXPECT_EQ(base.items[i].nll_tokens, adapter.items[i].nll_tokens);
    }
  }
  EXPECT_EQ(find(results, "medical", "base", "multiple_choice").items[2].id, "medical/3");
}

TEST_F(Evaluation, AccuracyIsByTheLargestLikelihoodAndByBytes) {
  const EvalResult result = find(run(), "medical", "base", "multiple_choice");
  int64_t correct = 0, correct_norm = 0, apart = 0;
  for (const EvalItem &item : result.items) {
    ASSERT_EQ(item.choice_log_likelihood.size(), 4u);
    size_t best = 0, best_norm = 0;
    for (size_t c = 1; c < 4; c++) {
      const auto norm = [&](size_t i) { return item.choice_log_likelihood[i] / static_cast<double>(item.choice_bytes[i]); };
      if (item.choice_log_likelihood[c] > item.choice_log_likelihood[best]) best = c;
      if (norm(c) > norm(best_norm)) best_norm = c;
    }
    EXPECT_EQ(item.prediction, static_cast<int32_t>(best));
    EXPECT_EQ(item.prediction_norm, static_cast<int32_t>(best_norm));
    apart += best != best_norm;
    correct += static_cast<int32_t>(best) == item.gold;
    correct_norm += static_cast<int32_t>(best_norm) == item.gold;
  }
  EXPECT_EQ(result.items[5].choice_bytes, (std::vector<int64_t>{5, 6, 1, 20}));
  EXPECT_EQ(result.correct, correct);
  EXPECT_EQ(result.correct_norm, correct_norm);
  EXPECT_NEAR(result.accuracy, static_cast<double>(correct) / 14, 1e-12);
  EXPECT_NEAR(result.acc_norm, static_cast<double>(correct_norm) / 14, 1e-12);
  EXPECT_GT(apart, 0) << "the two cannot be told apart";
  const Interval norm = wilson(correct_norm, 14);
  EXPECT_NEAR(result.acc_norm_low, norm.low, 1e-12);
  EXPECT_NEAR(result.acc_norm_high, norm.high, 1e-12);
  EXPECT_NEAR(*means_over_domains({result})[0].acc_norm, result.acc_norm, 1e-12);
  EXPECT_EQ(result.dataset, "choices.jsonl");
  EXPECT_EQ(result.total_samples, 14);
}

TEST_F(Evaluation, MutualInformationIsTheGainOverThePremiseAlone) {
  const std::string rows = folder_ / "holdings.jsonl";
  std::string lines;
  for (int i = 0; i < 6; i++) {
    Json endings = Json::array();
    for (const char *ending : {"holding one", "b", "finding that it is so", "c c", "no"}) endings.push(text(ending, i));
    const std::string context = text("See ", i, " v. ", i + 1, " (<HOLDING>)");
    lines += Json::object({{"context", context}, {"endings", endings}, {"label", i % 5}}).dump() + "\n";
  }
  write_file_atomic(rows, lines);
  tasks_ = {{"legal", rows, "", 0}};
  models_ = {{"mixture", "moe", "", nullptr, mixture_, {}}};
  const EvalResult result = run()[0];
  ASSERT_TRUE(result.has_mutual_info);
  int64_t correct = 0, apart = 0;
  for (const EvalItem &item : result.items) {
    ASSERT_EQ(item.choice_log_likelihood_alone.size(), 5u);
    size_t best = 0;
    for (size_t c = 0; c < 5; c++) {
      const std::string ending = read_examples(rows, "", 0).examples[static_cast<size_t>(item.row - 1)].choices[c].continuation;
      const Continuation alone = tokenize_continuation(*model_->tokenizer(), "Answer:", ending);
      const auto nll = test::token_nll(*model_, {nullptr, mixture_.get()}, alone.tokens);
      double sum = 0;
      for (size_t t = static_cast<size_t>(alone.first_scored); t < nll.size(); t++) sum -= nll[t];
      EXPECT_NEAR(item.choice_log_likelihood_alone[c], sum, 2e-3);
      const auto gain = [&](size_t i) { return item.choice_log_likelihood[i] - item.choice_log_likelihood_alone[i]; };
      if (gain(c) > gain(best)) best = c;
    }
    EXPECT_EQ(item.prediction_mutual_info, static_cast<int32_t>(best));
    apart += item.prediction_mutual_info != item.prediction;
    correct += static_cast<int32_t>(best) == item.gold;
  }
  EXPECT_GT(apart, 0) << "the two cannot be told apart";
  EXPECT_NEAR(result.acc_mutual_info, static_cast<double>(correct) / 6, 1e-12);
  EXPECT_NEAR(result.acc_mutual_info_low, wilson(correct, 6).low, 1e-12);
  EXPECT_NE(evaluation_table({result}).find("(acc_mutual_info), %"), std::string::npos);
  const Json json = Json::parse(evaluation_json({result}, options_, Json::object({})).dump(), "report");
  EXPECT_NEAR(json.at("results", "report").items()[0].number_at("acc_mutual_info", "report"), result.acc_mutual_info, 1e-9);
  EXPECT_TRUE(json.at("means_over_domains", "report").items()[0].find("acc_mutual_info"));
}

TEST_F(Evaluation, MutualInformationIsMadeWhereTheSchemaHasIt) {
  const EvalResult result = find(run(), "medical", "base", "multiple_choice");
  EXPECT_FALSE(result.has_mutual_info);
  EXPECT_TRUE(result.items[0].choice_log_likelihood_alone.empty());
  EXPECT_EQ(evaluation_table({result}).find("acc_mutual_info"), std::string::npos);
}

TEST_F(Evaluation, LossesOfMultipleChoiceCostNoSecondPass) {
  tasks_.resize(1);
  models_ = {{"mixture", "moe", "", nullptr, mixture_, {}}};
  const EvalResult both = run()[0];
  options_.losses = false;
  const EvalResult choices = run()[0];
  EXPECT_EQ(both.tokens, choices.tokens + 14);  // the end token is predicted from one token more
  EXPECT_EQ(both.correct, choices.correct);
  EXPECT_FALSE(choices.has_loss);
}

TEST_F(Evaluation, GenerationComparesTheAnswer) {
  options_.scoring = "both";
  const auto results = run();
  ASSERT_EQ(results.size(), 15u);
  const EvalResult &math = find(results, "math", "base", "exact_match"),
                   &medical = find(results, "medical", "base", "exact_match");
  EXPECT_TRUE(math.has_loss);
  EXPECT_FALSE(medical.has_loss);  // the multiple choice result has it
  EXPECT_TRUE(find(results, "medical", "base", "multiple_choice").has_loss);
  for (const EvalItem &item : math.items) {
    const ParsedAnswer parsed = parse_marked_answer(item.generated, "####");
    EXPECT_EQ(item.unparsed, parsed.strict.empty());
    EXPECT_EQ(item.correct, parsed.strict == item.reference);
  }
  EXPECT_EQ(math.items[4].reference, "8");
}

TEST_F(Evaluation, FewShotExamplesAreTheFirstRowsAndAreNotScored) {
  options_.num_fewshot = 2;
  tasks_[0].limit = 5;
  tasks_.resize(1);
  models_.resize(1);
  const auto results = run();
  const EvalResult &result = results[0];
  EXPECT_EQ(result.total_samples, 5);
  EXPECT_EQ(result.items[0].row, 3);
  const auto examples = read_examples(tasks_[0].path, "", 0).examples;
  const std::string prompt = examples[0].prompt + examples[0].completion + "\n\n" + examples[1].prompt + examples[1].completion +
                             "\n\n" + examples[2].prompt;
  EXPECT_EQ(result.items[0].prompt_sha256, sha256_hex(prompt.data(), prompt.size()));
  // The loss is that of the row alone.
  options_.num_fewshot = 0;
  tasks_[0].limit = 7;
  const EvalResult without = run()[0];
  for (size_t i = 0; i < 5; i++) {
    EXPECT_NEAR(result.items[i].nll, without.items[i + 2].nll, 1e-4);
    EXPECT_EQ(result.items[i].nll_tokens, without.items[i + 2].nll_tokens);
  }
  EXPECT_NE(result.items[0].choice_log_likelihood, without.items[2].choice_log_likelihood);
}

TEST_F(Evaluation, FewShotExamplesOfAnotherFileRepeatNoItem) {
  tasks_.resize(1);
  models_.resize(1);
  const auto row = [](const std::string &question) {
    return Json::object({{"question", question}, {"opa", "p"}, {"opb", "q"}, {"opc", "r"}, {"opd", "s"}, {"cop", 1}}).dump() + "\n";
  };
  const std::string first_item = read_file(folder_ / "choices.jsonl");
  write_file_atomic(folder_ / "pool.jsonl", first_item.substr(0, first_item.find('\n') + 1) + row("A new one?") + row("Another?"));
  tasks_[0].fewshot_path = folder_ / "pool.jsonl";
  options_.num_fewshot = 2;
  const EvalResult result = run()[0];
  EXPECT_EQ(result.total_samples, 14);  // no item is lost
  EXPECT_EQ(result.fewshot_dataset, "pool.jsonl");
  EXPECT_EQ(result.fewshot_rows, (std::vector<int64_t>{2, 3}));  // the first is an item
  const Json json = evaluation_json({result}, options_, Json::object());
  EXPECT_EQ(json.at("results", "").items()[0].at("fewshot", "").at("rows", "").dump(), "[2, 3]");
  options_.num_fewshot = 3;
  EXPECT_FAILS(run(), Code::invalid, "expected 3 rows that repeat none of the items, found 2");
}

TEST_F(Evaluation, UniformMixingGivesEveryExpertTheSameWeight) {
  models_.push_back({"uniform", "uniform", "bundle", nullptr, uniform_mixture(*mixture_), {}});
  const EvalResult result = find(run(), "math", "uniform", "loss");
  ASSERT_EQ(result.usage.size(), 3u);
  EXPECT_NEAR(result.usage[0], 0, 1e-6);
  EXPECT_NEAR(result.usage[1], 0.5, 1e-6);
  EXPECT_NEAR(result.usage[2], 0.5, 1e-6);
  EXPECT_TRUE(result.traces.empty());
  // One expert twice is that expert.
  Mixture twice = *mixture_;
  twice.experts[1] = twice.experts[0];
  models_ = {{"medical", "lora", "", twice.experts[0], nullptr, {}}, {"uniform", "uniform", "", nullptr, uniform_mixture(twice), {}}};
  const auto results = run();
  EXPECT_NEAR(find(results, "math", "uniform", "loss").mean_loss, find(results, "math", "medical", "loss").mean_loss, 1e-4);
  twice.router = nullptr;
  EXPECT_FAILS(uniform_mixture(twice), Code::invalid, "no router");
}

// Stopped after any group of items, in the middle of a line too, it goes on to the same bits.
TEST_F(Evaluation, ResumedFromItsJournalItIsTheSameEvaluation) {
  options_.scoring = "both";
  const std::string path = folder_ / "progress.jsonl";
  const auto evaluate_with = [&](const std::string &key, size_t units) {
    EvalJournal journal(path, key, true);
    EXPECT_EQ(journal.units(), units);
    std::vector<EvalResult> results = evaluate(*model_, models_, tasks_, options_, nullptr, nullptr, &journal);
    for (EvalResult &result : results) result.seconds = 0;
    return evaluation_json(results, options_, Json::object()).dump() + evaluation_samples(results);
  };
  const std::string whole = evaluate_with("key", 0), lines = read_file(path);
  const auto groups = static_cast<size_t>(std::count(lines.begin(), lines.end(), '\n')) - 1;
  ASSERT_GT(groups, 10u);
  for (size_t kept : {size_t{0}, size_t{1}, groups / 2, groups - 1, groups}) {
    size_t end = lines.find('\n') + 1;
    for (size_t i = 0; i < kept; i++) end = lines.find('\n', end) + 1;
    write_file_atomic(path, lines.substr(0, end + (kept < groups ? 20 : 0)));
    EXPECT_EQ(evaluate_with("key", kept), whole) << kept;
  }
  EXPECT_EQ(evaluate_with("another", 0), whole);  // other models or options: begun anew
  EXPECT_EQ(EvalJournal(path, "another", false).units(), 0u);
}

TEST_F(Evaluation, AJournalIsBelieved) {
  tasks_.resize(1);
  models_.resize(1);
  const std::string path = folder_ / "progress.jsonl";
  {
    EvalJournal journal(path, "key", true);
    evaluate(*model_, models_, tasks_, options_, nullptr, nullptr, &journal);
  }
  std::string lines = read_file(path);
  const size_t at = lines.find("\"nll\": ");
  ASSERT_NE(at, std::string::npos);
  lines.replace(at, lines.find(',', at) - at, "\"nll\": 77");
  write_file_atomic(path, lines);
  EvalJournal journal(path, "key", true);
  EXPECT_EQ(evaluate(*model_, models_, tasks_, options_, nullptr, nullptr, &journal)[0].items[0].nll, 77) << "it was computed again";
}

TEST_F(Evaluation, RowsThatDoNotFitAreSkippedWithTheReason) {
  tasks_.resize(1);
  models_.resize(1);
  write_file_atomic(
      folder_ / "choices.jsonl",
      read_file(folder_ / "choices.jsonl") +
          Json::object({{"question", std::string(200, 'q')}, {"opa", "1"}, {"opb", "2"}, {"opc", "3"}, {"opd", "4"}, {"cop", 0}})
              .dump() +
          "\n");
  options_.max_length = 190;
  const auto results = run();
  EXPECT_EQ(results[0].total_samples, 14);
  EXPECT_EQ(results[0].skipped.total(), 1);
  EXPECT_NE(results[0].skipped.summary().find("longer than max_length 190"), std::string::npos);
  options_.max_length = 10;
  EXPECT_FAILS(run(), Code::invalid, "no row can be evaluated");
}

TEST_F(Evaluation, AMixtureByDomainPicksTheExpertOfTheTask) {
  auto by_domain = std::make_shared<Mixture>(*mixture_);
  by_domain->router = nullptr;
  models_ = {{"bundle", "moe", "", nullptr, by_domain, {}}, {"expert", "lora", "", mixture_->experts[1], nullptr, {}}};
  const auto results = run();
  EXPECT_EQ(find(results, "math", "bundle", "loss").mean_loss, find(results, "math", "expert", "loss").mean_loss);
}

TEST_F(Evaluation, ProgressCountsToTheTotalAndCancels) {
  int64_t last = 0, all = 0;
  std::string of;
  run([&](const std::string &model, const std::string &domain, int64_t done, int64_t total) {
    if (model + domain != of) last = 0;
    of = model + domain;
    EXPECT_GT(done, last);
    last = done;
    all = total;
    return true;
  });
  EXPECT_EQ(last, all);
  EXPECT_FAILS(run([](const std::string &, const std::string &, int64_t, int64_t) { return false; }), Code::cancelled,
               "cancelled");
}

TEST_F(Evaluation, BadOptionsAndModelsAreNamed) {
  options_.scoring = "guess";
  EXPECT_FAILS(run(), Code::invalid, "scoring");
  options_.scoring = "likelihood";
  options_.losses = false;
  EXPECT_FAILS(run(), Code::invalid, "gsm8k");
  options_.losses = true;
  models_[1].adapter = nullptr;
  EXPECT_FAILS(run(), Code::invalid, "medical-lora");
  models_[1] = models_[0];
  EXPECT_FAILS(run(), Code::invalid, "two models");
  models_.clear();
  EXPECT_FAILS(run(), Code::invalid, "no model");
}

TEST_F(Evaluation, ReportHasResultsComparisonsAndTheMixture) {
  const auto results = run();
  const Json json = Json::parse(evaluation_json(results, options_, Json::object({{"tool", "test"}})).dump(1), "report");
  EXPECT_EQ(json.string_at("format", "report"), "libmoe.evaluation");
  EXPECT_EQ(json.at("run", "report").string_at("tool", "report"), "test");
  ASSERT_EQ(json.at("results", "report").size(), 10u);
  const Json &first = json.at("results", "report").items()[0];
  for (const char *key : {"domain",
                          "model",
                          "model_type",
                          "model_path",
                          "dataset",
                          "evaluation_type",
                          "prompt_template",
                          "num_fewshot",
                          "seed",
                          "total_samples",
                          "correct_predictions",
                          "accuracy",
                          "accuracy_interval",
                          "acc_norm",
                          "acc_norm_interval",
                          "unparsed",
                          "mean_loss",
                          "loss_interval",
                          "perplexity",
                          "loss_tokens",
                          "tokens",
                          "seconds",
                          "skipped"}) {
    EXPECT_TRUE(first.find(key)) << key;
  }
  EXPECT_FALSE(json.at("results", "report").items()[5].find("accuracy"));  // math: only a loss
  EXPECT_EQ(json.at("comparisons", "report").size(), 20u);                 // 10 pairs of models, 2 domains
  const Json &pair = json.at("comparisons", "report").items()[0];
  EXPECT_TRUE(pair.find("mcnemar") && pair.find("accuracy_difference") && pair.find("loss_difference"));
  ASSERT_EQ(json.at("mixtures", "report").size(), 1u);
  const Json &mixture = json.at("mixtures", "report").items()[0];
  EXPECT_EQ(mixture.at("versus", "report").size(), 4u);
  EXPECT_EQ(mixture.at("routing_accuracy", "report").size(), 3u);
  EXPECT_TRUE(mixture.find("recovered_share"));

  const std::string lines = evaluation_samples(results);
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 140);
  const Json line = Json::parse(lines.substr(0, lines.find('\n')), "line");
  EXPECT_EQ(line.string_at("id", "line"), "medical/1");
  EXPECT_EQ(line.at("choice_log_likelihood", "line").size(), 4u);
  const std::string table = evaluation_table(results, options_);
  for (const char *part :
       {"Held-out loss", "Multiple choice accuracy", "(acc_norm), %", "oracle", "medical", "mean", "Routing of mixture",
        "right expert"}) {
    EXPECT_NE(table.find(part), std::string::npos) << part << "\n" << table;
  }
}

TEST_F(Evaluation, UsageIsTheTokenWeightedMeanOfTheRouting) {
  const EvalResult result = find(run(), "math", "mixture", "loss");
  EXPECT_EQ(result.entries, (std::vector<std::string>{"base", "medical", "math"}));
  EXPECT_EQ(result.domain_entry, 2);
  double tokens = 0, total = 0;
  std::vector<double> sum(3, 0);
  for (const EvalItem &item : result.items) {
    tokens += static_cast<double>(item.routing_tokens);
    for (size_t e = 0; e < 3; e++) sum[e] += item.routing[e] * static_cast<double>(item.routing_tokens);
  }
  for (size_t e = 0; e < 3; e++) {
    EXPECT_NEAR(result.usage[e], sum[e] / tokens, 1e-9);
    total += result.usage[e];
  }
  EXPECT_NEAR(total, 1, 1e-4);
}

TEST_F(Evaluation, UsageByLayerAveragesToTheUsage) {
  for (const EvalResult &result : run()) {
    if (result.model_type != "moe") {
      EXPECT_TRUE(result.layer_usage.empty() && result.traces.empty());
      continue;
    }
    const auto layers = static_cast<size_t>(model_->config().layers);
    ASSERT_EQ(result.layer_usage.size(), layers * 3);
    for (size_t e = 0; e < 3; e++) {
      double sum = 0;
      for (size_t i = 0; i < layers; i++) sum += result.layer_usage[i * 3 + e];
      EXPECT_NEAR(sum / static_cast<double>(layers), result.usage[e], 1e-6) << result.domain;
    }
    EXPECT_GT(std::fabs(result.layer_usage[1] - result.layer_usage[4]), 1e-4) << "the layers cannot be told apart";
  }
}

TEST_F(Evaluation, TracesHoldTheTextAndItsRouting) {
  const EvalResult result = find(run(), "medical", "mixture", "multiple_choice");
  ASSERT_EQ(result.traces.size(), 3u);
  const RoutingTrace &trace = result.traces[1];
  EXPECT_EQ(trace.id, "medical/2");
  std::string whole;
  for (const std::string &part : trace.texts) whole += part;
  EXPECT_NE(whole.find(result.items[1].prompt + result.items[1].completion), std::string::npos) << whole;
  ASSERT_EQ(trace.weights.size(), trace.texts.size() * 3);
  // The item's routing is over the same tokens but the last, which predicts nothing or only the end.
  const size_t tokens = static_cast<size_t>(result.items[1].routing_tokens);
  ASSERT_LE(tokens, trace.texts.size());
  for (size_t e = 0; e < 3; e++) {
    double sum = 0;
    for (size_t t = 0; t < tokens; t++) sum += trace.weights[t * 3 + e];
    EXPECT_NEAR(sum / static_cast<double>(tokens), result.items[1].routing[e], 2e-3);
  }
}

TEST_F(Evaluation, ALimitOfMemoryChangesNoResult) {
  options_.scoring = "both";
  const std::vector<EvalResult> free = run();
  options_.memory_limit = 24 << 20;
  const std::vector<EvalResult> limited = run();
  ASSERT_EQ(limited.size(), free.size());
  for (size_t i = 0; i < free.size(); i++) {
    EXPECT_NEAR(limited[i].mean_loss, free[i].mean_loss, 1e-5);
    for (size_t n = 0; n < free[i].items.size(); n++) EXPECT_EQ(limited[i].items[n].generated, free[i].items[n].generated);
  }
  options_.memory_limit = model_->weight_bytes();  // leaves nothing for the adapters
  EXPECT_FAILS(run(), Code::no_memory,
               text("memory_limit: ", options_.memory_limit, " bytes are allowed, but weights, adapters and kernel scratch take "));
}

TEST_F(Evaluation, CalibrationComparesTheProbabilityOfTheBestChoiceWithItsTruth) {
  const EvalResult result = find(run(), "medical", "base", "multiple_choice");
  double confidence = 0, count = 0;
  for (const EvalItem &item : result.items) {
    double sum = 0, best = -INFINITY;
    for (const double value : item.choice_log_likelihood) sum += std::exp(value), best = std::max(best, std::exp(value));
    confidence += best / sum;
    count += 1;
  }
  double binned = 0, correct = 0;
  for (const CalibrationBin &bin : result.calibration.bins) {
    binned += bin.confidence * static_cast<double>(bin.samples);
    correct += static_cast<double>(bin.correct);
  }
  EXPECT_NEAR(binned / count, confidence / count, 1e-9);
  EXPECT_EQ(correct, static_cast<double>(result.correct));
  EXPECT_GT(result.calibration.error, 0);
}

}  // namespace
}  // namespace moe
