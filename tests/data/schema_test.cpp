#include "data/schema.h"

#include <gtest/gtest.h>

#include "base/file.h"
#include "data/example.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace moe {
namespace {

const std::string kSchemas = std::string(MOE_DATA_DIR) + "/schemas";

Schema parsed(const std::string &text) { return parse_schema(Json::parse(text, "s.json"), "s.json"); }

// A schema of one's own, valid but for what a test puts in.
std::string schema_text(const std::string &kind, const std::string &fields, const std::string &more) {
  return R"({"format": "libmoe.schema", "format_version": 1, "name": "own", "kind": ")" + kind + R"(", "fields": )" + fields +
         R"(, "metrics": ["loss"])" + more + "}";
}

TEST(Schema, BuiltInTextsAreTheShippedFiles) {
  std::vector<std::string> names;
  for (const auto &[name, text] : builtin_schema_texts()) {
    EXPECT_EQ(text, read_file(kSchemas + "/" + name + ".json")) << name;
    names.push_back(name + ".json");
  }
  EXPECT_EQ(names, list_folder(kSchemas));
  ASSERT_EQ(builtin_schemas().size(), names.size());
  for (size_t i = 0; i < names.size(); i++) EXPECT_EQ(builtin_schemas()[i].name + ".json", names[i]);
}

TEST(Schema, IsFoundByNameByGroupAndByFile) {
  EXPECT_EQ(find_schemas("gsm8k").at(0).name, "gsm8k");
  const std::vector<Schema> group = find_schemas("medmcqa");
  ASSERT_EQ(group.size(), 2u);
  EXPECT_EQ(group[0].name, "medmcqa_from_0");
  EXPECT_EQ(group[1].name, "medmcqa_from_1");
  EXPECT_EQ(find_schemas(kSchemas + "/casehold.json").at(0).name, "casehold");
  EXPECT_FAILS(find_schemas("medmqca"), Code::invalid, "medmcqa, ");
  EXPECT_FAILS(find_schemas(""), Code::invalid, "expected");
  EXPECT_FAILS(find_schemas("nowhere.json"), Code::io, "nowhere.json");
}

TEST(Schema, TemplatesHaveRolesAndDoubledBraces) {
  const Template parsed = Template::parse("{{{question}}}\n{options}", "t");
  ASSERT_EQ(parsed.pieces.size(), 4u);
  EXPECT_EQ(parsed.pieces[0].text, "{");
  EXPECT_TRUE(parsed.pieces[1].role);
  EXPECT_EQ(parsed.pieces[1].text, "question");
  EXPECT_EQ(parsed.pieces[2].text, "}\n");
  EXPECT_TRUE(parsed.uses("options"));
  EXPECT_FALSE(parsed.uses("answer"));
  EXPECT_FAILS(Template::parse("{question", "t"), Code::format, "without a name");
  EXPECT_FAILS(Template::parse("{}", "t"), Code::format, "without a name");
  EXPECT_FAILS(Template::parse("a } b", "t"), Code::format, "'}'");
}

TEST(Schema, RefusesFilesThatAreNotSchemas) {
  EXPECT_FAILS(parsed("[]"), Code::format, "one JSON object");
  EXPECT_FAILS(parsed("{}"), Code::format, "'format'");
  EXPECT_FAILS(parsed(R"({"format": "libmoe.schema", "format_version": 2})"), Code::unsupported, "format_version is 2");
  EXPECT_FAILS(parsed(schema_text("table", R"({"text": "t"})", "")), Code::format, "'kind' is 'table'");
  EXPECT_FAILS(parsed(schema_text("text", R"({"prompt": "t"})", "")), Code::format, "no role 'text'");
  EXPECT_FAILS(parsed(schema_text("text", R"({"text": []})", "")), Code::format, "'text'");
  EXPECT_FAILS(parsed(schema_text("text", R"({"text": 3})", "")), Code::format, "'text'");
  EXPECT_FAILS(parsed(schema_text("text", R"({"text": "t"})", R"(, "promt": "x")")), Code::format, "unknown key 'promt'");
  EXPECT_FAILS(parsed(schema_text("completion", R"({"q": "q"})", R"(, "completion": "{q}")")), Code::format,
               "'prompt' is missing");
  EXPECT_FAILS(parsed(schema_text("completion", R"({"q": "q"})", R"(, "prompt": "{q}", "completion": "{a}")")), Code::format,
               "{a}");
  const std::string fields = R"({"question": "q", "options": "o", "answer": "a"})";
  EXPECT_FAILS(parsed(schema_text("multiple_choice", fields, R"(, "prompt": "{question}", "completion": " {choice}")")),
               Code::format, "'answer' is missing");
  EXPECT_FAILS(
      parsed(schema_text("multiple_choice", fields, R"(, "prompt": "{options}", "completion": " {choice}", "answer": "letter")")),
      Code::format, "'option' is missing");
  EXPECT_FAILS(parsed(schema_text("multiple_choice", fields,
                                  R"(, "prompt": "{question}", "completion": "{question}", "answer": "letter")")),
               Code::format, "{choice}");
  const auto program = [&](const std::string &more) {
    return parsed(schema_text("completion", R"({"q": "q", "a": "a", "tests": "t"})", R"(, "prompt": "{q}", "completion": "{a}", "program": )" + more));
  };
  EXPECT_EQ(program(R"("{q}{generated}{tests}")").program.pieces.size(), 3u);
  EXPECT_FAILS(program(R"("{q}{tests}")"), Code::format, "{generated} once");
  EXPECT_FAILS(program(R"("{generated}{generated}{tests}")"), Code::format, "{generated} once");
  EXPECT_FAILS(program(R"("{generated}")"), Code::format, "{tests}");
  EXPECT_FAILS(program(R"("{generated}{tests}{other}")"), Code::format, "{other}");
}

TEST(Schema, NeedsTheColumnsOfItsFields) {
  using Names = std::vector<std::string>;
  EXPECT_EQ(find_schemas("gsm8k").at(0).columns(), (Names{"id", "question", "answer"}));
  EXPECT_EQ(parsed(schema_text("completion", R"({"q": ["a.b.0", "c"]})", R"(, "each": "list.x", "prompt": "{q}", "completion": "{q}")")).columns(),
            (Names{"id", "list.x", "list", "a.b.0", "a", "c"}));
}

TEST(Schema, NamesOfFieldsReachInsideOfThem) {
  const Json row = Json::parse(R"({"a": {"b": [1, {"c": "deep"}], "x.y": 5}, "a.b": "exact", "list": ["p", "q"], "n": 3})", "row");
  const auto found = [&](const char *name) {
    const Json *value = find_field(row, name);
    return value ? value->dump() : "nothing";
  };
  EXPECT_EQ(found("n"), "3");
  EXPECT_EQ(found("a.b"), "\"exact\"") << "a field of that very name goes first";
  EXPECT_EQ(found("a.b.1.c"), "\"deep\"");
  EXPECT_EQ(found("a.b.0"), "1");
  EXPECT_EQ(found("list.1"), "\"q\"");
  for (const char *name : {"list.2", "list.-1", "list.1x", "list.x", "n.1", "a.c", "z", "a.b.0.c", "", ".", "list."}) {
    EXPECT_TRUE(std::string(name) == "list." || found(name) == "nothing") << name;
  }
}

TEST(Schema, ChoicesOfEveryRowStandInTheSchema) {
  const Schema schema = parsed(schema_text(
      "multiple_choice", R"({"question": "q", "answer": "a.0"})",
      R"(, "choices": ["ham", "spam"], "prompt": "{question}\n{options}", "option": "{letter}) {option}", "completion": "{choice}", "answer": "text")"));
  std::vector<Example> examples;
  SkipReport skipped;
  append_examples(schema, Json::parse(R"({"q": "Buy!", "a": ["spam"]})", "row"), 1, examples, skipped);
  append_examples(schema, Json::parse(R"({"q": "Buy!", "a": ["eggs"]})", "row"), 2, examples, skipped);
  ASSERT_EQ(examples.size(), 1u);
  EXPECT_EQ(examples[0].prompt, "Buy!\nA) ham\nB) spam");
  EXPECT_EQ(examples[0].completion, "spam");
  EXPECT_EQ(examples[0].gold, 1);
  EXPECT_EQ(skipped.reasons().begin()->first, "field 'a.0' names none of the options");
  const std::string rest = R"(, "prompt": "{question}", "completion": "{choice}", "answer": "text")";
  EXPECT_FAILS(parsed(schema_text("multiple_choice", R"({"question": "q", "answer": "a"})", R"(, "choices": ["one"])" + rest)),
               Code::format, "'choices' has one text");
  EXPECT_FAILS(parsed(schema_text("multiple_choice", R"({"question": "q", "answer": "a", "options": "o"})",
                                  R"(, "choices": ["one", "two"])" + rest)),
               Code::format, "'choices' and a field 'options'");
  EXPECT_FAILS(parsed(schema_text("text", R"({"text": "t"})", R"(, "choices": ["one", "two"])")), Code::format, "belongs to kind");
}

