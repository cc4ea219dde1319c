// moe_model_*: loading, sizes, tokenizer; see moe.h.
#include <algorithm>

#include "api/handles.h"
#include "base/file.h"

namespace moe::api {

ModelOptions model_options(const Options &options) {
  ModelOptions result;
  result.compute = options.text("compute");
  result.device = options.text("device");
  result.threads = static_cast<int>(options.integer("threads"));
  result.bind_threads = options.flag("bind_threads");
  result.mmap = options.flag("mmap");
  result.base_model_name = options.text("base_model_name");
  result.log = options.log;
  return result;
}

namespace {

std::shared_ptr<ModelCore> model_core(std::shared_ptr<const BaseModel> base) {
  auto core = std::make_shared<ModelCore>();
  core->base = std::move(base);
  core->architecture_fingerprint = core->base->architecture_fingerprint();
  return core;
}

std::shared_ptr<ModelCore> bundle_core(std::shared_ptr<const BaseModel> base, const std::string &folder, bool strict_base) {
  auto core = model_core(std::move(base));
  core->bundle = read_bundle_config(folder);
  core->bundle_path = folder;
  core->mixture = std::make_shared<Mixture>(load_bundle(*core->base, folder, strict_base));
  return core;
}

std::shared_ptr<ModelCore> load(const std::string &path, const Options &options, const Cancel *cancel) {
  check_cancel(cancel);
  if (!is_bundle(path)) return model_core(BaseModel::load(path, model_options(options), cancel));
  const std::string base_path = options.text("model");
  if (base_path.empty()) {
    const BundleConfig config = read_bundle_config(path);
    fail(Code::invalid, path, ": a bundle needs its base model as the option base_model (built on ", config.base_model,
         ", last seen at ", config.base_model_path, ")");
  }
  if (is_bundle(base_path)) fail(Code::invalid, "base_model: ", base_path, " is a bundle; expected a base model");
  return bundle_core(BaseModel::load(base_path, model_options(options), cancel), path, options.flag("strict_base"));
}

Json tokenizer_json(const BaseModel &model) {
  const Tokenizer *tokenizer = model.tokenizer();
  if (!tokenizer) return Json();
  Json ends = Json::array();
  for (int32_t token : tokenizer->end_tokens()) ends.push(token);
  return Json::object({{"tokens", tokenizer->size()},
                       {"bos", tokenizer->bos()},
                       {"eos", tokenizer->eos()},
                       {"adds_bos", tokenizer->adds_bos()},
                       {"end_tokens", std::move(ends)},
                       {"has_chat_template", !tokenizer->chat_template().empty()}});
}

Json bundle_json(const ModelCore &core) {
  if (!core.mixture) return Json();
  Json domains = Json::array();
  for (const std::string &domain : core.mixture->domains) domains.push(domain);
  Json json = Json::object({{"path", core.bundle_path}, {"domains", std::move(domains)}, {"gating", core.bundle.gating}});
  if (core.mixture->router) {
    const RouterConfig &router = core.mixture->router->config();
    json.set("top_k", router.top_k)
        .set("form", gate_form_name(router.form))
        .set("temperature", static_cast<double>(router.temperature));
    json.set("ffn_routers", router.ffn).set("attention_routers", router.attention);
  } else {
    json.set("fallback_domain", core.bundle.fallback_domain.empty() ? "base" : core.bundle.fallback_domain);
  }
  return json;
}

Json info(const ModelCore &core) {
  const BaseModel &model = *core.base;
  const DecoderConfig &config = model.config();
  return Json::object({{"path", model.path()},
                       {"name", model.name()},
                       {"family", config.family},
                       {"layers", config.layers},
                       {"hidden_size", config.hidden},
                       {"intermediate_size", config.intermediate},
                       {"heads", config.heads},
                       {"kv_heads", config.kv_heads},
                       {"head_dimension", config.head_dimension},
                       {"vocabulary_size", config.vocabulary},
                       {"max_positions", config.max_positions},
                       {"parameters", model.parameters()},
                       {"weight_bytes", model.weight_bytes()},
                       {"compute", model.inference_compute()},
                       {"threads", model.pool().threads()},
                       {"backend", model.backend().name()},
                       {"architecture_fingerprint", core.architecture_fingerprint},
                       {"weights_fingerprint", model.weights_fingerprint()},
                       {"tokenizer", tokenizer_json(model)},
                       {"bundle", bundle_json(core)}});
}

const DecoderConfig *peek_config(const moe_model *model) {
  const ModelCore *core = peek(model);
  return core ? &core->base->config() : nullptr;
}

const Tokenizer *peek_tokenizer(const moe_model *model) {
  const ModelCore *core = peek(model);
  return core ? core->base->tokenizer() : nullptr;
}

}  // namespace
}  // namespace moe::api

using namespace moe::api;

