#include "data/tokenize.h"

#include <algorithm>

#include "base/error.h"

namespace moe {
namespace {

constexpr EncodeOptions kPlain{false, false}, kWithControl{false, true};

std::string joined_bytes(const Tokenizer &tokenizer, const std::vector<int32_t> &ids) {
  std::string result;
  for (const int32_t id : ids) result += tokenizer.bytes(id);
  return result;
}

bool has_control(const Tokenizer &tokenizer, const std::vector<int32_t> &ids) {
  return std::any_of(ids.begin(), ids.end(), [&](int32_t id) { return tokenizer.is_control(id); });
}

std::vector<ByteSpan> clipped(const std::vector<ByteSpan> &spans, size_t end) {
  std::vector<ByteSpan> result;
  for (const ByteSpan &span : spans)
    if (span.begin < end) result.push_back({span.begin, std::min(span.end, end)});
  return result;
}

// Where a byte offset of the text lies in the joined bytes of its tokens. They are the same unless the tokenizer adds a leading
// space, normalizes, or drops bytes it has no token for; then the tokens of the text before the offset tell.
class ByteOffsets {
 public:
  ByteOffsets(const Tokenizer &tokenizer, std::string_view text, const std::vector<int32_t> &ids, const std::vector<ByteSpan> *content)
      : tokenizer_(tokenizer), text_(text), content_(content), bytes_(joined_bytes(tokenizer, ids)) {}

  size_t operator()(size_t offset) const {
    if (bytes_ == text_) return offset;
    const std::string_view before = text_.substr(0, offset);
    const auto ids = content_ ? encode_chat(tokenizer_, before, clipped(*content_, offset)) : tokenizer_.encode(before, kPlain);
    const std::string prefix = joined_bytes(tokenizer_, ids);
    const size_t most = std::min(prefix.size(), bytes_.size());
    return static_cast<size_t>(std::mismatch(prefix.begin(), prefix.begin() + most, bytes_.begin()).first - prefix.begin());
  }

