// Every vocabulary in scope against the ids, texts, bytes of tokens and streams that the reference libraries gave.
// `ids` of a golden line come from the reference that its index names; where the second reference is the right one, the
// case says so and why.
#include <gtest/gtest.h>

#include <cstdlib>

#include "base/sha256.h"
#include "formats/gguf.h"
#include "text/golden_lines.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace moe {
namespace {

using golden::from_hex;
using golden::ids_at;
using golden::read_lines;
using golden::text_at;

struct Case {
  const char *name;
  const char *vocabulary;  // below golden/text/vocabularies, or the file of a real model
  const char *other;       // key of the ids to prefer, where `when` holds and the line has them
  bool (*when)(const Json &row);
  int64_t lines, preferred;  // lines in the file, and how many of them use `other`
};

bool always(const Json &) { return true; }
bool never(const Json &) { return false; }
// User-defined tokens ("</s>": HTML in Gemma, by type in Phi-3) are cut out of every text. llama.cpp re-labels what looks
// like an end of turn in any vocabulary as control, so that parse_special = false leaves it; HF is right.
bool end_of_sentence_as_text(const Json &row) {
  return !row.at("parse_special", "").boolean() && text_at(row, "text").find("</s>") != std::string::npos;
}

const Case kCases[] = {
    {"minimind", "minimind", "", never, 443, 0},
    // The special tokens are in tokenizer_config.json only, which transformers reads and tokenizers alone does not.
    {"torchtitan_test", "torchtitan_test", "ids_transformers", always, 443, 20},
    {"qwen2", "qwen2", "", never, 445, 0},
    {"gguf-phi-3", "ggml-vocab-phi-3.gguf", "ids_hf", end_of_sentence_as_text, 492, 2},
    {"gguf-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "", never, 443, 0},
    {"gguf-gemma3", "gemma-3-270m-q4_k_m.gguf", "ids_hf", end_of_sentence_as_text, 492, 2},
};

class GoldenTokenizer : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    const Case &c = GetParam();
    std::string path = golden::kText + "vocabularies/" + c.vocabulary;
    const char *models = std::getenv("MOE_MODELS_DIR");
    if (!file_exists(path) && !folder_exists(path) && models) path = join_path(models, c.vocabulary);
    if (!file_exists(path) && !folder_exists(path)) {
      GTEST_SKIP() << c.vocabulary << " is not in the repository; set MOE_MODELS_DIR to the folder that holds it";
    }
    if (!unicode::has_unicode_classes() && c.name != std::string("gguf-phi-3") && c.name != std::string("gguf-gemma3")) {
      GTEST_SKIP() << "byte-level vocabularies need utf8proc";
    }
    tokenizer_ = path.ends_with(".gguf") ? load_tokenizer(Gguf(path)) : load_tokenizer(path);
  }
  static std::string file(const std::string &ending) { return golden::kText + "tokenizers/" + GetParam().name + ending; }

  std::shared_ptr<const Tokenizer> tokenizer_;
};

TEST_P(GoldenTokenizer, GivesTheIdsOfTheReference) {
  const Case &c = GetParam();
  int64_t lines = 0, preferred = 0;
  for (const Json &row : read_lines(file(".jsonl"))) {
    const Json *other = c.when(row) ? row.find(c.other) : nullptr;
    const std::string &text = text_at(row, "text");
    const EncodeOptions options = {row.at("add_special_tokens", "").boolean(), row.at("parse_special", "").boolean(), {}};
    EXPECT_EQ(tokenizer_->encode(text, options), ids_at(row, other ? c.other : "ids"))
        << "line " << lines << " kind " << text_at(row, "kind") << " text " << row.at("text", "").dump() << options.add_special
        << options.parse_special;
    ++lines;
    preferred += other != nullptr;
  }
  EXPECT_EQ(lines, c.lines);
  EXPECT_EQ(preferred, c.preferred);
}

TEST_P(GoldenTokenizer, DecodesToTheTextOfTheReference) {
  for (const Json &row : read_lines(file(".jsonl"))) {
    EXPECT_EQ(unicode::replace_invalid(tokenizer_->decode(ids_at(row, "ids"))), golden::decoded_of(row))
        << row.at("ids", "").dump();
  }
}

