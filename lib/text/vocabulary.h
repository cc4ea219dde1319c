// The tokens of a vocabulary: the bytes each stands for, its kind, and a hash index from bytes to id for the tokens that a
// text can become.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace moe {

inline constexpr int64_t kMaxTokens = int64_t{1} << 22;

enum class TokenKind : uint8_t {
  absent,        // no token has this id
  text,          // made from text by merging
  byte,          // one byte that has no other token (SentencePiece's <0x41>)
  unreachable,   // a spelling that no text can become
  user_defined,  // cut out of every text
  control        // cut out of a text only with parse_special
};

class Vocabulary {
 public:
  void reserve(size_t tokens, size_t bytes);
  // Code::format when the id is negative, too large or taken, or when two tokens of kind `text` have the same bytes.
  void add(int64_t id, std::string_view bytes, TokenKind kind, std::string_view source);
  void set_kind(int32_t id, TokenKind kind) { tokens_[static_cast<size_t>(id)].kind = kind; }
  void set_bytes(int32_t id, std::string_view bytes);  // find no longer gives the token

  int32_t size() const { return static_cast<int32_t>(tokens_.size()); }  // 1 + the largest id
  TokenKind kind(int32_t id) const { return tokens_[static_cast<size_t>(id)].kind; }
  bool has(int64_t id) const { return id >= 0 && id < size() && kind(static_cast<int32_t>(id)) != TokenKind::absent; }
  std::string_view bytes(int32_t id) const {
    const Token &token = tokens_[static_cast<size_t>(id)];
    return {bytes_.data() + token.begin, token.length};
  }
  size_t longest() const { return longest_; }  // bytes of the longest token of kind `text`
  int32_t find(std::string_view bytes) const;  // a token that was added with kind `text`, -1 when there is none

 private:
  struct Token {
    uint64_t begin = 0;
    uint32_t length = 0;
    TokenKind kind = TokenKind::absent;
  };
  struct Slot {
    uint32_t tag = 0;
    int32_t id = -1;
  };
  void index(int32_t id, std::string_view source);
  void grow(size_t slots);

  std::vector<Token> tokens_;
  std::string bytes_;
  std::vector<Slot> slots_;  // open addressing, a power of two, at most half full
  size_t indexed_ = 0, longest_ = 0;
};

// Mixes the bytes into 64 bits. Not for adversaries, and never written to files.
uint64_t hash_bytes(const char *data, size_t length);

}  // namespace moe
