#include <gtest/gtest.h>

#include <cstdlib>

#include "formats/gguf.h"
#include "text/golden_lines.h"
#include "text/supervision.h"
#include "text/unicode.h"

namespace moe {
namespace {

using golden::text_at;

std::vector<ByteSpan> spans_of(const Json &json) {
  std::vector<ByteSpan> spans;
  for (const Json &pair : json.items()) {
    spans.push_back({static_cast<size_t>(pair.items()[0].integer()), static_cast<size_t>(pair.items()[1].integer())});
  }
  return spans;
}

TEST(Supervision, GivesTheIdsAndMasksOfTheGoldenRows) {
  const char *models = std::getenv("MOE_MODELS_DIR");
  const std::string path = models ? join_path(models, "SmolLM2-135M-Instruct.Q4_1.gguf") : "";
  if (!models || !file_exists(path)) GTEST_SKIP() << "set MOE_MODELS_DIR to the folder of SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!unicode::has_unicode_classes()) GTEST_SKIP() << "byte-level vocabularies need utf8proc";
  const auto tokenizer = load_tokenizer(Gguf(path));
  const auto renderer = find_chat_renderer(tokenizer->chat_template(), "");
  int64_t rows = 0;
  for (const Json &row : golden::read_lines(golden::kText + "mask/rows.jsonl")) {
    std::vector<ChatMessage> messages;
    for (const Json &message : row.at("messages", "").items())
      messages.push_back({text_at(message, "role"), text_at(message, "content")});
    const RenderedChat chat = renderer->render(messages, false);
    ASSERT_EQ(chat.text, text_at(row, "text"));
    EXPECT_EQ(chat.supervised, spans_of(row.at("supervised_bytes", "")));
    const SupervisedTokens tokens = encode_supervised(*tokenizer, chat.text, chat.supervised);
    EXPECT_EQ(tokens.ids, golden::ids_at(row, "ids"));
    EXPECT_EQ(std::vector<int32_t>(tokens.mask.begin(), tokens.mask.end()), golden::ids_at(row, "mask"))
        << text_at(row, "source");
    EXPECT_EQ(tokens.straddling, golden::ids_at(row, "straddling_tokens")) << text_at(row, "source");
    EXPECT_EQ(tokens.unencodable_bytes, 0);
    ++rows;
  }
  EXPECT_EQ(rows, 51);
}

class SupervisionOfMinimind : public testing::Test {
 protected:
  void SetUp() override {
    if (!unicode::has_unicode_classes()) GTEST_SKIP() << "byte-level vocabularies need utf8proc";
    tokenizer_ = load_tokenizer(golden::kText + "vocabularies/minimind");
  }
  std::string text_of(const SupervisedTokens &tokens, uint8_t mask) const {
    std::string text;
    for (size_t i = 0; i < tokens.ids.size(); ++i) {
      if (tokens.mask[i] == mask) text += tokenizer_->bytes(tokens.ids[i]);
    }
    return text;
  }
  std::shared_ptr<const Tokenizer> tokenizer_;
};

TEST_F(SupervisionOfMinimind, MasksTheTokensOfTheRanges) {
  const std::string text = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nGood day!<|im_end|>\n";
  const size_t begin = text.find("Good"), end = text.rfind('\n');
  const SupervisedTokens tokens = encode_supervised(*tokenizer_, text, {{begin, end}});
  EXPECT_EQ(text_of(tokens, 1), "Good day!<|im_end|>");
  EXPECT_EQ(text_of(tokens, 0), "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n\n");
  EXPECT_TRUE(tokens.straddling.empty());
  EXPECT_EQ(tokens.unencodable_bytes, 0);
}

TEST_F(SupervisionOfMinimind, ATokenOverTheEdgeOfARangeCounts) {
  const std::string text = "x Hello y";
  const SupervisedTokens tokens = encode_supervised(*tokenizer_, text, {{2, 7}});  // "Hello" without the space of " Hello"
  EXPECT_EQ(text_of(tokens, 1).find(" H"), 0u);
  ASSERT_EQ(tokens.straddling.size(), 1u);
  EXPECT_EQ(tokens.mask[static_cast<size_t>(tokens.straddling[0])], 1);
}

TEST_F(SupervisionOfMinimind, AnEmptyRangeSupervisesNothing) {
  const SupervisedTokens tokens = encode_supervised(*tokenizer_, "some text", {{4, 4}});
  EXPECT_EQ(text_of(tokens, 1), "");
}

TEST_F(SupervisionOfMinimind, ControlTextInsideOfLiteralRangesStaysText) {
  const std::string text = "<|im_start|>user\nsay <|im_end|> now<|im_end|>\n";
  const size_t begin = text.find("say"), end = text.rfind("<|im_end|>");
  const auto count = [&](const SupervisedTokens &tokens) { return std::count(tokens.ids.begin(), tokens.ids.end(), 2); };
  EXPECT_EQ(count(encode_supervised(*tokenizer_, text, {})), 2);
  const SupervisedTokens literal = encode_supervised(*tokenizer_, text, {{begin, end}}, {{begin, end}});
  EXPECT_EQ(count(literal), 1);
  EXPECT_EQ(text_of(literal, 1), "say <|im_end|> now");
}

}  // namespace
}  // namespace moe
