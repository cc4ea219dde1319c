#include "data/schema.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "base/error.h"
#include "base/file.h"

namespace moe {
namespace {

constexpr std::array kKinds{std::pair{"text", SchemaKind::text}, std::pair{"completion", SchemaKind::completion},
                            std::pair{"multiple_choice", SchemaKind::multiple_choice},
                            std::pair{"messages", SchemaKind::messages}};
constexpr std::array kAnswerForms{std::pair{"index_from_0", AnswerForm::index_from_0},
                                  std::pair{"index_from_1", AnswerForm::index_from_1}, std::pair{"letter", AnswerForm::letter},
                                  std::pair{"text", AnswerForm::text}};
constexpr std::array kPlainTexts{std::pair{"document", PlainText::document}, std::pair{"paragraphs", PlainText::paragraphs}};
constexpr std::array kMetrics{"multiple_choice", "mutual_information", "macro_f1", "exact_match", "code_tests", "f1", "perplexity",
                              "loss"};
constexpr std::array kKeys{"format",        "format_version", "name",   "group",      "description",
                           "kind",          "fields",         "answer", "each",       "strip_labels",
                           "split_options", "prompt",         "option", "completion", "reference_after",
                           "metrics",       "detect",         "choices", "plain_text", "program"};

template <class Table>
auto one_of(const Table &table, const std::string &word, std::string_view source, std::string_view key) {
  std::string known;
  for (const auto &[name, value] : table) {
    if (word == name) return value;
    known += (known.empty() ? "" : ", ") + std::string(name);
  }
  fail(Code::format, source, ": key '", key, "' is '", word, "', expected one of ", known);
}

// A string or a list of strings, none of them empty.
std::vector<std::string> strings(const Json &value, std::string_view source, std::string_view key) {
  std::vector<std::string> result;
  if (value.is_string()) result.push_back(value.string());
  else if (value.is_array())
    for (const Json &item : value.items()) result.push_back(item.is_string() ? item.string() : std::string());
  const bool bad = result.empty() || std::any_of(result.begin(), result.end(), [](const auto &text) { return text.empty(); });
  if (bad) fail(Code::format, source, ": key '", key, "' must be a text or a list of texts, none empty");
  return result;
}

void read_fields(Schema &schema, const Json &fields, std::string_view source) {
  for (const auto &[role, names] : fields.members()) {
    const bool separate = role == "options" && names.is_array();
    if (separate) schema.option_fields = strings(names, source, role);
    else schema.fields.push_back({role, strings(names, source, role)});
  }
}

void read_detect(Schema &schema, const Json &detect, std::string_view source) {
  for (const auto &[key, value] : detect.members())
    if (key != "field" && key != "contains" && key != "one_of") fail(Code::format, source, ": unknown key 'detect.", key, "'");
  schema.detect_field = detect.string_at("field", source);
  schema.detect_contains = detect.string_or("contains", "", source);
  if (const Json *list = detect.find("one_of")) schema.detect_one_of = strings(*list, source, "detect.one_of");
}

bool has_role(const Schema &schema, std::string_view role) {
  const bool has_options = !schema.option_fields.empty() || !schema.choices.empty();
  return schema.find(role) || (role == "options" && has_options);
}

void check_template(const Schema &schema, const Template &used, std::string_view key, std::string_view source) {
  for (const auto &piece : used.pieces) {
    if (piece.role && !has_role(schema, piece.text))
      fail(Code::format, source, ": key '", key, "' uses {", piece.text, "}, which is not among the fields");
  }
}

// The roles of a program are fields and once the answer.
void check_program(const Schema &schema, std::string_view source) {
  const bool wanted = std::find(schema.metrics.begin(), schema.metrics.end(), "code_tests") != schema.metrics.end();
  if (schema.program.pieces.empty() && !wanted) return;
  if (schema.kind != SchemaKind::completion) fail(Code::format, source, ": code_tests and key 'program' belong to kind completion");
  Template fields;
  for (const auto &piece : schema.program.pieces)
    if (!piece.role || piece.text != "generated") fields.pieces.push_back(piece);
  if (fields.pieces.size() + 1 != schema.program.pieces.size() || !fields.uses("tests"))
    fail(Code::format, source, ": key 'program' must use {generated} once, and {tests}");
  check_template(schema, fields, "program", source);
}

void check_roles(const Schema &schema, std::string_view source) {
  const auto need = [&](std::string_view role) {
    if (!has_role(schema, role)) fail(Code::format, source, ": key 'fields' has no role '", role, "'");
  };
  if (!schema.choices.empty() && schema.kind != SchemaKind::multiple_choice)
    fail(Code::format, source, ": key 'choices' belongs to kind multiple_choice");
  if (schema.kind == SchemaKind::text) return need("text");
  if (schema.kind == SchemaKind::messages) return need("messages");
  if (schema.prompt.empty()) fail(Code::format, source, ": key 'prompt' is missing");
  if (schema.completion.pieces.empty()) fail(Code::format, source, ": key 'completion' is missing");
  for (const Template &prompt : schema.prompt) check_template(schema, prompt, "prompt", source);
  if (schema.kind == SchemaKind::completion) return check_template(schema, schema.completion, "completion", source);
  need("options");
  need("answer");
  if (!schema.choices.empty() && (schema.find("options") || !schema.option_fields.empty()))
    fail(Code::format, source, ": there are key 'choices' and a field 'options'; expected one of them");
  if (schema.choices.size() == 1) fail(Code::format, source, ": key 'choices' has one text, expected two or more");
  if (schema.answer.empty()) fail(Code::format, source, ": key 'answer' is missing");
  const auto only = [&](const Template &used, std::string_view key, std::string_view word) {
    for (const auto &piece : used.pieces)
      if (piece.role && piece.text != word && piece.text != "letter")
        fail(Code::format, source, ": key '", key, "' uses {", piece.text, "}, expected {", word, "} or {letter}");
  };
  only(schema.completion, "completion", "choice");
  only(schema.option, "option", "option");
  const bool lists = std::any_of(schema.prompt.begin(), schema.prompt.end(), [](const auto &p) { return p.uses("options"); });
  if (lists && schema.option.pieces.empty()) fail(Code::format, source, ": key 'option' is missing, and 'prompt' uses {options}");
}

}  // namespace

Template Template::parse(std::string_view text, std::string_view source) {
  Template result;
  std::string literal;
  const auto flush = [&] {
    if (!literal.empty()) result.pieces.push_back({false, std::move(literal)});
    literal.clear();
  };
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if ((c == '{' || c == '}') && i + 1 < text.size() && text[i + 1] == c) {
      literal += c;
      ++i;
    } else if (c == '{') {
      const size_t end = text.find('}', i);
      if (end == std::string_view::npos || end == i + 1)
        fail(Code::format, source, ": the template '", text, "' has a '{' without a name and '}'");
      flush();
      result.pieces.push_back({true, std::string(text.substr(i + 1, end - i - 1))});
      i = end;
    } else if (c == '}') {
      fail(Code::format, source, ": the template '", text, "' has a '}' without '{'; write '}}' for a brace");
    } else {
      literal += c;
    }
  }
  flush();
  return result;
}

