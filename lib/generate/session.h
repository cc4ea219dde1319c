// A session: one sequence being read and written. Holds the key/value cache, the sampler's state and the overlay (adapter or mixture)
// in force; the model is shared. One thread at a time.
#pragma once
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/cancel.h"
#include "generate/sampler.h"
#include "model/inference_pass.h"
#include "text/chat.h"
#include "text/tokenizer.h"

namespace moe {

struct Piece {
  int32_t token = -1;                // -1: no token (text flushed at the end)
  std::string text;                  // whole characters that became complete, may be ""
  double log_probability = 0;
  std::vector<float> routing;        // [E + 1] mean over layers, empty without a mixture
  bool end = false;                  // the token ends the text (end token or stop string); its text is not part of the answer
};

struct GenerateOptions {
  SamplerOptions sampler;
  int64_t max_new_tokens = 128;
  bool ignore_eos = false;
  std::vector<std::string> stop;     // strings that end the text and are cut from it, also when they cross pieces
};

struct Generation {
  std::string text, finish_reason;   // "stop", "eos", "length", "cancelled"
  std::vector<int32_t> tokens;
  std::vector<double> log_probabilities;
  std::vector<float> routing;        // [E + 1] mean over the generated tokens
  int64_t prompt_tokens = 0;
  double prompt_seconds = 0, generate_seconds = 0;
};

class Session {
 public:
  Session(std::shared_ptr<const BaseModel> model, std::shared_ptr<Adapter> adapter = nullptr, std::shared_ptr<Mixture> mixture = nullptr);

  void append(std::span<const int32_t> tokens, const Cancel *cancel = nullptr);
  void append_text(std::string_view text, bool add_special, bool parse_special, const Cancel *cancel = nullptr);
  void append_messages(const std::vector<ChatMessage> &messages, bool add_generation_prompt, const Cancel *cancel = nullptr);
  // Samples the next token from the current logits and appends it. Code::state when nothing was appended yet.
  Piece next(const SamplerOptions &options, const Cancel *cancel = nullptr);
  // append + loop of next; `on_piece` returning false cancels. Keeps the cache.
  Generation generate(const GenerateOptions &options, const std::function<bool(const Piece &)> &on_piece, const Cancel *cancel = nullptr);

  std::span<const float> logits() const;       // [V] after the last token; Code::state before the first
  const std::vector<int32_t> &tokens() const { return tokens_; }
  void truncate(int64_t size);                 // keeps the first `size` tokens
  std::unique_ptr<Session> fork() const;
  void set_adapter(std::shared_ptr<Adapter> adapter);   // Code::state unless the session is empty or truncated to 0
  void set_mixture(std::shared_ptr<Mixture> mixture);
  const BaseModel &model() const { return *model_; }
  uint64_t bytes() const;

  // One token for each of several sessions of one model in one pass.
  static std::vector<Piece> next_of_all(std::span<Session *> sessions, const SamplerOptions &options, const Cancel *cancel = nullptr);

 private:
  std::shared_ptr<const BaseModel> model_;
  std::shared_ptr<Adapter> adapter_;
  std::shared_ptr<Mixture> mixture_;
  KvCache cache_;
  InferenceScratch scratch_;
  std::vector<int32_t> tokens_;
  std::vector<float> logits_, routing_;
  std::unique_ptr<StreamDecoder> decoder_;
  uint64_t sampled_ = 0;
};

}  // namespace moe
