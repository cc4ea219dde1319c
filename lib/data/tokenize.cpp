#include "data/tokenize.h"

#include <algorithm>

#include "base/error.h"
#include "text/supervision.h"

namespace moe {
namespace {

bool any_label(const TokenizedExample &example) {
  return std::any_of(example.labels.begin(), example.labels.end(), [](int32_t label) { return label != kNoLabel; });
}

void put_bos(const Tokenizer &tokenizer, SupervisedTokens &encoded) {
  const int32_t bos = tokenizer.bos();
  if (!tokenizer.adds_bos() || bos < 0 || (!encoded.ids.empty() && encoded.ids[0] == bos)) return;
  encoded.ids.insert(encoded.ids.begin(), bos);
  encoded.mask.insert(encoded.mask.begin(), 0);
}

TokenizedExample with_labels(SupervisedTokens &&encoded) {
  TokenizedExample example;
  example.labels.assign(encoded.ids.size(), kNoLabel);
  for (size_t t = 0; t + 1 < encoded.ids.size(); ++t)
    if (encoded.mask[t + 1]) example.labels[t] = encoded.ids[t + 1];
  example.tokens = std::move(encoded.ids);
  return example;
}

// Windows of a long text. The last label of a window is the first token of the next, so no token goes unlearned.
void cut_windows(const TokenizedExample &whole, size_t length, std::vector<TokenizedExample> &result) {
  for (size_t begin = 0; begin < whole.tokens.size(); begin += length) {
    const auto part = [&](const std::vector<int32_t> &values) {
      const auto from = values.begin() + static_cast<ptrdiff_t>(begin);
      return std::vector<int32_t>(from, from + static_cast<ptrdiff_t>(std::min(length, values.size() - begin)));
    };
    TokenizedExample window{part(whole.tokens), part(whole.labels)};
    if (any_label(window)) result.push_back(std::move(window));
  }
}

}  // namespace

std::vector<int32_t> tokenize_prompt(const Tokenizer &tokenizer, std::string_view prompt) {
  SupervisedTokens encoded;
  encoded.ids = tokenizer.encode(prompt);
  put_bos(tokenizer, encoded);
  return std::move(encoded.ids);
}

Continuation tokenize_continuation(const Tokenizer &tokenizer, std::string_view prompt, std::string_view continuation) {
  const std::string whole = std::string(prompt) + std::string(continuation);
  const ByteSpan all[] = {{0, whole.size()}};
  SupervisedTokens encoded =
      encode_supervised(tokenizer, whole, {{prompt.size(), whole.size()}}, {std::begin(all), std::end(all)});
  put_bos(tokenizer, encoded);
  const auto first = std::find(encoded.mask.begin(), encoded.mask.end(), 1);
  return {std::move(encoded.ids), first - encoded.mask.begin()};
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
    if (error.code() != Code::invalid) throw;
    return reason = error.message(), false;
  }
  SupervisedTokens encoded = encode_supervised(tokenizer_, rendered.text, rendered.supervised, rendered.literal);
  // An end token alone teaches nothing: the answer itself must have tokens.
  if (std::find(encoded.mask.begin(), encoded.mask.end(), 1) == encoded.mask.end()) return reason = "no supervised token", false;
  put_bos(tokenizer_, encoded);
  if (!rendered.is_chat && tokenizer_.eos() >= 0) {
    encoded.ids.push_back(tokenizer_.eos());
    encoded.mask.push_back(1);
  }
  TokenizedExample whole = with_labels(std::move(encoded));
  if (!any_label(whole)) return reason = "no supervised token", false;
  if (static_cast<int64_t>(whole.tokens.size()) <= max_length_) return result.push_back(std::move(whole)), true;
  if (example.kind != SchemaKind::text) return reason = text("longer than max_length ", max_length_), false;
  cut_windows(whole, static_cast<size_t>(max_length_), result);
  return true;
}

}  // namespace moe
