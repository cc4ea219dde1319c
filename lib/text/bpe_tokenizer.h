// The one tokenizer class: byte-level and SentencePiece-style byte pair encoding. It is made from parts that the readers
// of tokenizer.json and GGUF fill in.
//
// A text goes through: cut at added tokens; normalize each part; cut at added tokens that are matched normalized; split
// into pieces; merge inside each piece.
#pragma once
#include <array>
#include <bitset>
#include <mutex>
#include <unordered_map>

#include "text/added_tokens.h"
#include "text/merges.h"
#include "text/normalizer.h"
#include "text/pre_splitter.h"
#include "text/tokenizer.h"
#include "text/vocabulary.h"
#include "text/word_cache.h"

namespace moe {

struct TokenizerParts {
  TokenizerParts() { byte_tokens.fill(-1); }

  std::string source;  // file, for messages
  Vocabulary vocabulary;
  Merges merges;
  bool byte_level = false;               // symbols begin as bytes; otherwise as characters, with byte_tokens as fallback
  std::array<int32_t, 256> byte_tokens;  // -1: the vocabulary has no token for the byte
  int32_t unknown = -1;                  // token for what has none; -1: it is left out
  bool fuse_unknown = false;             // one for a run of unknown characters
  bool whole_pieces = false;             // a piece that is a token is that token, whatever the merges would make
  bool split_at_spaces = false;          // SentencePiece style: a space begins a piece
  Normalizer normalizer;
  PreSplitter splitter;  // byte-level only
  std::vector<AddedToken> added;
  std::vector<int32_t> before, after;  // put around a text with add_special
  bool strips_leading_space = false;
  int32_t bos = -1, eos = -1;
  std::vector<int32_t> end_tokens;  // besides eos
  std::string chat_template;
};

class BpeTokenizer : public Tokenizer {
 public:
  explicit BpeTokenizer(TokenizerParts parts);
  ~BpeTokenizer() override;

  std::vector<int32_t> encode(std::string_view text, EncodeOptions options) const override;
  Encoding encode_with_spans(std::string_view text, EncodeOptions options) const override;
  std::string_view bytes(int32_t id) const override;
  bool is_control(int32_t id) const override;
  int64_t size() const override { return parts_.vocabulary.size(); }
  std::string decode(const std::vector<int32_t> &ids, bool skip_control) const override;
  int32_t find(std::string_view text) const override;

 private:
  struct Scratch;
  class Run;
  class Borrowed;
  void collect_end_tokens();
  void collect_adjacent_bytes();
  bool may_cut(char before, char after) const;

  TokenizerParts parts_;
  AddedTokens raw_, normalized_;  // by where they are matched
  std::unordered_map<std::string_view, int32_t> added_ids_;
  // SentencePiece style: whether any token has byte b directly after byte a. No merge crosses a place where none has, so
  // the text can be cut there, and the pieces are short enough to be remembered.
  std::bitset<65536> adjacent_;
  mutable std::mutex scratch_mutex_;
  mutable std::vector<std::unique_ptr<Scratch>> free_scratch_;
};

// The 256 bytes as GPT-2 spells them in vocabularies: printable ones as themselves, the others from U+0100 on.
// Turns a spelling into bytes; false when a character of it is not in that alphabet.
bool bytes_of_spelling(std::string_view spelling, std::string &bytes);
// The texts of tokens that end a turn or a document in the known vocabularies.
bool is_end_token_text(std::string_view text);

}  // namespace moe
