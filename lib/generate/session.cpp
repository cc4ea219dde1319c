#include "generate/session.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/error.h"

namespace moe {
namespace {

void check_overlay(const std::shared_ptr<Adapter> &adapter, const std::shared_ptr<Mixture> &mixture) {
  if (adapter && mixture) fail(Code::invalid, "a session runs an adapter or a mixture, not both");
  if (mixture && !mixture->router)
    fail(Code::invalid, "this mixture has no router (gating \"domain\"): choose the adapter of a domain");
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

Session::Session(std::shared_ptr<const BaseModel> model, std::shared_ptr<Adapter> adapter, std::shared_ptr<Mixture> mixture)
    : model_(std::move(model)), adapter_(std::move(adapter)), mixture_(std::move(mixture)), cache_(*model_, 0) {
  check_overlay(adapter_, mixture_);
}

// The tokens that are not in the cache yet, at least the last one: its logits are wanted.
Segment Session::open_segment() {
  const auto size = static_cast<int64_t>(tokens_.size());
  if (cache_.size() == size) cache_.truncate(size - 1);
  logits_.resize(static_cast<size_t>(model_->config().vocabulary));
  logits_size_ = 0;
  Segment segment;
  segment.tokens = std::span(tokens_).subspan(static_cast<size_t>(cache_.size()));
  segment.cache = &cache_;
  segment.logits = logits_.data();
  if (mixture_) {
    routing_.resize(segment.tokens.size() * (mixture_->experts.size() + 1));
    segment.routing = routing_.data();
  }
  return segment;
}

void Session::close_segment() {
  logits_size_ = tokens_.size();
  if (mixture_) last_routing_.assign(routing_.end() - static_cast<ptrdiff_t>(mixture_->experts.size() + 1), routing_.end());
}

void Session::compute(const Cancel *cancel) {
  if (tokens_.empty()) fail(Code::state, "the session is empty: append a prompt first");
  check_cancel(cancel);
  if (has_logits()) return;
  Segment segment = open_segment();
  inference_pass(*model_, overlay(), {&segment, 1}, scratch_, cancel);
  close_segment();
}

void Session::append(std::span<const int32_t> tokens, const Cancel *cancel) {
  if (tokens.empty()) return;
  const auto start = std::chrono::steady_clock::now();
  const size_t before = tokens_.size();
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  try {
    compute(cancel);
  } catch (...) {
    tokens_.resize(before);
    cache_.truncate(std::min(cache_.size(), static_cast<int64_t>(before)));
    throw;
  }
  decoder_.reset();
  prompt_tokens_ += static_cast<int64_t>(tokens.size());
  prompt_seconds_ += seconds_since(start);
}

void Session::append_text(std::string_view text, bool add_special, bool parse_special, const Cancel *cancel) {
  append(model_->require_tokenizer().encode(text, {add_special, parse_special}), cancel);
}

void Session::append_messages(const std::vector<ChatMessage> &messages, bool add_generation_prompt, const Cancel *cancel) {
  const Tokenizer &tokenizer = model_->require_tokenizer();
  if (tokenizer.chat_template().empty()) fail(Code::unsupported, model_->path(), ": the model has no chat template");
  const std::string bos(tokenizer.bos() >= 0 ? tokenizer.bytes(tokenizer.bos()) : std::string_view());
  const RenderedChat chat = find_chat_renderer(tokenizer.chat_template(), bos)->render(messages, add_generation_prompt);
  const std::vector<int32_t> wanted = tokenizer.encode(chat.text, {false, true, chat.content});

  // What is replaced is kept aside until the new tokens are in, so that a failure changes nothing that counts.
  const auto common =
      static_cast<size_t>(std::mismatch(tokens_.begin(), tokens_.end(), wanted.begin(), wanted.end()).first - tokens_.begin());
  const std::vector<int32_t> replaced(tokens_.begin() + static_cast<ptrdiff_t>(common), tokens_.end());
  truncate(static_cast<int64_t>(common));
  try {
    append(std::span(wanted).subspan(common), cancel);
  } catch (...) {
    tokens_.insert(tokens_.end(), replaced.begin(), replaced.end());
    throw;
  }
}

std::span<const float> Session::logits(const Cancel *cancel) {
  compute(cancel);
  return logits_;
}

// The answer continues the text before it, so its first token keeps the space in front; after a control token it begins a text.
std::string Session::text_of(int32_t token) {
  const Tokenizer *tokenizer = model_->tokenizer();
  if (!tokenizer || token >= tokenizer->size()) return "";  // models pad their vocabulary
  if (!decoder_) {
    decoder_ = std::make_unique<StreamDecoder>(*tokenizer);
    const int32_t before = tokens_.back();
    if (before < tokenizer->size() && !tokenizer->is_control(before)) {
      decoder_->push(before);
      decoder_->finish();
    }
  }
  return decoder_->push(token);
}

Piece Session::take(const Sampled &sampled) {
  Piece piece;
  piece.token = sampled.token;
  piece.log_probability = sampled.log_probability;
  piece.routing = last_routing_;
  if (const Tokenizer *tokenizer = model_->tokenizer()) {
    const std::vector<int32_t> &ends = tokenizer->end_tokens();
    piece.end = std::find(ends.begin(), ends.end(), piece.token) != ends.end();
    if (!piece.end) piece.text = text_of(piece.token);
  }
  tokens_.push_back(piece.token);
  const int64_t most = model_->config().max_positions;
  if (most > 0 && static_cast<int64_t>(tokens_.size()) > most && !warned_length_) {
    warned_length_ = true;
    log(model_->log(), LogLevel::warning, text("the session is longer than the ", most, " positions the model was made for"));
  }
  return piece;
}

Piece Session::next(const SamplerOptions &options, const Cancel *cancel) {
  compute(cancel);
  return take(sample(options, logits_, tokens_, tokens_.size()));
}

std::vector<Piece> Session::next_of_all(std::span<Session *> sessions, const SamplerOptions &options, const Cancel *cancel) {
  options.check();
  check_cancel(cancel);
  for (size_t i = 0; i < sessions.size(); i++) {
    const Session &first = *sessions[0], &session = *sessions[i];
    if (session.tokens_.empty()) fail(Code::state, "session ", i, " of the batch is empty: append a prompt first");
    const bool same = session.model_ == first.model_ && session.adapter_ == first.adapter_ && session.mixture_ == first.mixture_;
    if (!same) fail(Code::invalid, "session ", i, " of the batch has another model, adapter or mixture than session 0");
    if (std::find(sessions.begin(), sessions.begin() + static_cast<ptrdiff_t>(i), sessions[i]) !=
        sessions.begin() + static_cast<ptrdiff_t>(i)) {
      fail(Code::invalid, "session ", i, " is in the batch twice");
    }
  }
  std::vector<Segment> segments;
  std::vector<Session *> opened;
  for (Session *session : sessions) {
    if (session->has_logits()) continue;
    segments.push_back(session->open_segment());
    opened.push_back(session);
  }
  if (!segments.empty()) inference_pass(*sessions[0]->model_, sessions[0]->overlay(), segments, sessions[0]->scratch_, cancel);
  for (Session *session : opened) session->close_segment();
  std::vector<Sampled> sampled;
  for (Session *session : sessions)
    sampled.push_back(sample(options, session->logits_, session->tokens_, session->tokens_.size()));
  std::vector<Piece> pieces;
  for (size_t i = 0; i < sessions.size(); i++) pieces.push_back(sessions[i]->take(sampled[i]));
  return pieces;
}

void Session::truncate(int64_t size) {
  const auto length = static_cast<int64_t>(tokens_.size());
  if (size < 0 || size > length) fail(Code::invalid, "truncate: expected 0 to ", length, " tokens, found ", size);
  if (size == length) return;
  tokens_.resize(static_cast<size_t>(size));
  cache_.truncate(std::min(cache_.size(), size));
  if (logits_size_ > tokens_.size()) logits_size_ = 0;
  decoder_.reset();
}

std::unique_ptr<Session> Session::fork() const {
  auto copy = std::make_unique<Session>(model_, adapter_, mixture_);
  copy->cache_.copy_from(cache_, cache_.size());
  copy->tokens_ = tokens_;
  copy->logits_ = logits_;
  copy->last_routing_ = last_routing_;
  copy->logits_size_ = logits_size_;
  if (decoder_) copy->decoder_ = std::make_unique<StreamDecoder>(*decoder_);
  return copy;
}

void Session::set_adapter(std::shared_ptr<Adapter> adapter) {
  if (!tokens_.empty()) fail(Code::state, "the adapter can be set while the session is empty: truncate it to 0 first");
  adapter_ = std::move(adapter);
  mixture_ = nullptr;
  last_routing_.clear();
}

void Session::set_mixture(std::shared_ptr<Mixture> mixture) {
  if (!tokens_.empty()) fail(Code::state, "the mixture can be set while the session is empty: truncate it to 0 first");
  check_overlay(nullptr, mixture);
  mixture_ = std::move(mixture);
  adapter_ = nullptr;
  last_routing_.clear();
}

uint64_t Session::bytes() const {
  return cache_.bytes() + scratch_.bytes() + (logits_.capacity() + routing_.capacity()) * sizeof(float) +
         tokens_.capacity() * sizeof(int32_t);
}

}  // namespace moe