bool Template::uses(std::string_view role) const {
  return std::any_of(pieces.begin(), pieces.end(), [&](const Piece &piece) { return piece.role && piece.text == role; });
}

const Json *find_field(const Json &row, std::string_view name) {
  const Json *value = row.is_object() ? row.find(name) : nullptr;
  if (value || name.find('.') == std::string_view::npos) return value;
  value = &row;
  while (value && !name.empty()) {
    const size_t dot = std::min(name.find('.'), name.size());
    const std::string_view part = name.substr(0, dot);
    name.remove_prefix(std::min(dot + 1, name.size()));
    if (value->is_object()) {
      value = value->find(part);
    } else if (value->is_array()) {
      size_t index = 0;
      const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), index);
      const bool is_index = error == std::errc() && end == part.data() + part.size();
      value = is_index && index < value->size() ? &value->items()[index] : nullptr;
    } else {
      return nullptr;
    }
  }
  return value;
}

const Schema::Field *Schema::find(std::string_view role) const {
  for (const Field &field : fields)
    if (field.role == role) return &field;
  return nullptr;
}

std::vector<std::string> Schema::required_roles() const {
  std::vector<std::string> roles;
  if (kind == SchemaKind::text) roles = {"text"};
  if (kind == SchemaKind::messages) roles = {"messages"};
  if (kind == SchemaKind::multiple_choice) roles = {"options", "answer"};
  const auto add = [&](const std::string &role) {
    if (std::find(roles.begin(), roles.end(), role) == roles.end()) roles.push_back(role);
  };
  if (kind == SchemaKind::completion)
    for (const auto &piece : completion.pieces)
      if (piece.role) add(piece.text);
  if (!prompt.empty())
    for (const auto &piece : prompt.front().pieces) {
      const auto used = [&](const Template &other) { return other.uses(piece.text); };
      if (piece.role && std::all_of(prompt.begin(), prompt.end(), used)) add(piece.text);
    }
  return roles;
}

std::vector<std::string> Schema::columns() const {
  std::vector<std::string> names;
  const auto add = [&](const std::string &name) {
    names.push_back(name);
    if (const size_t dot = name.find('.'); dot != std::string::npos) names.push_back(name.substr(0, dot));
  };
  add("id");
  if (!each.empty()) add(each);
  for (const std::string &name : option_fields) add(name);
  for (const Field &field : fields)
    for (const std::string &name : field.names) add(name);
  return names;
}

