// Evaluation of one or several models (base, each adapter, mixture, oracle routing) on one or several domains: multiple choice by
// likelihood, held-out loss and perplexity, exact match by generation. Same items for every model, so differences are paired.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/cancel.h"
#include "base/json.h"
#include "data/example.h"
#include "eval/code_execution.h"
#include "eval/statistics.h"
#include "model/mixture.h"

namespace moe {

struct EvalTask {                    // one domain's held-out rows
  std::string domain, path, schema;  // schema "" = detected
  int64_t limit = 0;                 // 0 = all rows
  std::string fewshot_path = {};  // where the few-shot examples come from, "" = the first rows of the file, which are not scored
};

struct EvalModel {         // one column of the table
  std::string name, type;  // type: "base", "lora", "uniform", "moe", "oracle", "domain"
  std::string path;
  std::shared_ptr<Adapter> adapter;  // lora
  std::shared_ptr<Mixture> mixture;  // moe and uniform; without a router (gating "domain") the task's domain picks the expert
  std::vector<std::pair<std::string, std::shared_ptr<Adapter>>>
      by_domain;  // oracle and domain: adapter of each; others: the base
};

class EvalJournal;

struct EvalOptions {
  std::string scoring = "likelihood";  // likelihood | generation | both (what a task's schema allows)
  int64_t max_length = 1024, max_new_tokens = 256;
  int64_t num_fewshot = 0;  // solved examples in front of each prompt
  bool losses = true;       // held-out loss of the completion under training's masks, always without examples in front
  bool log_samples = false;
  int64_t traces = 3;  // items of each domain whose tokens' routing is kept
  uint64_t seed = 0;   // of the bootstrap
  uint64_t memory_limit = 0;  // bytes for weights, adapters and passes: decides how many items a pass takes; 0 = no limit
  bool allow_code_execution = false;  // generated programs are run with the tests of their rows
  void check() const;  // Code::invalid names the option and its bounds
};

// One item under one model.
struct EvalItem {
  std::string id;  // "<domain>/<row>", with several items of one row "<domain>/<row>.<n>"
  int64_t row = 0;
  std::string prompt, completion;  // the prompt without few-shot examples
  std::string prompt_sha256;       // of the whole prompt
  std::vector<std::string> choices;
  std::vector<double> choice_log_likelihood;        // sums over scored tokens
  std::vector<double> choice_log_likelihood_alone;  // after the last line of the prompt; empty without mutual information
  std::vector<int64_t> choice_bytes;
  int32_t prediction = -1, prediction_norm = -1, prediction_mutual_info = -1, gold = -1;
  std::string generated, parsed, reference;
  bool correct = false;
  // Multiple choice: by log-likelihood per byte; exact match: by the last number; code tests: equal to the reference as text.
  bool correct_norm = false;
  bool correct_mutual_info = false;
  bool unparsed = false;
  double f1 = 0;     // of the words of a generated answer
  CodeResult code;   // code tests
  double nll = 0;  // of the completion
  int64_t nll_tokens = 0;
  std::vector<float> routing;        // [E + 1] mean over the item's tokens and layers
  std::vector<float> layer_routing;  // [L, E + 1] mean over the item's tokens; empty for generated answers
  int64_t routing_tokens = 0;
};

// How the tokens of one text were routed.
struct RoutingTrace {
  std::string id;
  std::vector<std::string> texts;  // whole characters that each token completes
  std::vector<float> weights;      // [tokens, E + 1] mean over the layers
};

struct EvalResult {
  std::string domain, evaluation_type;  // "multiple_choice", "exact_match", "code_tests", "loss"
  std::string model_name, model_type, model_path, dataset, template_name;
  int64_t total_samples = 0, correct = 0, correct_norm = 0, unparsed = 0;
  int64_t tokens = 0;                                        // computed
  double accuracy = 0, accuracy_low = 0, accuracy_high = 0;  // 95 % Wilson; not for "loss"
  double acc_norm = 0, acc_norm_low = 0, acc_norm_high = 0;  // of correct_norm
  bool has_mutual_info = false;                              // the schema has the metric
  double acc_mutual_info = 0, acc_mutual_info_low = 0, acc_mutual_info_high = 0;
  bool has_macro_f1 = false, has_f1 = false;  // the schema has the metric
  double macro_f1 = 0;                        // of accuracy's predictions
  double f1 = 0, f1_low = 0, f1_high = 0;     // mean over items; bootstrap
  Calibration calibration;                    // of accuracy; multiple choice only
  std::array<int64_t, kCodeOutcomes.size()> code_outcomes{};  // items by outcome; code tests only
  bool has_loss = false;                      // with several types for one domain and model the first one has it
  int64_t loss_tokens = 0;
  double mean_loss = 0, perplexity = 0, loss_low = 0, loss_high = 0;  // token-weighted; bootstrap over samples
  double seconds = 0;
  std::vector<std::string> entries;  // of a mixture: "base", then its domains
  int32_t domain_entry = -1;         // of this domain among them, -1 = none
  std::vector<double> usage;         // [E + 1] mean weight of each entry over all tokens
  std::vector<double> layer_usage;   // [L, E + 1] the same for each layer; empty where only answers were generated
  std::vector<RoutingTrace> traces;  // of the first items
  std::vector<EvalItem> items;
  SkipReport skipped;
  std::string fewshot_dataset;
  std::vector<int64_t> fewshot_rows;
};

// done and total count item evaluations of one model on one domain. false cancels.
using EvalProgress = std::function<bool(const std::string &model, const std::string &domain, int64_t done, int64_t total)>;

// Results by task, then by model, then by evaluation type. Models that run the same weights on a domain (an oracle and the
// adapter it picks) are computed once. Code::cancelled when cancelled. journal (journal.h): what it holds is not computed again.
std::vector<EvalResult> evaluate(const BaseModel &model, const std::vector<EvalModel> &models, const std::vector<EvalTask> &tasks,
                                 const EvalOptions &options, const EvalProgress &progress, const Cancel *cancel,
                                 EvalJournal *journal = nullptr);

// The same experts, mixed alike everywhere: each has the weight 1 / E, the base none. Code::invalid without a router.
std::shared_ptr<Mixture> uniform_mixture(const Mixture &mixture);

// evaluation_results.json: results, paired comparisons (McNemar; difference of losses with bootstrap interval), the mixture's
// recovered share (base - mixture) / (base - oracle) with interval, routing accuracy per domain. `run` is stored under its name.
Json evaluation_json(const std::vector<EvalResult> &results, const EvalOptions &options, const Json &run);
// The items themselves, one JSON line each, and one line for each item under each model and evaluation type (--log-samples).
std::string evaluation_items(const std::vector<EvalResult> &results);
std::string evaluation_samples(const std::vector<EvalResult> &results);
// The table on the terminal: domains x models.
std::string evaluation_table(const std::vector<EvalResult> &results, const EvalOptions &options = {});

struct PerplexityResult {
  double mean_nll = 0, perplexity = 0;
  int64_t tokens_scored = 0, window = 0, stride = 0, tokens = 0;
  std::vector<double> nll;  // per scored token
};
// Token-weighted perplexity with overlapping windows: a window starts every `stride` tokens and has `window` inputs, the first of
// them BOS where the model has one; a token is scored in the first window that holds it and a predecessor.
PerplexityResult perplexity(const BaseModel &model, const Overlay &overlay, const std::vector<int32_t> &tokens, int64_t window,
                            int64_t stride, const Cancel *cancel);

}  // namespace moe