TEST(Schema, RecognisesARowByTheWordsOfAField) {
  const std::string fields = R"({"text": "text"})";
  const Schema schema = parsed(schema_text("text", fields, R"(, "detect": {"field": "label.0", "one_of": ["Yes", "No"]})"));
  EXPECT_TRUE(schema.fits(Json::parse(R"({"text": "t", "label": ["No"]})", "row")));
  EXPECT_FALSE(schema.fits(Json::parse(R"({"text": "t", "label": ["Maybe"]})", "row")));
  EXPECT_FALSE(schema.fits(Json::parse(R"({"text": "t", "label": [1]})", "row")));
  EXPECT_FALSE(schema.fits(Json::parse(R"({"text": "t"})", "row")));
  EXPECT_GT(schema.conditions(), parsed(schema_text("text", fields, R"(, "detect": {"field": "label"})")).conditions());
  EXPECT_FALSE(parsed(schema_text("text", fields, R"(, "detect": false)")).fits(Json::parse(R"({"text": "t"})", "row")));
  EXPECT_FAILS(parsed(schema_text("text", fields, R"(, "detect": true)")), Code::format, "'detect' must be an object or false");
  EXPECT_FAILS(parsed(schema_text("text", fields, R"(, "detect": {"field": "x", "is": "y"})")), Code::format, "'detect.is'");
  EXPECT_FAILS(parsed(schema_text("text", fields, R"(, "plain_text": "lines")")), Code::format, "'plain_text' is 'lines', expected one of document");
}

TEST(Schema, AFileOfOnesOwnIsAllANewDomainNeeds) {
  const test::TemporaryFolder folder;
  write_file_atomic(folder / "chem.json", schema_text("completion", R"({"substance": "name", "formula": ["formula", "f"]})",
                                                      R"(, "prompt": "Formula of {substance}:", "completion": " {formula}")"));
  const Schema schema = find_schemas(folder / "chem.json").at(0);
  EXPECT_EQ(schema.required_roles(), (std::vector<std::string>{"formula", "substance"}));
  EXPECT_TRUE(schema.fits(Json::parse(R"({"name": "water", "f": "H2O"})", "row")));
  EXPECT_FALSE(schema.fits(Json::parse(R"({"name": "water"})", "row")));
}

}  // namespace
}  // namespace moe
