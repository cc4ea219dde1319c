#include "eval/multiple_choice.h"

#include <algorithm>

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

int64_t tokens_of(const ChoiceQuestion &question) {
  int64_t tokens = question.shared;
  for (const Continuation &choice : question.choices) tokens += static_cast<int64_t>(choice.tokens.size()) - 1 - question.shared;
  return tokens;
}

int32_t best_choice(std::span<const double> scores) {
  return static_cast<int32_t>(std::max_element(scores.begin(), scores.end()) - scores.begin());
}

std::vector<double> per_byte(std::span<const double> log_likelihood, std::span<const int64_t> bytes) {
  std::vector<double> result;
  for (size_t i = 0; i < log_likelihood.size(); i++)
    result.push_back(log_likelihood[i] / static_cast<double>(std::max<int64_t>(1, bytes[i])));
  return result;
}

}  // namespace moe
