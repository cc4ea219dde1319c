// The mixture bundle on disk (docs/bundle.md): moe_config.json, domain_mapping.json, router_config.json, router.safetensors,
// model_info.json, build_summary.json, adapters/<domain>/. Paths inside are relative and may not leave the folder.
#pragma once
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/json.h"
#include "model/mixture.h"

namespace moe {

struct BundleConfig {                   // what moe_config.json says
  std::string base_model;               // label
  std::string base_model_path;          // the last known path
  std::string architecture_fingerprint, weights_fingerprint;
  std::vector<std::string> domains;     // in router order, without the base
  std::string gating = "token";         // "token" or "domain"
  std::string fallback_domain;          // of "domain"; "" = base
  RouterConfig router;
  std::vector<float> target_usage;      // [E + 1] or empty
  std::vector<std::string> adapter_paths;  // by domain, inside the folder
  std::string router_file;              // inside the folder; "" with gating "domain"

  // What each file has to be. While router_config.json is being replaced it may also be the next one, so that the bundle is whole at
  // every moment.
  struct FileRecord {
    std::string sha256, next_sha256;    // next: "" when nothing is being replaced
  };
  std::map<std::string, FileRecord> files;  // by path inside the folder; empty in a folder without the `format` key
};

struct BundleBuild {
  std::vector<std::pair<std::string, std::string>> adapters;  // domain name -> PEFT folder, order kept
  std::string gating = "token";
  RouterConfig router;                  // top_k, form, temperature; sizes are filled in
  std::string router_file;              // start from these weights, or ""
  std::string fallback_domain;
  bool strict_base = false;
  uint64_t seed = 0;
};

bool is_bundle(const std::string &path);
BundleConfig read_bundle_config(const std::string &folder);
// Writes the bundle atomically. Returns build_summary.json.
Json build_bundle(const BaseModel &model, const BundleBuild &build, const std::string &folder);
// Every file, hash, shape, key and the base fingerprint; one line per finding through `finding`. Returns whether the bundle is good.
bool validate_bundle(const BaseModel &model, const std::string &folder, const std::function<void(bool good, const std::string &line)> &finding);
Mixture load_bundle(const BaseModel &model, const std::string &folder, bool strict_base = false);
// Puts what was trained into a bundle: its router, or the router with all experts. Stopped at any moment the bundle is the old one or
// the new one. `summary` is merged into router_config.json. Code::busy while another process does the same; what a killed one left is
// removed.
void save_bundle_router(const std::string &folder, const Router &router, const Json &summary);
void save_bundle_mixture(const BaseModel &model, const std::string &folder, const Mixture &mixture, const Json &summary);

}  // namespace moe
