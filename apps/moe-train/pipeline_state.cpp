#include "moe-train/pipeline_state.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "cli/handles.h"
#include "cli/options.h"

namespace moe::cli {
namespace {

// Written beside, flushed to the disk and renamed: whole or not at all.
void replace_file(const std::string &path, const std::string &content) {
  const std::string temporary = path + ".new";
  const int file = open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  bool good = file >= 0;
  for (size_t done = 0; good && done < content.size();) {
    const ssize_t count = write(file, content.data() + done, content.size() - done);
    good = count > 0 || (count < 0 && errno == EINTR);
    if (count > 0) done += static_cast<size_t>(count);
  }
  good = good && fsync(file) == 0;
  const int reason = errno;
  if (file >= 0) close(file);
  if (!good) throw Failure(kFailed, temporary + ": " + std::strerror(reason));
  if (std::rename(temporary.c_str(), path.c_str()) != 0) throw Failure(kFailed, path + ": " + std::strerror(errno));
}

}  // namespace

std::string sha256_of(const std::string &path) { return text_of(moe_sha256, path.c_str()); }

PipelineState::PipelineState(const std::string &folder) : path_(folder + "/pipeline_state.json") {
  if (!file_exists(path_)) return;
  const Json json = Json::parse(read_file(path_), path_);
  if (json.at("format").string() != "libmoe.pipeline_state" || json.at("format_version").integer() != 1) {
    throw Failure(kFailed, path_ + ": expected format libmoe.pipeline_state, version 1");
  }
  if (json.at("stages").is_object()) stages_ = json.at("stages");
}

const Json &PipelineState::record(const std::string &stage) const { return stages_.at(stage); }

bool PipelineState::finished(const std::string &stage, const Json &material, const std::string &result) const {
  const Json &known = record(stage);
  return known.at("finished").boolean() && known.at("material") == material && file_exists(result) &&
         sha256_of(result) == known.at("result_sha256").string();
}

bool PipelineState::begun(const std::string &stage, const Json &material) const {
  const Json &known = record(stage);
  return known.is_object() && !known.at("finished").boolean() && known.at("material") == material;
}

std::string PipelineState::changes(const std::string &stage, const Json &material) const {
  const Json &known = record(stage).at("material");
  std::string names;
  for (const auto &[part, values] : material.members()) {
    if (!known.is_object() || known.at(part) == values) continue;
    for (const auto &[key, value] : values.members()) {
      if (!(known.at(part).at(key) == value)) names += (names.empty() ? "" : ", ") + key;
    }
  }
  return names;
}

std::string PipelineState::built(const char *key) const { return record("build").at(key).string(); }

void PipelineState::begin(const std::string &stage, const Json &material, const std::vector<std::string> &after) {
  for (const std::string &later : after) stages_.erase(later);
  stages_.set(stage, Json::object({{"material", material}, {"finished", false}}));
  save();
}

void PipelineState::result_changed(const std::string &stage, const std::string &result) {
  Json changed = record(stage);
  changed.set("result_sha256", sha256_of(result));
  stages_.set(stage, std::move(changed));
}

void PipelineState::finish(const std::string &stage, const std::string &result, const Json &more) {
  Json done =
      Json::object({{"material", record(stage).at("material")}, {"finished", true}, {"result_sha256", sha256_of(result)}});
  for (const auto &[key, value] : more.members()) done.set(key, value);
  stages_.set(stage, std::move(done));
  save();
}

void PipelineState::save() const {
  replace_file(path_,
               Json::object({{"format", "libmoe.pipeline_state"}, {"format_version", 1}, {"stages", stages_}}).dump(1) + "\n");
}

}  // namespace moe::cli
