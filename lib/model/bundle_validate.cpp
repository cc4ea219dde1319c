// validate_bundle: everything that is wrong with a bundle, one line per finding, in place of the first error that loading it
// would give.
#include <functional>

#include "base/error.h"
#include "base/file.h"
#include "model/bundle_files.h"

namespace moe {
namespace {

class Validation {
 public:
  Validation(const BaseModel &model, const std::string &folder, const std::function<void(bool, const std::string &)> &finding)
      : model_(model), folder_(folder), finding_(finding) {}

  bool run() {
    if (!good("moe_config.json", [&] { config_ = read_bundle_config(folder_); })) return false;
    check_files();
    good("base model", [&] { check_bundle_base(folder_, config_, model_, false); });
    if (!config_.weights_fingerprint.empty() && config_.weights_fingerprint != model_.weights_fingerprint()) {
      report(true, text("note: the base model has other weights than the bundle was built on (", config_.base_model, ")"));
    }
    for (size_t i = 0; i < config_.domains.size(); i++) {
      good("adapter " + config_.domains[i], [&] { load_adapter(i); });
    }
    if (config_.gating == "token") {
      good("router", [&] { check_router(); });
    }
    if (!config_.files.empty()) {
      good(kDomainMapping,
           [&] { check_mapping(read_json(join_path(folder_, kDomainMapping)), join_path(folder_, kDomainMapping)); });
      good(kRouterConfig, [&] {
        const std::string source = join_path(folder_, kRouterConfig);
        const Json json = read_json(source);
        check_mapping(json.at("domain_mapping", source), source);
      });
      for (const char *name : {kModelInfo, kBuildSummary}) {
        good(name, [&] { read_json(join_path(folder_, name)).at("format", name); });
      }
    }
    return all_good_;
  }

 private:
  void report(bool good, const std::string &line) {
    all_good_ &= good;
    finding_(good, line);
  }

  // Runs a check: its error is the finding, otherwise "<what>: good".
  template <class Check>
  bool good(const std::string &what, Check check) {
    try {
      check();
    } catch (const Error &error) {
      report(false, text(what, ": ", error.message()));
      return false;
    }
    report(true, what + ": good");
    return true;
  }

  void check_files() {
    if (config_.files.empty()) return report(true, "note: the folder has no 'format' key and no hashes; files are not compared");
    for (const auto &file : config_.files) {
      good(file.first, [&] { check_bundle_file(folder_, file.first, config_); });
    }
    for (const char *name : {kDomainMapping, kRouterConfig, kModelInfo, kBuildSummary}) {
      if (!config_.files.contains(name)) report(false, text(kMoeConfig, ": key 'files': '", name, "' is not listed"));
    }
  }

  void load_adapter(size_t i) {
    const std::string &path = config_.adapter_paths[i];
    mixture_.experts.push_back(Adapter::load(model_, join_path(folder_, path), false));
    mixture_.domains.push_back(config_.domains[i]);
    for (const char *name : kAdapterFiles) {
      if (!config_.files.empty() && !config_.files.contains(join_path(path, name))) {
        fail(Code::format, join_path(path, name), ": is not listed under 'files' of ", kMoeConfig);
      }
    }
  }

  void check_router() {
    Router::load(join_path(folder_, config_.router_file), router_shape_of(config_, model_));
    if (!config_.files.contains(config_.router_file))
      fail(Code::format, config_.router_file, ": is not listed under 'files' of ", kMoeConfig);
    check_routers(config_, mixture_);
  }

  void check_mapping(const Json &json, const std::string &source) {
    for (size_t i = 0; i < config_.domains.size(); i++) {
      const int64_t index = json.integer_at(config_.domains[i], source);
      if (index != static_cast<int64_t>(i + 1)) {
        fail(Code::format, source, ": key '", config_.domains[i], "': expected ", i + 1, " as in ", kMoeConfig, ", found ",
             index);
      }
    }
  }

  const BaseModel &model_;
  const std::string &folder_;
  const std::function<void(bool, const std::string &)> &finding_;
  BundleConfig config_;
  Mixture mixture_;  // the adapters that could be loaded
  bool all_good_ = true;
};

}  // namespace

bool validate_bundle(const BaseModel &model, const std::string &folder,
                     const std::function<void(bool good, const std::string &line)> &finding) {
  return Validation(model, folder, finding).run();
}

}  // namespace moe
