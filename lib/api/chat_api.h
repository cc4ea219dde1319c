// Chat messages as JSON.
#pragma once
#include <string_view>
#include <vector>

#include "text/chat.h"

namespace moe::api {

struct ChatRequest {
  std::vector<ChatMessage> messages;
  bool add_generation_prompt = false;
};

// An array of messages, or an object with "messages". Code::format when it is neither; Code::unsupported for what no built-in
// template renders (tools, kwargs, parts of another kind than text).
ChatRequest parse_chat_request(std::string_view json);

}  // namespace moe::api
