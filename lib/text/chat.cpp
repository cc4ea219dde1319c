#include "text/chat.h"

#include <algorithm>

#include "base/error.h"
#include "base/sha256.h"
#include "text/chat_writer.h"

namespace moe {
namespace {

constexpr std::string_view kStart = "<|im_start|>", kEnd = "<|im_end|>";
constexpr std::string_view kThinkOpen = "<think>\n", kThinkClose = "\n</think>\n\n", kNoThought = "<think>\n\n</think>\n\n";

// What sets the ChatML templates apart.
struct ChatMl {
  std::string_view default_system;  // put in front when the first message is no system message; "" for none
  bool any_role = true;             // prints every role as it is; otherwise user, system, assistant, tool and no other
  bool needs_message = false;       // refuses an empty conversation
  enum class Think { no, after_last_query, always } think = Think::no;  // where answers get a <think> part
  bool prompt_without_thought = false;                                  // the generation prompt has an empty <think> part
};

std::string_view strip_newlines_left(std::string_view text) {
  return text.substr(std::min(text.find_first_not_of('\n'), text.size()));
}
std::string_view strip_newlines_right(std::string_view text) { return text.substr(0, text.find_last_not_of('\n') + 1); }

// An answer in two parts, as Qwen3 takes "<think>\n...\n</think>\n\n..." apart.
struct Answer {
  std::string_view thought, content;
};
Answer split_answer(std::string_view text) {
  constexpr std::string_view open = "<think>", close = "</think>";
  const size_t first = text.find(close);
  if (first == std::string_view::npos) return {"", text};
  std::string_view thought = strip_newlines_right(text.substr(0, first));
  if (const size_t opened = thought.rfind(open); opened != std::string_view::npos) thought.remove_prefix(opened + open.size());
  return {strip_newlines_right(strip_newlines_left(thought)), strip_newlines_left(text.substr(text.rfind(close) + close.size()))};
}

class ChatMlRenderer : public ChatRenderer {
 public:
  explicit ChatMlRenderer(const ChatMl &form) : form_(form) {}

  RenderedChat render(const std::vector<ChatMessage> &messages, bool add_generation_prompt) const override {
    if (messages.empty() && form_.needs_message) fail(Code::invalid, "chat: the template needs at least one message");
    ChatWriter writer(messages.size());
    if (!messages.empty() && messages[0].role != "system" && !form_.default_system.empty()) {
      writer.put(kStart).put("system\n").put(form_.default_system).put(kEnd).put("\n");
    }
    const size_t last_query = find_last_query(messages);
    for (size_t i = 0; i < messages.size(); ++i) render_message(messages, i, last_query, writer);
    if (add_generation_prompt) {
      writer.put(kStart).put("assistant\n");
      if (form_.prompt_without_thought) writer.put(kNoThought);
    }
    return writer.take();
  }

 private:
  // The last user message that is not the result of a tool; the last message when there is none.
  static size_t find_last_query(const std::vector<ChatMessage> &messages) {
    for (size_t i = messages.size(); i-- > 0;) {
      const std::string &text = messages[i].content;
      const bool tool_result = text.starts_with("<tool_response>") && text.ends_with("</tool_response>");
      if (messages[i].role == "user" && !tool_result) return i;
    }
    return messages.empty() ? 0 : messages.size() - 1;
  }

  void render_message(const std::vector<ChatMessage> &messages, size_t i, size_t last_query, ChatWriter &writer) const {
    const ChatMessage &message = messages[i];
    if (!form_.any_role && message.role == "tool") return render_tool(messages, i, writer);
    if (!form_.any_role && message.role != "user" && message.role != "system" && message.role != "assistant") {
      writer.skip(i);
      return;
    }
    writer.put(kStart).put(message.role).put("\n");
    const bool assistant = message.role == "assistant";
    if (assistant && form_.think != ChatMl::Think::no) render_answer(messages, i, last_query, writer);
    else writer.content(i, message.content);
    writer.end_of_turn(i, assistant, kEnd).put("\n");
  }

