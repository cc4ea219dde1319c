// moe-eval generate and chat.
#include <unistd.h>

#include <cstdio>
#include <iostream>

#include "moe-eval/stream.h"
#include "moe-eval/verbs.h"

namespace moe::cli {
namespace {

std::string prompt_of(const Context &context) {
  if (has(context.options(), "prompt")) return get(context.options(), "prompt");
  if (isatty(STDIN_FILENO)) context.console.note("the prompt is read from standard input; Ctrl-D ends it");
  std::string prompt;
  char buffer[65536];
  size_t count;
  while ((count = std::fread(buffer, 1, sizeof buffer, stdin)) > 0) prompt.append(buffer, count);
  if (moe_cancel_token_fired(context.cancel)) throw Failure(kCancelled, "cancelled");
  return prompt;
}

// A session with the adapter of the options in force.
Session new_session(const Context &context, const Model &model, const Lora &lora) {
  Session session;
  call(moe_session_create, model.get(), context.options().get(), context.cancel, session.out());
  if (lora) call(moe_session_set_adapter, session.get(), lora.get());
  return session;
}

Generation generate(const Context &context, const Session &session, const std::string &prompt, Stream &stream) {
  Generation generation;
  call(moe_generate, session.get(), prompt.empty() ? nullptr : prompt.data(), prompt.size(), context.options().get(),
       &Stream::on_token, &stream, generation.out());
  stream.check();
  return generation;
}

// What comes after the streamed text.
void finish(const Context &context, const Model &model, const Generation &generation, Stream &stream) {
  const bool routed = flag(context.options(), "show_routing");
  if (context.command.json) {
    Json json = generation_json(model, generation);
    if (routed) json.set("trace", stream.trace());
    context.console.print(json.dump() + "\n");
  } else {
    context.console.print("\n");
    context.console.flush();
    if (routed) stream.print_routing(generation);
  }
  context.console.flush();
}

}  // namespace

int run_generate(Context &context) {
  required(context.options(), has(context.options(), "moe") ? "moe" : "model");
  const std::string prompt = prompt_of(context);
  const Model model = load_model(context);
  const Lora lora = load_adapter(context, model);
  const Session session = new_session(context, model, lora);
  Stream stream(context.console, model, !context.command.json, flag(context.options(), "show_routing"));
  const Generation generation = generate(context, session, prompt, stream);
  finish(context, model, generation, stream);
  const double seconds = moe_generation_seconds(generation.get()), reading = moe_generation_prompt_seconds(generation.get());
  size_t count = 0;
  moe_generation_tokens(generation.get(), &count);
  context.console.log(MOE_LOG_DEBUG, format("%lld prompt tokens in %.2f s; %zu tokens in %.2f s; ended by %s",
                                            static_cast<long long>(moe_generation_prompt_tokens(generation.get())), reading,
                                            count, seconds, moe_generation_finish_reason(generation.get())));
  return kDone;
}

int run_chat(Context &context) {
  const Model model = load_model(context);
  const Lora lora = load_adapter(context, model);
  const Session session = new_session(context, model, lora);
  const std::string system = get(context.options(), "system");
  const auto opening = [&] {
    return system.empty() ? Json::array() : Json::array().push(Json::object({{"role", "system"}, {"content", system}}));
  };
  Json messages = opening();
  const bool asks = isatty(STDIN_FILENO) && !context.command.quiet;
  std::string line;
  while (true) {
    if (asks) std::fputs("> ", stderr);
    if (!std::getline(std::cin, line)) break;
    if (line == "/exit") break;
    if (line == "/reset") {
      messages = opening();
      continue;
    }
    if (line.empty()) continue;
    messages.push(Json::object({{"role", "user"}, {"content", line}}));
    const std::string text = messages.dump();
    call(moe_session_append_messages, session.get(), text.data(), text.size(), 1);
    Stream stream(context.console, model, !context.command.json, flag(context.options(), "show_routing"));
    const Generation generation = generate(context, session, "", stream);
    finish(context, model, generation, stream);
    size_t length = 0;
    const char *reply = moe_generation_text(generation.get(), &length);
    messages.push(Json::object({{"role", "assistant"}, {"content", std::string_view(reply, length)}}));
  }
  if (moe_cancel_token_fired(context.cancel)) throw Failure(kCancelled, "cancelled");
  return kDone;
}

}  // namespace moe::cli
