// The file of a pipeline (docs/pipeline.md) as the options of its stages.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "cli/program.h"

namespace moe::cli {

class PipelineConfig {
 public:
  // Reads --config. Wrong usage for an unknown key, with the section it is in.
  explicit PipelineConfig(const Context &context);

  const std::string &folder() const { return folder_; }
  const std::string &experiment() const { return experiment_; }  // "" = none
  const std::vector<std::string> &domains() const { return names_; }
  std::string adapter_folder(const std::string &domain) const { return folder_ + "/domain_models/" + domain; }
  std::string joint_folder() const { return folder_ + "/joint"; }
  std::string bundle() const { return folder_ + "/moe_model"; }
  std::string router_folder() const { return folder_ + "/moe_model_router"; }
  std::string evaluation_folder() const { return folder_ + "/evaluation"; }
  std::string results() const { return evaluation_folder() + "/evaluation_results.json"; }
  std::vector<std::string> training_folders() const;  // of all runs

  Options adapter(const std::string &domain) const;
  Options joint() const;  // one adapter on the data of all domains
  Options build() const;
  Options router() const;
  Options evaluation() const;  // without tasks when none are named
  bool has_joint() const;      // the file has the section
  bool has_router() const;     // not with domain gating

 private:
  // Of a verb: common options, sections in order, flags; then `own`, what the pipeline itself decides.
  Options stage(const char *verb, std::vector<const Json *> sections, const Json &own) const;
  void load(const Options &options, const std::string &where, const Json &section) const;
  Json domain_lists(const char *key) const;  // ["medical=FILE", ...] of all domains

  const Context &context_;
  std::string path_, folder_, experiment_;
  std::vector<std::string> names_;
  Json common_ = Json::object(), domains_ = Json::object(), sections_ = Json::object();
};

}  // namespace moe::cli
