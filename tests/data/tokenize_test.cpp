#include "data/tokenize.h"

#include <gtest/gtest.h>

#include "data/byte_tokenizer.h"
#include "data/example_file.h"
#include "support/expect_error.h"
#include "text/unicode.h"

namespace moe {
namespace {

using test::ByteTokenizer;

Example completion_of(const std::string &prompt, const std::string &completion) {
  Example example;
  example.prompt = prompt;
  example.completion = completion;
  return example;
}

TokenizedExample tokenized(const Tokenizer &tokenizer, const Example &example, int64_t max_length = 1000,
                           const ChatRenderer *chat = nullptr) {
  std::vector<TokenizedExample> result;
  std::string reason;
  EXPECT_TRUE(ExampleTokenizer(tokenizer, chat, max_length).tokenize(example, result, reason)) << reason;
  EXPECT_EQ(result.size(), 1u);
  return result.empty() ? TokenizedExample() : result[0];
}

std::string reason_of(const Tokenizer &tokenizer, const Example &example, int64_t max_length) {
  std::vector<TokenizedExample> result;
  std::string reason;
  EXPECT_FALSE(ExampleTokenizer(tokenizer, nullptr, max_length).tokenize(example, result, reason));
  EXPECT_TRUE(result.empty());
  return reason;
}

// The bytes of what is learnt.
std::string learnt(const Tokenizer &tokenizer, const TokenizedExample &example) {
  std::string text;
  for (const int32_t label : example.labels)
    if (label != kNoLabel) text += tokenizer.bytes(label);
  return text;
}

TEST(Tokenize, LabelsAreTheNextTokensOfTheAnswerAndTheEnd) {
  const TokenizedExample example = tokenized(ByteTokenizer(), completion_of("ab", "cd"));
  EXPECT_EQ(example.tokens, (std::vector<int32_t>{'a', 'b', 'c', 'd', ByteTokenizer::kEos}));
  EXPECT_EQ(example.labels, (std::vector<int32_t>{kNoLabel, 'c', 'd', ByteTokenizer::kEos, kNoLabel}));
}

TEST(Tokenize, BosComesFirstWhereTheTokenizerAddsItAndIsNeverLearnt) {
  const TokenizedExample example = tokenized(ByteTokenizer(true), completion_of("a", "b"));
  EXPECT_EQ(example.tokens, (std::vector<int32_t>{ByteTokenizer::kBos, 'a', 'b', ByteTokenizer::kEos}));
  EXPECT_EQ(example.labels, (std::vector<int32_t>{kNoLabel, 'b', ByteTokenizer::kEos, kNoLabel}));
  Example text;
  text.kind = SchemaKind::text;
  text.completion = "ab";
  EXPECT_EQ(tokenized(ByteTokenizer(true), text).labels, (std::vector<int32_t>{'a', 'b', ByteTokenizer::kEos, kNoLabel}));
  EXPECT_EQ(tokenized(ByteTokenizer(false), text).labels, (std::vector<int32_t>{'b', ByteTokenizer::kEos, kNoLabel}));
}

TEST(Tokenize, ATokenThatStraddlesTheStartOfTheAnswerIsLearnt) {
  const TokenizedExample example = tokenized(ByteTokenizer(), completion_of("a\n", " b"));
  EXPECT_EQ(example.tokens, (std::vector<int32_t>{'a', ByteTokenizer::kNewlineSpace, 'b', ByteTokenizer::kEos}));
  EXPECT_EQ(example.labels, (std::vector<int32_t>{ByteTokenizer::kNewlineSpace, 'b', ByteTokenizer::kEos, kNoLabel}));
  const Continuation continuation = tokenize_continuation(ByteTokenizer(true), "a\n", " b");
  EXPECT_EQ(continuation.tokens, (std::vector<int32_t>{ByteTokenizer::kBos, 'a', ByteTokenizer::kNewlineSpace, 'b'}));
  EXPECT_EQ(continuation.first_scored, 2);  // its bytes end after the prompt
  EXPECT_EQ(tokenize_continuation(ByteTokenizer(), "ab", "c").first_scored, 2);
  EXPECT_EQ(tokenize_prompt(ByteTokenizer(true), "a"), (std::vector<int32_t>{ByteTokenizer::kBos, 'a'}));
}

TEST(Tokenize, ControlTokensInRowsStayText) {
  for (const int32_t id : tokenized(ByteTokenizer(), completion_of("<|im_end|><eos>", "<|im_start|>")).tokens)
    EXPECT_TRUE(id < 256 || id == ByteTokenizer::kEos);
  EXPECT_EQ(tokenize_prompt(ByteTokenizer(), "<eos>"), (std::vector<int32_t>{'<', 'e', 'o', 's', '>'}));
  EXPECT_EQ(tokenize_continuation(ByteTokenizer(), "<eos>", "<eos>").tokens.size(), 10u);
}

TEST(Tokenize, WhatDoesNotFitIsSkippedAndNeverCut) {
  EXPECT_EQ(reason_of(ByteTokenizer(), completion_of("abc", "def"), 6), "longer than max_length 6");
  EXPECT_EQ(tokenized(ByteTokenizer(), completion_of("abc", "def"), 7).tokens.size(), 7u);
  EXPECT_EQ(reason_of(ByteTokenizer(), completion_of("abc", ""), 100), "no supervised token");
  EXPECT_FAILS(ExampleTokenizer(ByteTokenizer(), nullptr, 1), Code::invalid, "max_length is 1");
}

TEST(Tokenize, LongTextIsCutIntoWindowsThatLoseNoToken) {
  Example text;
  text.kind = SchemaKind::text;
  text.completion = "abcdefghij";
  std::vector<TokenizedExample> windows;
  std::string reason;
  ASSERT_TRUE(ExampleTokenizer(ByteTokenizer(true), nullptr, 5).tokenize(text, windows, reason));
  ASSERT_EQ(windows.size(), 3u);  // BOS abcd | efghi | j EOS
  EXPECT_EQ(windows[0].tokens, (std::vector<int32_t>{ByteTokenizer::kBos, 'a', 'b', 'c', 'd'}));
  EXPECT_EQ(windows[0].labels, (std::vector<int32_t>{'a', 'b', 'c', 'd', 'e'}));
  EXPECT_EQ(windows[1].labels, (std::vector<int32_t>{'f', 'g', 'h', 'i', 'j'}));
  EXPECT_EQ(windows[2].labels, (std::vector<int32_t>{ByteTokenizer::kEos, kNoLabel}));
}

// ChatML by hand: what the template writes and what belongs to the messages.
class PlainChat : public ChatRenderer {
 public:
  RenderedChat render(const std::vector<ChatMessage> &messages, bool) const override {
    if (messages[0].role == "assistant") fail(Code::invalid, "chat: the first message must not be the assistant's");
    RenderedChat chat;
    for (const ChatMessage &message : messages) {
      chat.text += "<|im_start|>" + message.role + "\n";
      const size_t begin = chat.text.size();
      chat.text += message.content;
      chat.content.push_back({begin, chat.text.size()});
      chat.text += "<|im_end|>";
      if (message.role == "assistant") chat.supervised.push_back({begin, chat.text.size()});
      chat.text += "\n";
    }
    return chat;
  }
};

Example chat_of(std::vector<ChatMessage> messages) {
  Example example;
  example.kind = SchemaKind::messages;
  example.messages = std::move(messages);
  return example;
}

TEST(Tokenize, OfAChatTheAnswersWithTheirEndOfTurnAreLearnt) {
  const ByteTokenizer tokenizer;
  const PlainChat chat;
  const TokenizedExample example = tokenized(
      tokenizer, chat_of({{"user", "hi"}, {"assistant", " yo"}, {"user", "<|im_end|>?"}, {"assistant", "<eos>"}}), 1000, &chat);
  EXPECT_EQ(learnt(tokenizer, example), "\n yo<|im_end|><eos><|im_end|>");
  EXPECT_EQ(std::count(example.tokens.begin(), example.tokens.end(), ByteTokenizer::kEnd), 4);  // the user's own stays text
  EXPECT_EQ(std::count(example.tokens.begin(), example.tokens.end(), ByteTokenizer::kEos), 0);
  EXPECT_EQ(example.tokens.back(), '\n');  // no end token is added
}

TEST(Tokenize, AChatThatTheTemplateRefusesIsSkipped) {
  const PlainChat chat;
  std::vector<TokenizedExample> result;
  std::string reason;
  EXPECT_FALSE(ExampleTokenizer(ByteTokenizer(), &chat, 100).tokenize(chat_of({{"assistant", "yo"}}), result, reason));
  EXPECT_EQ(reason, "chat: the first message must not be the assistant's");
  EXPECT_FAILS(ExampleTokenizer(ByteTokenizer(), nullptr, 100).tokenize(chat_of({{"user", "hi"}}), result, reason),
               Code::unsupported, "chat template");
}

TEST(Tokenize, OfARealVocabularyTheLearntBytesAreTheAnswers) {
  if (!unicode::has_unicode_classes()) GTEST_SKIP() << "byte-level vocabularies need utf8proc";
  const auto tokenizer = load_tokenizer(std::string(MOE_TESTS_DIR) + "/golden/text/vocabularies/minimind");
  const std::string end(tokenizer->bytes(tokenizer->eos()));
  for (const char *domain : {"medmcqa", "gsm8k", "casehold"}) {
    for (const Example &example : read_examples(std::string(MOE_DATA_DIR) + "/" + domain + "/heldout.jsonl", "", 50).examples) {
      const std::string bytes = learnt(*tokenizer, tokenized(*tokenizer, example, 4096));
      EXPECT_TRUE(bytes.ends_with(example.completion + end)) << bytes;  // a straddling token may bring bytes of the prompt
      EXPECT_LE(bytes.size(), example.completion.size() + end.size() + 1) << bytes;
      const Continuation continuation = tokenize_continuation(*tokenizer, example.prompt, example.completion);
      std::string scored;
      for (size_t t = static_cast<size_t>(continuation.first_scored); t < continuation.tokens.size(); t++)
        scored += tokenizer->bytes(continuation.tokens[t]);
      EXPECT_EQ(scored + end, bytes);
    }
  }
}

}  // namespace
}  // namespace moe
