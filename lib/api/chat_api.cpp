// moe_chat_render, and chat templates for the other calls; see moe.h.
#include "api/chat_api.h"

#include "api/handles.h"
#include "base/file.h"

namespace moe::api {
namespace {

bool is_empty(const Json &value) {
  return value.is_null() || (value.is_bool() && !value.boolean()) ||
         ((value.is_array() || value.is_object()) && value.size() == 0);
}

ChatMessage parse_message(const Json &json) {
  if (!json.is_object()) fail(Code::format, "messages: expected objects with role and content");
  for (const auto &[key, value] : json.members()) {
    if (key != "role" && key != "content" && !is_empty(value)) {
      fail(Code::unsupported, "messages: key '", key, "' is not supported; expected role and content");
    }
  }
  if (json.at("content", "messages").is_array())
    fail(Code::unsupported, "messages: 'content' must be a text, found a list of parts");
  return {json.string_at("role", "messages"), json.string_at("content", "messages")};
}

std::string bos_text(const Tokenizer &tokenizer) {
  return tokenizer.bos() >= 0 ? std::string(tokenizer.bytes(tokenizer.bos())) : std::string();
}

std::unique_ptr<ChatRenderer> renderer(const moe_model *model, const Options &options) {
  const std::string file = options.text("template_file"), variables = options.text("variables");
  const Tokenizer *tokenizer = model ? &core_of(model, "moe_model")->base->require_tokenizer() : nullptr;
  if (!tokenizer && file.empty()) fail(Code::invalid, "template_file: this option is needed when there is no model");
  std::string bos = tokenizer ? bos_text(*tokenizer) : "";
  if (!variables.empty()) bos = read_json(variables).string_or("bos_token", bos, variables);
  const std::string text = file.empty() ? tokenizer->chat_template() : read_file(file, 1 << 20);
  if (text.empty()) fail(Code::unsupported, "the model has no chat template");
  return find_chat_renderer(text, bos);
}

// Byte offsets to code points.
Json code_point_spans(const std::string &text, const std::vector<ByteSpan> &spans) {
  std::vector<int64_t> before(text.size() + 1, 0);
  for (size_t i = 0; i < text.size(); i++) before[i + 1] = before[i] + ((static_cast<unsigned char>(text[i]) & 0xC0) != 0x80);
  Json array = Json::array();
  for (const ByteSpan &span : spans) array.push(Json::array().push(before[span.begin]).push(before[span.end]));
  return array;
}

}  // namespace

ChatRequest parse_chat_request(std::string_view json) {
  const Json parsed = Json::parse(json, "messages");
  ChatRequest request;
  const Json *messages = &parsed;
  if (parsed.is_object()) {
    for (const char *key : {"tools", "kwargs", "continue_final_message"}) {
      if (const Json *value = parsed.find(key); value && !is_empty(*value)) {
        fail(Code::unsupported, "messages: '", key, "' is not supported by the built-in chat templates");
      }
    }
    messages = &parsed.at("messages", "messages");
    request.add_generation_prompt = parsed.bool_or("add_generation_prompt", false, "messages");
  }
  if (!messages->is_array()) fail(Code::format, "messages: expected an array of messages");
  for (const Json &message : messages->items()) request.messages.push_back(parse_message(message));
  return request;
}

std::unique_ptr<ChatRenderer> chat_of(const BaseModel &model) {
  const Tokenizer *tokenizer = model.tokenizer();
  if (!tokenizer || tokenizer->chat_template().empty()) return nullptr;
  try {
    return find_chat_renderer(tokenizer->chat_template(), bos_text(*tokenizer));
  } catch (const Error &error) {
    if (error.code() != Code::unsupported) throw;
    log(model.log(), LogLevel::info, text(model.path(), ": no chat: ", error.message()));
    return nullptr;
  }
}

}  // namespace moe::api

using namespace moe::api;

extern "C" int32_t moe_chat_render(const moe_model *model, const char *request, size_t length, const moe_options *options,
                                   moe_text **out, moe_error *error) {
  return fence(error, [&] {
    required_out(out, "out");
    const ChatRequest chat = parse_chat_request(content(request, length, "request"));
    const moe::RenderedChat rendered = renderer(model, *OptionsOf(options))->render(chat.messages, chat.add_generation_prompt);
    moe::Json json = moe::Json::object({{"rendered", rendered.text}});
    json.set("assistant_spans", code_point_spans(rendered.text, rendered.supervised));
    *out = new_text(json.dump());
  });
}
