#include "data/preview.h"

#include "base/error.h"
#include "data/example_file.h"

namespace moe {
namespace {

const char *kind_name(const Json &value) {
  constexpr const char *kNames[] = {"null", "bool", "number", "string", "list", "object"};
  return kNames[static_cast<size_t>(value.kind())];
}

const char *kind_name(SchemaKind kind) {
  constexpr const char *kNames[] = {"text", "completion", "multiple_choice", "messages"};
  return kNames[static_cast<size_t>(kind)];
}

// Adds the kind of each value of a row to its column: "string", or "null|number" where rows differ.
void add_kinds(Json &kinds, const Json &row) {
  for (const auto &[column, value] : row.members()) {
    const Json *known = kinds.find(column);
    const std::string name = kind_name(value), before = known ? known->string() : "";
    if (("|" + before + "|").find("|" + name + "|") == std::string::npos)
      kinds.set(column, before.empty() ? name : before + "|" + name);
  }
}

// Byte spans of a text in code points.
Json span_list(const std::string &text, const std::vector<ByteSpan> &spans) {
  Json list = Json::array();
  int64_t point = 0;
  size_t at = 0;
  const auto point_of = [&](size_t byte) {
    for (; at < byte; at++) point += (static_cast<unsigned char>(text[at]) & 0xC0) != 0x80;
    return point;
  };
  for (const ByteSpan &span : spans) {
    Json pair = Json::array();
    pair.push(point_of(span.begin));
    pair.push(point_of(span.end));
    list.push(std::move(pair));
  }
  return list;
}

void add_counts(Json &line, const Example &example, const ExampleTokenizer &tokenizer) {
  std::vector<TokenizedExample> sequences;
  std::string reason;
  if (!tokenizer.tokenize(example, sequences, reason)) {
    line.set("skipped", reason);
    return;
  }
  int64_t tokens = 0, supervised = 0;
  for (const TokenizedExample &sequence : sequences) {
    tokens += static_cast<int64_t>(sequence.tokens.size());
    for (int32_t label : sequence.labels) supervised += label != kNoLabel;
  }
  line.set("sequences", static_cast<int64_t>(sequences.size())).set("tokens", tokens).set("supervised_tokens", supervised);
}

Json example_line(const Example &example, const ChatRenderer *chat) {
  Json line = Json::object({{"row", example.row}, {"kind", kind_name(example.kind)}});
  if (example.kind == SchemaKind::messages && !chat) {
    Json messages = Json::array();
    for (const ChatMessage &message : example.messages)
      messages.push(Json::object({{"role", message.role}, {"content", message.content}}));
    return std::move(line.set("messages", std::move(messages)));
  }
  const Rendered rendered = render(example, chat);
  line.set("text", rendered.text).set("supervised", span_list(rendered.text, rendered.supervised));
  if (example.kind == SchemaKind::multiple_choice) {
    Json choices = Json::array();
    for (const Choice &choice : example.choices) choices.push(choice.text);
    line.set("choices", std::move(choices)).set("gold", example.gold);
  }
  return line;
}

}  // namespace

std::string preview_rows(const std::string &path, int64_t head, bool types) {
  DataRows rows(path);
  std::string lines;
  Json kinds = Json::object(), row;
  for (int64_t n = 0; n < head && rows.next(row); n++) {
    if (row.is_object()) add_kinds(kinds, row);
    lines += row.dump() + "\n";
  }
  return types ? Json::object({{"types", std::move(kinds)}}).dump() + "\n" + lines : lines;
}

std::string preview_examples(const std::string &path, const std::string &schema, int64_t head, const Tokenizer *tokenizer,
                             const ChatRenderer *chat, int64_t max_length) {
  ExampleReader reader(path, schema);
  std::string lines;
  Example example;
  for (int64_t n = 0; n < head && reader.next(example); n++) {
    Json line = example_line(example, chat);
    if (tokenizer && (chat || example.kind != SchemaKind::messages))
      add_counts(line, example, ExampleTokenizer(*tokenizer, chat, max_length));
    lines += line.dump() + "\n";
  }
  Json reasons = Json::object();
  for (const auto &[reason, rows] : reader.skipped().reasons()) {
    reasons.set(reason, Json::object({{"count", rows.count}, {"first_row", rows.first_row}}));
  }
  if (reasons.size() > 0) lines += Json::object({{"skipped", std::move(reasons)}}).dump() + "\n";
  return lines;
}

}  // namespace moe
