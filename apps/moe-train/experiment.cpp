#include "moe-train/experiment.h"

#include <filesystem>

namespace moe::cli {
namespace {

constexpr const char *kFolder = "experiments";

void check_name(const std::string &name) {
  if (name[0] == '.' || name.find_first_of("/\\") != std::string::npos)
    throw Failure(kUsage, "option --experiment: '" + name + "' cannot be part of the name of a folder");
}

// experiments/20261201-152000-name, with -2, -3, ... behind it when it is there already.
std::string make_folder(const std::string &name) {
  const std::string base = std::string(kFolder) + "/" + local_time("%Y%m%d-%H%M%S") + "-" + name;
  std::error_code error;
  std::filesystem::create_directories(kFolder, error);
  for (int n = 1; !error; n++) {
    const std::string folder = n == 1 ? base : base + "-" + std::to_string(n);
    if (std::filesystem::create_directory(folder, error)) return folder;
  }
  throw Failure(kFailed, base + ": " + error.message());
}

}  // namespace

Experiment::Experiment(const Context &context, const std::string &name, const std::string &output_dir) : context_(context) {
  if (name.empty()) return;
  check_name(name);
  folder_ = make_folder(name);
  context.console.copy_to(folder_ + "/run.log");
  context.console.record("moe-train " + context.command.verb + ", libmoe " + moe_version());
  for (const auto &[key, value] : context.command.given) context.console.record("  " + flag_name(key) + " " + value);
  if (!context.command.config.empty()) context.console.record("  --config " + context.command.config);
  context.console.record("output: " + output_dir);
}

void Experiment::report(const std::string &results, const std::vector<std::string> &training) const {
  if (folder_.empty()) return;
  const Options options = new_options();
  if (!results.empty()) set(options, "results", results);
  Json folders = Json::array();
  for (const std::string &folder : training) folders.push(folder);
  set(options, "training", folders.dump());
  set(options, "output", folder_ + "/report.html");
  call(moe_eval_report, options.get(), nullptr);
  context_.console.note("listed: " + folder_);
}

}  // namespace moe::cli
