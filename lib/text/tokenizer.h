// Text to token ids and back: byte-level BPE and SentencePiece-style BPE, from a Hugging Face tokenizer.json or from
// GGUF metadata. Immutable after load; any thread. Texts are arbitrary bytes (NUL and invalid UTF-8 included).
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/byte_span.h"

namespace moe {

class Gguf;  // formats/gguf.h

struct EncodeOptions {
  bool add_special = false;                // BOS / EOS as the model asks
  bool parse_special = false;              // control-token text in the input becomes the control token ...
  std::span<const ByteSpan> literal = {};  // ... except where it touches one of these ranges (ascending): it stays text
};

struct Encoding {
  std::vector<int32_t> ids;
  std::vector<ByteSpan> spans;    // per token: the bytes of the text it stands for; empty for BOS, EOS and a token of
                                  // nothing but the space that SentencePiece puts in front
  int64_t unencodable_bytes = 0;  // bytes for which the vocabulary has no token: they are left out
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  virtual std::vector<int32_t> encode(std::string_view text, EncodeOptions options = {}) const = 0;
  virtual Encoding encode_with_spans(std::string_view text, EncodeOptions options = {}) const = 0;
  // The bytes a token stands for (control tokens: their own text; "" for an id without a token). Code::invalid outside
  // [0, size).
  virtual std::string_view bytes(int32_t id) const = 0;
  virtual bool is_control(int32_t id) const = 0;
  virtual int64_t size() const = 0;
  // Joined bytes of all tokens, control tokens printed unless skip_control; the one leading space that SentencePiece puts
  // in front is taken away again. Not necessarily UTF-8.
  virtual std::string decode(const std::vector<int32_t> &ids, bool skip_control = false) const = 0;
  virtual int32_t find(std::string_view text) const = 0;  // id of a token by its text, -1 when there is none

  int32_t bos() const { return bos_; }  // -1 when the model has none
  int32_t eos() const { return eos_; }
  bool adds_bos() const { return adds_bos_; }
  bool adds_eos() const { return adds_eos_; }
  bool strips_leading_space() const { return strips_leading_space_; }  // decode removes one
  // Tokens that end a generation: EOS and the end-of-turn token(s) of the vocabulary.
  const std::vector<int32_t> &end_tokens() const { return end_tokens_; }
  const std::string &chat_template() const { return chat_template_; }  // "" when the model has none

 protected:
  int32_t bos_ = -1, eos_ = -1;
  bool adds_bos_ = false, adds_eos_ = false, strips_leading_space_ = false;
  std::vector<int32_t> end_tokens_;
  std::string chat_template_;
};

// A folder with tokenizer.json (and tokenizer_config.json, generation_config.json, special_tokens_map.json,
// chat_template.jinja where present), or with vocab.json, merges.txt and a tokenizer_config.json that names the class.
std::shared_ptr<const Tokenizer> load_tokenizer(const std::string &folder);
// From `tokenizer.ggml.*` metadata.
std::shared_ptr<const Tokenizer> load_tokenizer(const Gguf &file);

// Gives out only whole characters: bytes of an incomplete UTF-8 sequence wait for the next token. Bytes that can never
// become valid are given out as U+FFFD, one per maximal invalid part.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer &tokenizer) : tokenizer_(tokenizer) {}
  std::string push(int32_t id);  // the text that became complete with this token, may be ""
  std::string finish();          // what still waits
 private:
  const Tokenizer &tokenizer_;
  std::string pending_;
  bool first_ = true;
};

}  // namespace moe