  void render_answer(const std::vector<ChatMessage> &messages, size_t i, size_t last_query, ChatWriter &writer) const {
    const Answer answer = split_answer(messages[i].content);
    const bool last = i + 1 == messages.size();
    const bool thinks = form_.think == ChatMl::Think::always || (i > last_query && (last || !answer.thought.empty()));
    if (!thinks) writer.content(i, answer.content);
    else if (answer.thought.empty()) writer.put(kNoThought).content(i, strip_newlines_left(answer.content));
    else writer.put(kThinkOpen).begin(i).put(answer.thought).put(kThinkClose).put(strip_newlines_left(answer.content)).end(i);
  }

  // Results of tools that follow each other share one user turn.
  static void render_tool(const std::vector<ChatMessage> &messages, size_t i, ChatWriter &writer) {
    if (i == 0 || messages[i - 1].role != "tool") writer.put(kStart).put("user");
    writer.put("\n<tool_response>\n").content(i, messages[i].content).put("\n</tool_response>");
    if (i + 1 == messages.size() || messages[i + 1].role != "tool") writer.put(kEnd).put("\n");
  }

  ChatMl form_;
};

// str.strip() of Python, which Jinja's trim uses: Unicode white space and U+001C to U+001F.
std::string_view trim(std::string_view text) {
  const auto space_at = [](std::string_view t) -> size_t {  // bytes of the white space that begins t
    const auto byte = [&](size_t i) { return i < t.size() ? static_cast<uint8_t>(t[i]) : 0; };
    if ((byte(0) >= 9 && byte(0) <= 13) || (byte(0) >= 28 && byte(0) <= 32)) return 1;
    if (byte(0) == 0xC2 && (byte(1) == 0x85 || byte(1) == 0xA0)) return 2;
    const uint32_t three = static_cast<uint32_t>(byte(0)) << 16 | static_cast<uint32_t>(byte(1)) << 8 | byte(2);
    const bool space = three == 0xE19A80 || (three >= 0xE28080 && three <= 0xE2808A) || three == 0xE280A8 || three == 0xE280A9 ||
                       three == 0xE280AF || three == 0xE2819F || three == 0xE38080;
    return space ? 3 : 0;
  };
  while (const size_t length = space_at(text)) text.remove_prefix(length);
  for (size_t length = 1; length <= 3 && length <= text.size();) {
    if (space_at(text.substr(text.size() - length)) == length) {
      text.remove_suffix(length);
      length = 1;
    } else {
      ++length;
    }
  }
  return text;
}

// Gemma 2 and 3: turns of user and model in strict alternation; Gemma 3 puts a system message before the first user text.
class GemmaRenderer : public ChatRenderer {
 public:
  GemmaRenderer(std::string_view bos_text, bool takes_system) : bos_text_(bos_text), takes_system_(takes_system) {}

  RenderedChat render(const std::vector<ChatMessage> &messages, bool add_generation_prompt) const override {
    if (messages.empty()) fail(Code::invalid, "chat: the template needs at least one message");
    const size_t first = messages[0].role == "system" ? 1 : 0;
    if (first == 1 && !takes_system_) fail(Code::invalid, "chat: message 0: the template has no system role");
    ChatWriter writer(messages.size());
    writer.put(bos_text_);
    if (first == 1) writer.skip(0);
    for (size_t i = first; i < messages.size(); ++i) {
      const std::string &role = messages[i].role;
      if ((role == "user") != ((i - first) % 2 == 0)) {
        fail(Code::invalid, "chat: message ", i, ": roles must alternate user/assistant/user/assistant/...");
      }
      writer.put("<start_of_turn>").put(role == "assistant" ? "model" : role).put("\n");
      if (i == 1 && first == 1) writer.content(0, messages[0].content).put("\n\n");
      writer.content(i, trim(messages[i].content)).end_of_turn(i, role == "assistant", "<end_of_turn>").put("\n");
    }
    if (add_generation_prompt) writer.put("<start_of_turn>model\n");
    return writer.take();
  }

