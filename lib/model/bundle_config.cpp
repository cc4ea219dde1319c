// moe_config.json read and written, and the records of files and of the base that everything else is checked against.
#include <algorithm>
#include <cmath>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "formats/tensor_source.h"
#include "model/bundle_files.h"

namespace moe {
namespace {

constexpr const char *kReserved[] = {"base", "format", "format_version"};  // keys of domain_mapping.json

// A name from the file that must stay inside the folder.
std::string inner_path(const std::string &path, const std::string &source, const char *key) {
  if (!is_inside(path)) fail(Code::format, source, ": key '", key, "': '", path, "' leaves the folder");
  return path;
}

const Json &member_of_kind(const Json &json, const char *key, Json::Kind kind, const char *what, const std::string &source) {
  const Json &value = json.at(key, source);
  if (value.kind() != kind) fail(Code::format, source, ": key '", key, "': expected ", what);
  return value;
}

void read_domains(const Json &json, const std::string &source, BundleConfig &config) {
  const Json &domains = member_of_kind(json, "domains", Json::Kind::array, "a list of names", source);
  for (const Json &domain : domains.items()) {
    if (!domain.is_string()) fail(Code::format, source, ": key 'domains': expected a list of names");
    config.domains.push_back(domain.string());
  }
  check_domain_names(config.domains, source);
}

void read_files(const Json &json, const std::string &source, BundleConfig &config) {
  const Json &files = member_of_kind(json, "files", Json::Kind::object, "an object", source);
  for (const auto &[name, record] : files.members()) {
    const std::string place = text(source, ": key 'files': '", name, "'");
    inner_path(name, source, "files");
    config.files[name] = {record.string_at("sha256", place), record.string_or("next_sha256", "", place)};
  }
}

void read_router_settings(const Json &json, const std::string &source, BundleConfig &config) {
  config.router.experts = static_cast<int64_t>(config.domains.size());
  if (config.gating == "domain") return;
  config.router_file = inner_path(json.string_at("router_file", source), source, "router_file");
  config.router.top_k = json.integer_at("top_k", source);
  config.router.form = parse_gate_form(json.string_at("form", source));
  config.router.temperature = static_cast<float>(json.number_at("temperature", source));
  config.router.ffn = config.router.attention = false;
  for (const Json &kind : member_of_kind(json, "routers", Json::Kind::array, "a list", source).items()) {
    if (kind.is_string() && kind.string() == "ffn") config.router.ffn = true;
    else if (kind.is_string() && kind.string() == "attention") config.router.attention = true;
    else fail(Code::format, source, ": key 'routers': expected ffn or attention, found ", kind.dump());
  }
  if (const Json *usage = json.find("target_usage"); usage && !usage->is_null()) {
    config.target_usage = parse_target_usage(*usage, source, config.domains.size() + 1);
  }
}

BundleConfig read_current(const Json &json, const std::string &source) {
  const std::string format = json.string_at("format", source);
  if (format != kBundleFormat) fail(Code::format, source, ": key 'format': expected ", kBundleFormat, ", found ", format);
  if (const int64_t version = json.integer_at("format_version", source); version != kBundleVersion) {
    fail(Code::unsupported, source, ": key 'format_version': expected ", kBundleVersion, ", found ", version);
  }
  BundleConfig config;
  config.base_model = json.string_or("base_model", "", source);
  config.base_model_path = json.string_or("base_model_path", "", source);
  config.architecture_fingerprint = json.string_at("architecture_fingerprint", source);
  config.weights_fingerprint = json.string_at("weights_fingerprint", source);
  read_domains(json, source, config);
  const Json &paths = member_of_kind(json, "adapter_paths", Json::Kind::object, "an object", source);
  for (const std::string &domain : config.domains) {
    config.adapter_paths.push_back(
        inner_path(paths.string_at(domain, source + ": key 'adapter_paths'"), source, "adapter_paths"));
  }
  config.gating = json.string_at("gating_strategy", source);
  if (config.gating != "token" && config.gating != "domain") {
    fail(Code::unsupported, source, ": key 'gating_strategy': expected token or domain, found '", config.gating, "'");
  }
  config.fallback_domain = json.string_or("fallback_domain", "", source);
  read_router_settings(json, source, config);
  read_files(json, source, config);
  return config;
}

// domain -> index of the older layout, where 0 is the first expert: the domains in that order.
std::vector<std::string> domains_from_mapping(const Json &mapping, const std::string &source) {
  if (!mapping.is_object()) fail(Code::format, source, ": expected an object of domains and indices");
  std::vector<std::string> domains(mapping.size());
  std::set<int64_t> seen;
  for (const auto &[domain, index] : mapping.members()) {
    const int64_t count = static_cast<int64_t>(domains.size());
    if (!index.is_number() || index.integer() < 0 || index.integer() >= count || !seen.insert(index.integer()).second) {
      fail(Code::format, source, ": key '", domain, "': expected an index of its own from 0 to ", count - 1, ", found ",
           index.dump());
    }
    domains[static_cast<size_t>(index.integer())] = domain;
  }
  return domains;
}

// A folder without the `format` key.
BundleConfig read_older(const Json &json, const std::string &folder, const std::string &source) {
  BundleConfig config;
  Json router = Json::object();
  const std::string router_source = join_path(folder, kRouterConfig), mapping_source = join_path(folder, kDomainMapping);
  if (file_exists(router_source)) router = read_json(router_source);
  if (!router.is_object()) fail(Code::format, router_source, ": expected an object");
  config.base_model = json.string_or("base_model", "", source);
  config.base_model_path = json.string_or("base_model_path", config.base_model, source);
  if (file_exists(mapping_source)) config.domains = domains_from_mapping(read_json(mapping_source), mapping_source);
  else if (const Json *mapping = router.find("domain_mapping")) config.domains = domains_from_mapping(*mapping, router_source);
  else read_domains(json, source, config);
  check_domain_names(config.domains, source);

  const std::string gating = json.string_or("gating_strategy", router.string_or("strategy", "", router_source), source);
  const std::string selection = json.string_or("expert_selection", "", source);
  if (gating != "top-1_hard" && gating != "domain" && selection != "top-1_hard") {
    fail(Code::unsupported, source, ": key 'gating_strategy': expected top-1_hard in a folder without 'format', found '", gating,
         "'");
  }
  config.gating = "domain";
  config.fallback_domain = router.string_or("fallback_domain", json.string_or("fallback_domain", "", source), router_source);
  if (config.fallback_domain == "base") config.fallback_domain.clear();
  config.router.experts = static_cast<int64_t>(config.domains.size());

  const Json *paths = json.find("adapter_paths");
  for (const std::string &domain : config.domains) {
    const Json *path = paths && paths->is_object() ? paths->find(domain) : nullptr;
    const std::string copy = join_path("adapters", domain);
    if (path && path->is_string() && is_inside(path->string()) && folder_exists(join_path(folder, path->string()))) {
      config.adapter_paths.push_back(path->string());
    } else if (folder_exists(join_path(folder, copy))) {
      config.adapter_paths.push_back(copy);
    } else {
      fail(Code::format, source, ": domain '", domain, "': no adapter inside the folder; expected ", copy, ", found ",
           path ? path->dump() : "no path");
    }
  }
  return config;
}

}  // namespace

void check_domain_names(const std::vector<std::string> &domains, const std::string &source) {
  if (domains.empty()) fail(Code::format, source, ": names no domain");
  std::set<std::string> seen;
  for (const std::string &name : domains) {
    const bool reserved = std::find(std::begin(kReserved), std::end(kReserved), name) != std::end(kReserved);
    if (!is_plain_name(name) || !is_printable(name) || reserved) {
      fail(Code::format, source, ": '", is_printable(name) ? name : "?", "' cannot be the name of a domain");
    }
    if (!seen.insert(name).second) fail(Code::format, source, ": the domain '", name, "' occurs twice");
  }
}

std::vector<float> parse_target_usage(const Json &json, const std::string &source, size_t entries) {
  std::vector<float> usage;
  if (json.is_array()) {
    for (const Json &share : json.items()) usage.push_back(share.is_number() ? static_cast<float>(share.number()) : 0);
  }
  if (usage.size() != entries || !std::all_of(usage.begin(), usage.end(), [](float x) { return x > 0 && x <= 1; })) {
    fail(Code::format, source, ": key 'target_usage': expected ", entries, " shares above 0, found ", json.dump());
  }
  return usage;
}

bool is_bundle(const std::string &path) { return folder_exists(path) && file_exists(join_path(path, kMoeConfig)); }

BundleConfig read_bundle_config(const std::string &folder) {
  const std::string source = join_path(folder, kMoeConfig);
  const Json json = read_json(source);
  if (!json.is_object()) fail(Code::format, source, ": expected an object");
  BundleConfig config = json.find("format") ? read_current(json, source) : read_older(json, folder, source);
  const auto &domains = config.domains;
  if (!config.fallback_domain.empty() && std::find(domains.begin(), domains.end(), config.fallback_domain) == domains.end()) {
    fail(Code::format, source, ": key 'fallback_domain': '", config.fallback_domain, "' is none of the domains");
  }
  return config;
}

Json json_of_format(std::string_view format) { return Json::object({{"format", format}, {"format_version", kBundleVersion}}); }

void add_domain_mapping(Json &json, const std::vector<std::string> &domains) {
  json.set("base", 0);
  for (size_t i = 0; i < domains.size(); i++) json.set(domains[i], static_cast<uint64_t>(i + 1));
}

Json bundle_config_json(const BundleConfig &config) {
  Json json = json_of_format(kBundleFormat), domains = Json::array(), paths = Json::object(), usage, files = Json::object();
  for (size_t i = 0; i < config.domains.size(); i++) {
    domains.push(config.domains[i]);
    paths.set(config.domains[i], config.adapter_paths[i]);
  }
  for (float share : config.target_usage) usage.push(static_cast<double>(share));
  for (const auto &[name, record] : config.files) {
    Json entry = Json::object({{"sha256", record.sha256}});
    if (!record.next_sha256.empty()) entry.set("next_sha256", record.next_sha256);
    files.set(name, std::move(entry));
  }
  json.set("base_model", config.base_model);
  json.set("base_model_path", config.base_model_path);
  json.set("architecture_fingerprint", config.architecture_fingerprint);
  json.set("weights_fingerprint", config.weights_fingerprint);
  json.set("domains", std::move(domains));
  json.set("adapter_paths", std::move(paths));
  json.set("gating_strategy", config.gating);
  json.set("fallback_domain", config.fallback_domain.empty() ? Json() : Json(config.fallback_domain));
  if (config.gating == "token") {
    json.set("expert_selection", text("top-", config.router.top_k));
    json.set("router_file", config.router_file);
    add_router_settings(json, config.router);
    json.set("target_usage", std::move(usage));
  } else {
    json.set("expert_selection", "by_domain");
  }
  json.set("files", std::move(files));
  return json;
}

void add_router_settings(Json &json, const RouterConfig &router) {
  Json kinds = Json::array();
  if (router.ffn) kinds.push("ffn");
  if (router.attention) kinds.push("attention");
  json.set("routers", std::move(kinds));
  json.set("top_k", router.top_k);
  json.set("form", gate_form_name(router.form));
  json.set("temperature", static_cast<double>(router.temperature));
  json.set("capacity", {});  // experts never drop a token
}

Json router_config_json(const BundleConfig &config) {
  Json json = json_of_format("libmoe.router_config"), mapping = Json::object();
  const bool token = config.gating == "token";
  add_domain_mapping(mapping, config.domains);
  json.set("type", token ? "token_router" : "domain_router");
  json.set("strategy", config.gating);
  json.set("domain_mapping", std::move(mapping));
  json.set("fallback_domain", config.fallback_domain.empty() ? Json() : Json(config.fallback_domain));
  if (!token) return json;
  json.set("layers", config.router.layers);
  json.set("hidden_size", config.router.hidden);
  json.set("entries", config.router.entries());
  add_router_settings(json, config.router);
  return json;
}

void check_bundle_file(const std::string &folder, const std::string &name, const BundleConfig &config) {
  if (config.files.empty()) return;
  const std::string path = join_path(folder, name);
  const auto record = config.files.find(name);
  if (record == config.files.end()) fail(Code::format, path, ": is not listed under 'files' of ", kMoeConfig);
  const std::string found = sha256_file(path);
  if (found == record->second.sha256 || found == record->second.next_sha256) return;
  fail(Code::format, path, ": expected sha256 ", record->second.sha256, ", found ", found);
}

void check_bundle_base(const std::string &folder, const BundleConfig &config, const BaseModel &model, bool strict_base) {
  if (!config.architecture_fingerprint.empty() && config.architecture_fingerprint != model.architecture_fingerprint()) {
    fail(Code::format, folder, ": was built on a base model of another architecture (", config.base_model,
         "): expected fingerprint ", config.architecture_fingerprint, ", found ", model.architecture_fingerprint(), " (",
         model.path(), ")");
  }
  if (config.weights_fingerprint.empty() || config.weights_fingerprint == model.weights_fingerprint()) return;
  const std::string message =
      text(folder, ": was built on other weights of this architecture (", config.base_model, "): expected fingerprint ",
           config.weights_fingerprint, ", found ", model.weights_fingerprint(), " (", model.path(), ")");
  if (strict_base) fail(Code::format, message);
  log(model.log(), LogLevel::warning, message);
}

void check_routers(const BundleConfig &config, const Mixture &mixture) {
  for (size_t i = 0; i < mixture.experts.size(); i++) {
    const bool attention = mixture.experts[i]->targets_attention() && !config.router.attention;
    if (attention || (mixture.experts[i]->targets_ffn() && !config.router.ffn)) {
      fail(Code::format, kMoeConfig, ": key 'routers': the adapter of '", mixture.domains[i], "' needs one before the ",
           attention ? "attention" : "FFN");
    }
  }
}

RouterConfig router_shape_of(const BundleConfig &config, const BaseModel &model) {
  RouterConfig router = config.router;
  router.layers = model.config().layers;
  router.hidden = model.config().hidden;
  return router;
}

}  // namespace moe
