// moe_router_*: see moe.h.
#include "api/handles.h"
#include "base/file.h"
#include "model/router_alone.h"

namespace moe::api {

RouterConfig router_settings(const Options &options, RouterConfig otherwise) {
  if (options.has("top_k")) otherwise.top_k = options.integer("top_k");
  if (options.has("form")) otherwise.form = parse_gate_form(options.text("form"));
  if (options.has("temperature")) otherwise.temperature = static_cast<float>(options.number("temperature"));
  return otherwise;
}

namespace {

std::shared_ptr<RouterCore> router_core(std::shared_ptr<Router> router) {
  auto core = std::make_shared<RouterCore>();
  core->router = std::move(router);
  return core;
}

std::shared_ptr<RouterCore> load(const std::string &path, const Options &options) {
  std::string file = path;
  RouterConfig settings;
  if (is_bundle(path)) {
    const BundleConfig config = read_bundle_config(path);
    if (config.router_file.empty()) fail(Code::state, path, ": its gating is '", config.gating, "': it has no router");
    settings = config.router;
    file = join_path(path, config.router_file);
  }
  return router_core(Router::load(file, router_sizes(file, router_settings(options, settings))));
}

DType hidden_type(int32_t dtype) {
  switch (dtype) {
    case MOE_DTYPE_F32: return DType::f32;
    case MOE_DTYPE_BF16: return DType::bf16;
    case MOE_DTYPE_F16: return DType::f16;
    default: fail(Code::invalid, "dtype: expected MOE_DTYPE_F32, MOE_DTYPE_BF16 or MOE_DTYPE_F16, found ", dtype);
  }
}

void route(const moe_router *handle, RouterKind kind, int32_t layer, const void *hidden, int32_t dtype, int64_t rows,
           int64_t stride, int32_t *ids, float *weights) {
  RouterCore &core = *core_of(handle, "moe_router");
  const Reading reading(&core.use, "moe_router");
  const RouterConfig &config = core.router->config();
  if (!core.router->has(kind))
    fail(Code::state, "moe_router: it has no ", kind == RouterKind::ffn ? "feed-forward" : "attention", " routers");
  if (layer < 0 || layer >= config.layers) fail(Code::invalid, "layer: expected 0 to ", config.layers - 1, ", found ", layer);
  if (rows < 0) fail(Code::invalid, "rows: expected 0 or more, found ", rows);
  if (rows > 0 && (!hidden || !ids || !weights)) fail(Code::invalid, "hidden, ids, weights: NULL with ", rows, " rows");
  const DType type = hidden_type(dtype);
  const int64_t bytes = row_bytes(type, config.hidden);
  if (rows > 1 && stride < bytes) fail(Code::invalid, "row_stride_bytes: expected ", bytes, " or more, found ", stride);
  route_rows(*core.router, layer, kind, hidden, type, rows, stride, ids, weights);
}

}  // namespace
}  // namespace moe::api

using namespace moe::api;

extern "C" {

int32_t moe_router_create(const moe_model *bundle, const moe_options *options, moe_router **out, moe_error *error) {
  return fence(error, [&] {
    required_out(out, "out");
    const auto core = core_of(bundle, "moe_model");
    if (!core->mixture || !core->mixture->router)
      moe::fail(moe::Code::state, "moe_router_create: the model is no bundle with token routing");
    const OptionsOf values(options);
    const moe::RouterConfig config = router_settings(*values, core->mixture->router->config());
    *out = make_handle<moe_router>(router_core(moe::Router::create(config, static_cast<uint64_t>(values->integer("seed")))));
  });
}

int32_t moe_router_load(const char *path, const moe_options *options, moe_router **out, moe_error *error) {
  return fence(error, [&] {
    required_out(out, "out");
    *out = make_handle<moe_router>(load(required_text(path, "path"), *OptionsOf(options)));
  });
}

int32_t moe_router_save(const moe_router *router, const char *path, moe_error *error) {
  return fence(error, [&] {
    const auto core = core_of(router, "moe_router");
    const Reading reading(&core->use, "moe_router");
    core->router->save(required_text(path, "path"));
  });
}

int32_t moe_router_experts(const moe_router *router) {
  const RouterCore *core = peek(router);
  return core ? static_cast<int32_t>(core->router->config().experts) : 0;
}

int32_t moe_router_top_k(const moe_router *router) {
  const RouterCore *core = peek(router);
  return core ? static_cast<int32_t>(core->router->config().top_k) : 0;
}

int32_t moe_router_layers(const moe_router *router) {
  const RouterCore *core = peek(router);
  return core ? static_cast<int32_t>(core->router->config().layers) : 0;
}

int64_t moe_router_hidden_size(const moe_router *router) {
  const RouterCore *core = peek(router);
  return core ? core->router->config().hidden : 0;
}

int32_t moe_router_route(const moe_router *router, int32_t layer, const void *hidden, int32_t dtype, int64_t rows,
                         int64_t row_stride_bytes, int32_t *ids, float *weights, moe_error *error) {
  return fence(error, [&] { route(router, moe::RouterKind::ffn, layer, hidden, dtype, rows, row_stride_bytes, ids, weights); });
}

int32_t moe_router_route_attention(const moe_router *router, int32_t layer, const void *hidden, int32_t dtype, int64_t rows,
                                   int64_t row_stride_bytes, int32_t *ids, float *weights, moe_error *error) {
  return fence(error,
               [&] { route(router, moe::RouterKind::attention, layer, hidden, dtype, rows, row_stride_bytes, ids, weights); });
}

void moe_router_free(moe_router **router) { free_handle(router); }

}  // extern "C"
