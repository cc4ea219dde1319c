// Texts that are not UTF-8, long, or made by chance, and GGUF files that are damaged: defined results, no harm, no hang.
#include <gtest/gtest.h>

#include <atomic>
#include <fstream>
#include <thread>

#include "base/error.h"
#include "base/random.h"
#include "formats/gguf.h"
#include "text/golden_lines.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace moe {
namespace {

const std::string kVocabularies = golden::kText + "vocabularies/";

std::vector<std::pair<std::string, std::shared_ptr<const Tokenizer>>> load_all() {
  std::vector<std::pair<std::string, std::shared_ptr<const Tokenizer>>> all;
  all.emplace_back("phi-3", load_tokenizer(Gguf(kVocabularies + "ggml-vocab-phi-3.gguf")));
  if (!unicode::has_unicode_classes()) return all;
  for (const char *name : {"minimind", "torchtitan_test", "qwen2"}) all.emplace_back(name, load_tokenizer(kVocabularies + name));
  if (MOE_HAVE_PCRE2) {
    for (const char *name : {"steps", "previous", "llama", "metaspace_first"})
      all.emplace_back(name, load_tokenizer(golden::kText + "small/" + name));
  }
  return all;
}

// Every byte has a token and no normal form changes the text: what is encoded comes back. Not so in SentencePiece where
// U+2581 is in the text (it stands for a space) or a token that is always cut out (a space is put behind it).
bool comes_back(const std::string &name, const std::string &text) {
  if (name == "phi-3") return text.find("\xE2\x96\x81") == std::string::npos && text.find("</s>") == std::string::npos;
  return name == "minimind";
}

void expect_sound(const std::string &name, const Tokenizer &tokenizer, const std::string &text) {
  for (const bool special : {false, true}) {
    const EncodeOptions options = {special, special, {}};
    const Encoding encoding = tokenizer.encode_with_spans(text, options);
    ASSERT_EQ(encoding.ids, tokenizer.encode(text, options)) << name;
    size_t before = 0;
    for (size_t i = 0; i < encoding.ids.size(); ++i) {
      const ByteSpan span = encoding.spans[i];
      ASSERT_TRUE(span.begin <= span.end && span.end <= text.size() && span.begin >= before) << name << " token " << i;
      before = span.begin;
    }
    StreamDecoder decoder(tokenizer);
    std::string streamed;
    for (const int32_t id : encoding.ids) streamed += decoder.push(id);
    streamed += decoder.finish();
    ASSERT_EQ(streamed, unicode::replace_invalid(tokenizer.decode(encoding.ids))) << name;
    if (special || !comes_back(name, text)) continue;
    ASSERT_EQ(tokenizer.decode(encoding.ids), text) << name;
    ASSERT_EQ(encoding.unencodable_bytes, 0) << name;
  }
}

TEST(Robustness, TextsThatAreNotUtf8ComeBack) {
  const auto tokenizers = load_all();
  for (const Json &row : golden::read_lines(golden::kText + "tokenizers/invalid_utf8.jsonl")) {
    for (const auto &[name, tokenizer] : tokenizers)
      expect_sound(name, *tokenizer, golden::from_hex(golden::text_at(row, "text_hex")));
  }
}

TEST(Robustness, RandomBytesComeBack) {
  const auto tokenizers = load_all();
  const Random random(7, 0);
  uint64_t at = 0;
  for (int round = 0; round < 300; ++round) {
    std::string text(1 + random.below(at++, 80), '\0');
    for (char &c : text) c = static_cast<char>(random.below(at++, 256));
    for (const auto &[name, tokenizer] : tokenizers) expect_sound(name, *tokenizer, text);
  }
}

// Fragments that meet each other: white space of all kinds, marks, digits, control-token text, cut characters.
TEST(Robustness, RandomFragmentsComeBack) {
  const auto tokenizers = load_all();
  const std::string fragments[] = {" ",
                                   "  ",
                                   "\n",
                                   "\r\n",
                                   "\t",
                                   "\xC2\xA0",
                                   "\xE3\x80\x80",
                                   "a",
                                   "The",
                                   "'s",
                                   "'RE",
                                   "12345",
                                   "\xD9\xA3",
                                   "e\xCC\x81",
                                   "\xCC\x81",
                                   "\xE4\xBD\xA0\xE5\xA5\xBD",
                                   "\xF0\x9F\x98\x80",
                                   "\xF0\x9F",
                                   "\x98\x80",
                                   "<|im_end|>",
                                   "<|im_",
                                   "</s>",
                                   "<s>",
                                   "<0x41>",
                                   "\xE2\x96\x81",
                                   "...",
                                   "<m>",
                                   "<left>",
                                   "<right>",
                                   "<word>",
                                   std::string(1, '\0'),
                                   "\x1D",
                                   "\xEF\xBF\xBD",
                                   "\xEA\xB0\x80\xE1\x86\xA7"};
  const Random random(11, 0);
  uint64_t at = 0;
  for (int round = 0; round < 400; ++round) {
    std::string text;
    for (uint64_t n = random.below(at++, 20); n > 0; --n) text += fragments[random.below(at++, std::size(fragments))];
    for (const auto &[name, tokenizer] : tokenizers) expect_sound(name, *tokenizer, text);
  }
}

// A quadratic step anywhere would take hours.
TEST(Robustness, LongTextsTakeLinearTime) {
  for (const auto &[name, tokenizer] : load_all()) {
    for (const std::string part : {"a", " ", "\n ", "ab", ".", " .", "1", "\xE4\xBD\xA0", "\xCC\x81", "\xCC\x81\xCC\xA3",
                                   "\xE0\xBD\xB3", "\xFF", "<|", "\xE2\x96\x81"}) {
      std::string text;
      while (text.size() < 200'000) text += part;
      const Encoding encoding = tokenizer->encode_with_spans(text, {false, true, {}});
      EXPECT_EQ(encoding.ids, tokenizer->encode(text, {false, true, {}})) << name;
      EXPECT_TRUE(!comes_back(name, text) || tokenizer->decode(encoding.ids) == text) << name << " " << part;
    }
  }
}

TEST(Robustness, ThreadsShareATokenizer) {
  const auto tokenizer = load_tokenizer(Gguf(kVocabularies + "ggml-vocab-phi-3.gguf"));
  const auto lines = golden::read_lines(golden::kText + "tokenizers/gguf-phi-3.jsonl");
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (const Json &row : lines) {
        if (!row.at("parse_special", "").boolean()) continue;
        const EncodeOptions options = {row.at("add_special_tokens", "").boolean(), true, {}};
        wrong += tokenizer->encode(golden::text_at(row, "text"), options) != golden::ids_at(row, "ids");
      }
    });
  }
  for (std::thread &thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST(StreamDecoder, HoldsBackOnlyWhatMayBecomeACharacter) {
  const auto tokenizer = load_tokenizer(Gguf(kVocabularies + "ggml-vocab-phi-3.gguf"));
  const auto byte = [](int b) { return 3 + b; };  // <0x00> is token 3
  ASSERT_EQ(tokenizer->bytes(byte(0xE2)), "\xE2");
  const auto stream = [&](const std::vector<int> &bytes) {
    StreamDecoder decoder(*tokenizer);
    std::vector<std::string> out;
    for (const int b : bytes) out.push_back(decoder.push(byte(b)));
    out.push_back(decoder.finish());
    return out;
  };
  const std::string bad = "\xEF\xBF\xBD";
  using Out = std::vector<std::string>;
  EXPECT_EQ(stream({0xE2, 0x82, 0xAC}), (Out{"", "", "\xE2\x82\xAC", ""}));
  EXPECT_EQ(stream({0xEF, 0xBF, 0xBD}), (Out{"", "", bad, ""}));  // a U+FFFD of the text itself
  EXPECT_EQ(stream({0xE2, 0x41}), (Out{"", bad + "A", ""}));
  EXPECT_EQ(stream({0xF0, 0x9F}), (Out{"", "", bad}));
  EXPECT_EQ(stream({0x80}), (Out{bad, ""}));
  EXPECT_EQ(stream({0xED, 0xA0}), (Out{"", bad + bad, ""}));  // the beginning of no character
  EXPECT_EQ(stream({0xF5}), (Out{bad, ""}));
}

TEST(StreamDecoder, TakesAwayTheLeadingSpaceOnce) {
  const auto tokenizer = load_tokenizer(Gguf(kVocabularies + "ggml-vocab-phi-3.gguf"));
  ASSERT_TRUE(tokenizer->strips_leading_space());
  StreamDecoder decoder(*tokenizer);
  std::string text;
  for (const int32_t id : tokenizer->encode("one  two", {})) text += decoder.push(id);
  EXPECT_EQ(text + decoder.finish(), "one  two");
}

TEST(Tokenizer, CountsBytesWithoutAToken) {
  if (!unicode::has_unicode_classes()) GTEST_SKIP() << "byte-level vocabularies need utf8proc";
  const auto tokenizer = load_tokenizer(kVocabularies + "torchtitan_test");  // no tokens for the bytes from 80, nor for a space
  const Encoding encoding = tokenizer->encode_with_spans("a \xC3\xA9z", {});
  EXPECT_EQ(tokenizer->decode(encoding.ids), "az");
  EXPECT_EQ(encoding.unencodable_bytes, 3);
  EXPECT_EQ(encoding.spans, (std::vector<ByteSpan>{{0, 1}, {4, 5}}));
}

// A GGUF file of metadata only, written by hand.
class MetadataFile {
 public:
  MetadataFile &text(const std::string &key, const std::string &value) {
    name(key), number<uint32_t>(8), name(value);
    return *this;
  }
  MetadataFile &integer(const std::string &key, uint32_t value) {
    name(key), number<uint32_t>(4), number(value);
    return *this;
  }
  MetadataFile &texts(const std::string &key, const std::vector<std::string> &values) {
    name(key), number<uint32_t>(9), number<uint32_t>(8), number<uint64_t>(values.size());
    for (const std::string &value : values) plain(value);
    return *this;
  }
  template <class T>
  MetadataFile &numbers(const std::string &key, uint32_t type, const std::vector<T> &values) {
    name(key), number<uint32_t>(9), number(type), number<uint64_t>(values.size());
    for (const T value : values) number(value);
    return *this;
  }
  std::shared_ptr<const Tokenizer> load() const {
    const std::string path = testing::TempDir() + "moe_metadata.gguf";
    std::string head = "GGUF";
    const uint32_t version = 3;
    const uint64_t tensors = 0, count = keys_;
    head.append(reinterpret_cast<const char *>(&version), 4).append(reinterpret_cast<const char *>(&tensors), 8);
    head.append(reinterpret_cast<const char *>(&count), 8);
    std::ofstream(path, std::ios::binary) << head << bytes_ << std::string(32 - (head.size() + bytes_.size()) % 32, '\0');
    return load_tokenizer(Gguf(path));
  }

 private:
  template <class T>
  void number(T value) {
    bytes_.append(reinterpret_cast<const char *>(&value), sizeof value);
  }
  void plain(const std::string &value) { number<uint64_t>(value.size()), bytes_ += value; }
  void name(const std::string &key) {
    keys_ += key.starts_with("tokenizer.") || key.starts_with("general.");
    plain(key);
  }

  std::string bytes_;
  uint64_t keys_ = 0;
};

MetadataFile tiny_gguf(const std::string &model = "llama") {
  MetadataFile file;
  file.text("tokenizer.ggml.model", model)
      .texts("tokenizer.ggml.tokens", {"<unk>", "\xE2\x96\x81", "a", "b",
                                       "\xE2\x96\x81"
                                       "a",
                                       "ab"});
  return file;
}

TEST(TokenizerGguf, MergesByScore) {
  auto file = tiny_gguf();
  file.numbers<float>("tokenizer.ggml.scores", 6, {0, -3, -4, -5, -1, -2})
      .numbers<int32_t>("tokenizer.ggml.token_type", 5, {2, 1, 1, 1, 1, 1});
  EXPECT_EQ(file.load()->encode("ab", {}), (std::vector<int32_t>{4, 3}));  // "_a" before "ab"
  auto other = tiny_gguf();
  other.numbers<float>("tokenizer.ggml.scores", 6, {0, -3, -4, -5, -2, -1}).integer("tokenizer.ggml.unknown_token_id", 0);
  EXPECT_EQ(other.load()->encode("ab?", {}), (std::vector<int32_t>{1, 5, 0}));
}

void expect_refused(const MetadataFile &file, Code code, const std::string &message) {
  try {
    file.load();
    ADD_FAILURE() << "accepted, expected: " << message;
  } catch (const Error &error) {
    EXPECT_EQ(error.code(), code) << error.message();
    EXPECT_NE(error.message().find(message), std::string::npos) << error.message();
  }
}

MetadataFile byte_level_gguf() {
  MetadataFile file;
  file.text("tokenizer.ggml.model", "gpt2")
      .texts("tokenizer.ggml.tokens", {"e", "1", "11", "1111", "\xC3\x83", "\xC2\xA9", "\xC3\x8C", "\xC4\xA3", "<x>"});
  file.texts("tokenizer.ggml.merges", {"1 1", "11 11"})
      .numbers<int32_t>("tokenizer.ggml.token_type", 5, {1, 1, 1, 1, 1, 1, 1, 1, 3});
  return file;
}

TEST(TokenizerGguf, TheSplitIsTheOneThatTheFileNames) {
  if (!unicode::has_unicode_classes()) GTEST_SKIP() << "byte-level vocabularies need utf8proc";
  const auto encode = [](const MetadataFile &file, const std::string &text) { return file.load()->encode(text, {}); };
  using Ids = std::vector<int32_t>;
  EXPECT_EQ(encode(byte_level_gguf(), "1111"), (Ids{3}));  // none named: GPT-2's
  EXPECT_EQ(encode(byte_level_gguf().text("tokenizer.ggml.pre", "gpt-2"), "1111"), (Ids{3}));
  EXPECT_EQ(encode(byte_level_gguf().text("tokenizer.ggml.pre", "default"), "1111"), (Ids{2, 1, 1}));
  EXPECT_EQ(encode(byte_level_gguf().text("tokenizer.ggml.pre", "llama-bpe"), "1111"), (Ids{2, 1, 1}));
  EXPECT_EQ(encode(byte_level_gguf().text("tokenizer.ggml.pre", "smollm"), "1111"), (Ids{1, 1, 1, 1}));
  EXPECT_EQ(encode(byte_level_gguf().text("tokenizer.ggml.pre", "qwen2"), "1111"), (Ids{1, 1, 1, 1}));
}

TEST(TokenizerGguf, ModelsOfTheNeoxFamilyNormalize) {
  if (!unicode::has_unicode_classes()) GTEST_SKIP() << "byte-level vocabularies need utf8proc";
  const std::string text = "e\xCC\x81";
  EXPECT_EQ(byte_level_gguf().load()->encode(text, {}), (std::vector<int32_t>{0, 6, 7}));
  EXPECT_EQ(byte_level_gguf().text("general.architecture", "gptneox").load()->encode(text, {}), (std::vector<int32_t>{4, 5}));
}

TEST(TokenizerGguf, RefusesOtherKindsByName) {
  for (const std::string model : {"bert", "t5", "rwkv"}) expect_refused(tiny_gguf(model), Code::unsupported, model);
  if (!unicode::has_unicode_classes()) return expect_refused(tiny_gguf("gpt2"), Code::unsupported, "utf8proc");
  auto unknown_split = tiny_gguf("gpt2");
  unknown_split.text("tokenizer.ggml.pre", "viking").texts("tokenizer.ggml.merges", {});
  expect_refused(unknown_split, Code::unsupported, "viking");
}

TEST(TokenizerGguf, RefusesWhatContradictsItself) {
  expect_refused(MetadataFile(), Code::format, "tokenizer.ggml.model");
  expect_refused(tiny_gguf(), Code::format, "tokenizer.ggml.scores");
  auto scores = tiny_gguf();
  scores.numbers<float>("tokenizer.ggml.scores", 6, {0, 1});
  expect_refused(scores, Code::format, "expected 6");
  auto types = tiny_gguf();
  types.numbers<int32_t>("tokenizer.ggml.token_type", 5, {1});
  expect_refused(types, Code::format, "expected 6");
  auto type = tiny_gguf();
  type.numbers<int32_t>("tokenizer.ggml.token_type", 5, {1, 1, 9, 1, 1, 1});
  expect_refused(type, Code::format, "expected 1 to 6");
  auto byte = tiny_gguf();
  byte.numbers<int32_t>("tokenizer.ggml.token_type", 5, {1, 1, 6, 1, 1, 1});
  expect_refused(byte, Code::format, "<0x00>");
  auto nan = tiny_gguf();
  nan.numbers<float>("tokenizer.ggml.scores", 6, {0, 0, std::numeric_limits<float>::quiet_NaN(), 0, 0, 0});
  expect_refused(nan, Code::format, "not a number");
  auto eos = tiny_gguf();
  eos.numbers<float>("tokenizer.ggml.scores", 6, {0, 0, 0, 0, 0, 0}).integer("tokenizer.ggml.eos_token_id", 6);
  expect_refused(eos, Code::format, "eos_token_id");
  if (!unicode::has_unicode_classes()) return;
  for (const std::string merge : {"a", "a c", "a a", "", "\xFF b"}) {
    auto merges = tiny_gguf("gpt2");
    merges.texts("tokenizer.ggml.merges", {"a b", merge});
    expect_refused(merges, Code::format, "merges[1]");
  }
}

}  // namespace
}  // namespace moe
