#include "eval/model_run.h"

#include <algorithm>
#include <chrono>

#include "base/error.h"
#include "base/sha256.h"
#include "eval/evaluation_summary.h"
#include "eval/exact_match.h"
#include "eval/journal.h"
#include "eval/scorer.h"

namespace moe {
namespace {

// All measures of one model on the items of one task.
class ModelRun {
 public:
  ModelRun(const RunSetting &setting, const EvalWeights &weights, const std::string &label, const RunProgress &progress)
      : setting_(setting), task_(setting.task), weights_(weights), label_(label), progress_(progress),
        scorer_(setting.model, weights.overlay(), setting.cancel, setting.memory), total_(count_work()) {}

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
    summarize(result, task_, weights_.mixture.get(), setting_.options.seed);
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
      if (setting_.journal && setting_.journal->restore(unit, group, result.items)) {
        advance(static_cast<int64_t>(group.size()));
      } else {
        part(group);
        if (setting_.journal) setting_.journal->keep(unit, group, result.items);
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
    answer_options.max_new_tokens = setting_.options.max_new_tokens;
    answer_options.mark = task_.mark;
    answer_options.memory = setting_.memory;
    answer_options.first_line = task_.items.front().example.kind == SchemaKind::multiple_choice;
    // The caller of evaluate() keeps the model alive, so the sessions need not own it.
    const std::shared_ptr<const BaseModel> model(std::shared_ptr<void>(), &setting_.model);
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
      generate_answers(model, weights_.adapter, weights_.mixture, prompts, answer_options, done, setting_.cancel);
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
      item.code = setting_.code_runner->run(example.program, item.generated, setting_.cancel);
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

  const RunSetting &setting_;
  const HeldOut &task_;
  const EvalWeights &weights_;
  const std::string &label_;
  const RunProgress &progress_;
  Scorer scorer_;
  int64_t done_ = 0, total_;
};

}  // namespace

std::vector<EvalResult> run_model(const RunSetting &setting, const EvalWeights &weights, const std::string &label,
                                  const RunProgress &progress) {
  return ModelRun(setting, weights, label, progress).run();
}

}  // namespace moe