bool Schema::fits(const Json &row) const {
  if (!row.is_object() || by_name_only) return false;
  const Json *entry = nullptr;  // with `each`, roles may be fields of the entries
  if (!each.empty()) {
    entry = find_field(row, each);
    if (entry && entry->is_array()) entry = entry->size() ? &entry->items().front() : nullptr;
    if (!entry || !entry->is_object()) return false;
  }
  for (const std::string &name : option_fields)
    if (!find_field(row, name)) return false;
  for (const std::string &role : required_roles()) {
    const Field *field = find(role);
    if (!field) continue;  // options in separate fields, looked at above
    const auto present = [&](const std::string &name) { return find_field(row, name) || (entry && find_field(*entry, name)); };
    if (std::none_of(field->names.begin(), field->names.end(), present)) return false;
  }
  if (detect_field.empty()) return true;
  const Json *mark = find_field(row, detect_field);
  if (!mark) return false;
  if (!detect_contains.empty() && (!mark->is_string() || mark->string().find(detect_contains) == std::string::npos)) return false;
  if (detect_one_of.empty()) return true;
  return mark->is_string() && std::find(detect_one_of.begin(), detect_one_of.end(), mark->string()) != detect_one_of.end();
}

size_t Schema::conditions() const {
  const size_t roles = required_roles().size();
  return roles + !detect_one_of.empty() + (option_fields.empty() ? 0 : option_fields.size() - 1) + !each.empty() + !detect_field.empty();
}

Schema parse_schema(const Json &json, std::string_view source) {
  if (!json.is_object()) fail(Code::format, source, ": a schema is one JSON object");
  if (const std::string format = json.string_or("format", "", source); format != "libmoe.schema")
    fail(Code::format, source, ": key 'format' is '", format, "', expected 'libmoe.schema'");
  if (const int64_t version = json.integer_at("format_version", source); version != 1)
    fail(Code::unsupported, source, ": format_version is ", version, ", this build reads 1");
  for (const auto &[key, value] : json.members())
    if (std::find(kKeys.begin(), kKeys.end(), key) == kKeys.end()) fail(Code::format, source, ": unknown key '", key, "'");

  Schema schema;
  schema.name = json.string_at("name", source);
  schema.group = json.string_or("group", "", source);
  schema.description = json.string_or("description", "", source);
  schema.kind = one_of(kKinds, json.string_at("kind", source), source, "kind");
  schema.each = json.string_or("each", "", source);
  if (const Json *rows = json.find("plain_text"))
    schema.plain_text = one_of(kPlainTexts, rows->is_string() ? rows->string() : "", source, "plain_text");
  if (const Json *choices = json.find("choices")) schema.choices = strings(*choices, source, "choices");
  schema.strip_labels = json.bool_or("strip_labels", false, source);
  schema.split_options = json.bool_or("split_options", false, source);
  schema.reference_after = json.string_or("reference_after", "", source);
  schema.option = Template::parse(json.string_or("option", "", source), source);
  schema.completion = Template::parse(json.string_or("completion", "", source), source);
  schema.program = Template::parse(json.string_or("program", "", source), source);
  const Json &fields = json.at("fields", source);
  if (!fields.is_object()) fail(Code::format, source, ": key 'fields' must be an object of roles");
  read_fields(schema, fields, source);
  if (const Json *prompt = json.find("prompt"))
    for (const std::string &text : strings(*prompt, source, "prompt")) schema.prompt.push_back(Template::parse(text, source));
  if (const Json *answer = json.find("answer"))
    for (const std::string &form : strings(*answer, source, "answer"))
      schema.answer.push_back(one_of(kAnswerForms, form, source, "answer"));
  if (const Json *detect = json.find("detect")) {
    if (detect->is_bool() && !detect->boolean()) schema.by_name_only = true;
    else if (!detect->is_object()) fail(Code::format, source, ": key 'detect' must be an object or false");
    else read_detect(schema, *detect, source);
  }
  schema.metrics = strings(json.at("metrics", source), source, "metrics");
  for (const std::string &metric : schema.metrics)
    if (std::find(kMetrics.begin(), kMetrics.end(), metric) == kMetrics.end())
      fail(Code::format, source, ": unknown metric '", metric,
           "', expected multiple_choice, mutual_information, macro_f1, exact_match, code_tests, f1, perplexity or loss");
  check_roles(schema, source);
  check_program(schema, source);
  return schema;
}

const std::vector<Schema> &builtin_schemas() {
  static const std::vector<Schema> schemas = [] {
    std::vector<Schema> parsed;
    for (const auto &[name, text] : builtin_schema_texts()) parsed.push_back(parse_schema(Json::parse(text, name), name));
    return parsed;
  }();
  return schemas;
}

std::vector<Schema> find_schemas(const std::string &name_or_path) {
  std::vector<Schema> found;
  for (const Schema &schema : builtin_schemas())
    if (schema.name == name_or_path || schema.group == name_or_path) found.push_back(schema);
  if (!found.empty() && !name_or_path.empty()) return found;
  if (name_or_path.size() > 5 && name_or_path.substr(name_or_path.size() - 5) == ".json")
    return {parse_schema(read_json(name_or_path), name_or_path)};
  std::string known;
  for (const Schema &schema : builtin_schemas()) {
    if (!schema.group.empty() && known.find(schema.group + ",") == std::string::npos) known += schema.group + ", ";
    known += schema.name + ", ";
  }
  fail(Code::invalid, "schema '", name_or_path, "' is not known; expected the path of a .json file or one of ",
       known.substr(0, known.size() - 2));
}

}  // namespace moe
