#include "moe-train/found_models.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <vector>

#include "cli/handles.h"

namespace moe::cli {
namespace {

std::string variable(const char *name) {
  const char *value = std::getenv(name);
  return value ? value : "";
}

// What is in a folder, by name; nothing when it cannot be read. Hidden entries are unfinished.
std::vector<std::string> entries(const std::string &folder) {
  std::vector<std::string> paths;
  std::error_code none;
  for (const auto &entry : std::filesystem::directory_iterator(folder, none)) {
    if (!entry.path().filename().string().starts_with(".")) paths.push_back(entry.path().string());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

bool is_there(const std::string &path) {
  std::error_code none;
  return std::filesystem::exists(path, none);
}

double parameters_of(const Json &inspected) {
  double sum = 0;
  for (const Json &tensor : inspected.at("tensors").items()) {
    double count = 1;
    for (const Json &size : tensor.at("shape").items()) count *= size.number();
    sum += count;
  }
  return sum;
}

Json found(const char *kind, const std::string &path) {
  Json result = Json::object({{"kind", kind}, {"path", path}});
  try {
    const Json inspected = Json::parse(text_of(moe_inspect, path.c_str()), path);
    if (const Json *why = inspected.find("not_a_model")) throw Failure(kFailed, why->string());
    for (const char *key : {"family", "domains"}) {
      if (const Json *value = inspected.find(key)) result.set(key, *value);
    }
    if (const Json *base = inspected.at("config").find("base_model_name_or_path")) result.set("base_model", *base);
    if (inspected.find("tensors"))
      result.set("parameters", static_cast<int64_t>(parameters_of(inspected))).set("bytes", inspected.at("tensor_bytes"));
  } catch (const Failure &failure) {
    result.set("error", failure.what());
  }
  return result;
}

}  // namespace

std::string models_folder() {
  if (const std::string folder = variable("MOE_MODELS_DIR"); !folder.empty()) return folder;
  if (const std::string cache = variable("XDG_CACHE_HOME"); !cache.empty()) return cache + "/libmoe/models";
  const std::string home = variable("HOME");
  return home.empty() ? "" : home + "/.cache/libmoe/models";
}

Json found_models() {
  Json list = Json::array();
  for (const std::string &path : entries(models_folder())) {
    if (path.ends_with(".gguf") || is_there(path + "/config.json")) list.push(found("model", path));
  }
  for (const std::string &domain : entries("domain_models")) {
    const std::string adapter = domain + "/final_adapter";
    if (is_there(adapter)) list.push(found("adapter", adapter));
  }
  if (is_there("moe_model/moe_config.json")) list.push(found("bundle", "moe_model"));
  return list;
}

}  // namespace moe::cli
