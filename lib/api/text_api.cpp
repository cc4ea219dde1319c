// moe_text_*, moe_cancel_token_*, moe_generation_*: small handles and their accessors, see moe.h.
#include "api/handles.h"

namespace moe::api {

moe_text *new_text(std::string text) { return make_handle<moe_text>(std::make_shared<const std::string>(std::move(text))); }
moe_text *new_json(const Json &json) { return new_text(json.dump(2)); }

std::shared_ptr<CancelCore> cancel_core(moe_cancel_token *token) { return token ? core_of(token, "moe_cancel_token") : nullptr; }

}  // namespace moe::api

using namespace moe::api;

namespace {

template <class T>
const T *give(const std::vector<T> *values, size_t *count) {
  if (count) *count = values ? values->size() : 0;
  return values && !values->empty() ? values->data() : nullptr;
}

const moe::Generation *peek_generation(const moe_generation *handle) {
  const GenerationCore *core = peek(handle);
  return core ? &core->generation : nullptr;
}

}  // namespace

extern "C" {

const char *moe_text_data(const moe_text *text) {
  const std::string *core = peek(text);
  return core ? core->c_str() : nullptr;
}

size_t moe_text_length(const moe_text *text) {
  const std::string *core = peek(text);
  return core ? core->size() : 0;
}

void moe_text_free(moe_text **text) { free_handle(text); }

int32_t moe_cancel_token_create(moe_cancel_token **out, moe_error *error) {
  return fence(error, [&] {
    required_out(out, "out");
    *out = make_handle<moe_cancel_token>(std::make_shared<CancelCore>());
  });
}

void moe_cancel_token_fire(moe_cancel_token *cancel) {
  if (CancelCore *core = peek(cancel)) core->cancel.fire();
}

int32_t moe_cancel_token_fired(const moe_cancel_token *cancel) {
  const CancelCore *core = peek(cancel);
  return core && core->cancel.fired();
}

void moe_cancel_token_free(moe_cancel_token **cancel) { free_handle(cancel); }

const char *moe_generation_text(const moe_generation *generation, size_t *length) {
  const moe::Generation *result = peek_generation(generation);
  if (length) *length = result ? result->text.size() : 0;
  return result ? result->text.c_str() : nullptr;
}

const int32_t *moe_generation_tokens(const moe_generation *generation, size_t *count) {
  const moe::Generation *result = peek_generation(generation);
  return give(result ? &result->tokens : nullptr, count);
}

const double *moe_generation_log_probabilities(const moe_generation *generation, size_t *count) {
  const moe::Generation *result = peek_generation(generation);
  return give(result ? &result->log_probabilities : nullptr, count);
}

const float *moe_generation_routing(const moe_generation *generation, size_t *count) {
  const moe::Generation *result = peek_generation(generation);
  return give(result ? &result->routing : nullptr, count);
}

const char *moe_generation_finish_reason(const moe_generation *generation) {
  const moe::Generation *result = peek_generation(generation);
  return result ? result->finish_reason.c_str() : nullptr;
}

int64_t moe_generation_prompt_tokens(const moe_generation *generation) {
  const moe::Generation *result = peek_generation(generation);
  return result ? result->prompt_tokens : 0;
}

double moe_generation_prompt_seconds(const moe_generation *generation) {
  const moe::Generation *result = peek_generation(generation);
  return result ? result->prompt_seconds : 0;
}

double moe_generation_seconds(const moe_generation *generation) {
  const moe::Generation *result = peek_generation(generation);
  return result ? result->generate_seconds : 0;
}

void moe_generation_free(moe_generation **generation) { free_handle(generation); }

}  // extern "C"
