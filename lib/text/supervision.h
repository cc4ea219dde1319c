// Rendered text and the byte ranges to learn from, to token ids and a 0/1 mask.
// Rule: a token is supervised when its bytes [a, b) overlap a range [s, e): a < e and b > s. The text is encoded in one
// pass, so a token may reach over the start of an answer (white space joined with the line break before it); it counts.
#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

#include "text/chat.h"
#include "text/tokenizer.h"

namespace moe {

struct SupervisedTokens {
  std::vector<int32_t> ids;
  std::vector<uint8_t> mask;        // 1: supervised
  std::vector<int32_t> straddling;  // indices of tokens that begin or end inside of a range and reach over its edge
  int64_t unencodable_bytes = 0;    // bytes for which the vocabulary has no token
};

// `supervised`: ascending, without overlap. Control-token text becomes control tokens, except where it touches one of the
// ascending `literal` ranges (RenderedChat::content): text that a user wrote stays text.
SupervisedTokens encode_supervised(const Tokenizer &tokenizer, std::string_view text, const std::vector<ByteSpan> &supervised,
                                   const std::vector<ByteSpan> &literal = {});

}  // namespace moe
