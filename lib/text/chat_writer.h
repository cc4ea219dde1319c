// Builds the text of a chat and notes where the parts of each message stand.
#pragma once
#include <string_view>

#include "text/chat.h"

namespace moe {

class ChatWriter {
 public:
  explicit ChatWriter(size_t messages) { chat_.content.resize(messages); }

  ChatWriter &put(std::string_view text) {
    chat_.text += text;
    return *this;
  }
  // What message `index` is responsible for begins, or ends, here.
  ChatWriter &begin(size_t index) {
    chat_.content[index] = {chat_.text.size(), chat_.text.size()};
    return *this;
  }
  ChatWriter &end(size_t index) {
    chat_.content[index].end = chat_.text.size();
    return *this;
  }
  ChatWriter &content(size_t index, std::string_view text) { return begin(index).put(text).end(index); }
  // The end-of-turn text directly after the content of `index`; it is the assistant's to say.
  ChatWriter &end_of_turn(size_t index, bool assistant, std::string_view text) {
    put(text);
    if (assistant) chat_.supervised.push_back({chat_.content[index].begin, chat_.text.size()});
    return *this;
  }
  // A message that the template does not print.
  ChatWriter &skip(size_t index) { return begin(index); }
  RenderedChat take() { return std::move(chat_); }

 private:
  RenderedChat chat_;
};

}  // namespace moe
