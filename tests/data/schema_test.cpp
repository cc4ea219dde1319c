#include "data/schema.h"

#include <gtest/gtest.h>

#include "base/file.h"
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