extern "C" {

int32_t moe_model_load(const char *path, const moe_options *options, moe_cancel_token *cancel, moe_model **out,
                       moe_error *error) {
  return fence(error, [&] {
    required_out(out, "out");
    const auto token = cancel_core(cancel);
    *out = make_handle<moe_model>(load(required_text(path, "path"), *OptionsOf(options), cancel_of(token)));
  });
}

int32_t moe_model_open_bundle(const moe_model *base, const char *folder, const moe_options *options, moe_model **out,
                              moe_error *error) {
  return fence(error, [&] {
    required_out(out, "out");
    const auto core = core_of(base, "moe_model");
    *out =
        make_handle<moe_model>(bundle_core(core->base, required_text(folder, "folder"), OptionsOf(options)->flag("strict_base")));
  });
}

int32_t moe_model_info(const moe_model *model, moe_text **out, moe_error *error) {
  return fence(error, [&] {
    required_out(out, "out");
    *out = new_json(info(*core_of(model, "moe_model")));
  });
}

int64_t moe_model_vocabulary_size(const moe_model *model) {
  const moe::DecoderConfig *config = peek_config(model);
  return config ? config->vocabulary : 0;
}

int64_t moe_model_hidden_size(const moe_model *model) {
  const moe::DecoderConfig *config = peek_config(model);
  return config ? config->hidden : 0;
}

int64_t moe_model_layers(const moe_model *model) {
  const moe::DecoderConfig *config = peek_config(model);
  return config ? config->layers : 0;
}

int64_t moe_model_max_positions(const moe_model *model) {
  const moe::DecoderConfig *config = peek_config(model);
  return config ? config->max_positions : 0;
}

int64_t moe_model_parameters(const moe_model *model) {
  const ModelCore *core = peek(model);
  return core ? core->base->parameters() : 0;
}

uint64_t moe_model_bytes(const moe_model *model) {
  const ModelCore *core = peek(model);
  return core ? core->base->weight_bytes() : 0;
}

int64_t moe_model_experts(const moe_model *model) {
  const ModelCore *core = peek(model);
  return core && core->mixture ? static_cast<int64_t>(core->mixture->experts.size()) : 0;
}

const char *moe_model_domain(const moe_model *model, int64_t index) {
  const ModelCore *core = peek(model);
  if (!core || index < 0) return nullptr;
  if (index == 0) return "base";
  if (!core->mixture || index > static_cast<int64_t>(core->mixture->domains.size())) return nullptr;
  return core->mixture->domains[static_cast<size_t>(index - 1)].c_str();
}

const char *moe_model_architecture_fingerprint(const moe_model *model) {
  const ModelCore *core = peek(model);
  return core ? core->architecture_fingerprint.c_str() : nullptr;
}

const char *moe_model_weights_fingerprint(const moe_model *model) {
  const ModelCore *core = peek(model);
  return core ? core->base->weights_fingerprint().c_str() : nullptr;
}

void moe_model_free(moe_model **model) { free_handle(model); }

int32_t moe_model_tokenize(const moe_model *model, const char *text, size_t length, int32_t flags, int32_t *buffer,
                           size_t capacity, size_t *needed, moe_error *error) {
  return fence(error, [&] {
    if (needed) *needed = 0;
    const auto core = core_of(model, "moe_model");
    const moe::EncodeOptions options{(flags & MOE_TEXT_ADD_SPECIAL) != 0, (flags & MOE_TEXT_PARSE_SPECIAL) != 0};
    const std::vector<int32_t> ids = core->base->require_tokenizer().encode(content(text, length, "text"), options);
    copy_out(std::span<const int32_t>(ids), buffer, capacity, needed);
  });
}

int32_t moe_model_detokenize(const moe_model *model, const int32_t *tokens, size_t count, int32_t flags, char *buffer,
                             size_t capacity, size_t *needed, moe_error *error) {
  return fence(error, [&] {
    if (needed) *needed = 0;
    const auto core = core_of(model, "moe_model");
    const std::span<const int32_t> ids = array(tokens, count, "tokens");
    const std::string text =
        core->base->require_tokenizer().decode({ids.begin(), ids.end()}, (flags & MOE_TEXT_SKIP_SPECIAL) != 0);
    copy_out(std::span<const char>(text), buffer, capacity, needed);
  });
}

int32_t moe_model_bos(const moe_model *model) {
  const moe::Tokenizer *tokenizer = peek_tokenizer(model);
  return tokenizer ? tokenizer->bos() : -1;
}

int32_t moe_model_eos(const moe_model *model) {
  const moe::Tokenizer *tokenizer = peek_tokenizer(model);
  return tokenizer ? tokenizer->eos() : -1;
}

int32_t moe_model_is_end(const moe_model *model, int32_t token) {
  const moe::Tokenizer *tokenizer = peek_tokenizer(model);
  if (!tokenizer) return 0;
  const std::vector<int32_t> &ends = tokenizer->end_tokens();
  return std::find(ends.begin(), ends.end(), token) != ends.end();
}

}  // extern "C"
