// Examples to token ids and labels. A token is supervised when its bytes overlap a supervised span of the text: so a token that
// straddles the start of an answer counts. labels[t] is the token after t, or kNoLabel where that token is not supervised.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/example.h"
#include "tensor/packed_batch.h"
#include "text/tokenizer.h"

namespace moe {

struct TokenizedExample {
  std::vector<int32_t> tokens, labels;  // [n] each
};

class ExampleTokenizer {
 public:
  // `chat` is needed for messages only. max_length counts tokens, BOS and end token included.
  ExampleTokenizer(const Tokenizer &tokenizer, const ChatRenderer *chat, int64_t max_length);

  // Appends the sequences of an example: one, or for kind text as many windows of max_length as it fills. False with the reason
  // when it gives none: "longer than max_length N", "no supervised token", or what the chat template refused. The end token
  // follows a completion and a text; a chat ends as its template ends it.
  bool tokenize(const Example &example, std::vector<TokenizedExample> &result, std::string &reason) const;

 private:
  const Tokenizer &tokenizer_;
  const ChatRenderer *chat_;
  int64_t max_length_;
};

// A prompt as the model gets it for generation: BOS where the tokenizer adds it, no control tokens from the text.
std::vector<int32_t> tokenize_prompt(const Tokenizer &tokenizer, std::string_view prompt);

// Prompt and continuation tokenized together. Tokens from first_scored on are scored: the first is the first whose bytes end
// after the end of the prompt. No end token.
struct Continuation {
  std::vector<int32_t> tokens;
  int64_t first_scored = 0;
};
Continuation tokenize_continuation(const Tokenizer &tokenizer, std::string_view prompt, std::string_view continuation);

}  // namespace moe
