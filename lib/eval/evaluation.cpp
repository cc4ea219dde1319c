#include "eval/evaluation.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>
#include <set>

#include "base/error.h"
#include "base/sha256.h"
#include "eval/exact_match.h"
#include "eval/held_out.h"
#include "eval/journal.h"
#include "eval/routing_trace.h"

namespace moe {
namespace {

// What a model runs on one domain.
struct Weights {
  std::shared_ptr<Adapter> adapter;
  std::shared_ptr<Mixture> mixture;
  Overlay overlay() const { return {adapter.get(), mixture.get()}; }
  bool operator==(const Weights &) const = default;
};

Weights weights_on(const EvalModel &model, const std::string &domain) {
  if (model.type == "lora") return {model.adapter, nullptr};
  if (model.type == "uniform" || (model.type == "moe" && model.mixture->router)) return {nullptr, model.mixture};
  if (model.type == "moe") {
    const std::vector<std::string> &domains = model.mixture->domains;
    const auto found = std::find(domains.begin(), domains.end(), domain);
    return {found == domains.end() ? nullptr : model.mixture->experts[static_cast<size_t>(found - domains.begin())], nullptr};
  }
  for (const auto &[name, adapter] : model.by_domain)
    if (name == domain) return {adapter, nullptr};
  return {};
}

void check_tasks(const std::vector<EvalTask> &tasks) {
  if (tasks.empty()) fail(Code::invalid, "there is no task to evaluate on");
  for (const EvalTask &task : tasks) {
    const auto same = [&](const EvalTask &other) { return other.domain == task.domain; };
    if (std::count_if(tasks.begin(), tasks.end(), same) > 1) fail(Code::invalid, "two tasks have the domain '", task.domain, "'");
    if (task.limit < 0) fail(Code::invalid, "limit is ", task.limit, ", expected 0 (all rows) or more");
  }
}

void check_models(const std::vector<EvalModel> &models) {
  if (models.empty()) fail(Code::invalid, "there is no model to evaluate");
  for (const EvalModel &model : models) {
    constexpr const char *kTypes[] = {"base", "lora", "uniform", "moe", "oracle", "domain"};
    if (std::none_of(std::begin(kTypes), std::end(kTypes), [&](const char *type) { return model.type == type; }))
      fail(Code::invalid, "model '", model.name, "': type '", model.type,
           "', expected base, lora, uniform, moe, oracle or domain");
    if (model.type == "lora" && !model.adapter) fail(Code::invalid, "model '", model.name, "': type lora without an adapter");
    if ((model.type == "moe" || model.type == "uniform") && !model.mixture)
      fail(Code::invalid, "model '", model.name, "': type ", model.type, " without a mixture");
    const auto same = [&](const EvalModel &other) { return other.name == model.name; };
    if (std::count_if(models.begin(), models.end(), same) > 1) fail(Code::invalid, "two models have the name '", model.name, "'");
  }
}

// What the limit leaves for passes when the weights of all models are there; 0 = no limit.
uint64_t pass_memory(const BaseModel &model, const std::vector<EvalModel> &models, uint64_t limit) {
  constexpr uint64_t kKernelScratch = 3 << 20;  // of each thread: expanded panels and tiles
  if (limit == 0) return 0;
  std::set<const Adapter *> adapters;
  std::set<const Router *> routers;
  for (const EvalModel &column : models) {
    if (column.adapter) adapters.insert(column.adapter.get());
    for (const auto &[domain, adapter] : column.by_domain) adapters.insert(adapter.get());
    if (!column.mixture) continue;
    for (const auto &expert : column.mixture->experts) adapters.insert(expert.get());
    if (column.mixture->router) routers.insert(column.mixture->router.get());
  }
  uint64_t parameters = 0;
  for (const Adapter *adapter : adapters) parameters += adapter->size();
  for (const Router *router : routers) parameters += router->size();
  const uint64_t held = model.weight_bytes() + parameters * sizeof(float) + kKernelScratch * static_cast<uint64_t>(model.pool().threads());
  if (held >= limit) {
    fail(Code::no_memory, "memory_limit: ", limit, " bytes are allowed, but weights, adapters and kernel scratch take ", held);
  }
  return limit - held;
}

// The text of an item as its loss reads it, or as far as it is there.
std::span<const int32_t> tokens_of(const HeldOutItem &item) {
  if (!item.sequences.empty()) return item.sequences.front().tokens;
  if (!item.question.choices.empty()) return item.question.choices[static_cast<size_t>(item.question.routed)].tokens;
  return item.prompt_tokens;
}

// All measures of one model on the items of one task.
class ModelRun {
 public:
  // `label`: of the weights, in the journal.
  ModelRun(const BaseModel &model, const HeldOut &task, const EvalOptions &options, Weights weights, std::string label,
           EvalJournal *journal, const CodeRunner *code_runner, std::function<bool(int64_t, int64_t)> progress,
           uint64_t memory, const Cancel *cancel)
      : model_(model), task_(task), options_(options), weights_(std::move(weights)), label_(std::move(label)), journal_(journal),
        code_runner_(code_runner), progress_(std::move(progress)), cancel_(cancel),
        memory_(memory), scorer_(model, weights_.overlay(), cancel, memory), total_(count_work()) {}

