// The held-out rows of a task, tokenized once for all models: what each measure needs of every item. An item that one of the
// wanted measures cannot take (too long, nothing to score) is skipped for all of them, with the reason.
#pragma once
#include <string>
#include <vector>

#include "data/example_file.h"
#include "data/tokenize.h"
#include "eval/evaluation.h"
#include "eval/multiple_choice.h"
#include "text/chat.h"

namespace moe {

struct HeldOutItem {
  Example example;
  std::string id, prompt;                   // the prompt with the few-shot examples in front
  ChoiceQuestion question;                  // multiple choice
  ChoiceQuestion premise;                   // mutual information: the same choices after the last line of the prompt
  bool loss_in_question = false;            // the right choice, scored, gives the loss as well
  std::vector<TokenizedExample> sequences;  // loss, where it does not
  std::vector<int32_t> prompt_tokens;       // generation
};

struct HeldOut {
  EvalTask task;
  std::string dataset, schema, mark;                                  // mark: what stands before the reference answer, or ""
  bool multiple_choice = false, exact_match = false, losses = false;  // measures that are made
  bool code_tests = false;                                            // in the place of exact_match
  bool mutual_information = false;                                    // with multiple_choice
  bool macro_f1 = false;                                              // with multiple_choice
  bool token_f1 = false;                                              // with exact_match, of the whole text
  bool generates() const { return exact_match || code_tests; }
  std::string fewshot_dataset;  // where the examples in front come from, "" = there are none
  std::vector<int64_t> fewshot_rows;
  std::vector<int32_t> front;  // of the examples: computed once for all questions
  std::vector<HeldOutItem> items;
  SkipReport skipped;
};

// Code::invalid when the schema allows none of the wanted measures or no item is left.
HeldOut read_held_out(const BaseModel &model, const EvalTask &task, const EvalOptions &options);

}  // namespace moe
