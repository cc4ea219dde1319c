#include "moe-train/pipeline_config.h"

#include <algorithm>

namespace moe::cli {
namespace {

constexpr const char *kSections[] = {"adapters", "joint", "build", "router", "evaluate"};
constexpr const char *kJoint = "joint";  // name of the adapter of all domains

bool is_section(const std::string &key) {
  return std::any_of(std::begin(kSections), std::end(kSections), [&](const char *section) { return key == section; });
}

// A domain's name becomes a folder's.
void check_name(const std::string &path, const std::string &name) {
  if (name.empty() || name == "base" || name == kJoint || name[0] == '.' || name.find_first_of("/\\=,") != std::string::npos) {
    throw Failure(kUsage, path + ": domains: '" + name + "' cannot be the name of a domain");
  }
}

Json file_list(const Json &value) {
  if (value.is_array()) return value;
  Json list = Json::array();
  if (value.is_string()) list.push(value);
  return list;
}

}  // namespace

PipelineConfig::PipelineConfig(const Context &context) : context_(context), path_(context.command.config) {
  if (path_.empty()) throw Failure(kUsage, "option --config is needed: the file of the pipeline");
  for (const auto &[key, value] : context.command.given) {
    if (key == "data" || key == "eval_data")
      throw Failure(kUsage, "option " + flag_name(key) + ": a pipeline takes it from its file, for each domain");
  }
  const Json file = Json::parse(read_file(path_), path_);
  if (!file.is_object()) throw Failure(kUsage, path_ + ": expected a JSON object");
  for (const auto &[key, value] : file.members()) {
    if (key == "domains") domains_ = value;
    else if (is_section(key)) sections_.set(key, value);
    else common_.set(key, value);
  }
  for (const auto &[name, value] : domains_.members()) {
    check_name(path_, name);
    names_.push_back(name);
  }
  if (names_.empty()) throw Failure(kUsage, path_ + ": 'domains' is needed: {\"medical\": {\"data\": FILE}, ...}");
  const Options all = new_options();
  load(all, "", common_);
  apply(context.command.given, "", all);
  folder_ = required(all, "output_dir");
  experiment_ = get(all, "experiment");
  required(all, "model");
}

void PipelineConfig::load(const Options &options, const std::string &where, const Json &section) const {
  const std::string text = section.dump();
  moe_error error = MOE_ERROR_INIT;
  if (moe_options_load_json(options.get(), text.data(), text.size(), &error) == MOE_OK) return;
  throw Failure(kUsage, path_ + ": " + where + (where.empty() ? "" : ": ") + error.message);
}

Options PipelineConfig::stage(const char *verb, std::vector<const Json *> sections, const Json &own) const {
  Options options = new_options();
  call(moe_options_set_log, options.get(), log_to_console, &context_.console);
  Json shared = Json::object();
  for (const auto &[key, value] : common_.members()) {
    moe_option row = MOE_OPTION_INIT;
    if (find_row(key, row) && reads(row, verb)) shared.set(key, value);
  }
  load(options, "", shared);
  for (const Json *section : sections) {
    if (!section->is_null()) load(options, verb, *section);
  }
  apply(context_.command.given, verb, options);
  load(options, verb, own);
  moe_error error = MOE_ERROR_INIT;
  if (moe_options_check(options.get(), verb, &error) != MOE_OK) throw Failure(kUsage, path_ + ": " + error.message);
  return options;
}

Json PipelineConfig::domain_lists(const char *key) const {
  Json list = Json::array();
  for (const auto &[name, domain] : domains_.members()) {
    const Json files = file_list(domain.is_object() ? domain.at(key) : std::string(key) == "data" ? domain : Json());
    for (const Json &file : files.items()) list.push(name + "=" + file.string());
  }
  return list;
}

Options PipelineConfig::adapter(const std::string &name) const {
  Json domain = domains_.at(name);
  if (!domain.is_object()) domain = Json::object({{"data", domain}});
  if (file_list(domain.at("data")).size() == 0) throw Failure(kUsage, path_ + ": domains: " + name + ": 'data' is needed");
  domain.erase("tasks");
  return stage("lora", {&sections_.at("adapters"), &domain},
               Json::object({{"domain", name}, {"output_dir", adapter_folder(name)}}));
}

// As many parameters as the adapters of all domains together: the sum of their ranks, at the same alpha / rank.
Options PipelineConfig::joint() const {
  int64_t rank = 0, steps = 0;
  double scale = 0;
  bool all_have_steps = true;
  for (const std::string &name : names_) {
    const Options options = adapter(name);
    const int64_t own = integer(options, "rank");
    if (rank == 0) scale = std::stod(get(options, "alpha")) / static_cast<double>(own);
    rank += own;
    steps += integer(options, "max_steps");
    all_have_steps &= integer(options, "max_steps") > 0;
  }
  const Json budget = Json::object({{"rank", rank}, {"alpha", scale * static_cast<double>(rank)}, {"max_steps", all_have_steps ? steps : 0}});
  return stage("lora", {&sections_.at("adapters"), &budget, &sections_.at("joint")},
               Json::object({{"data", domain_lists("data")}, {"domain", kJoint}, {"output_dir", joint_folder()}}));
}

Options PipelineConfig::build() const {
  Json adapters = Json::array();
  for (const std::string &name : names_) adapters.push(name + "=" + adapter_folder(name) + "/final_adapter");
  return stage("build", {&sections_.at("build")}, Json::object({{"adapters", adapters}, {"output_dir", bundle()}}));
}

Options PipelineConfig::router() const {
  const Json data = Json::object({{"data", domain_lists("data")}});
  return stage("router", {&data, &sections_.at("router")}, Json::object({{"moe", bundle()}, {"output_dir", router_folder()}}));
}

Options PipelineConfig::evaluation() const {
  Json adapters = Json::array();
  for (const std::string &name : names_) adapters.push(name + "=" + adapter_folder(name) + "/final_adapter");
  if (has_joint()) adapters.push(std::string(kJoint) + "=" + joint_folder() + "/final_adapter");
  const Json rows = Json::object({{"tasks", domain_lists("tasks")}, {"data", domain_lists("data")}});
  return stage("run", {&rows, &sections_.at("evaluate")},
               Json::object({{"adapter", adapters}, {"moe", bundle()}, {"output_dir", evaluation_folder()}}));
}

std::vector<std::string> PipelineConfig::training_folders() const {
  std::vector<std::string> folders;
  for (const std::string &name : names_) folders.push_back(adapter_folder(name));
  if (has_joint()) folders.push_back(joint_folder());
  if (has_router()) folders.push_back(router_folder());
  return folders;
}

bool PipelineConfig::has_joint() const { return sections_.find("joint") != nullptr; }
bool PipelineConfig::has_router() const { return get(build(), "gating") == "token"; }

}  // namespace moe::cli
