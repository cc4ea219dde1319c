// Chat messages to the text a model was trained on. Built-in renderers for ChatML (SmolLM2, Qwen) and Gemma, chosen by
// the sha256 of the model's template text; any other template is refused with Code::unsupported and its sha256.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/byte_span.h"

namespace moe {

struct ChatMessage {
  std::string role, content;
};
struct RenderedChat {
  std::string text;
  std::vector<ByteSpan> supervised;  // per assistant message: what that message is responsible for, and the
                                     // end-of-turn text where it directly follows
  std::vector<ByteSpan> content;     // per message (all roles): where its content stands, for encoding it without control tokens
};

class ChatRenderer {
 public:
  virtual ~ChatRenderer() = default;
  // Code::invalid for a conversation that the template refuses (roles out of order, no message).
  virtual RenderedChat render(const std::vector<ChatMessage> &messages, bool add_generation_prompt) const = 0;
};

// bos_text: the text of the BOS token ("" when none). The last line break of a template does not count: Jinja drops it.
std::unique_ptr<ChatRenderer> find_chat_renderer(std::string_view template_text, std::string_view bos_text);

// The same by the sha256 of the template text without that line break; nullptr when it is none of the known ones.
std::unique_ptr<ChatRenderer> find_chat_renderer_by_sha256(std::string_view sha256, std::string_view bos_text);

}  // namespace moe
