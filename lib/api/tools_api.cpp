// moe_version, moe_features, moe_inspect, moe_dump, moe_doctor, moe_sha256: see moe.h.
#include <unistd.h>

#include <algorithm>

#include "api/handles.h"
#include "base/file.h"
#include "base/processors.h"
#include "base/sha256.h"
#include "cpu/kernels.h"
#include "cpu/measure.h"
#include "formats/codec.h"
#include "formats/packed.h"
#include "model/dump.h"
#include "model/inspect.h"
#include "tensor/cuda.h"

namespace moe::api {
namespace {

struct Feature {
  uint64_t bit;
  const char *name;
  bool present;
};

std::vector<Feature> features() {
  const auto level = [](const char *name) { return cpu::kernels_of(name) != nullptr; };
  return {{MOE_FEATURE_PCRE2, "pcre2", MOE_HAVE_PCRE2 != 0},
          {MOE_FEATURE_UTF8PROC, "utf8proc", MOE_HAVE_UTF8PROC != 0},
          {MOE_FEATURE_ZLIB, "zlib", codec_available(Codec::gzip)},
          {MOE_FEATURE_ZSTD, "zstd", codec_available(Codec::zstd)},
          {MOE_FEATURE_SNAPPY, "snappy", codec_available(Codec::snappy)},
          {MOE_FEATURE_LZ4, "lz4", codec_available(Codec::lz4)},
          {MOE_FEATURE_BROTLI, "brotli", codec_available(Codec::brotli)},
          {MOE_FEATURE_AVX2, "avx2", level("avx2")},
          {MOE_FEATURE_AVX512, "avx512", level("avx512")},
          {MOE_FEATURE_AVX512_BF16, "avx512_bf16", level("avx512_bf16")},
          {MOE_FEATURE_AMX, "amx", level("amx")},
          {MOE_FEATURE_AVX2_VNNI, "avx2_vnni", level("avx2_vnni")},
          {MOE_FEATURE_AVX512_VNNI, "avx512_vnni", level("avx512_vnni")},
          {MOE_FEATURE_NEON, "neon", level("neon")},
          {MOE_FEATURE_NEON_DOTPROD, "neon_dotprod", level("neon_dotprod")},
          {MOE_FEATURE_NEON_I8MM, "neon_i8mm", level("neon_i8mm")}};
}

// The name of the first device, or what is missing.
std::string cuda_device() {
  try {
    return open_cuda("cuda")->name();
  } catch (const Error &error) {
    return error.message();
  }
}

Json doctor(const Options &options) {
  Json list = Json::object();
  for (const Feature &feature : features()) list.set(feature.name, feature.present);
  const auto pages = [](int name) { return static_cast<uint64_t>(std::max(0L, sysconf(name))); };
  Json json = Json::object({{"version", moe_version()},
                            {"abi_version", moe_abi_version()},
                            {"features", std::move(list)},
                            {"cpu_level", cpu::best_kernels().level},
                            {"cuda", cuda_device()},
                            {"threads", usable_processors()},
                            {"memory_bytes", pages(_SC_PHYS_PAGES) * pages(_SC_PAGESIZE)}});
#ifdef _SC_AVPHYS_PAGES
  json.set("free_memory_bytes", pages(_SC_AVPHYS_PAGES) * pages(_SC_PAGESIZE));
#endif
  if (options.flag("measure")) {
    const cpu::MeasuredRates rates = cpu::measure_rates(static_cast<int>(options.integer("threads")));
    json.set("measured", Json::object({{"f32_flops_per_s", rates.f32_flops_per_s},
                                       {"bf16_flops_per_s", rates.bf16_flops_per_s},
                                       {"q8_0_flops_per_s", rates.q8_0_flops_per_s},
                                       {"memory_bytes_per_s", rates.memory_bytes_per_s}}));
  }
  return json;
}

Trainable trainable_of(const Overlay &overlay, const std::string &name) {
  if (name == "router") return Trainable::router;
  if (name == "joint") return Trainable::joint;
  if (name == "adapter") return overlay.mixture ? Trainable::experts : Trainable::adapter;
  return overlay.mixture ? Trainable::joint : Trainable::adapter;
}

// The router losses count where their weight is given.
RouterLosses losses_of(const Options &options) {
  RouterLosses losses;
  if (options.has("balance_loss_weight")) losses.balance = static_cast<float>(options.number("balance_loss_weight"));
  if (options.has("z_loss_weight")) losses.z = static_cast<float>(options.number("z_loss_weight"));
  if (options.has("supervised_weight")) losses.supervised = static_cast<float>(options.number("supervised_weight"));
  losses.target_usage = options.numbers("target_usage");
  return losses;
}

void dump(const ModelCore &model, const LoraCore *lora, const Options &options, const Cancel *cancel) {
  // Gradients go into memory that belongs to this call alone: a copy of what is in force.
  std::shared_ptr<Adapter> adapter = lora ? std::make_shared<Adapter>(*lora->adapter) : nullptr;
  Mixture mixture;
  Overlay overlay;
  overlay.adapter = adapter.get();
  if (!lora && model.mixture) {
    mixture = *model.mixture;
    if (!mixture.router) fail(Code::state, "moe_dump: a bundle with domain gating needs the adapter of a domain");
    mixture.router = std::make_shared<Router>(*mixture.router);
    for (auto &expert : mixture.experts) expert = std::make_shared<Adapter>(*expert);
    overlay.mixture = &mixture;
  }
  DumpRequest request;
  const std::vector<std::string> what = options.list("what");
  const auto wants = [&](const char *name) { return std::find(what.begin(), what.end(), name) != what.end(); };
  request.logits = wants("logits");
  request.hidden_states = wants("hidden_states");
  request.token_nll = wants("token_nll");
  request.router = wants("router");
  request.gradients = wants("gradients");
  request.trainable = trainable_of(overlay, options.text("trainable"));
  request.losses = losses_of(options);
  if (request.router && !overlay.mixture) fail(Code::invalid, "what: 'router' needs a bundle");
  const PackedBatch batch = read_packed_batch(options.required_text("input"));
  dump_pass(*model.base, overlay, batch, request, options.required_text("output"), cancel);
}

// "<shown>\n<sha256 of the content>\n"
void add_file(Sha256 &hash, const std::string &path, const std::string &shown) {
  const std::string line = shown + "\n" + sha256_file(path) + "\n";
  hash.update(line.data(), line.size());
}

// Every file in name order, with its path below the folder.
void add_folder(Sha256 &hash, const std::string &folder, const std::string &inner) {
  for (const std::string &name : list_folder(folder)) {
    const std::string path = join_path(folder, name), shown = inner.empty() ? name : inner + "/" + name;
    if (folder_exists(path)) add_folder(hash, path, shown);
    else if (file_exists(path)) add_file(hash, path, shown);
  }
}

std::string content_hash(const std::string &path) {
  Sha256 hash;
  if (folder_exists(path)) {
    add_folder(hash, path, "");
    return hash.hex();
  }
  const std::vector<std::string> files = file_exists(path) ? std::vector<std::string>() : matching_files(path);
  if (files.empty()) return sha256_file(path);
  for (const std::string &file : files) add_file(hash, file, base_name(file));
  return hash.hex();
}

}  // namespace
}  // namespace moe::api

