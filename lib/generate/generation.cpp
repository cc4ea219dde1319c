// The loop of an answer: end tokens, stop strings, means of the routing, cancelling.
#include <chrono>
#include <utility>

#include "base/error.h"
#include "generate/session.h"
#include "generate/stop_text.h"

namespace moe {
namespace {

// False when the caller cancelled while the token was computed.
bool next_piece(Session &session, const SamplerOptions &options, const Cancel *cancel, Piece &piece) {
  try {
    piece = session.next(options, cancel);
  } catch (const Error &error) {
    if (error.code() != Code::cancelled) throw;
    return false;
  }
  return true;
}

void record(const Piece &piece, Generation &result) {
  result.tokens.push_back(piece.token);
  result.log_probabilities.push_back(piece.log_probability);
  result.routing.resize(piece.routing.size());
  for (size_t i = 0; i < piece.routing.size(); i++) result.routing[i] += piece.routing[i];
}

}  // namespace

Generation Session::generate(const GenerateOptions &options, const std::function<bool(const Piece &)> &on_piece,
                             const Cancel *cancel) {
  options.sampler.check();
  if (options.max_new_tokens < 0) fail(Code::invalid, "max_new_tokens is ", options.max_new_tokens, ", expected 0 or more");
  if (tokens_.empty()) fail(Code::state, "the session is empty: append a prompt first");
  const auto start = std::chrono::steady_clock::now();
  Generation result;
  result.prompt_tokens = std::exchange(prompt_tokens_, 0);
  result.prompt_seconds = std::exchange(prompt_seconds_, 0);
  result.finish_reason = "length";
  StopText stop(options.stop);
  bool ended = false;
  for (int64_t n = 0; n < options.max_new_tokens && !ended; n++) {
    Piece piece;
    if (!next_piece(*this, options.sampler, cancel, piece)) {
      result.finish_reason = "cancelled";
      break;
    }
    record(piece, result);
    if (options.ignore_eos) piece.end = false;
    if (piece.end) result.finish_reason = "eos";
    piece.text = stop.push(piece.text);
    if (stop.stopped()) {
      piece.end = true;
      result.finish_reason = "stop";
    }
    ended = piece.end;
    result.text += piece.text;
    if (on_piece && !on_piece(piece)) {
      if (!ended) result.finish_reason = "cancelled";
      ended = true;
    }
  }
  if (!stop.stopped()) {  // incomplete characters and what could have become a stop string
    Piece rest;
    rest.text = stop.push(decoder_ ? decoder_->finish() : "");
    rest.text += stop.finish();
    result.text += rest.text;
    if (on_piece && !rest.text.empty()) on_piece(rest);
  }
  for (float &share : result.routing) share /= static_cast<float>(result.tokens.size());
  result.generate_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

}  // namespace moe
