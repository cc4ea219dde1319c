// Text of a generation as it comes, and the routing of its tokens.
#pragma once
#include <string>

#include "cli/models.h"

namespace moe::cli {

class Stream {
 public:
  // print: text goes to stdout as it comes. routed: shares are collected; the names are those of the bundle.
  Stream(Console &console, const Model &model, bool print, bool routed)
      : console_(console), model_(model), print_(print), routed_(routed) {}

  // The moe_token_callback; `user` is the Stream. Ends the generation when stdout is closed.
  static int32_t on_token(const moe_piece *piece, void *user);
  // Failure when stdout could not be written.
  void check() const;

  const Json &trace() const { return trace_; }       // [{"token", "text", "routing": {"base": share, ...}}, ...]
  void print_routing(const Generation &generation);  // the mean shares and the trace, on stderr

 private:
  int32_t take(const moe_piece &piece);

  Console &console_;
  const Model &model_;
  bool print_, routed_;
  int broken_ = 0;  // errno of a failed write
  Json trace_ = Json::array();
};

// {"base": share, "medical": share, ...} of a bundle's entries.
Json shares(const Model &model, const float *routing, size_t count);

// Text, tokens, times and shares of a generation.
Json generation_json(const Model &model, const Generation &generation);

}  // namespace moe::cli
