// Exact match by greedy generation. With a mark ("####" of GSM8K) the answer is the number after the first mark, without commas,
// "$" and a full stop at its end, and it is right when it is the reference as text: lm-evaluation-harness' strict match. The last
// number of the whole text counts as its flexible match; an answer without the mark is "unparsed". Without a mark the whole
// generated text is compared, white space at its ends removed; for a multiple-choice question its first line names a choice by
// its text or letter.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/example.h"
#include "generate/session.h"

namespace moe {

struct ParsedAnswer {
  std::string strict, flexible;  // "" = none
};
ParsedAnswer parse_marked_answer(std::string_view generated, std::string_view mark);
std::string normalised_number(std::string_view number);  // without "," and "$" and a full stop at the end
std::string trimmed_answer(std::string_view text);       // without white space at both ends
// F1 of the words of two answers, as of SQuAD (Rajpurkar et al. 2016): lower case, without punctuation and the articles a, an,
// the; the words in common, each as often as both have it. Two empty answers agree.
double token_f1(std::string_view answer, std::string_view reference);
// Index of the choice that the first line names, -1 = none.
int32_t parse_choice(std::string_view generated, const std::vector<Choice> &choices);

struct AnswerOptions {
  int64_t max_new_tokens = 256;
  std::string mark;         // an answer ends with the line that holds the mark
  bool first_line = false;  // an answer is one line
  uint64_t memory = 0;      // bytes for the sessions and their passes, besides weights; 0 = any number
};

struct GeneratedAnswer {
  std::string text;
  std::vector<float> routing;  // [E + 1] mean over the generated tokens
  int64_t tokens = 0;          // prompt and generated
};

// Answers to prompts (token ids), several at a time in one pass. `done(index, answer)` in the order in which they end; returning
// false cancels. An answer also ends where the next question begins ("Question:").
void generate_answers(std::shared_ptr<const BaseModel> model, std::shared_ptr<Adapter> adapter, std::shared_ptr<Mixture> mixture,
                      const std::vector<std::vector<int32_t>> &prompts, const AnswerOptions &options,
                      const std::function<bool(size_t, const GeneratedAnswer &)> &done, const Cancel *cancel);

}  // namespace moe
