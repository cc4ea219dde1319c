// moe_session_* and moe_generate: see moe.h.
#include <algorithm>
#include <deque>

#include "api/chat_api.h"
#include "api/training.h"

namespace moe::api {

bool sets_sampler(const Options &options) {
  constexpr const char *kKeys[] = {"do_sample", "temperature", "top_k", "top_p", "min_p", "repetition_penalty"};
  return std::any_of(std::begin(kKeys), std::end(kKeys), [&](const char *key) { return options.has(key); });
}

SamplerOptions sampler_options(const Options &options) {
  SamplerOptions sampler;
  const bool implied = options.has("temperature") || options.has("top_k") || options.has("top_p") || options.has("min_p");
  sampler.do_sample = options.has("do_sample") ? options.flag("do_sample") : implied;
  sampler.temperature = options.number("temperature");
  sampler.top_k = options.integer("top_k");
  sampler.top_p = options.number("top_p");
  sampler.min_p = options.number("min_p");
  sampler.repetition_penalty = options.number("repetition_penalty");
  sampler.seed = static_cast<uint64_t>(options.integer("seed"));
  if (sampler.temperature == 0) {
    sampler.do_sample = false;
    sampler.temperature = 1;
  }
  sampler.check();
  return sampler;
}

namespace {

// A call on a session: alone with it, and with nobody training what is in force.
class SessionUse {
 public:
  explicit SessionUse(SessionCore &core)
      : session_(core.use, "moe_session"), lora_(core.lora ? &core.lora->use : nullptr, "moe_lora"),
        router_(core.router ? &core.router->use : nullptr, "moe_router") {}

