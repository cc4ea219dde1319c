#include "eval/multiple_choice.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace moe {
namespace {

int64_t common_tokens(const std::vector<Continuation> &choices) {
  const std::vector<int32_t> &first = choices.front().tokens;
  int64_t common = choices.front().first_scored;
  for (const Continuation &choice : choices) {
    const auto end = std::mismatch(first.begin(), first.end(), choice.tokens.begin(), choice.tokens.end()).first;
    common = std::min({common, choice.first_scored, static_cast<int64_t>(end - first.begin())});
  }
  return common;
}

}  // namespace

bool make_question(const Tokenizer &tokenizer, const std::string &prompt, const Example &example, int64_t max_length,
                   ChoiceQuestion &question, std::string &reason) {
  question = {};
  question.routed = example.gold;
  for (const Choice &choice : example.choices) {
    Continuation tokens = tokenize_continuation(tokenizer, prompt, choice.continuation);
    const auto size = static_cast<int64_t>(tokens.tokens.size());
    if (tokens.first_scored >= size || size < 2) return reason = "a choice has no token that is scored", false;
    if (size > max_length) return reason = text("longer than max_length ", max_length), false;
    question.choices.push_back(std::move(tokens));
  }
  if (question.choices.empty()) return reason = "no choices", false;
  question.shared = common_tokens(question.choices);
  return true;
}

bool gives_loss(ChoiceQuestion &question, const TokenizedExample &sequence) {
  const Continuation &choice = question.choices[static_cast<size_t>(question.routed)];
  const size_t size = choice.tokens.size(), whole = sequence.tokens.size();
  if (whole != size && whole != size + 1) return false;
  if (!std::equal(choice.tokens.begin(), choice.tokens.end(), sequence.tokens.begin())) return false;
  for (size_t t = 0; t < whole; t++) {
    const bool scored = t + 1 < whole && static_cast<int64_t>(t + 1) >= choice.first_scored;
    if (sequence.labels[t] != (scored ? sequence.tokens[t + 1] : kNoLabel)) return false;
  }
  question.end = whole > size ? sequence.tokens.back() : -1;
  return true;
}

CompletionNll completion_nll(const ChoiceQuestion &question) {
  const auto routed = static_cast<size_t>(question.routed);
  const Continuation &choice = question.choices[routed];
  return {-question.log_likelihood[routed] - question.end_log_likelihood,
          static_cast<int64_t>(choice.tokens.size()) - choice.first_scored + (question.end >= 0)};
}

int32_t best_choice(std::span<const double> scores) {
  return static_cast<int32_t>(std::max_element(scores.begin(), scores.end()) - scores.begin());
}

double confidence(std::span<const double> log_likelihood) {
  const double largest = *std::max_element(log_likelihood.begin(), log_likelihood.end());
  double sum = 0;
  for (const double value : log_likelihood) sum += std::exp(value - largest);
  return 1 / sum;
}

std::string_view last_line(std::string_view prompt) {
  const size_t end = prompt.find_last_not_of('\n');
  const size_t before = end == std::string_view::npos ? end : prompt.rfind('\n', end);
  return before == std::string_view::npos ? prompt : prompt.substr(before + 1);
}

std::vector<double> gained(std::span<const double> after_prompt, std::span<const double> after_premise) {
  std::vector<double> result;
  for (size_t i = 0; i < after_prompt.size(); i++) result.push_back(after_prompt[i] - after_premise[i]);
  return result;
}

std::vector<double> per_byte(std::span<const double> log_likelihood, std::span<const int64_t> bytes) {
  std::vector<double> result;
  for (size_t i = 0; i < log_likelihood.size(); i++)
    result.push_back(log_likelihood[i] / static_cast<double>(std::max<int64_t>(1, bytes[i])));
  return result;
}

}  // namespace moe
