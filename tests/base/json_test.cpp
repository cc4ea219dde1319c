#include "base/json.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/utf8.h"
#include "support/expect_error.h"

namespace moe {
namespace {

Json parse(std::string_view text) { return Json::parse(text, "test.json"); }

TEST(Json, ReadsEveryKind) {
  const Json json = parse(R"( {"n": null, "t": true, "f": false, "i": -12, "d": 2.5e1, "s": "a\"b", "a": [1, [], {}]} )");
  EXPECT_TRUE(json.at("n", "x").is_null());
  EXPECT_TRUE(json.bool_at("t", "x"));
  EXPECT_FALSE(json.bool_at("f", "x"));
  EXPECT_EQ(json.integer_at("i", "x"), -12);
  EXPECT_EQ(json.number_at("d", "x"), 25.0);
  EXPECT_EQ(json.string_at("s", "x"), "a\"b");
  EXPECT_EQ(json.at("a", "x").size(), 3u);
  EXPECT_EQ(json.members().front().first, "n");
}

TEST(Json, RefusesWhatRfc8259DoesNotAllow) {
  for (const char *text : {"",
                           " ",
                           "{",
                           "}",
                           "[1,]",
                           "{\"a\":1,}",
                           "[1 2]",
                           "{\"a\" 1}",
                           "{a:1}",
                           "{'a':1}",
                           "01",
                           "-",
                           "+1",
                           ".5",
                           "1.",
                           "1e",
                           "1e+",
                           "0x10",
                           "NaN",
                           "Infinity",
                           "-Infinity",
                           "nul",
                           "nulll",
                           "True",
                           "// x\n1",
                           "1 // x",
                           "/* x */ 1",
                           "\"a",
                           "\"\\x\"",
                           "\"\\u12\"",
                           "\"\\u12g4\"",
                           "\"\\u-123\"",
                           "\"\t\"",
                           "\"\\",
                           "1 1",
                           "[]]",
                           "{\"a\":}",
                           "\xEF\xBB\xBF{}"}) {
    EXPECT_FAILS(parse(text), Code::format, "test.json: line 1");
  }
  EXPECT_FAILS(parse(std::string_view("1\0", 2)), Code::format, "expected the end");
}

TEST(Json, NamesLineAndColumnOfAnError) {
  EXPECT_FAILS(parse("{\n  \"a\": 1,\n  \"b\": tru\n}"), Code::format, "test.json: line 3, column 8: expected a value");
}

TEST(Json, RefusesDuplicateKeysButNotKeysThatDifferInCase) {
  EXPECT_FAILS(parse(R"({"a": 1, "b": 2, "a": 3})"), Code::format, "\"a\" occurs twice");
  EXPECT_FAILS(parse(R"({"a\nb": 1, "a\u000ab": 3})"), Code::format, "\"a\\nb\" occurs twice");
  EXPECT_EQ(parse(R"({"a": 1, "A": 2})").integer_at("A", "x"), 2);
}

TEST(Json, AllowsADepthOf128) {
  const auto nested = [](int depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_NO_THROW(parse(nested(128)));
  EXPECT_FAILS(parse(nested(129)), Code::format, "deeper than 128");
  EXPECT_FAILS(parse(std::string(1000000, '[')), Code::format, "deeper than 128");
  std::string objects;
  for (int i = 0; i < 129; ++i) objects += "{\"a\":";
  EXPECT_FAILS(parse(objects), Code::format, "deeper than 128");
}

TEST(Json, KeepsNulAndEveryCodePoint) {
  EXPECT_EQ(parse(R"("a\u0000b")").string(), std::string("a\0b", 3));
  EXPECT_EQ(parse(R"({"a\u0000": 1, "a": 2})").size(), 2u);
  EXPECT_EQ(parse(R"("\u00e9\u20AC\ud83d\ude00")").string(), "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80");
  EXPECT_EQ(parse("\"\xF0\x9F\x98\x80\x7F\"").string(), "\xF0\x9F\x98\x80\x7F");
  EXPECT_EQ(parse(R"("\b\f\n\r\t\/\\")").string(), "\b\f\n\r\t/\\");
}

TEST(Json, RefusesInvalidUtf8AndLoneSurrogates) {
  for (const char *bytes : {"\x80", "\xC0\xAF", "\xC3", "\xE0\x80\xAF", "\xED\xA0\x80", "\xF4\x90\x80\x80",
                            "\xF8\x88\x80\x80\x80", "\xFF", "\xE2\x82"}) {
    EXPECT_FAILS(parse("\"" + std::string(bytes) + "\""), Code::format, "not valid UTF-8");
  }
  for (const char *text : {R"("\ud800")", R"("\udc00")", R"("\ud800\ud800")", R"("\ud800x")", R"("\ud800\n")"}) {
    EXPECT_FAILS(parse(text), Code::format, "surrogate");
  }
}

TEST(Json, EveryCodePointSurvivesAndHasOneEncoding) {
  for (uint32_t c = 0; c <= 0x10FFFF; ++c) {
    std::string bytes;
    append_utf8(bytes, c);
    const bool surrogate = c >= 0xD800 && c <= 0xDFFF;
    ASSERT_EQ(utf8_length(bytes), surrogate ? 0 : bytes.size()) << c;
  }
}

TEST(Json, KeepsIntegersOf64BitsExactly) {
  EXPECT_EQ(parse("9223372036854775807").integer(), std::numeric_limits<int64_t>::max());
  EXPECT_EQ(parse("-9223372036854775808").integer(), std::numeric_limits<int64_t>::min());
  EXPECT_EQ(parse("18446744073709551615").natural(), std::numeric_limits<uint64_t>::max());
  EXPECT_EQ(parse("18446744073709551615").dump(), "18446744073709551615");
  EXPECT_EQ(parse("9007199254740993").dump(), "9007199254740993");
  EXPECT_EQ(parse("1e3").integer(), 1000);
  EXPECT_EQ(parse("9007199254740992.0").integer(), 9007199254740992);
  EXPECT_FAILS(parse("9223372036854775808").integer(), Code::format, "expected an integer");
  EXPECT_FAILS(parse("9007199254740994.0").integer(), Code::format, "expected an integer");
  EXPECT_FAILS(parse("1.5").integer(), Code::format, "expected an integer, found 1.5");
  EXPECT_FAILS(parse("-1").natural(), Code::format, "at least 0");
}

TEST(Json, NumbersBeyondTheRangeOfDoubleAreRefusedAndTinyOnesAreZero) {
  EXPECT_FAILS(parse("1e309"), Code::format, "too large");
  EXPECT_FAILS(parse("-1e99999999999999999999"), Code::format, "too large");
  EXPECT_FAILS(parse(std::string(400, '9')), Code::format, "too large");
  EXPECT_EQ(parse("1e-400").number(), 0.0);
  EXPECT_EQ(parse("0." + std::string(400, '0') + "1").number(), 0.0);
  EXPECT_EQ(parse("0e999999").number(), 0.0);
  EXPECT_EQ(parse("0." + std::string(400, '0') + "1e401").number(), 1.0);
  EXPECT_EQ(parse("5e-324").number(), 5e-324);
  EXPECT_TRUE(std::signbit(parse("-0").number()));
}

TEST(Json, NumbersReadBackEqual) {
  for (const double value : {0.0, -0.0, 0.1, 1.0 / 3.0, 1e300, 5e-324, 123456789.123, -2.5, 1e21, 4503599627370497.5}) {
    const double back = parse(Json(value).dump()).number();
    EXPECT_EQ(back, value);
    EXPECT_EQ(std::signbit(back), std::signbit(value));
  }
  EXPECT_EQ(Json(3.0).dump(), "3");
  EXPECT_EQ(Json(std::nan("")).dump(), "null");
  EXPECT_EQ(Json(-std::numeric_limits<double>::infinity()).dump(), "null");
}

TEST(Json, WritesOneLineOrIndented) {
  Json json;
  json.set("name", "a\"\n\x01\t").set("list", Json::array().push(1).push(Json()).push(true)).set("empty", Json::object());
  json.set("name", "b");
  EXPECT_EQ(json.dump(), R"({"name": "b", "list": [1, null, true], "empty": {}})");
  EXPECT_EQ(json.dump(2), "{\n  \"name\": \"b\",\n  \"list\": [\n    1,\n    null,\n    true\n  ],\n  \"empty\": {}\n}");
  EXPECT_EQ(Json(std::string("\"\\\n\x01\x1F\0", 6)).dump(), R"("\"\\\n\u0001\u001f\u0000")");
  EXPECT_EQ(parse(json.dump(3)).dump(), json.dump());
}

TEST(Json, WritesInvalidUtf8AsReplacementCharacters) {
  EXPECT_EQ(Json("a\xFF"
                 "b\xE2\x82")
                .dump(),
            "\"a\xEF\xBF\xBD"
            "b\xEF\xBF\xBD\xEF\xBF\xBD\"");
}

TEST(Json, WrongKindsAndMissingKeysNameFileAndKey) {
  const Json json = parse(R"({"a": "text", "n": null})");
  EXPECT_FAILS(json.integer_at("a", "config.json"), Code::format, "config.json: key 'a': expected a number, found a string");
  EXPECT_FAILS(json.bool_or("a", true, "config.json"), Code::format, "config.json: key 'a': expected a boolean, found a string");
  EXPECT_FAILS(json.string_at("b", "config.json"), Code::format, "config.json: key 'b' is missing");
  EXPECT_FAILS(parse("[]").at("b", "config.json"), Code::format,
               "config.json: expected an object with the key 'b', found an array");
  EXPECT_FAILS(json.items(), Code::format, "expected an array, found an object");
  EXPECT_EQ(json.integer_or("b", 7, "x"), 7);
  EXPECT_EQ(json.number_or("n", 1.5, "x"), 1.5);
  EXPECT_EQ(json.string_or("a", "other", "x"), "text");
}

}  // namespace
}  // namespace moe