 private:
  Writing session_;
  Reading lora_, router_;
};

// Runs `body` on the session, alone.
template <class Body>
int32_t with_session(const moe_session *handle, moe_error *error, Body body) {
  return fence(error, [&] {
    const auto core = core_of(handle, "moe_session");
    const SessionUse use(*core);
    body(*core);
  });
}

// Of a bundle with domain gating: the adapter of a domain, nullptr for the base.
std::shared_ptr<Adapter> adapter_of_domain(const ModelCore &bundle, std::string domain) {
  if (domain.empty()) domain = bundle.bundle.fallback_domain;
  if (domain.empty() || domain == "base") return nullptr;
  const auto &domains = bundle.mixture->domains;
  const auto found = std::find(domains.begin(), domains.end(), domain);
  if (found == domains.end()) fail(Code::invalid, "domain: '", domain, "' is none of the domains of ", bundle.bundle_path);
  return bundle.mixture->experts[static_cast<size_t>(found - domains.begin())];
}

void set_mixture(SessionCore &core, const ModelCore *bundle, const std::string &domain) {
  if (bundle && bundle->mixture && !bundle->mixture->router) core.session->set_adapter(adapter_of_domain(*bundle, domain));
  else core.session->set_mixture(bundle ? bundle->mixture : nullptr);
  core.mixture = bundle && bundle->mixture && bundle->mixture->router ? bundle->mixture : nullptr;
  core.lora = nullptr;
  core.router = nullptr;
}

void set_router(SessionCore &core, const std::shared_ptr<RouterCore> &router) {
  if (!core.mixture) fail(Code::state, "moe_session_set_router: the session has no experts with token routing in force");
  check_router_fits(*router->router, *core.mixture->router);
  auto mixture = std::make_shared<Mixture>(*core.mixture);
  mixture->router = router->router;
  core.session->set_mixture(mixture);
  core.mixture = std::move(mixture);
  core.router = router;
}

void check_base(const SessionCore &core, const BaseModel &base, const char *what) {
  if (&core.session->model() != &base)
    fail(Code::invalid, what, ": expected one on the base model of the session, found one on ", base.path());
}

std::shared_ptr<SessionCore> new_session(const ModelCore &model, const Options &options, moe_cancel_token *cancel) {
  auto core = std::make_shared<SessionCore>();
  core->session = std::make_unique<Session>(model.base);
  core->sampler = sampler_options(options);
  core->cancel = cancel_core(cancel);
  if (model.mixture) set_mixture(*core, &model, options.text("domain"));
  return core;
}

std::shared_ptr<SessionCore> fork_session(const SessionCore &from) {
  auto core = std::make_shared<SessionCore>();
  core->session = from.session->fork();
  core->sampler = from.sampler;
  core->cancel = from.cancel;
  core->lora = from.lora;
  core->router = from.router;
  core->mixture = from.mixture;
  return core;
}

// `piece` must outlive the struct.
moe_piece piece_struct(const Piece &piece) {
  moe_piece result = MOE_PIECE_INIT;
  result.token = piece.token;
  result.text = piece.text.c_str();
  result.text_length = piece.text.size();
  result.log_probability = piece.log_probability;
  result.routing = piece.routing.empty() ? nullptr : piece.routing.data();
  result.n_routing = static_cast<int32_t>(piece.routing.size());
  result.is_end = piece.end;
  return result;
}

void give_piece(SessionCore &core, Piece piece, moe_piece *out) {
  core.piece = std::move(piece);
  give_struct(piece_struct(core.piece), out);
}

void next_of_all(moe_session *const *handles, size_t count, moe_piece *pieces) {
  const std::span<moe_session *const> all = array(handles, count, "sessions");
  if (count == 0) return;
  if (!pieces) fail(Code::invalid, "pieces: NULL");
  std::vector<std::shared_ptr<SessionCore>> cores;
  for (size_t i = 0; i < count; i++) {
    check_struct(&pieces[i], "pieces");
    cores.push_back(core_of(all[i], "moe_session"));
    for (size_t j = 0; j < i; j++) {
      if (cores[j] == cores[i]) fail(Code::invalid, "sessions: session ", i, " is in the batch twice");
    }
  }
  std::deque<SessionUse> uses;
  std::vector<Session *> sessions;
  for (const auto &core : cores) {
    uses.emplace_back(*core);
    sessions.push_back(core->session.get());
  }
  std::vector<Piece> results = Session::next_of_all(sessions, cores[0]->sampler, cancel_of(cores[0]->cancel));
  for (size_t i = 0; i < count; i++) give_piece(*cores[i], std::move(results[i]), &pieces[i]);
}

GenerateOptions generate_options(const Options &options, const SamplerOptions &session_sampler) {
  GenerateOptions result;
  result.sampler = sets_sampler(options) ? sampler_options(options) : session_sampler;
  result.max_new_tokens = options.integer("max_new_tokens");
  result.ignore_eos = options.flag("ignore_eos");
  result.stop = options.list("stop");
  return result;
}

void append_prompt(SessionCore &core, std::string_view prompt, const Options &options) {
  const Cancel *cancel = cancel_of(core.cancel);
  if (options.flag("chat")) {
    std::vector<ChatMessage> messages;
    if (options.has("system")) messages.push_back({"system", options.text("system")});
    messages.push_back({"user", std::string(prompt)});
    core.session->append_messages(messages, true, cancel);
  } else if (!prompt.empty()) {
    core.session->append_text(prompt, core.session->tokens().empty(), false, cancel);
  }
}

Generation generate(SessionCore &core, std::string_view prompt, const Options &options, moe_token_callback on_token, void *user) {
  const GenerateOptions settings = generate_options(options, core.sampler);
  append_prompt(core, prompt, options);
  bool stopped = false;
  const auto on_piece = [&](const Piece &piece) {
    if (!on_token || stopped) return !stopped;
    const moe_piece given = piece_struct(piece);
    stopped = on_token(&given, user) != 0;
    return !stopped;
  };
  Generation generation = core.session->generate(settings, on_piece, cancel_of(core.cancel));
  if (generation.finish_reason == "cancelled" && !stopped) check_cancel(cancel_of(core.cancel));
  return generation;
}

}  // namespace
}  // namespace moe::api

using namespace moe::api;

