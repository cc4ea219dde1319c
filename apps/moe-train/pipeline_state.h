// pipeline_state.json of a pipeline's folder: which stages are finished, and from what they were made. A stage's material is a
// JSON object of its options and the sha256 of its inputs; a stage is finished when the recorded material is equal and its result
// is unchanged. Every change is written to a new file and renamed.
//
//   {"format": "libmoe.pipeline_state", "format_version": 1,
//    "stages": {"adapters/medical": {"material": {...}, "finished": true, "result_sha256": "..."}, ...}}
//
// The stage "build" also records the sha256 of what it wrote and the stage "router" replaces: "router_sha256", "adapters_sha256" and,
// for the whole bundle, "config_sha256".
#pragma once
#include <string>
#include <vector>

#include "cli/json_text.h"

namespace moe::cli {

class PipelineState {
 public:
  explicit PipelineState(const std::string &folder);  // reads what is there

  // Finished with this material, and `result` (file or folder) is what it was.
  bool finished(const std::string &stage, const Json &material, const std::string &result) const;
  // Begun with this material but not finished: its checkpoints may be resumed.
  bool begun(const std::string &stage, const Json &material) const;
  // Names what differs from the recorded material: "rank, data"; "" when nothing is recorded.
  std::string changes(const std::string &stage, const Json &material) const;
  std::string built(const char *key) const;  // of the bundle as the stage "build" left it; see above

  // begin forgets the stages `after` it, which were made from its result.
  void begin(const std::string &stage, const Json &material, const std::vector<std::string> &after);
  void finish(const std::string &stage, const std::string &result, const Json &more = Json::object());
  // A later stage changed the result of a finished one; recorded with the next finish.
  void result_changed(const std::string &stage, const std::string &result);

 private:
  const Json &record(const std::string &stage) const;
  void save() const;

  std::string path_;
  Json stages_ = Json::object();
};

// sha256 of a file or folder.
std::string sha256_of(const std::string &path);

}  // namespace moe::cli
