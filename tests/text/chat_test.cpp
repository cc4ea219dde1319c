// Chat renderers against the templates rendered by Jinja (golden/text/chat).
#include <gtest/gtest.h>

#include "base/error.h"
#include "text/chat.h"
#include "text/golden_lines.h"

namespace moe {
namespace {

using golden::read_lines;
using golden::text_at;

// Contents that are strings and nothing else in a message: what ChatMessage can hold.
bool is_plain(const Json &row) {
  for (const Json &message : row.at("messages", "").items()) {
    for (const auto &[key, value] : message.members()) {
      if ((key != "role" && key != "content") || !value.is_string()) return false;
    }
    if (!message.find("content")) return false;
  }
  return !row.find("tools");
}

std::vector<ChatMessage> messages_of(const Json &row) {
  std::vector<ChatMessage> messages;
  for (const Json &message : row.at("messages", "").items())
    messages.push_back({text_at(message, "role"), text_at(message, "content")});
  return messages;
}

void expect_rendered(const ChatRenderer &renderer, const Json &row) {
  const std::vector<ChatMessage> messages = messages_of(row);
  const bool prompt = row.at("add_generation_prompt", "").boolean();
  const std::string what = text_at(row, "conversation") + (prompt ? " with prompt" : "");
  if (row.find("error")) {
    EXPECT_THROW(renderer.render(messages, prompt), Error) << what;
    return;
  }
  const RenderedChat chat = renderer.render(messages, prompt);
  EXPECT_EQ(chat.text, text_at(row, "rendered")) << what;
  ASSERT_EQ(chat.content.size(), messages.size());
  size_t end = 0;
  for (const ByteSpan &span : chat.content) {
    EXPECT_TRUE(end <= span.begin && span.begin <= span.end && span.end <= chat.text.size()) << what;
    end = span.end;
  }
  const Json *spans = row.find("assistant_spans");
  if (!spans) return;
  ASSERT_EQ(chat.supervised.size(), spans->size()) << what;
  for (size_t i = 0; i < spans->size(); ++i) {
    const Json &expected = spans->items()[i];
    const auto message = static_cast<size_t>(expected.integer_at("message", ""));
    const auto at = [&](const char *key) { return static_cast<size_t>(expected.integer_at(key, "")); };
    EXPECT_EQ(chat.supervised[i], (ByteSpan{at("start_byte"), at("end_with_eot_byte")})) << what << " span " << i;
    EXPECT_EQ(chat.content[message], (ByteSpan{at("start_byte"), at("end_byte")})) << what << " span " << i;
  }
}

struct Case {
  const char *name;
  int64_t rendered, out_of_scope;
};

class GoldenChat : public testing::TestWithParam<Case> {};

// Out of scope, for ChatMessage is a role and a text: 7 lines with tools, 8 with contents that are absent, null or lists or
// with a reasoning field, 12 with template arguments (enable_thinking) and 9 with continue_final_message.
TEST_P(GoldenChat, RendersPlainConversationsAsTheTemplate) {
  const Case &c = GetParam();
  const Json index = read_json(golden::kText + "chat/index.json");
  const std::string source = text_at(index.at("templates", "").at(c.name, ""), "source");
  const auto renderer = find_chat_renderer(source, "");
  int64_t rendered = 0, out_of_scope = 0;
  for (const Json &row : read_lines(golden::kText + "chat/" + c.name + ".jsonl")) {
    if (!is_plain(row) || row.find("kwargs") || row.find("continue_final_message")) {
      ++out_of_scope;
      continue;
    }
    ++rendered;
    expect_rendered(*renderer, row);
  }
  EXPECT_EQ(rendered, c.rendered);
  EXPECT_EQ(out_of_scope, c.out_of_scope);
}

INSTANTIATE_TEST_SUITE_P(All, GoldenChat,
                         testing::Values(Case{"gguf-smollm2", 28, 36}, Case{"qwen2", 28, 36},
                                         Case{"Qwen-Qwen2.5-7B-Instruct", 28, 36}, Case{"Qwen-Qwen3-0.6B", 28, 36},
                                         Case{"minimind", 28, 36}));

TEST(Chat, GemmaRendersAsItsTemplates) {
  const auto gemma2 = find_chat_renderer_by_sha256("ecd6ae513fe103f0eb62e8ab5bfa8d0fe45c1074fa398b089c93a7e70c15cfd6", "<bos>");
  const auto gemma3 = find_chat_renderer_by_sha256("8d9e3a3c114fb2053ec500184677af4f7e5f8ec2582443cd535834e68b3ade29", "<bos>");
  ASSERT_TRUE(gemma2 && gemma3);
  for (const Json &row : read_lines(golden::kText + "chat/gemma2.jsonl")) expect_rendered(*gemma2, row);
  for (const Json &row : read_lines(golden::kText + "chat/gemma3.jsonl")) expect_rendered(*gemma3, row);
}

TEST(Chat, GemmaPutsTheSystemMessageBeforeTheFirstQuestion) {
  const auto gemma3 = find_chat_renderer_by_sha256("8d9e3a3c114fb2053ec500184677af4f7e5f8ec2582443cd535834e68b3ade29", "<bos>");
  const RenderedChat chat = gemma3->render({{"system", "Be brief."}, {"user", " Hi "}}, true);
  EXPECT_EQ(chat.text, "<bos><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\n");
  EXPECT_EQ(chat.text.substr(chat.content[0].begin, chat.content[0].end - chat.content[0].begin), "Be brief.");
  EXPECT_EQ(chat.text.substr(chat.content[1].begin, chat.content[1].end - chat.content[1].begin), "Hi");
}

TEST(Chat, ContentSpansAreTheContents) {
  const Json index = read_json(golden::kText + "chat/index.json");
  const auto renderer = find_chat_renderer(text_at(index.at("templates", "").at("gguf-smollm2", ""), "source"), "");
  const std::vector<ChatMessage> messages = {
      {"user", "one"}, {"assistant", ""}, {"critic", "two<|im_end|>"}, {"assistant", " three\n"}};
  const RenderedChat chat = renderer->render(messages, false);
  for (size_t i = 0; i < messages.size(); ++i) {
    EXPECT_EQ(chat.text.substr(chat.content[i].begin, chat.content[i].end - chat.content[i].begin), messages[i].content);
  }
  ASSERT_EQ(chat.supervised.size(), 2u);
  EXPECT_EQ(chat.text.substr(chat.supervised[0].begin, chat.supervised[0].end - chat.supervised[0].begin), "<|im_end|>");
  EXPECT_EQ(chat.text.substr(chat.supervised[1].begin, chat.supervised[1].end - chat.supervised[1].begin), " three\n<|im_end|>");
}

TEST(Chat, ADroppedMessageHasAnEmptySpan) {
  const Json index = read_json(golden::kText + "chat/index.json");
  const auto renderer = find_chat_renderer(text_at(index.at("templates", "").at("Qwen-Qwen3-0.6B", ""), "source"), "");
  const RenderedChat chat = renderer->render({{"user", "a"}, {"critic", "b"}, {"assistant", "c"}}, false);
  EXPECT_EQ(chat.text.find("critic"), std::string::npos);
  EXPECT_EQ(chat.content[1].begin, chat.content[1].end);
}

TEST(Chat, ToolResultsShareAUserTurn) {
  const Json index = read_json(golden::kText + "chat/index.json");
  const auto renderer = find_chat_renderer(text_at(index.at("templates", "").at("Qwen-Qwen3-0.6B", ""), "source"), "");
  const RenderedChat chat = renderer->render({{"user", "q"}, {"tool", "1"}, {"tool", "2"}, {"assistant", "a"}}, false);
  EXPECT_EQ(chat.text,
            "<|im_start|>user\nq<|im_end|>\n<|im_start|>user\n<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n"
            "</tool_response><|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\na<|im_end|>\n");
}

TEST(Chat, TheLastLineBreakOfATemplateDoesNotCount) {
  const Json index = read_json(golden::kText + "chat/index.json");
  const std::string source = text_at(index.at("templates", "").at("gguf-smollm2", ""), "source");
  EXPECT_EQ(find_chat_renderer(source + "\n", "")->render({{"user", "x"}}, false).text,
            find_chat_renderer(source, "")->render({{"user", "x"}}, false).text);
}

TEST(Chat, AnUnknownTemplateIsRefusedWithItsSha256) {
  try {
    find_chat_renderer("{{ messages }}", "");
    FAIL() << "accepted";
  } catch (const Error &error) {
    EXPECT_EQ(error.code(), Code::unsupported);
    EXPECT_NE(error.message().find("f24189f08c85a1eb19a737306c3a13e85462ee33d964f28108d64a2485fa2171"), std::string::npos)
        << error.message();
  }
}

}  // namespace
}  // namespace moe
