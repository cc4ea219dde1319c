// A session: one sequence being read and written. Holds the key/value cache, the text decoder and the overlay (adapter or
// mixture) in force; the model is shared. One thread at a time.
//
// The cache holds the first positions of tokens(); a sampled token is run through the model when the next logits are asked for,
// so the last token of an answer costs nothing. A call that fails or is cancelled leaves the session as it was before it.
#pragma once
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/cancel.h"
#include "generate/sampler.h"
#include "model/inference_pass.h"
#include "text/chat.h"
#include "text/tokenizer.h"

namespace moe {

struct Piece {
  int32_t token = -1;          // -1: no token (text flushed at the end)
  std::string text;            // whole characters that became complete, may be ""; always "" for an end token
  double log_probability = 0;  // nats, under the model's own distribution
  std::vector<float> routing;  // [E + 1] mean over layers at the position that predicted the token; empty without a mixture
  bool end = false;            // the token ends the text (end token or stop string); its text is not part of the answer
};

struct GenerateOptions {
  SamplerOptions sampler;
  int64_t max_new_tokens = 128;
  bool ignore_eos = false;
  std::vector<std::string> stop;  // strings that end the text and are cut from it, also when they cross pieces
};

struct Generation {
  std::string text, finish_reason;  // "stop", "eos", "length", "cancelled"
  std::vector<int32_t> tokens;      // all that were sampled, the end token included
  std::vector<double> log_probabilities;
  std::vector<float> routing;  // [E + 1] mean over the generated tokens; empty without a mixture
  int64_t prompt_tokens = 0;   // appended since the generation before
  double prompt_seconds = 0, generate_seconds = 0;
};

class Session {
 public:
  // At most one of adapter and mixture. Code::invalid for a mixture without a router (gating "domain": pass the expert as
  // adapter).
  explicit Session(std::shared_ptr<const BaseModel> model, std::shared_ptr<Adapter> adapter = nullptr,
                   std::shared_ptr<Mixture> mixture = nullptr);

  void append(std::span<const int32_t> tokens, const Cancel *cancel = nullptr);
  void append_text(std::string_view text, bool add_special, bool parse_special, const Cancel *cancel = nullptr);
  // Makes the session hold this conversation: the tokens it has in common with what is held are kept, the rest is replaced. A
  // chat passes all of its messages each time and pays for the new ones. Control-token text in a message stays text.
  void append_messages(const std::vector<ChatMessage> &messages, bool add_generation_prompt, const Cancel *cancel = nullptr);
  // Samples the next token from the current logits and appends it. Code::state when nothing was appended yet. Text is "" where
  // the model has no tokenizer.
  Piece next(const SamplerOptions &options, const Cancel *cancel = nullptr);
  // A loop of next, after append. `on_piece` (may be empty) returning false cancels. Cancelling ends the text, it is no error:
  // what was generated is returned. Keeps the cache.
  Generation generate(const GenerateOptions &options, const std::function<bool(const Piece &)> &on_piece,
                      const Cancel *cancel = nullptr);

  std::span<const float> logits(const Cancel *cancel = nullptr);  // [V] after the last token; Code::state before the first
  const std::vector<int32_t> &tokens() const { return tokens_; }
  void truncate(int64_t size);  // keeps the first `size` tokens
  std::unique_ptr<Session> fork() const;
  void set_adapter(std::shared_ptr<Adapter> adapter);  // instead of what is in force; nullptr: the base. Code::state unless the
  void set_mixture(std::shared_ptr<Mixture> mixture);  // session is empty or truncated to 0
  const BaseModel &model() const { return *model_; }
  uint64_t bytes() const;

  // One token for each of several sessions of one model with one overlay in one pass.
  static std::vector<Piece> next_of_all(std::span<Session *> sessions, const SamplerOptions &options,
                                        const Cancel *cancel = nullptr);

 private:
  Overlay overlay() const { return {adapter_.get(), mixture_.get()}; }
  bool has_logits() const { return logits_size_ == tokens_.size(); }
  Segment open_segment();
  void close_segment();
  void compute(const Cancel *cancel);
  Piece take(const Sampled &sampled);
  std::string text_of(int32_t token);

  std::shared_ptr<const BaseModel> model_;
  std::shared_ptr<Adapter> adapter_;
  std::shared_ptr<Mixture> mixture_;
  KvCache cache_;
  InferenceScratch scratch_;
  std::vector<int32_t> tokens_;
  std::vector<float> logits_, routing_, last_routing_;  // [V]; [n, E + 1] of the last pass; [E + 1]
  size_t logits_size_ = 0;                              // tokens whose logits are held
  std::unique_ptr<StreamDecoder> decoder_;              // of the answer; nullptr before its first token
  int64_t prompt_tokens_ = 0;
  double prompt_seconds_ = 0;
  bool warned_length_ = false;
};

}  // namespace moe
