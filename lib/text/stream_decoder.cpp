#include "base/utf8.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace moe {
namespace {

// Bytes at the end of `text` that begin a character without ending it: more bytes could make it valid.
size_t incomplete_tail(std::string_view text) {
  for (size_t length = 1; length <= 3 && length <= text.size(); ++length) {
    const std::string_view tail = text.substr(text.size() - length);
    const auto first = static_cast<uint8_t>(tail[0]);
    if ((first & 0xC0) == 0x80) continue;
    const size_t wanted = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : first >= 0xC2 ? 2 : 1;
    if (first > 0xF4 || length >= wanted) return 0;
    // The second byte decides whether the beginning is a valid one; the others are free.
    std::string filled(tail);
    while (filled.size() < wanted) filled += filled.size() == 1 && (first == 0xE0 || first == 0xF0) ? '\xBF' : '\x80';
    return utf8_length(filled) == wanted ? length : 0;
  }
  return 0;
}

}  // namespace

std::string StreamDecoder::push(int32_t id) {
  std::string_view bytes = tokenizer_.bytes(id);
  if (first_ && !bytes.empty()) {
    first_ = false;
    if (tokenizer_.strips_leading_space() && bytes.front() == ' ') bytes.remove_prefix(1);
  }
  pending_ += bytes;
  const size_t whole = pending_.size() - incomplete_tail(pending_);
  std::string out = unicode::replace_invalid(std::string_view(pending_).substr(0, whole));
  pending_.erase(0, whole);
  return out;
}

std::string StreamDecoder::finish() {
  std::string out = unicode::replace_invalid(pending_);
  pending_.clear();
  return out;
}

}  // namespace moe
