// The parts of the bundle that reading, building and validating share.
#pragma once
#include <string>
#include <string_view>

#include "model/bundle.h"

namespace moe {

inline constexpr const char *kBundleFormat = "libmoe.bundle";
inline constexpr int64_t kBundleVersion = 1;
inline constexpr const char *kMoeConfig = "moe_config.json", *kDomainMapping = "domain_mapping.json",
                            *kRouterConfig = "router_config.json", *kRouterWeights = "router.safetensors",
                            *kModelInfo = "model_info.json", *kBuildSummary = "build_summary.json";
inline constexpr const char *kAdapterFiles[] = {"adapter_config.json", "adapter_model.safetensors"};

// An object that begins with its format and version.
Json json_of_format(std::string_view format);
Json bundle_config_json(const BundleConfig &config);
// {"base": 0, "medical": 1, ...} added to `json`.
void add_domain_mapping(Json &json, const std::vector<std::string> &domains);
void add_router_settings(Json &json, const RouterConfig &router);
Json router_config_json(const BundleConfig &config);
// Code::format unless the names are plain, distinct and none of the keys that domain_mapping.json has itself.
void check_domain_names(const std::vector<std::string> &domains, const std::string &source);
std::vector<float> parse_target_usage(const Json &json, const std::string &source, size_t entries);

// Code::format naming the file when its sha256 is none of the recorded ones, or when it is not recorded at all (a folder
// without records is not checked).
void check_bundle_file(const std::string &folder, const std::string &name, const BundleConfig &config);
// The fingerprints of the base: another architecture is Code::format; other weights are a warning in the log, with strict_base
// an error. Not recorded = not checked.
void check_bundle_base(const std::string &folder, const BundleConfig &config, const BaseModel &model, bool strict_base);
// Code::format when an expert changes a part of the layer that no router stands before.
void check_routers(const BundleConfig &config, const Mixture &mixture);
// The router's shape with the sizes of the base filled in.
RouterConfig router_shape_of(const BundleConfig &config, const BaseModel &model);

}  // namespace moe