  std::vector<EvalResult> run() {
    std::vector<EvalResult> results;
    if (task_.multiple_choice) results.push_back(timed("multiple_choice", [&](EvalResult &result) { score_choices(result); }));
    if (task_.generates()) {
      const char *type = task_.code_tests ? "code_tests" : "exact_match";
      results.push_back(timed(type, [&](EvalResult &result) { score_answers(result); }));
    }
    if (!task_.losses) return results;
    const EvalResult *choices = task_.multiple_choice ? &results.front() : nullptr;
    EvalResult losses = timed("loss", [&](EvalResult &result) { score_losses(choices, result); });
    if (results.empty()) results.push_back(std::move(losses));
    else take_losses(results.front(), losses);
    return results;
  }

 private:
  // Items of all measures; one whose loss comes with its choices is counted once.
  int64_t count_work() const {
    int64_t work = 0;
    for (const HeldOutItem &item : task_.items) {
      work += task_.multiple_choice + task_.generates() + (task_.losses && !item.loss_in_question);
    }
    return work;
  }

  template <class Measure>
  EvalResult timed(const char *type, Measure measure) {
    const auto start = std::chrono::steady_clock::now();
    EvalResult result;
    result.evaluation_type = type;
    result.domain = task_.task.domain;
    result.dataset = task_.dataset;
    result.template_name = task_.schema;
    result.skipped = task_.skipped;
    result.fewshot_dataset = task_.fewshot_dataset;
    result.fewshot_rows = task_.fewshot_rows;
    for (const HeldOutItem &item : task_.items) {
      EvalItem &out = result.items.emplace_back();
      out.id = item.id;
      out.row = item.example.row;
      out.prompt = item.example.prompt;
      out.completion = item.example.completion;
      out.prompt_sha256 = sha256_hex(item.prompt.data(), item.prompt.size());
      out.gold = item.example.gold;
      out.reference = item.example.reference;
      for (const Choice &choice : item.example.choices) {
        out.choices.push_back(choice.text);
        out.choice_bytes.push_back(static_cast<int64_t>(choice.text.size()));
      }
    }
    measure(result);
    result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    summarize(result);
    return result;
  }

  void advance(int64_t items) {
    done_ += items;
    if (progress_ && !progress_(done_, total_)) fail(Code::cancelled, "cancelled by the caller");
  }

  // Calls part(items) for groups of items of a good size for one pass; it fills them in and advances. A group that the journal
  // holds is taken from there. Groups depend on the items alone, so that a resumed evaluation computes what it would have
  // computed.
  template <class Part>
  void in_groups(const char *type, const std::vector<size_t> &items, const std::vector<int64_t> &tokens, EvalResult &result,
                 Part part) {
    size_t first = 0;
    for (const size_t end : groups_of_tokens(tokens)) {
      const auto group = std::span(items).subspan(first, end - first);
      const std::string unit = text(task_.task.domain, "/", label_, "/", type, "/", first);
      if (journal_ && journal_->restore(unit, group, result.items)) {
        advance(static_cast<int64_t>(group.size()));
      } else {
        part(group);
        if (journal_) journal_->keep(unit, group, result.items);
      }
      for (; first < end; first++) result.tokens += tokens[first];
    }
  }