 private:
  const Tokenizer &tokenizer_;
  std::string_view text_;
  const std::vector<ByteSpan> *content_;
  std::string bytes_;
};

void shift_labels(const std::vector<uint8_t> &supervised, TokenizedExample &example) {
  example.labels.assign(example.tokens.size(), kNoLabel);
  for (size_t t = 0; t + 1 < example.tokens.size(); ++t)
    if (supervised[t + 1]) example.labels[t] = example.tokens[t + 1];
}

bool any_label(const TokenizedExample &example) {
  return std::any_of(example.labels.begin(), example.labels.end(), [](int32_t label) { return label != kNoLabel; });
}

// Windows of a long text. The last label of a window is the first token of the next, so no token goes unlearned.
void cut_windows(TokenizedExample &&whole, size_t length, std::vector<TokenizedExample> &result) {
  const size_t total = whole.tokens.size();
  for (size_t begin = 0; begin < total; begin += length) {
    const size_t end = std::min(total, begin + length);
    const auto part = [&](const std::vector<int32_t> &v) {
      return std::vector<int32_t>(v.begin() + static_cast<ptrdiff_t>(begin), v.begin() + static_cast<ptrdiff_t>(end));
    };
    TokenizedExample window{part(whole.tokens), part(whole.labels)};
    if (any_label(window)) result.push_back(std::move(window));
  }
}

}  // namespace

std::vector<int32_t> encode_chat(const Tokenizer &tokenizer, std::string_view text, const std::vector<ByteSpan> &content) {
  const auto unsafe = [&](const ByteSpan &span) {
    return has_control(tokenizer, tokenizer.encode(text.substr(span.begin, span.end - span.begin), kWithControl));
  };
  if (std::none_of(content.begin(), content.end(), unsafe)) return tokenizer.encode(text, kWithControl);

  // Control tokens of the template cut the text; what lies between them is encoded as plain text, contents included.
  std::vector<int32_t> ids;
  size_t plain = 0;  // start of the text that is not encoded yet
  const auto encode_plain = [&](size_t end) {
    const auto part = tokenizer.encode(text.substr(plain, end - plain), kPlain);
    if (end > plain) ids.insert(ids.end(), part.begin(), part.end());
  };
  size_t at = 0;
  for (size_t i = 0; i <= content.size(); ++i) {
    const size_t end = i < content.size() ? content[i].begin : text.size();
    for (const int32_t id : tokenizer.encode(text.substr(at, end - at), kWithControl)) {
      if (!tokenizer.is_control(id)) continue;
      const size_t found = text.substr(0, end).find(tokenizer.bytes(id), at);
      if (found == std::string_view::npos) continue;
      encode_plain(found);
      ids.push_back(id);
      at = plain = found + tokenizer.bytes(id).size();
    }
    if (i < content.size()) at = content[i].end;
  }
  encode_plain(text.size());
  return ids;
}

std::vector<uint8_t> supervision_mask(const Tokenizer &tokenizer, std::string_view text, const std::vector<int32_t> &ids,
                                      const std::vector<ByteSpan> &supervised, const std::vector<ByteSpan> *content) {
  const ByteOffsets offset(tokenizer, text, ids, content);
  std::vector<ByteSpan> spans;
  for (const ByteSpan &span : supervised) spans.push_back({offset(span.begin), offset(span.end)});
  std::vector<uint8_t> mask(ids.size(), 0);
  size_t begin = 0, next = 0;
  for (size_t t = 0; t < ids.size(); ++t) {
    const size_t end = begin + tokenizer.bytes(ids[t]).size();
    while (next < spans.size() && spans[next].end <= begin) ++next;
    mask[t] = next < spans.size() && begin < spans[next].end && end > spans[next].begin;
    begin = end;
  }
  return mask;
}

std::vector<int32_t> tokenize_prompt(const Tokenizer &tokenizer, std::string_view prompt) {
  std::vector<int32_t> ids = tokenizer.encode(prompt, kPlain);
  if (tokenizer.adds_bos() && tokenizer.bos() >= 0) ids.insert(ids.begin(), tokenizer.bos());
  return ids;
}

Continuation tokenize_continuation(const Tokenizer &tokenizer, std::string_view prompt, std::string_view continuation) {
  const std::string whole = std::string(prompt) + std::string(continuation);
  const std::vector<int32_t> ids = tokenizer.encode(whole, kPlain);
  const std::vector<uint8_t> mask = supervision_mask(tokenizer, whole, ids, {{prompt.size(), whole.size()}});
  Continuation result;
  result.tokens = ids;
  result.first_scored = std::find(mask.begin(), mask.end(), 1) - mask.begin();
  if (tokenizer.adds_bos() && tokenizer.bos() >= 0) {
    result.tokens.insert(result.tokens.begin(), tokenizer.bos());
    ++result.first_scored;
  }
  return result;
}

ExampleTokenizer::ExampleTokenizer(const Tokenizer &tokenizer, const ChatRenderer *chat, int64_t max_length)
    : tokenizer_(tokenizer), chat_(chat), max_length_(max_length) {
  if (max_length < 2) fail(Code::invalid, "max_length is ", max_length, ", expected at least 2");
}

bool ExampleTokenizer::tokenize(const Example &example, std::vector<TokenizedExample> &result, std::string &reason) const {
  Rendered rendered;
  try {
    rendered = render(example, chat_);
  } catch (const Error &error) {
    if (!chat_ || (error.code() != Code::invalid && error.code() != Code::format)) throw;
    return reason = "the chat template refuses it: " + error.message(), false;
  }
  TokenizedExample whole;
  const auto *content = rendered.is_chat ? &rendered.content : nullptr;
  whole.tokens = content ? encode_chat(tokenizer_, rendered.text, *content) : tokenizer_.encode(rendered.text, kPlain);
  std::vector<uint8_t> mask = supervision_mask(tokenizer_, rendered.text, whole.tokens, rendered.supervised, content);
  const bool bos = tokenizer_.adds_bos() && tokenizer_.bos() >= 0 && (whole.tokens.empty() || whole.tokens[0] != tokenizer_.bos());
  if (bos) {
    whole.tokens.insert(whole.tokens.begin(), tokenizer_.bos());
    mask.insert(mask.begin(), 0);
  }
  if (!rendered.is_chat && tokenizer_.eos() >= 0) {
    whole.tokens.push_back(tokenizer_.eos());
    mask.push_back(1);
  }
  shift_labels(mask, whole);
  // An end token alone teaches nothing: the answer itself must have tokens.
  const auto supervised = std::count(mask.begin(), mask.end() - (!rendered.is_chat && tokenizer_.eos() >= 0), 1);
  if (supervised == 0 || !any_label(whole)) return reason = "no supervised token", false;
  if (static_cast<int64_t>(whole.tokens.size()) <= max_length_) return result.push_back(std::move(whole)), true;
  if (example.kind != SchemaKind::text) return reason = text("longer than max_length ", max_length_), false;
  cut_windows(std::move(whole), static_cast<size_t>(max_length_), result);
  return true;
}

}  // namespace moe
