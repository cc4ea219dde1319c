// Normal forms and splits against Python's unicodedata, `regex` and Hugging Face `tokenizers` (golden/text/unicode).
#include <gtest/gtest.h>

#include "base/error.h"
#include "text/golden_lines.h"
#include "text/normalizer.h"
#include "text/pre_splitter.h"
#include "text/unicode.h"

namespace moe {
namespace {

using golden::read_lines;
using golden::text_at;

std::vector<std::string> pieces_of(const PreSplitter &splitter, const std::string &text) {
  std::vector<std::string> pieces;
  splitter.split(text, [&](size_t begin, size_t end) { pieces.push_back(text.substr(begin, end - begin)); });
  return pieces;
}

std::vector<std::string> expected_pieces(const Json &row, const char *name) {
  std::vector<std::string> pieces;
  for (const Json &piece : row.at(name, "").items()) pieces.push_back(piece.string());
  return pieces;
}

const std::pair<const char *, Split> kSplits[] = {{"gpt-2", Split::gpt2},
                                                  {"smollm", Split::smollm},
                                                  {"llama3", Split::llama3},
                                                  {"qwen2", Split::qwen2},
                                                  {"o200k", Split::o200k}};

TEST(Split, ScannersGiveThePiecesOfThePatterns) {
  if (!unicode::has_unicode_classes()) GTEST_SKIP() << "Unicode classes need utf8proc";
  for (const Json &row : read_lines(golden::kText + "unicode/pre_tokens.jsonl")) {
    for (const auto &[name, split] : kSplits) {
      PreSplitter splitter;
      splitter.add_split(split);
      EXPECT_EQ(pieces_of(splitter, text_at(row, "text")), expected_pieces(row, name))
          << name << " " << row.at("text", "").dump();
    }
  }
}

TEST(Split, Pcre2GivesThePiecesOfThePatterns) {
  if (!MOE_HAVE_PCRE2) GTEST_SKIP() << "patterns need PCRE2";
  const Json index = read_json(golden::kText + "unicode/index.json");
  for (const char *name : {"gpt-2", "llama3", "qwen2", "o200k"}) {
    PreSplitter splitter;
    splitter.add_pattern(text_at(index.at("patterns", ""), name), PreSplitter::Keep::isolated, false, "test");
    for (const Json &row : read_lines(golden::kText + "unicode/pre_tokens.jsonl")) {
      EXPECT_EQ(pieces_of(splitter, text_at(row, "text")), expected_pieces(row, name))
          << name << " " << row.at("text", "").dump();
    }
  }
}

TEST(Split, DigitsThenGpt2IsSmollm) {
  if (!unicode::has_unicode_classes()) GTEST_SKIP() << "Unicode classes need utf8proc";
  PreSplitter joined, separate;
  joined.add_charset(PreSplitter::Charset::number, PreSplitter::Keep::isolated);
  joined.add_split(Split::gpt2);
  separate.add_charset(PreSplitter::Charset::number, PreSplitter::Keep::isolated);
  separate.add_literal("no such text", PreSplitter::Keep::isolated, false);  // keeps the two steps from being joined
  separate.add_split(Split::gpt2);
  for (const Json &row : read_lines(golden::kText + "unicode/pre_tokens.jsonl")) {
    EXPECT_EQ(pieces_of(joined, text_at(row, "text")), expected_pieces(row, "smollm"));
    EXPECT_EQ(pieces_of(separate, text_at(row, "text")), expected_pieces(row, "smollm"));
  }
}

TEST(Split, BytesThatAreNotUtf8StandApart) {
  if (!unicode::has_unicode_classes()) GTEST_SKIP() << "Unicode classes need utf8proc";
  const std::string text = "ab\xFF\xC3 c \xE2\x82 \xED\xA0\x80";
  const std::vector<std::string> apart = {"ab", "\xFF", "\xC3", " c", " ", "\xE2", "\x82", " ", "\xED", "\xA0", "\x80"};
  for (const auto &[name, split] : kSplits) {
    PreSplitter splitter;
    splitter.add_split(split);
    EXPECT_EQ(pieces_of(splitter, text), apart) << name;
    splitter.add_charset(PreSplitter::Charset::number, PreSplitter::Keep::isolated);
    EXPECT_EQ(pieces_of(splitter, text), apart) << name << " and a step";
  }
}

TEST(Split, APatternThatExplodesIsAnErrorNotAHang) {
  if (!MOE_HAVE_PCRE2) GTEST_SKIP() << "patterns need PCRE2";
  PreSplitter splitter;
  splitter.add_pattern("(?:(?:a+)+)+\\d", PreSplitter::Keep::isolated, false, "test");
  EXPECT_THROW(pieces_of(splitter, std::string(5000, 'a')), Error);
  EXPECT_THROW(splitter.add_pattern("(", PreSplitter::Keep::isolated, false, "test"), Error);
}

TEST(Normalizer, GivesTheNormalForms) {
  if (!unicode::has_unicode_classes()) GTEST_SKIP() << "normalization needs utf8proc";
  const std::tuple<const char *, NormalForm> forms[] = {
      {"NFC", NormalForm::nfc}, {"NFD", NormalForm::nfd}, {"NFKC", NormalForm::nfkc}};
  for (const Json &row : read_lines(golden::kText + "unicode/normal_forms.jsonl")) {
    for (const auto &[name, form] : forms) {
      Normalizer normalizer;
      normalizer.add_form(form, "test");
      NormalizedText out;
      normalizer.apply(text_at(row, "text"), true, true, out);
      EXPECT_EQ(out.text, text_at(row, name)) << name << " of " << row.at("text", "").dump();
      EXPECT_TRUE(out.origin.empty() || out.origin.size() == out.text.size());
    }
  }
}

TEST(Normalizer, KnowsWhereTheBytesCameFrom) {
  Normalizer normalizer;
  normalizer.add_replacement("bb", "x");
  normalizer.set_block_is_space();
  normalizer.set_prefix(PrefixSpace::always, false);
  NormalizedText out;
  normalizer.apply(
      "abbc\xE2\x96\x81"
      "d",
      true, true, out);
  ASSERT_EQ(out.text, " axc d");
  EXPECT_EQ(out.source(0, 1), (ByteSpan{0, 0}));
  EXPECT_EQ(out.source(0, 2), (ByteSpan{0, 1}));
  EXPECT_EQ(out.source(2, 3), (ByteSpan{1, 3}));
  EXPECT_EQ(out.source(3, 5), (ByteSpan{3, 7}));
  EXPECT_EQ(out.source(5, 6), (ByteSpan{7, 8}));
}

TEST(Normalizer, SpacesOfSentencePieceAreOnePiece) {
  Normalizer normalizer;
  normalizer.set_block_is_space();
  const auto spelled = [](std::string_view text) {
    std::string out;
    for (const char c : text) out += c == ' ' ? std::string("\xE2\x96\x81") : std::string(1, c);
    return out;
  };
  for (const Json &row : read_lines(golden::kText + "unicode/pre_tokens.jsonl")) {
    NormalizedText out;
    normalizer.apply(text_at(row, "text"), true, false, out);
    const std::vector<std::string> expected = expected_pieces(row, "gemma");
    EXPECT_EQ(spelled(out.text), expected.empty() ? "" : expected[0]);
  }
}

TEST(Unicode, ReplacesEachMaximalInvalidPart) {
  EXPECT_EQ(unicode::replace_invalid("a\xFF"
                                     "b"),
            "a\xEF\xBF\xBD"
            "b");
  EXPECT_EQ(unicode::replace_invalid("\xE2\x82"), "\xEF\xBF\xBD");  // one part, cut
  EXPECT_EQ(unicode::replace_invalid("\xF0\x9F\x98\x41"),
            "\xEF\xBF\xBD"
            "A");
  EXPECT_EQ(unicode::replace_invalid("\xED\xA0\x80"),
            "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");  // a surrogate: no part of it can be valid
  EXPECT_EQ(unicode::replace_invalid("\xC0\x80"), "\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(unicode::replace_invalid("\xEF\xBF\xBD"), "\xEF\xBF\xBD");
}

}  // namespace
}  // namespace moe