  static std::vector<float> mean(const std::vector<double> &sums, int64_t tokens) {
    std::vector<float> result;
    for (const double sum : sums) result.push_back(static_cast<float>(sum / static_cast<double>(std::max<int64_t>(1, tokens))));
    return result;
  }

  static void set_routing(EvalItem &item, const RoutingSum &routing) {
    item.routing_tokens = routing.tokens;
    item.routing = mean(routing.weights, routing.tokens);
    item.layer_routing = mean(routing.layers, routing.tokens);
  }

  void score_choices(EvalResult &result) {
    if (!task_.front.empty()) scorer_.set_front(task_.front);
    std::vector<size_t> items;
    std::vector<int64_t> tokens;
    for (const HeldOutItem &item : task_.items) {
      items.push_back(items.size());
      tokens.push_back(scorer_.cost(item.question) + (task_.mutual_information ? scorer_.cost(item.premise) : 0));
    }
    result.has_mutual_info = task_.mutual_information;
    in_groups("choices", items, tokens, result, [&](std::span<const size_t> group) {
      std::vector<ChoiceQuestion> questions;
      for (const size_t i : group) questions.push_back(task_.items[i].question);
      for (size_t n = 0; n < group.size() && task_.mutual_information; n++) questions.push_back(task_.items[group[n]].premise);
      scorer_.score(questions);
      for (size_t n = 0; n < group.size(); n++) {
        EvalItem &item = result.items[group[n]];
        item.choice_log_likelihood = questions[n].log_likelihood;
        if (task_.mutual_information) item.choice_log_likelihood_alone = questions[n + group.size()].log_likelihood;
        set_routing(item, questions[n].routing);
        if (!task_.items[group[n]].loss_in_question) continue;
        const CompletionNll completion = completion_nll(questions[n]);
        item.nll = completion.nll;
        item.nll_tokens = completion.tokens;
      }
      advance(static_cast<int64_t>(group.size()));
    });
    for (EvalItem &item : result.items) choose(item);
  }

  void choose(EvalItem &item) const {
    item.prediction = best_choice(item.choice_log_likelihood);
    item.prediction_norm = best_choice(per_byte(item.choice_log_likelihood, item.choice_bytes));
    item.correct = item.prediction == item.gold;
    item.correct_norm = item.prediction_norm == item.gold;
    if (!task_.mutual_information) return;
    item.prediction_mutual_info = best_choice(gained(item.choice_log_likelihood, item.choice_log_likelihood_alone));
    item.correct_mutual_info = item.prediction_mutual_info == item.gold;
  }

  static void copy_loss(const EvalItem &from, EvalItem &to) {
    to.nll = from.nll;
    to.nll_tokens = from.nll_tokens;
    to.routing = from.routing;
    to.layer_routing = from.layer_routing;
    to.routing_tokens = from.routing_tokens;
  }

  // `choices`: the scored questions, which give the losses of some items or of all; or nullptr.
  void score_losses(const EvalResult *choices, EvalResult &result) {
    std::vector<size_t> items;
    std::vector<int64_t> tokens;
    for (size_t i = 0; i < task_.items.size(); i++) {
      if (task_.items[i].loss_in_question) {
        copy_loss(choices->items[i], result.items[i]);
        continue;
      }
      items.push_back(i);
      tokens.push_back(0);
      for (const TokenizedExample &sequence : task_.items[i].sequences)
        tokens.back() += static_cast<int64_t>(sequence.tokens.size());
    }
    result.has_loss = true;
    in_groups("losses", items, tokens, result, [&](std::span<const size_t> group) {
      for (const size_t i : group) result.items[i].nll = 0;
      score_sequences(group, result);
      advance(static_cast<int64_t>(group.size()));
    });
  }

  // An item may have many sequences: they go through the model in groups of their own.
  void score_sequences(std::span<const size_t> items, EvalResult &result) {
    std::vector<ScoredSequence> all;
    std::vector<size_t> owner;
    std::vector<int64_t> tokens;
    for (const size_t i : items) {
      for (const TokenizedExample &sequence : task_.items[i].sequences) {
        all.push_back({sequence.tokens, sequence.labels, {}, {}});
        owner.push_back(i);
        tokens.push_back(static_cast<int64_t>(sequence.tokens.size()));
      }
    }
    RoutingSum routing;  // of one item
    size_t first = 0;
    for (const size_t end : groups_of_tokens(tokens)) {
      scorer_.score(std::span(all).subspan(first, end - first));
      for (; first < end; first++) {
        EvalItem &item = result.items[owner[first]];
        const ScoredSequence &sequence = all[first];
        for (size_t t = 0; t < sequence.labels.size(); t++) {
          if (sequence.labels[t] == kNoLabel) continue;
          item.nll += sequence.nll[t];
          item.nll_tokens++;
        }
        routing.add(sequence.routing);
        if (first + 1 < all.size() && owner[first + 1] == owner[first]) continue;
        set_routing(item, routing);
        routing = {};
      }
    }
  }