extern "C" {

int32_t moe_session_create(const moe_model *model, const moe_options *options, moe_cancel_token *cancel, moe_session **out,
                           moe_error *error) {
  return fence(error, [&] {
    required_out(out, "out");
    *out = make_handle<moe_session>(new_session(*core_of(model, "moe_model"), *OptionsOf(options), cancel));
  });
}

int32_t moe_session_set_options(moe_session *session, const moe_options *options, moe_error *error) {
  return with_session(session, error, [&](SessionCore &core) { core.sampler = sampler_options(*OptionsOf(options)); });
}

int32_t moe_session_set_cancel(moe_session *session, moe_cancel_token *cancel, moe_error *error) {
  return with_session(session, error, [&](SessionCore &core) { core.cancel = cancel_core(cancel); });
}

int32_t moe_session_set_adapter(moe_session *session, const moe_lora *lora, moe_error *error) {
  return fence(error, [&] {
    const auto core = core_of(session, "moe_session");
    const Writing writing(core->use, "moe_session");
    const auto adapter = lora ? core_of(lora, "moe_lora") : nullptr;
    if (adapter) check_base(*core, *adapter->base, "moe_lora");
    core->session->set_adapter(adapter ? adapter->adapter : nullptr);
    core->lora = adapter;
    core->router = nullptr;
    core->mixture = nullptr;
  });
}

int32_t moe_session_set_mixture(moe_session *session, const moe_model *bundle, moe_error *error) {
  return fence(error, [&] {
    const auto core = core_of(session, "moe_session");
    const Writing writing(core->use, "moe_session");
    const auto model = bundle ? core_of(bundle, "moe_model") : nullptr;
    if (model) check_base(*core, *model->base, "moe_model");
    if (model && !model->mixture) moe::fail(moe::Code::invalid, "moe_session_set_mixture: the model is no bundle");
    set_mixture(*core, model.get(), "");
  });
}

int32_t moe_session_set_router(moe_session *session, const moe_router *router, moe_error *error) {
  return fence(error, [&] {
    const auto core = core_of(session, "moe_session");
    const Writing writing(core->use, "moe_session");
    set_router(*core, core_of(router, "moe_router"));
  });
}

int32_t moe_session_append(moe_session *session, const int32_t *tokens, size_t count, moe_error *error) {
  return with_session(session, error,
                      [&](SessionCore &core) { core.session->append(array(tokens, count, "tokens"), cancel_of(core.cancel)); });
}

int32_t moe_session_append_text(moe_session *session, const char *text, size_t length, int32_t flags, moe_error *error) {
  return with_session(session, error, [&](SessionCore &core) {
    core.session->append_text(content(text, length, "text"), (flags & MOE_TEXT_ADD_SPECIAL) != 0,
                              (flags & MOE_TEXT_PARSE_SPECIAL) != 0, cancel_of(core.cancel));
  });
}

int32_t moe_session_append_messages(moe_session *session, const char *messages, size_t length, int32_t add_generation_prompt,
                                    moe_error *error) {
  return with_session(session, error, [&](SessionCore &core) {
    const ChatRequest request = parse_chat_request(content(messages, length, "messages"));
    core.session->append_messages(request.messages, add_generation_prompt != 0 || request.add_generation_prompt,
                                  cancel_of(core.cancel));
  });
}

int32_t moe_session_next(moe_session *session, moe_piece *out, moe_error *error) {
  return with_session(session, error, [&](SessionCore &core) {
    check_struct(out, "out");
    give_piece(core, core.session->next(core.sampler, cancel_of(core.cancel)), out);
  });
}

int32_t moe_sessions_next(moe_session *const *sessions, size_t count, moe_piece *pieces, moe_error *error) {
  return fence(error, [&] { next_of_all(sessions, count, pieces); });
}

int32_t moe_session_logits(const moe_session *session, float *buffer, size_t capacity, size_t *needed, moe_error *error) {
  if (needed) *needed = 0;
  return with_session(session, error, [&](SessionCore &core) {
    copy_out(core.session->logits(cancel_of(core.cancel)), buffer, capacity, needed);
  });
}

int32_t moe_session_tokens(const moe_session *session, int32_t *buffer, size_t capacity, size_t *needed, moe_error *error) {
  if (needed) *needed = 0;
  return with_session(session, error, [&](SessionCore &core) {
    copy_out(std::span<const int32_t>(core.session->tokens()), buffer, capacity, needed);
  });
}

int32_t moe_session_truncate(moe_session *session, int64_t size, moe_error *error) {
  return with_session(session, error, [&](SessionCore &core) { core.session->truncate(size); });
}

int32_t moe_session_fork(const moe_session *session, moe_session **out, moe_error *error) {
  if (out) *out = nullptr;
  return with_session(session, error, [&](SessionCore &core) {
    required_out(out, "out");
    *out = make_handle<moe_session>(fork_session(core));
  });
}

uint64_t moe_session_bytes(const moe_session *session) {
  SessionCore *core = peek(session);
  uint64_t bytes = 0;
  fence(nullptr, [&] {
    if (!core) return;
    const Writing writing(core->use, "moe_session");
    bytes = core->session->bytes();
  });
  return bytes;
}

void moe_session_free(moe_session **session) { free_handle(session); }

int32_t moe_generate(moe_session *session, const char *prompt, size_t prompt_length, const moe_options *options,
                     moe_token_callback on_token, void *user, moe_generation **out, moe_error *error) {
  if (out) *out = nullptr;
  return with_session(session, error, [&](SessionCore &core) {
    const std::string_view text = content(prompt, prompt_length, "prompt");
    auto result = std::make_shared<GenerationCore>();
    result->generation = generate(core, text, *OptionsOf(options), on_token, user);
    if (out) *out = make_handle<moe_generation>(std::move(result));
  });
}

}  // extern "C"