using namespace moe::api;

extern "C" {

const char *moe_version(void) { return MOE_VERSION_TEXT; }
int32_t moe_abi_version(void) { return MOE_ABI_VERSION; }

uint64_t moe_features(void) {
  uint64_t bits = 0;
  fence(nullptr, [&] {
    for (const Feature &feature : features()) bits |= feature.present ? feature.bit : 0;
  });
  return bits;
}

int32_t moe_inspect(const char *path, moe_text **out, moe_error *error) {
  return fence(error, [&] {
    required_out(out, "out");
    *out = new_json(moe::inspect(required_text(path, "path")));
  });
}

int32_t moe_dump(const moe_model *model, const moe_lora *lora, const moe_options *options, moe_cancel_token *cancel,
                 moe_error *error) {
  return fence(error, [&] {
    const auto core = core_of(model, "moe_model");
    const auto adapter = lora ? core_of(lora, "moe_lora") : nullptr;
    if (adapter && adapter->base != core->base) moe::fail(moe::Code::invalid, "moe_lora: it was made on another model");
    const Reading reading(adapter ? &adapter->use : nullptr, "moe_lora");
    const auto token = cancel_core(cancel);
    dump(*core, adapter.get(), *OptionsOf(options), cancel_of(token));
  });
}

int32_t moe_doctor(const moe_options *options, moe_text **out, moe_error *error) {
  return fence(error, [&] {
    required_out(out, "out");
    *out = new_json(doctor(*OptionsOf(options)));
  });
}

int32_t moe_sha256(const char *path, moe_text **out, moe_error *error) {
  return fence(error, [&] {
    required_out(out, "out");
    *out = new_text(content_hash(required_text(path, "path")));
  });
}

}  // extern "C"
