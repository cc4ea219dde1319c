#include "eval/held_out.h"

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "eval/few_shot.h"

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
  result.code_tests = generation && options.allow_code_execution && has_metric(schema, "code_tests");
  const bool has_answer = choices || (schema.kind == SchemaKind::completion && has_metric(schema, "exact_match"));
  result.exact_match = generation && !result.code_tests && has_answer;
  result.macro_f1 = result.multiple_choice && has_metric(schema, "macro_f1");
  result.token_f1 = result.exact_match && !choices && result.mark.empty() && has_metric(schema, "f1");
  result.losses = options.losses;
  if (!result.multiple_choice && !result.generates() && !result.losses) {
    fail(Code::invalid, result.task.path, ": schema '", schema.name, "' has no measure for scoring '", options.scoring,
         "' without losses", has_metric(schema, "code_tests") ? " and allow_code_execution" : "");
  }
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
  if (!task.generates()) return true;
  if (task.code_tests && item.example.program.after.empty()) return reason = "no tests", false;
  item.prompt_tokens = tokenize_prompt(tokenizer, item.prompt);
  if (item.prompt_tokens.empty()) return reason = "an empty prompt", false;
  if (static_cast<int64_t>(item.prompt_tokens.size()) > options.max_length)
    return reason = text("longer than max_length ", options.max_length), false;
  return true;
}

}  // namespace

// Chooses the examples in front and takes those of the task's own file away from the items. Returns their text.
std::string take_shots(const EvalTask &task, const ExampleFile &file, int64_t count, std::vector<Example> &items,
                       HeldOut &result) {
  const bool own = task.fewshot_path.empty();
  const ExampleFile other = own ? ExampleFile() : read_examples(task.fewshot_path, task.schema, 0);
  const std::vector<Example> &pool = own ? file.examples : other.examples;
  const std::vector<size_t> chosen = choose_examples(pool, items, static_cast<size_t>(count), own);
  const std::string &path = own ? task.path : task.fewshot_path;
  if (static_cast<int64_t>(chosen.size()) < count) {
    fail(Code::invalid, path, ": expected ", count, " rows that repeat none of the items, found ", chosen.size(), " among ",
         pool.size());
  }
  result.fewshot_dataset = base_name(path);
  for (const size_t index : chosen) result.fewshot_rows.push_back(pool[index].row);
  std::string shots = shots_of(pool, chosen);
  for (auto index = chosen.rbegin(); own && index != chosen.rend(); ++index)
    items.erase(items.begin() + static_cast<ptrdiff_t>(*index));
  return shots;
}

// The tokens of the examples in front that all questions begin with.
std::vector<int32_t> common_front(std::vector<int32_t> tokens, const std::vector<HeldOutItem> &items) {
  for (const HeldOutItem &item : items) {
    const std::vector<int32_t> &own = item.question.choices.front().tokens;
    const auto end = std::mismatch(tokens.begin(), tokens.end(), own.begin(), own.end()).first;
    tokens.resize(static_cast<size_t>(std::min<int64_t>(end - tokens.begin(), std::max<int64_t>(item.question.shared - 1, 0))));
  }
  return tokens;
}

HeldOut read_held_out(const BaseModel &model, const EvalTask &task, const EvalOptions &options) {
  const Tokenizer &tokenizer = model.require_tokenizer();
  const int64_t limit = task.limit > 0 ? task.limit + (task.fewshot_path.empty() ? options.num_fewshot : 0) : 0;
  ExampleFile file = read_examples(task.path, task.schema, limit);
  HeldOut result;
  result.task = task;
  result.dataset = base_name(task.path);
  result.schema = file.schema.name;
  result.mark = file.schema.reference_after;
  result.skipped = file.skipped;
  choose_measures(file.schema, options, result);
  const bool prompts = file.schema.kind == SchemaKind::multiple_choice || file.schema.kind == SchemaKind::completion;
  std::vector<Example> all = file.examples;
  std::string front;
  if (prompts && options.num_fewshot > 0) front = take_shots(task, file, options.num_fewshot, all, result);
  const std::unique_ptr<ChatRenderer> chat = file.schema.kind == SchemaKind::messages ? chat_of(tokenizer) : nullptr;
  const ExampleTokenizer examples(tokenizer, chat.get(), options.max_length);
  for (size_t i = 0; i < all.size(); i++) {
    HeldOutItem item;
    item.example = all[i];
    item.id = id_of(task.domain, all, i);
    item.prompt = front + item.example.prompt;
    std::string reason;
    if (prepare(tokenizer, examples, result, options, item, reason)) result.items.push_back(std::move(item));
    else result.skipped.add(reason, item.example.row);
  }
  if (result.items.empty()) fail(Code::invalid, task.path, ": no row can be evaluated: ", result.skipped.summary());
  if (result.multiple_choice && !front.empty()) result.front = common_front(tokenize_prompt(tokenizer, front), result.items);
  return result;
}

}  // namespace moe