TEST_P(GoldenTokenizer, SpansAreTheBytesOfTheTokens) {
  for (const Json &row : read_lines(file(".jsonl"))) {
    const std::string &text = text_at(row, "text");
    const EncodeOptions options = {row.at("add_special_tokens", "").boolean(), row.at("parse_special", "").boolean(), {}};
    const Encoding encoding = tokenizer_->encode_with_spans(text, options);
    EXPECT_EQ(encoding.ids, tokenizer_->encode(text, options));
    ASSERT_EQ(encoding.ids.size(), encoding.spans.size());
    size_t end = 0;
    for (size_t i = 0; i < encoding.spans.size(); ++i) {
      const ByteSpan span = encoding.spans[i];
      ASSERT_LE(span.begin, span.end);
      ASSERT_LE(span.end, text.size());
      // In order and without overlap, but where normalization made several tokens of one character.
      const std::string_view bytes = tokenizer_->bytes(encoding.ids[i]);
      const bool verbatim = span.end > span.begin && text.compare(span.begin, span.end - span.begin, bytes) == 0;
      EXPECT_FALSE(verbatim && span.begin < end) << "token " << i << " of " << text;
      EXPECT_FALSE(encoding.unencodable_bytes == 0 && span.begin > end) << "a hole before token " << i << " of " << text;
      end = std::max(end, span.end);
    }
    EXPECT_TRUE(encoding.unencodable_bytes > 0 || end == text.size()) << text;
  }
}

TEST_P(GoldenTokenizer, PiecesAndStreamAreWholeCharacters) {
  for (const Json &row : read_lines(file(".pieces.jsonl"))) {
    const std::vector<int32_t> ids = ids_at(row, "ids");
    StreamDecoder decoder(*tokenizer_);
    std::string streamed, reference, all;
    for (size_t i = 0; i < ids.size(); ++i) {
      const std::string bytes(tokenizer_->bytes(ids[i]));
      EXPECT_EQ(bytes, from_hex(row.at("pieces_hex", "").items()[i].string())) << ids[i];
      all += bytes;
      streamed += decoder.push(ids[i]);
      // The reference holds back a whole token while its last character is incomplete, and waits after a U+FFFD that stands
      // in the text: the two are compared where it has given out all it has, and only for other texts.
      const Json &step = row.at("stream", "").items()[i];
      if (step.is_null() || all.find("\xEF\xBF\xBD") != std::string::npos) continue;
      reference += step.string();
      EXPECT_EQ(streamed, reference) << "token " << i << " of " << text_at(row, "text");
    }
    streamed += decoder.finish();
    EXPECT_EQ(streamed, unicode::replace_invalid(tokenizer_->decode(ids)));
  }
}

TEST_P(GoldenTokenizer, TableHasTheBytesOfEveryToken) {
  const Json table = read_json(file(".table.json"));
  ASSERT_EQ(tokenizer_->size(), table.integer_at("size", ""));
  for (const auto &[id, hex] : table.at("sample", "").members()) {
    EXPECT_EQ(tokenizer_->bytes(std::stoi(id)), from_hex(hex.string())) << id;
  }
  Sha256 sha;
  for (int32_t id = 0; id < tokenizer_->size(); ++id) {
    const std::string_view bytes = tokenizer_->bytes(id);
    const auto length = static_cast<uint32_t>(bytes.size());
    const uint8_t little[4] = {static_cast<uint8_t>(length), static_cast<uint8_t>(length >> 8),
                               static_cast<uint8_t>(length >> 16), 0};
    sha.update(little, 4).update(bytes.data(), bytes.size());
  }
  EXPECT_EQ(table.integer_at("missing_ids", ""), 0);
  EXPECT_EQ(sha.hex(), table.string_at("sha256", ""));
}

INSTANTIATE_TEST_SUITE_P(All, GoldenTokenizer, testing::ValuesIn(kCases), [](const auto &info) {
  std::string name = info.param.name;
  for (char &c : name) {
    if (c == '-') c = '_';
  }
  return name;
});

}  // namespace
}  // namespace moe
