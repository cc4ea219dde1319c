#include "data/preview.h"

#include <optional>

#include "base/error.h"
#include "data/example_file.h"
#include "formats/parquet.h"

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

// {"sequences", "tokens", "supervised_tokens"}, or {"skipped": reason}.
Json token_counts(const Example &example, const ExampleTokenizer &tokenizer, std::string &reason) {
  std::vector<TokenizedExample> sequences;
  if (!tokenizer.tokenize(example, sequences, reason)) return Json::object({{"skipped", reason}});
  int64_t tokens = 0, supervised = 0;
  for (const TokenizedExample &sequence : sequences) {
    tokens += static_cast<int64_t>(sequence.tokens.size());
    for (int32_t label : sequence.labels) supervised += label != kNoLabel;
  }
  return Json::object(
      {{"sequences", static_cast<int64_t>(sequences.size())}, {"tokens", tokens}, {"supervised_tokens", supervised}});
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
  RowReader rows(path);
  std::string lines;
  const bool has_schema = ParquetFile::matches(File(path));
  Json kinds = has_schema ? parquet_types(ParquetFile(path)) : Json::object(), row;
  for (int64_t n = 0; n < head && rows.next(row); n++) {
    if (!rows.defect().empty()) row = Json::object({{"row", static_cast<int64_t>(rows.number())}, {"skipped", rows.defect()}});
    else if (!has_schema) add_kinds(kinds, row);
    lines += row.dump() + "\n";
  }
  return types ? Json::object({{"types", std::move(kinds)}}).dump() + "\n" + lines : lines;
}

std::string preview_examples(const std::string &path, const PreviewOptions &options, const Tokenizer *tokenizer,
                             const ChatRenderer *chat) {
  Json row;
  if (!RowReader(path).next(row)) return Json::object({{"file", path}, {"rows", 0}, {"whole_file", true}, {"empty", true}}).dump() + "\n";
  ExampleReader reader(path, options.schema, options.show_skipped > 0);
  std::optional<ExampleTokenizer> tokens;
  if (tokenizer) tokens.emplace(*tokenizer, chat, options.max_length);
  std::string lines;
  SkipReport too_long;  // and whatever else the tokenizer refuses
  int64_t shown = 0, examples = 0;
  reader.on_skip([&](int64_t number, const std::string &reason, const Json &row) {
    if (shown++ < options.show_skipped)
      lines += Json::object({{"row", number}, {"skipped", reason}, {"columns", row}}).dump() + "\n";
  });
  bool whole_file = false;
  for (Example example; options.show_skipped > 0 || examples < options.head; examples++) {
    if (!reader.next(example)) {
      whole_file = true;
      break;
    }
    std::string reason;
    Json counts = Json::object();
    if (tokens && (chat || example.kind != SchemaKind::messages)) counts = token_counts(example, *tokens, reason);
    if (!reason.empty()) too_long.add(reason, example.row);
    if (examples >= options.head && (reason.empty() || shown++ >= options.show_skipped)) continue;
    Json line = example_line(example, chat);
    for (const auto &[key, value] : counts.members()) line.set(key, value);
    lines += line.dump() + "\n";
  }
  SkipReport skipped = reader.skipped();
  skipped.add(too_long);
  Json last = Json::object({{"file", path}, {"schema", reader.schema().name}, {"rows", reader.rows()}, {"whole_file", whole_file}});
  last.set("examples", examples - too_long.total()).set("skipped", skipped.to_json());
  return lines + last.set("repeated_ids", reader.repeated_ids().count).dump() + "\n";
}

}  // namespace moe
