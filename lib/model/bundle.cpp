#include "model/bundle.h"

#include <algorithm>
#include <cstdio>
#include <fstream>

#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "model/bundle_files.h"

namespace moe {
namespace {

// Copies and returns the sha256 of what was written.
std::string copy_file(const std::string &from, const std::string &to) {
  const File source(from);
  std::ofstream out(to, std::ios::binary | std::ios::trunc);
  Sha256 hash;
  std::vector<char> block(std::min<uint64_t>(source.size(), 1 << 20));
  for (uint64_t at = 0; at < source.size(); at += block.size()) {
    block.resize(std::min<uint64_t>(block.size(), source.size() - at));
    source.read(at, block.data(), block.size());
    hash.update(block.data(), block.size());
    out.write(block.data(), static_cast<std::streamsize>(block.size()));
  }
  out.close();
  if (!out) fail(Code::io, to, ": cannot write");
  return hash.hex();
}

void check_build(const BundleBuild &build, const std::string &folder) {
  constexpr const char *kLater[] = {"sequence", "xlora", "arrow", "phatgoose", "centroid", "logistic"};
  if (std::find(std::begin(kLater), std::end(kLater), build.gating) != std::end(kLater)) {
    fail(Code::unsupported, "gating: '", build.gating, "' is not built in yet; expected token or domain");
  }
  if (build.gating != "token" && build.gating != "domain") {
    fail(Code::invalid, "gating: expected token or domain, found '", build.gating, "'");
  }
  if (build.adapters.empty()) fail(Code::invalid, "adapters: expected at least one");
  if (folder_exists(folder) && !is_bundle(folder) && !list_folder(folder).empty()) {
    fail(Code::invalid, folder, ": exists and is no bundle; it would be replaced");
  }
}

// Writes the files of a bundle into a temporary folder and keeps the records and the list of checks.
class BundleWriter {
 public:
  BundleWriter(const BaseModel &model, const BundleBuild &build, const std::string &folder)
      : model_(model), build_(build), out_(folder) {
    for (const auto &[domain, path] : build.adapters) config_.domains.push_back(domain);
    try {
      check_domain_names(config_.domains, "adapters");
    } catch (const Error &error) {
      fail(Code::invalid, error.message());
    }
    config_.base_model = model.name();
    config_.base_model_path = model.path();
    config_.architecture_fingerprint = model.architecture_fingerprint();
    config_.weights_fingerprint = model.weights_fingerprint();
    config_.gating = build.gating;
    config_.fallback_domain = build.fallback_domain == "base" ? "" : build.fallback_domain;
    const auto &domains = config_.domains;
    if (!config_.fallback_domain.empty() && std::find(domains.begin(), domains.end(), config_.fallback_domain) == domains.end()) {
      fail(Code::invalid, "fallback_domain: '", build.fallback_domain, "' is none of the domains");
    }
    check("base model", text(model.path(), ", weights fingerprint ", model.weights_fingerprint()));
  }

  Json write() {
    const std::string time = utc_now();
    add_adapters();
    if (config_.gating == "token") add_router();
    Json mapping = json_of_format("libmoe.domain_mapping");
    add_domain_mapping(mapping, config_.domains);
    add_json(kDomainMapping, mapping);
    add_json(kRouterConfig, router_config_json(config_));
    add_json(kModelInfo, model_info(time));
    Json summary = json_of_format("libmoe.build_summary");
    summary.set("build_time", time);
    summary.set("result", "good");
    summary.set("config", summary_config());
    summary.set("checks", std::move(checks_));
    add_json(kBuildSummary, summary);
    out_.write(kMoeConfig, bundle_config_json(config_).dump(2) + "\n");
    out_.commit();
    return summary;
  }

 private:
  void check(std::string name, std::string detail) {
    checks_.push(Json::object({{"check", std::move(name)}, {"good", true}, {"detail", std::move(detail)}}));
  }

  void add_json(const char *name, const Json &json) {
    const std::string content = json.dump(2) + "\n";
    out_.write(name, content);
    config_.files[name] = {sha256_hex(content.data(), content.size()), ""};
  }