  void score_answers(EvalResult &result) {
    AnswerOptions answer_options;
    answer_options.max_new_tokens = options_.max_new_tokens;
    answer_options.mark = task_.mark;
    answer_options.memory = memory_;
    answer_options.first_line = task_.items.front().example.kind == SchemaKind::multiple_choice;
    // The caller of evaluate() keeps the model alive, so the sessions need not own it.
    const std::shared_ptr<const BaseModel> model(std::shared_ptr<void>(), &model_);
    std::vector<size_t> items;
    for (size_t i = 0; i < task_.items.size(); i++) items.push_back(i);
    in_groups("answers", items, std::vector<int64_t>(items.size()), result, [&](std::span<const size_t> group) {
      std::vector<std::vector<int32_t>> prompts;
      for (const size_t i : group) prompts.push_back(task_.items[i].prompt_tokens);
      const auto done = [&](size_t index, const GeneratedAnswer &answer) {
        EvalItem &item = result.items[group[index]];
        item.generated = answer.text;
        item.routing = answer.routing;
        item.routing_tokens = answer.tokens;
        advance(1);
        return true;
      };
      generate_answers(model, weights_.adapter, weights_.mixture, prompts, answer_options, done, cancel_);
    });
    for (size_t i = 0; i < result.items.size(); i++) {
      result.tokens += result.items[i].routing_tokens;
      judge(task_.items[i].example, result.items[i]);
    }
  }

  void judge(const Example &example, EvalItem &item) const {
    if (example.kind == SchemaKind::multiple_choice) {
      item.prediction = item.prediction_norm = parse_choice(item.generated, example.choices);
      item.unparsed = item.prediction < 0;
      if (!item.unparsed) item.parsed = example.choices[static_cast<size_t>(item.prediction)].text;
      item.correct = item.correct_norm = item.prediction == item.gold;
      return;
    }
    if (task_.code_tests) {
      item.code = code_runner_->run(example.program, item.generated, cancel_);
      item.correct = item.code.outcome == CodeOutcome::passed;
      item.parsed = code_of_answer(item.generated);
      item.correct_norm = trimmed_answer(item.parsed) == trimmed_answer(item.reference);
      return;
    }
    if (task_.mark.empty()) {
      item.parsed = trimmed_answer(item.generated);
      item.correct = item.correct_norm = item.parsed == trimmed_answer(item.reference);
      item.f1 = token_f1(item.generated, item.reference);
      return;
    }
    const ParsedAnswer parsed = parse_marked_answer(item.generated, task_.mark);
    const std::string reference = normalised_number(trimmed_answer(item.reference));
    item.unparsed = parsed.strict.empty();
    item.parsed = item.unparsed ? parsed.flexible : parsed.strict;
    item.correct = !item.unparsed && parsed.strict == reference;
    item.correct_norm = !parsed.flexible.empty() && parsed.flexible == reference;
  }