 private:
  std::string bos_text_;
  bool takes_system_;
};

constexpr ChatMl kPlainChatMl = {"", true, false, ChatMl::Think::no, false};
constexpr ChatMl kSmolLm2 = {"You are a helpful AI assistant named SmolLM, trained by Hugging Face", true, false,
                             ChatMl::Think::no, false};
constexpr ChatMl kQwen2 = {"You are a helpful assistant", true, false, ChatMl::Think::no, false};
constexpr ChatMl kQwen2Period = {"You are a helpful assistant.", true, false, ChatMl::Think::no, false};
constexpr ChatMl kQwen25 = {"You are Qwen, created by Alibaba Cloud. You are a helpful assistant.", false, true,
                            ChatMl::Think::no, false};
constexpr ChatMl kQwen3 = {"", false, true, ChatMl::Think::after_last_query, false};
constexpr ChatMl kMiniMind = {"", false, true, ChatMl::Think::always, true};

struct KnownChatMl {
  std::string_view sha256;  // of the template without its last line break
  const ChatMl &form;
};
// Templates of one line come in two spellings, with line breaks inside their strings or with "\n"; both mean the same.
constexpr KnownChatMl kKnownChatMl[] = {
    {"153280e3ff55d19da1398bdb3914ee2a51b80429bfaedde11d7d216c39db80f3", kPlainChatMl},
    {"fcf7a096fe99a48fd9ad2b250bf9237e96e8f48bffec1c7ea4d3f225176cd40e", kPlainChatMl},
    {"872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788", kSmolLm2},
    {"de9cde7d1b0ca0cc87459a6673e0d12fb89c070bdb24e4a30b6e4d187b226221", kSmolLm2},
    {"af9c0233881b083b52ff773580215222b5440ac3d0beeeca99b76329b048f8db", kQwen2},
    {"7c0cc400db493cfc546224cbd626ef46495c4b19103042eb5518f06bf7f1e26d", kQwen2},
    {"793202280c0910ab26bc6eb57c8212c2417324c6d8c4efd0d10d59092ab3e3eb", kQwen2Period},
    {"f0206845c9ebc3abb4735d44f286eb81ce99238ad2accc710c6fc60e6cb8ccc8", kQwen2Period},
    {"55b2f4a26ac9ee719330a61a0c39d9e538b0e9322212f048326318cff4f8674a", kQwen25},
    {"87a2728cb8dc9fe424d624542f6060ec05a1d285ebbec578bb078900e33396b5", kQwen3},
    {"a55ee1b1660128b7098723e0abcd92caa0788061051c62d51cbe87d9cf1974d8", kQwen3},  // also takes contents that are lists
    {"97c6a9ef3f8d35044f435bb7773f1af160a7328ab6e8d2e9d67702941320a711", kMiniMind},
};
constexpr std::string_view kGemma2[] = {"ecd6ae513fe103f0eb62e8ab5bfa8d0fe45c1074fa398b089c93a7e70c15cfd6",
                                        "1e51d5c0fec2f83da1953fb850b7b532b7da02d0dc35f9201e671e0b9a35a123"};
constexpr std::string_view kGemma3[] = {"8d9e3a3c114fb2053ec500184677af4f7e5f8ec2582443cd535834e68b3ade29",
                                        "86327804b5430b642274fe55ba95199e91cf7eca7b1e1240ca5469f23839e223"};

}  // namespace

std::unique_ptr<ChatRenderer> find_chat_renderer_by_sha256(std::string_view sha256, std::string_view bos_text) {
  for (const KnownChatMl &known : kKnownChatMl) {
    if (known.sha256 == sha256) return std::make_unique<ChatMlRenderer>(known.form);
  }
  for (const std::string_view known : kGemma2) {
    if (known == sha256) return std::make_unique<GemmaRenderer>(bos_text, false);
  }
  for (const std::string_view known : kGemma3) {
    if (known == sha256) return std::make_unique<GemmaRenderer>(bos_text, true);
  }
  return nullptr;
}

std::unique_ptr<ChatRenderer> find_chat_renderer(std::string_view template_text, std::string_view bos_text) {
  std::string_view text = template_text;
  if (text.ends_with('\n')) text.remove_suffix(1);
  const std::string sha256 = sha256_hex(text.data(), text.size());
  auto renderer = find_chat_renderer_by_sha256(sha256, bos_text);
  if (!renderer)
    fail(Code::unsupported, "chat template with sha256 ", sha256, " (without its last line break) is not one of those built in");
  return renderer;
}

}  // namespace moe
