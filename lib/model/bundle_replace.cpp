// Trained weights put into a bundle, so that whoever opens it finds all the old ones or all the new ones:
//   1. the new files are written to the folder .replacement, and flushed
//   2. moe_config.json is replaced: router_file and adapter_paths lead into that folder. From here on it is the new bundle
//   3. the same files are written under their lasting names, which nothing refers to now
//   4. moe_config.json is replaced: the paths are the lasting ones; the folder is removed
// A bundle that was left between 2 and 4 loads as it is, and the next save does 3 and 4 first. router_config.json, which only people
// read, is replaced between 2 and 4, while its record has both hashes.
#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "model/bundle_files.h"

namespace moe {
namespace {

const std::string kNext = ".replacement";

bool is_next(const std::string &path) { return path.starts_with(kNext + "/"); }
std::string lasting(const std::string &path) { return is_next(path) ? path.substr(kNext.size() + 1) : path; }

class BundleReplacement {
 public:
  explicit BundleReplacement(const std::string &folder)
      : folder_(checked(folder)), lock_(join_path(folder, ".lock")), config_(read_bundle_config(folder)) {
    remove_unfinished(folder_);
    for (const std::string &path : config_.adapter_paths) remove_unfinished(join_path(folder_, lasting(path)));
    for (auto &[name, record] : config_.files) {
      if (record.next_sha256.empty()) continue;
      record = {sha256_file(join_path(folder_, name)) == record.next_sha256 ? record.next_sha256 : record.sha256, ""};
    }
    settle();
    remove_tree(join_path(folder_, kNext));  // written, but never switched to
  }

  BundleConfig &config() { return config_; }

  // `experts` writes an adapter folder: (index of the expert, path).
  void replace(const Router &router, const std::function<void(size_t, const std::string &)> &experts, const Json &summary) {
    take_settings(router.config(), summary);
    write_next(router, experts);
    const std::string content = router_config(summary);
    BundleConfig::FileRecord &record = config_.files[kRouterConfig];
    record.next_sha256 = sha256_hex(content.data(), content.size());
    write_config();
    write_file_atomic(join_path(folder_, kRouterConfig), content);
    record = {record.next_sha256, ""};
    settle();
  }

 private:
  static const std::string &checked(const std::string &folder) {
    read_bundle_config(folder);  // nothing is written to what is no bundle
    return folder;
  }

  void write_config() const { write_file_atomic(join_path(folder_, kMoeConfig), bundle_config_json(config_).dump(2) + "\n"); }

  // The folder of what is new; the config then refers to it.
  void write_next(const Router &router, const std::function<void(size_t, const std::string &)> &experts) {
    AtomicFolder next(join_path(folder_, kNext));
    next.write(config_.router_file, router.encode());
    std::vector<std::string> names = {config_.router_file};
    for (size_t i = 0; experts && i < config_.adapter_paths.size(); i++) {
      const std::string &path = config_.adapter_paths[i];
      make_folders(join_path(next.path(), path));
      experts(i, join_path(next.path(), path));
      for (const char *name : kAdapterFiles) names.push_back(join_path(path, name));
    }
    for (const std::string &name : names) {
      config_.files.erase(name);
      config_.files[join_path(kNext, name)] = {sha256_file(join_path(next.path(), name)), ""};
    }
    next.commit();
    config_.router_file = join_path(kNext, config_.router_file);
    for (size_t i = 0; experts && i < config_.adapter_paths.size(); i++) {
      config_.adapter_paths[i] = join_path(kNext, config_.adapter_paths[i]);
    }
  }

  std::string router_config(const Json &summary) const {
    Json json = router_config_json(config_);
    if (summary.is_object()) {
      for (const auto &[key, value] : summary.members()) {
        if (!json.find(key)) json.set(key, value);
      }
    }
    return json.dump(2) + "\n";
  }

  void take_settings(const RouterConfig &shape, const Json &summary) {
    if (config_.gating != "token") fail(Code::invalid, folder_, ": its gating is '", config_.gating, "': it has no router");
    if (config_.files.empty() || shape.experts != config_.router.experts) {
      fail(Code::invalid, folder_, ": expected a router of ", config_.router.experts, " experts, found ", shape.experts);
    }
    config_.router = shape;
    if (const Json *usage = summary.is_object() ? summary.find("target_usage") : nullptr; usage && !usage->is_null()) {
      config_.target_usage = parse_target_usage(*usage, "router summary", config_.domains.size() + 1);
    }
  }

  // Gives the files of next/ that the config refers to their lasting names.
  void settle() {
    std::vector<std::string> names;
    for (const auto &[name, record] : config_.files) {
      if (is_next(name)) names.push_back(name);
    }
    if (names.empty()) return;
    for (const std::string &name : names) {
      make_folders(parent_path(join_path(folder_, lasting(name))));
      write_file_atomic(join_path(folder_, lasting(name)), read_file(join_path(folder_, name), UINT64_MAX));
      config_.files[lasting(name)] = config_.files[name];
      config_.files.erase(name);
    }
    config_.router_file = lasting(config_.router_file);
    for (std::string &path : config_.adapter_paths) path = lasting(path);
    write_config();
    remove_tree(join_path(folder_, kNext));
  }

  const std::string folder_;
  FileLock lock_;
  BundleConfig config_;
};

}  // namespace

void save_bundle_router(const std::string &folder, const Router &router, const Json &summary) {
  BundleReplacement(folder).replace(router, {}, summary);
}

void save_bundle_mixture(const BaseModel &model, const std::string &folder, const Mixture &mixture, const Json &summary) {
  BundleReplacement bundle(folder);
  check_bundle_base(folder, bundle.config(), model, false);
  if (bundle.config().domains != mixture.domains) fail(Code::invalid, folder, ": expected the domains of the mixture, in its order");
  bundle.replace(*mixture.router, [&](size_t i, const std::string &path) { mixture.experts[i]->save(model, path); }, summary);
}

}  // namespace moe