  void summarize(EvalResult &result) const {
    const auto samples = static_cast<int64_t>(result.items.size());
    int64_t correct_mutual_info = 0;
    result.total_samples = samples;
    for (const EvalItem &item : result.items) {
      result.correct += item.correct;
      result.correct_norm += item.correct_norm;
      correct_mutual_info += item.correct_mutual_info;
      result.unparsed += item.unparsed;
    }
    if (result.evaluation_type != "loss") {
      const Interval interval = wilson(result.correct, samples), norm = wilson(result.correct_norm, samples);
      result.accuracy = static_cast<double>(result.correct) / static_cast<double>(samples);
      result.acc_norm = static_cast<double>(result.correct_norm) / static_cast<double>(samples);
      result.accuracy_low = interval.low;
      result.accuracy_high = interval.high;
      result.acc_norm_low = norm.low;
      result.acc_norm_high = norm.high;
    }
    if (result.evaluation_type == "multiple_choice") {
      std::vector<Confidence> predictions;
      for (const EvalItem &item : result.items) predictions.push_back({confidence(item.choice_log_likelihood), item.correct});
      result.calibration = calibration(predictions);
      std::vector<Classified> classified;
      for (const EvalItem &item : result.items) classified.push_back({item.prediction, item.gold});
      result.has_macro_f1 = task_.macro_f1;
      result.macro_f1 = macro_f1(classified);
    }
    if (result.evaluation_type == "code_tests")
      for (const EvalItem &item : result.items) result.code_outcomes[static_cast<size_t>(item.code.outcome)]++;
    if (result.evaluation_type == "exact_match" && task_.token_f1) summarize_f1(result);
    if (result.has_mutual_info) {
      const Interval interval = wilson(correct_mutual_info, samples);
      result.acc_mutual_info = static_cast<double>(correct_mutual_info) / static_cast<double>(samples);
      result.acc_mutual_info_low = interval.low;
      result.acc_mutual_info_high = interval.high;
    }
    if (result.has_loss) summarize_losses(result);
    summarize_routing(result);
  }

  void summarize_f1(EvalResult &result) const {
    const auto mean_f1 = [&](const Draw &draw) {
      double sum = 0;
      for (const int32_t i : draw[0]) sum += result.items[static_cast<size_t>(i)].f1;
      return sum / static_cast<double>(draw[0].size());
    };
    double sum = 0;
    for (const EvalItem &item : result.items) sum += item.f1;
    const Interval interval = bootstrap({&result.total_samples, 1}, mean_f1, options_.seed).interval;
    result.has_f1 = true;
    result.f1 = sum / static_cast<double>(result.total_samples);
    result.f1_low = interval.low;
    result.f1_high = interval.high;
  }

  void summarize_losses(EvalResult &result) const {
    double nll = 0;
    for (const EvalItem &item : result.items) {
      nll += item.nll;
      result.loss_tokens += item.nll_tokens;
    }
    result.mean_loss = nll / static_cast<double>(result.loss_tokens);
    result.perplexity = std::exp(result.mean_loss);
    const int64_t samples = result.total_samples;
    const auto mean_loss = [&](const Draw &draw) {
      double sum = 0, tokens = 0;
      for (const int32_t i : draw[0]) {
        sum += result.items[static_cast<size_t>(i)].nll;
        tokens += static_cast<double>(result.items[static_cast<size_t>(i)].nll_tokens);
      }
      return sum / tokens;
    };
    const Interval interval = bootstrap({&samples, 1}, mean_loss, options_.seed).interval;
    result.loss_low = interval.low;
    result.loss_high = interval.high;
  }

  void summarize_routing(EvalResult &result) const {
    if (!weights_.mixture) return;
    result.entries = {"base"};
    const std::vector<std::string> &domains = weights_.mixture->domains;
    result.entries.insert(result.entries.end(), domains.begin(), domains.end());
    const auto found = std::find(domains.begin(), domains.end(), result.domain);
    if (found != domains.end()) result.domain_entry = static_cast<int32_t>(found - domains.begin()) + 1;
    result.usage = mean_routing(result.items, &EvalItem::routing);
    result.layer_usage = mean_routing(result.items, &EvalItem::layer_routing);
  }

  // Mean over the tokens of all items.
  static std::vector<double> mean_routing(const std::vector<EvalItem> &items, std::vector<float> EvalItem::*part) {
    std::vector<double> shares;
    double tokens = 0;
    for (const EvalItem &item : items) {
      const std::vector<float> &own = item.*part;
      if (own.empty()) continue;
      shares.resize(own.size());
      for (size_t i = 0; i < own.size(); i++) shares[i] += own[i] * static_cast<double>(item.routing_tokens);
      tokens += static_cast<double>(item.routing_tokens);
    }
    for (double &share : shares) share /= std::max(1.0, tokens);
    return shares;
  }

