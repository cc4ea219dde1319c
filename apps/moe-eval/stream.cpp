#include "moe-eval/stream.h"

#include <cerrno>
#include <cstdio>
#include <cstring>

namespace moe::cli {

int32_t Stream::on_token(const moe_piece *piece, void *user) { return static_cast<Stream *>(user)->take(*piece); }

int32_t Stream::take(const moe_piece &piece) {
  const std::string text(piece.text, piece.text_length);
  if (routed_ && piece.token >= 0 && piece.routing) {
    trace_.push(Json::object({{"token", piece.token},
                              {"text", text},
                              {"routing", shares(model_, piece.routing, static_cast<size_t>(piece.n_routing))}}));
  }
  if (!print_ || text.empty()) return 0;
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) broken_ = errno ? errno : EIO;
  return broken_ != 0;
}

void Stream::check() const {
  if (broken_) throw Failure(kFailed, std::string("standard output: ") + std::strerror(broken_));
}

Json shares(const Model &model, const float *routing, size_t count) {
  Json json = Json::object();
  for (size_t i = 0; i < count; i++) {
    const char *name = moe_model_domain(model.get(), static_cast<int64_t>(i));
    json.set(name ? name : std::to_string(i), static_cast<double>(routing[i]));
  }
  return json;
}

namespace {

std::string shares_line(const Json &shares) {
  std::string line;
  for (const auto &[name, share] : shares.members()) line += (line.empty() ? "" : "  ") + name + format(" %.3f", share.number());
  return line;
}

}  // namespace

void Stream::print_routing(const Generation &generation) {
  size_t count = 0;
  const float *routing = moe_generation_routing(generation.get(), &count);
  if (!routing) return console_.note("routing: none, the model is no bundle with token routing");
  console_.note("routing: " + shares_line(shares(model_, routing, count)));
  for (const Json &token : trace_.items()) {
    console_.note(format("%8s  %-16s ", token.at("token").string().c_str(), token.at("text").dump().c_str()) +
                  shares_line(token.at("routing")));
  }
}

Json generation_json(const Model &model, const Generation &generation) {
  size_t length = 0, count = 0, routed = 0;
  const char *text = moe_generation_text(generation.get(), &length);
  const int32_t *tokens = moe_generation_tokens(generation.get(), &count);
  const double *log_probabilities = moe_generation_log_probabilities(generation.get(), nullptr);
  const float *routing = moe_generation_routing(generation.get(), &routed);
  Json ids = Json::array(), scores = Json::array();
  for (size_t i = 0; i < count; i++) ids.push(tokens[i]), scores.push(log_probabilities[i]);
  const double seconds = moe_generation_seconds(generation.get());
  Json json = Json::object({{"text", std::string_view(text, length)},
                            {"finish_reason", moe_generation_finish_reason(generation.get())},
                            {"tokens", std::move(ids)},
                            {"log_probabilities", std::move(scores)},
                            {"prompt_tokens", moe_generation_prompt_tokens(generation.get())},
                            {"prompt_s", moe_generation_prompt_seconds(generation.get())},
                            {"generate_s", seconds},
                            {"tokens_per_s", seconds > 0 ? static_cast<double>(count) / seconds : 0.0}});
  if (routing) json.set("routing", shares(model, routing, routed));
  return json;
}

}  // namespace moe::cli
