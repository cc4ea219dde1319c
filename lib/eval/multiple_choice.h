// Multiple choice by likelihood: the answer is the choice whose continuation is the most probable after the prompt, by the sum of
// its token log-probabilities (accuracy), by that sum over the bytes of the choice (acc_norm), or by what the prompt adds to it
// (acc_mutual_info: less the sum after the last line of the prompt alone). The conventions of the first two are those of
// lm-evaluation-harness; the third is PMI_DC of Holtzman et al. 2021, whose domain premise is that last line.
#pragma once
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/example.h"
#include "eval/scorer.h"

namespace moe {

// Prompt and continuations tokenized together. The shared part is the longest common beginning of all choices before the first
// scored token. False with the reason when the question cannot be scored within max_length tokens.
bool make_question(const Tokenizer &tokenizer, const std::string &prompt, const Example &example, int64_t max_length,
                   ChoiceQuestion &question, std::string &reason);
// Whether the loss of `sequence` is that of the routed choice and of an end token after it, or of none: the same tokens with the
// same ones scored. Then question.end is set, and completion_nll() of the scored question is the loss.
bool gives_loss(ChoiceQuestion &question, const TokenizedExample &sequence);
struct CompletionNll {
  double nll = 0;
  int64_t tokens = 0;
};
CompletionNll completion_nll(const ChoiceQuestion &question);
// Index of the largest value, the first of several equal ones.
int32_t best_choice(std::span<const double> scores);
// Probability of the largest among the choices: softmax of their log-likelihoods.
double confidence(std::span<const double> log_likelihood);
// The last line of a prompt, with the line break that may end it.
std::string_view last_line(std::string_view prompt);
// log_likelihood[i] / bytes[i]
std::vector<double> per_byte(std::span<const double> log_likelihood, std::span<const int64_t> bytes);
// after_prompt[i] - after_premise[i]
std::vector<double> gained(std::span<const double> after_prompt, std::span<const double> after_premise);

}  // namespace moe