  // One result carries both the accuracy and the loss; its routing is that of the prompt with the right completion.
  void take_losses(EvalResult &result, const EvalResult &losses) const {
    for (size_t i = 0; i < result.items.size(); i++) copy_loss(losses.items[i], result.items[i]);
    result.has_loss = true;
    result.loss_tokens = losses.loss_tokens;
    result.mean_loss = losses.mean_loss;
    result.perplexity = losses.perplexity;
    result.loss_low = losses.loss_low;
    result.loss_high = losses.loss_high;
    result.usage = losses.usage;
    result.layer_usage = losses.layer_usage;
    result.tokens += losses.tokens;
    result.seconds += losses.seconds;
  }

  const BaseModel &model_;
  const HeldOut &task_;
  const EvalOptions &options_;
  Weights weights_;
  std::string label_;
  EvalJournal *journal_;
  const CodeRunner *code_runner_;  // with code tests
  std::function<bool(int64_t, int64_t)> progress_;
  const Cancel *cancel_;
  uint64_t memory_;  // for passes
  Scorer scorer_;
  int64_t done_ = 0, total_;
};

}  // namespace

void EvalOptions::check() const {
  if (scoring != "likelihood" && scoring != "generation" && scoring != "both") {
    fail(Code::invalid, "scoring is '", scoring, "', expected likelihood, generation or both");
  }
  if (max_length < 2) fail(Code::invalid, "max_length is ", max_length, ", expected at least 2");
  if (max_new_tokens < 1) fail(Code::invalid, "max_new_tokens is ", max_new_tokens, ", expected at least 1");
  if (num_fewshot < 0) fail(Code::invalid, "num_fewshot is ", num_fewshot, ", expected 0 or more");
  if (allow_code_execution && scoring == "likelihood")
    fail(Code::invalid, "allow_code_execution: scoring is 'likelihood', expected generation or both");
}

std::shared_ptr<Mixture> uniform_mixture(const Mixture &mixture) {
  if (!mixture.router) fail(Code::invalid, "uniform mixing: the bundle has no router to replace (gating domain)");
  RouterConfig config = mixture.router->config();
  config.top_k = config.entries();
  config.form = GateForm::delta;
  config.temperature = 1;
  auto uniform = std::make_shared<Mixture>(mixture);
  uniform->router = Router::create(config, 0);
  std::ranges::fill(uniform->router->parameters(), 0.0f);
  for (const Router::Entry &entry : uniform->router->entries())
    if (entry.key.ends_with(".bias")) uniform->router->parameters()[entry.offset] = -1e4f;  // the base: its probability is 0
  return uniform;
}

std::vector<EvalResult> evaluate(const BaseModel &model, const std::vector<EvalModel> &models, const std::vector<EvalTask> &tasks,
                                 const EvalOptions &options, const EvalProgress &progress, const Cancel *cancel,
                                 EvalJournal *journal) {
  options.check();
  check_models(models);
  check_tasks(tasks);
  const uint64_t memory = pass_memory(model, models, options.memory_limit);
  std::optional<CodeRunner> code_runner;
  if (options.allow_code_execution) code_runner.emplace(ProcessLimits(), cancel);
  std::vector<EvalResult> all;
  for (const EvalTask &task : tasks) {
    const HeldOut held_out = read_held_out(model, task, options);
    std::vector<std::pair<Weights, std::vector<EvalResult>>> computed;
    for (const EvalModel &column : models) {
      const Weights weights = weights_on(column, task.domain);
      auto known = std::find_if(computed.begin(), computed.end(), [&](const auto &one) { return one.first == weights; });
      if (known == computed.end()) {
        const auto report = [&](int64_t done, int64_t total) {
          return !progress || progress(column.name, task.domain, done, total);
        };
        ModelRun run(model, held_out, options, weights, column.name, journal, code_runner ? &*code_runner : nullptr, report, memory,
                     cancel);
        known = computed.insert(computed.end(), {weights, run.run()});
        if (column.type == "moe" && weights.mixture && options.traces > 0) {
          std::vector<RoutingTrace> &traces = known->second.front().traces;
          for (size_t i = 0; i < std::min<size_t>(held_out.items.size(), static_cast<size_t>(options.traces)); i++)
            traces.push_back(trace_routing(model, *weights.mixture, held_out.items[i].id, tokens_of(held_out.items[i]), cancel));
        }
      }
      for (EvalResult result : known->second) {
        result.model_name = column.name;
        result.model_type = column.type;
        result.model_path = column.path;
        all.push_back(std::move(result));
      }
    }
  }
  return all;
}

}  // namespace moe
