// Finds added tokens in a text: at each place the longest, from left to right, none inside another (as the `tokenizers`
// library does). Tokens are kept sorted; a search narrows the range of those that agree with the text so far.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/byte_span.h"

namespace moe {

struct AddedToken {
  std::string text;
  int32_t id = -1;
  bool control = false;      // cut only with parse_special
  bool strip_left = false;   // takes the white space before it
  bool strip_right = false;  // ... and after it
  bool single_word = false;  // only where no word character touches it
  bool normalized = false;   // matched in the normalized text
};

class AddedTokens {
 public:
  void add(AddedToken token);  // of two with the same text the first is kept
  void build();                // after the last add
  bool empty() const { return tokens_.empty(); }
  const std::vector<AddedToken> &tokens() const { return tokens_; }

  struct Match {
    const AddedToken *token = nullptr;
    size_t begin = 0, end = 0;
  };
  // The next match at or after `from`, without the white space it strips; false when there is none.
  bool find(std::string_view text, size_t from, Match &match) const;
  // Whether single_word allows the match.
  static bool stands_alone(std::string_view text, const Match &match);

 private:
  const AddedToken *longest_at(std::string_view text) const;

  struct Range {
    uint32_t begin = 0, end = 0;
  };
  std::vector<AddedToken> tokens_;     // sorted by text
  std::array<Range, 256> by_first_{};  // tokens that begin with a byte
};

}  // namespace moe
