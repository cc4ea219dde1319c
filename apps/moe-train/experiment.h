// --experiment NAME: the run is also listed in experiments/<time>-<name>/ of the folder where the command runs, with what it said
// (run.log, in the order of time) and, when it ends well, its report.html.
#pragma once
#include <string>
#include <vector>

#include "cli/program.h"

namespace moe::cli {

class Experiment {
 public:
  // Nothing happens when `name` is empty. From here on the console writes to the log as well. Failure when the folder cannot be made.
  Experiment(const Context &context, const std::string &name, const std::string &output_dir);

  // Writes the page. `results`: folder of an evaluation, or "". `training`: output folders of runs.
  void report(const std::string &results, const std::vector<std::string> &training) const;

 private:
  const Context &context_;
  std::string folder_;
};

}  // namespace moe::cli
