#include "eval/held_out.h"

#include <algorithm>

#include "base/error.h"
#include "base/file.h"

namespace moe {
namespace {

bool has_metric(const Schema &schema, std::string_view metric) {
  return std::find(schema.metrics.begin(), schema.metrics.end(), metric) != schema.metrics.end();
}

void choose_measures(const Schema &schema, const EvalOptions &options, HeldOut &result) {
  const bool likelihood = options.scoring != "generation", generation = options.scoring != "likelihood";
  const bool choices = schema.kind == SchemaKind::multiple_choice;
  result.multiple_choice = likelihood && choices;
  result.mutual_information = result.multiple_choice && has_metric(schema, "mutual_information");
  result.exact_match = generation && (choices || (schema.kind == SchemaKind::completion && has_metric(schema, "exact_match")));
  result.losses = options.losses;
  if (!result.multiple_choice && !result.exact_match && !result.losses) {
    fail(Code::invalid, result.task.path, ": schema '", schema.name, "' has no measure for scoring '", options.scoring,
         "' without losses");
  }
}

// Solved examples in front of a prompt, each followed by an empty line.
std::string shots_of(const std::vector<Example> &examples, int64_t count) {
  std::string shots;
  for (int64_t i = 0; i < count; i++) {
    const Example &example = examples[static_cast<size_t>(i)];
    shots += example.prompt + example.completion + "\n\n";
  }
  return shots;
}

std::unique_ptr<ChatRenderer> chat_of(const Tokenizer &tokenizer) {
  if (tokenizer.chat_template().empty()) return nullptr;
  const std::string bos(tokenizer.bos() >= 0 ? tokenizer.bytes(tokenizer.bos()) : std::string_view());
  return find_chat_renderer(tokenizer.chat_template(), bos);
}

std::string id_of(const std::string &domain, const std::vector<Example> &examples, size_t index) {
  const int64_t row = examples[index].row;
  size_t before = 0, after = 0;
  while (before < index && examples[index - before - 1].row == row) before++;
  while (index + after + 1 < examples.size() && examples[index + after + 1].row == row) after++;
  return before + after == 0 ? text(domain, "/", row) : text(domain, "/", row, ".", before + 1);
}

// False with the reason when one of the measures cannot take the item.
bool prepare(const Tokenizer &tokenizer, const ExampleTokenizer &examples, const HeldOut &task, const EvalOptions &options,
             HeldOutItem &item, std::string &reason) {
  if (task.multiple_choice && !make_question(tokenizer, item.prompt, item.example, options.max_length, item.question, reason))
    return false;
  if (task.mutual_information) {
    const std::string premise(last_line(item.prompt));
    if (!make_question(tokenizer, premise, item.example, options.max_length, item.premise, reason)) return false;
    item.premise.routed = -1;
  }
  if (task.losses && !examples.tokenize(item.example, item.sequences, reason)) return false;
  if (task.multiple_choice && item.sequences.size() == 1 && gives_loss(item.question, item.sequences.front())) {
    item.loss_in_question = true;
    item.sequences.clear();
  }
  if (!task.exact_match) return true;
  item.prompt_tokens = tokenize_prompt(tokenizer, item.prompt);
  if (item.prompt_tokens.empty()) return reason = "an empty prompt", false;
  if (static_cast<int64_t>(item.prompt_tokens.size()) > options.max_length)
    return reason = text("longer than max_length ", options.max_length), false;
  return true;
}

}  // namespace

HeldOut read_held_out(const BaseModel &model, const EvalTask &task, const EvalOptions &options) {
  const Tokenizer &tokenizer = model.require_tokenizer();
  const int64_t limit = task.limit > 0 ? task.limit + options.num_fewshot : 0;
  ExampleFile file = read_examples(task.path, task.schema, limit);
  HeldOut result;
  result.task = task;
  result.dataset = base_name(task.path);
  result.schema = file.schema.name;
  result.mark = file.schema.reference_after;
  result.skipped = file.skipped;
  choose_measures(file.schema, options, result);
  const bool prompts = file.schema.kind == SchemaKind::multiple_choice || file.schema.kind == SchemaKind::completion;
  const int64_t shots = prompts ? options.num_fewshot : 0;
  if (static_cast<int64_t>(file.examples.size()) <= shots) {
    fail(Code::invalid, task.path, ": expected more than ", shots, " usable rows, found ", file.examples.size(), " (",
         result.skipped.summary(), ")");
  }
  const std::string front = shots_of(file.examples, shots);
  const std::unique_ptr<ChatRenderer> chat = file.schema.kind == SchemaKind::messages ? chat_of(tokenizer) : nullptr;
  const ExampleTokenizer examples(tokenizer, chat.get(), options.max_length);
  for (size_t i = static_cast<size_t>(shots); i < file.examples.size(); i++) {
    HeldOutItem item;
    item.example = file.examples[i];
    item.id = id_of(task.domain, file.examples, i);
    item.prompt = front + item.example.prompt;
    std::string reason;
    if (prepare(tokenizer, examples, result, options, item, reason)) result.items.push_back(std::move(item));
    else result.skipped.add(reason, item.example.row);
  }
  if (result.items.empty()) fail(Code::invalid, task.path, ": no row can be evaluated: ", result.skipped.summary());
  return result;
}

}  // namespace moe
