#include "data/example.h"

#include <algorithm>

#include "base/error.h"
#include "data/row_view.h"

namespace moe {
namespace {

using Values = std::vector<std::pair<std::string, std::string>>;  // role, text

std::string fill(const Template &used, const Values &values) {
  std::string result;
  for (const auto &piece : used.pieces) {
    if (!piece.role) {
      result += piece.text;
      continue;
    }
    for (const auto &[role, text] : values)
      if (role == piece.text) result += text;
  }
  return result;
}

// Reads the roles of one template that are not among the values yet.
bool read_roles(const RowView &row, const Template &used, Values &values, std::string &reason) {
  for (const auto &piece : used.pieces) {
    const auto known = [&](const auto &value) { return value.first == piece.text; };
    if (!piece.role || std::any_of(values.begin(), values.end(), known)) continue;
    std::string text;
    if (!row.text(piece.text, text, reason)) return false;
    values.emplace_back(piece.text, std::move(text));
  }
  return true;
}

// The first prompt whose roles are all present. Otherwise the reason is that of the last, which asks least.
bool read_prompt(const Schema &schema, const RowView &row, Values values, std::string &prompt, std::string &reason) {
  for (const Template &used : schema.prompt) {
    if (!read_roles(row, used, values, reason)) continue;
    prompt = fill(used, values);
    return true;
  }
  return false;
}

bool read_choices(const Schema &schema, const RowView &row, Example &example, std::string &reason) {
  std::vector<Option> options;
  if (!row.options(options, reason) || !row.answer(options, example.gold, reason)) return false;
  std::string listing;
  for (size_t i = 0; i < options.size(); ++i) {
    const std::string letter = option_letter(i);
    listing += (i ? "\n" : "") + fill(schema.option, {{"letter", letter}, {"option", options[i].text}});
    example.choices.push_back({options[i].text, fill(schema.completion, {{"letter", letter}, {"choice", options[i].text}})});
  }
  example.completion = example.choices[static_cast<size_t>(example.gold)].continuation;
  example.reference = options[static_cast<size_t>(example.gold)].text;
  return read_prompt(schema, row, {{"options", listing}}, example.prompt, reason);
}

// Fields that the row does not have, or empty ones, are nothing; without tests there is no program.
void read_program(const Schema &schema, const RowView &row, CodeProgram &program) {
  Values values;
  for (const auto &piece : schema.program.pieces) {
    std::string value, reason;
    if (!piece.role || piece.text == "generated") continue;
    if (row.text(piece.text, value, reason)) values.emplace_back(piece.text, std::move(value));
    else if (piece.text == "tests") return;
  }
  const auto generated = [](const Template::Piece &piece) { return piece.role && piece.text == "generated"; };
  const auto &pieces = schema.program.pieces;
  const auto place = std::find_if(pieces.begin(), pieces.end(), generated);
  program = {fill({{pieces.begin(), place}}, values), fill({{place, pieces.end()}}, values)};
}

bool read_completion(const Schema &schema, const RowView &row, Example &example, std::string &reason) {
  Values values;
  if (!read_prompt(schema, row, {}, example.prompt, reason) || !read_roles(row, schema.completion, values, reason)) return false;
  example.completion = fill(schema.completion, values);
  example.reference = example.completion;
  if (!schema.program.pieces.empty()) read_program(schema, row, example.program);
  if (schema.reference_after.empty()) return true;
  const size_t mark = example.completion.rfind(schema.reference_after);
  if (mark == std::string::npos) return reason = "the answer has no '" + schema.reference_after + "'", false;
  example.reference.erase(0, mark + schema.reference_after.size());
  const size_t first = example.reference.find_first_not_of(" \t\r\n"), last = example.reference.find_last_not_of(" \t\r\n");
  if (first == std::string::npos) return reason = "the answer has nothing after '" + schema.reference_after + "'", false;
  example.reference = example.reference.substr(first, last - first + 1);
  return true;
}

// {role, content}, or {from, value} with the speakers human and gpt.
bool read_message(const Json &item, ChatMessage &message) {
  const Json *role = item.find("role"), *content = item.find("content");
  if (!role) role = item.find("from");
  if (!content) content = item.find("value");
  if (!role || !content || !role->is_string() || !content->is_string()) return false;
  message = {role->string(), content->string()};
  if (message.role == "human") message.role = "user";
  if (message.role == "gpt") message.role = "assistant";
  return message.role == "system" || message.role == "user" || message.role == "assistant" || message.role == "tool";
}

bool read_messages(const RowView &row, Example &example, std::string &reason) {
  const Json *list = row.value("messages");
  if (!list) return reason = "no messages", false;
  if (!list->is_array() || list->size() == 0) return reason = "the messages are not a list, or an empty one", false;
  for (const Json &item : list->items()) {
    ChatMessage message;
    if (!item.is_object() || !read_message(item, message))
      return reason = "a message is not {role, content} with role system, user, assistant or tool", false;
    example.messages.push_back(std::move(message));
  }
  const auto from_assistant = [](const ChatMessage &message) { return message.role == "assistant"; };
  if (std::none_of(example.messages.begin(), example.messages.end(), from_assistant))
    return reason = "no message of the assistant", false;
  if (from_assistant(example.messages.back())) example.reference = example.messages.back().content;
  return true;
}

bool read_example(const Schema &schema, const RowView &row, Example &example, std::string &reason) {
  example.kind = schema.kind;
  switch (schema.kind) {
    case SchemaKind::text: return row.text("text", example.completion, reason);
    case SchemaKind::completion: return read_completion(schema, row, example, reason);
    case SchemaKind::multiple_choice: return read_choices(schema, row, example, reason);
    case SchemaKind::messages: return read_messages(row, example, reason);
  }
  return false;
}

// The entries of Schema::each: a list of objects, or one object.
bool entries_of(const Schema &schema, const Json &row, std::vector<const Json *> &entries, std::string &reason) {
  if (schema.each.empty()) return entries.push_back(nullptr), true;
  const Json *list = find_field(row, schema.each);
  reason = "field '" + schema.each + "' is not a list of objects";
  if (!list) return reason = "field '" + schema.each + "' is absent", false;
  if (list->is_object()) return entries.push_back(list), true;
  if (!list->is_array() || list->size() == 0) return false;
  for (const Json &entry : list->items()) {
    if (!entry.is_object()) return false;
    entries.push_back(&entry);
  }
  return true;
}

}  // namespace

void SkipReport::add(const std::string &reason, int64_t row, int64_t count) {
  Skipped &skipped = reasons_.try_emplace(reason, Skipped{0, row}).first->second;
  skipped.count += count;
  skipped.first_row = std::min(skipped.first_row, row);
}

void SkipReport::add(const SkipReport &other) {
  for (const auto &[reason, skipped] : other.reasons_) add(reason, skipped.first_row, skipped.count);
}

int64_t SkipReport::total() const {
  int64_t sum = 0;
  for (const auto &[reason, skipped] : reasons_) sum += skipped.count;
  return sum;
}

std::string SkipReport::summary() const {
  std::string result;
  for (const auto &[reason, skipped] : reasons_)
    result += text(result.empty() ? "" : "; ", skipped.count, " skipped: ", reason, " (first in row ", skipped.first_row, ")");
  return result;
}

Json SkipReport::to_json() const {
  Json json = Json::object();
  for (const auto &[reason, skipped] : reasons_)
    json.set(reason, Json::object({{"count", skipped.count}, {"first_row", skipped.first_row}}));
  return json;
}

void AnswerBase::see(const Schema &schema, const Json &row, int64_t row_number) {
  int64_t index = 0;
  std::string reason;
  std::vector<Option> options;
  const RowView view(schema, row);
  if (!row.is_object() || !view.index_answer(index) || !view.options(options, reason)) return;
  if (index == 0 && zero_row == 0) zero_row = row_number;
  if (index == static_cast<int64_t>(options.size()) && top_row == 0) top_row = row_number;
}

void append_examples(const Schema &schema, const Json &row, int64_t row_number, std::vector<Example> &examples,
                     SkipReport &skipped) {
  if (!row.is_object()) return skipped.add("the row is not an object with fields", row_number);
  std::string reason;
  std::vector<const Json *> entries;
  if (!entries_of(schema, row, entries, reason)) return skipped.add(reason, row_number);
  for (const Json *entry : entries) {
    Example example;
    example.row = row_number;
    if (read_example(schema, RowView(schema, row, entry), example, reason)) examples.push_back(std::move(example));
    else skipped.add(reason, row_number);
  }
}

Rendered render(const Example &example, const ChatRenderer *chat) {
  Rendered result;
  if (example.kind != SchemaKind::messages) {
    result.text = example.prompt + example.completion;
    result.supervised.push_back({example.prompt.size(), result.text.size()});
    result.literal.push_back({0, result.text.size()});
    return result;
  }
  if (!chat) fail(Code::unsupported, "data of kind messages needs a model with a chat template, and this model has none");
  RenderedChat rendered = chat->render(example.messages, false);
  result.text = std::move(rendered.text);
  result.supervised = std::move(rendered.supervised);
  result.literal = std::move(rendered.content);
  result.is_chat = true;
  return result;
}

}  // namespace moe