  void add_adapters() {
    config_.router.ffn = config_.router.attention = false;
    for (const auto &[domain, source] : build_.adapters) {
      const std::shared_ptr<Adapter> adapter = Adapter::load(model_, source, build_.strict_base);
      config_.router.ffn |= adapter->targets_ffn();
      config_.router.attention |= adapter->targets_attention();
      const std::string path = join_path("adapters", domain);
      make_folders(join_path(out_.path(), path));
      for (const char *name : kAdapterFiles) {
        const std::string inner = join_path(path, name);
        config_.files[inner] = {copy_file(join_path(source, name), join_path(out_.path(), inner)), ""};
      }
      config_.adapter_paths.push_back(path);
      check(text("adapter ", domain),
            text(source, ": ", adapter->size(), " parameters, largest rank ", adapter->largest_rank(),
                 adapter->delta_is_zero() ? ", changes nothing: its delta is zero" : ""));
    }
  }

  void add_router() {
    const bool ffn = config_.router.ffn, attention = config_.router.attention;
    config_.router = build_.router;
    config_.router.ffn = ffn;
    config_.router.attention = attention;
    config_.router.experts = static_cast<int64_t>(config_.domains.size());
    config_.router = router_shape_of(config_, model_);
    config_.router_file = kRouterWeights;
    const std::shared_ptr<Router> router = build_.router_file.empty() ? Router::create(config_.router, build_.seed)
                                                                      : Router::load(build_.router_file, config_.router);
    const std::string content = router->encode();
    out_.write(kRouterWeights, content);
    config_.files[kRouterWeights] = {sha256_hex(content.data(), content.size()), ""};
    check("router", build_.router_file.empty() ? text("random, seed ", build_.seed) : build_.router_file);
  }

  Json domain_list() const {
    Json domains = Json::array();
    for (const std::string &domain : config_.domains) domains.push(domain);
    return domains;
  }

  Json model_info(const std::string &time) const {
    Json json = json_of_format("libmoe.model_info"), paths = Json::object();
    for (size_t i = 0; i < config_.domains.size(); i++) paths.set(config_.domains[i], config_.adapter_paths[i]);
    json.set("model_type", "mixture_of_adapters");
    json.set("version", MOE_VERSION_TEXT);
    json.set("base_model", config_.base_model);
    json.set("num_experts", static_cast<uint64_t>(config_.domains.size()));
    json.set("domains", domain_list());
    json.set("gating_strategy", config_.gating);
    json.set("build_time", time);
    json.set("adapter_paths", std::move(paths));
    return json;
  }

  Json summary_config() const {
    Json json = Json::object({{"base_model", config_.base_model}, {"gating_strategy", config_.gating}}),
         adapters = Json::object();
    for (const auto &[domain, source] : build_.adapters) adapters.set(domain, source);
    json.set("adapters", std::move(adapters));
    if (config_.gating == "token") add_router_settings(json, config_.router);
    json.set("seed", build_.seed);
    json.set("strict_base", build_.strict_base);
    return json;
  }

  const BaseModel &model_;
  const BundleBuild &build_;
  AtomicFolder out_;
  BundleConfig config_;
  Json checks_ = Json::array();
};

}  // namespace

Json build_bundle(const BaseModel &model, const BundleBuild &build, const std::string &folder) {
  check_build(build, folder);
  return BundleWriter(model, build, folder).write();
}

Mixture load_bundle(const BaseModel &model, const std::string &folder, bool strict_base) {
  const BundleConfig config = read_bundle_config(folder);
  check_bundle_base(folder, config, model, strict_base);
  Mixture mixture;
  mixture.domains = config.domains;
  for (const std::string &path : config.adapter_paths) {
    for (const char *name : kAdapterFiles) check_bundle_file(folder, join_path(path, name), config);
    mixture.experts.push_back(Adapter::load(model, join_path(folder, path), strict_base));
  }
  if (config.gating == "domain") return mixture;
  check_routers(config, mixture);
  check_bundle_file(folder, config.router_file, config);
  mixture.router = Router::load(join_path(folder, config.router_file), router_shape_of(config, model));
  return mixture;
}

}  // namespace moe
