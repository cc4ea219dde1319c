#include "train/checkpoint.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/sha256.h"

namespace moe {
namespace {

constexpr const char *kManifest = "manifest.json";
constexpr const char *kPrefix = "checkpoint-";

}  // namespace

void write_checkpoint(const std::string &target, const std::function<void(const std::string &folder)> &write) {
  AtomicFolder folder(target);
  write(folder.path());
  Json files = Json::object();
  for (const std::string &name : list_folder(folder.path())) {
    const std::string path = join_path(folder.path(), name);
    Json entry = Json::object();
    entry.set("bytes", File(path).size()).set("sha256", sha256_file(path));
    files.set(name, std::move(entry));
  }
  Json manifest = Json::object();
  manifest.set("format", "libmoe.checkpoint").set("format_version", 1).set("files", std::move(files));
  folder.write(kManifest, manifest.dump(1) + "\n");
  folder.commit();
}

void verify_checkpoint(const std::string &folder) {
  const std::string path = join_path(folder, kManifest);
  const Json manifest = read_json(path);
  const std::string format = manifest.string_at("format", path);
  if (format != "libmoe.checkpoint") fail(Code::format, path, ": key 'format': expected 'libmoe.checkpoint', found '", format, "'");
  const int64_t version = manifest.integer_at("format_version", path);
  if (version != 1) fail(Code::unsupported, path, ": key 'format_version': expected 1, found ", version);
  for (const auto &[name, entry] : manifest.at("files", path).members()) {
    if (!is_plain_name(name)) fail(Code::format, path, ": '", name, "' is not a plain file name");
    const std::string file = join_path(folder, name);
    const int64_t bytes = entry.integer_at("bytes", path), found = static_cast<int64_t>(File(file).size());
    if (bytes != found) fail(Code::format, file, ": expected ", bytes, " bytes by the manifest, found ", found);
    const std::string expected = entry.string_at("sha256", path), hash = sha256_file(file);
    if (expected != hash) fail(Code::format, file, ": expected sha256 ", expected, " by the manifest, found ", hash);
  }
}

std::string checkpoint_path(const std::string &parent, int64_t step) { return join_path(parent, text(kPrefix, step)); }

std::vector<int64_t> list_checkpoints(const std::string &parent) {
  std::vector<int64_t> steps;
  if (!folder_exists(parent)) return steps;
  for (const std::string &name : list_folder(parent)) {
    if (!name.starts_with(kPrefix)) continue;
    int64_t step = 0;
    const char *begin = name.data() + std::string_view(kPrefix).size(), *end = name.data() + name.size();
    const auto [stopped, error] = std::from_chars(begin, end, step);
    if (error == std::errc() && stopped == end && step >= 0) steps.push_back(step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

std::string newest_checkpoint(const std::string &parent, const Log &sink) {
  const std::vector<int64_t> steps = list_checkpoints(parent);
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    const std::string path = checkpoint_path(parent, *step);
    try {
      verify_checkpoint(path);
      return path;
    } catch (const Error &error) {
      log(sink, LogLevel::warning, text(error.message(), "; the checkpoint before it is taken"));
    }
  }
  return "";
}

void prune_checkpoints(const std::string &parent, int64_t keep, const Log &sink) {
  const std::vector<int64_t> steps = list_checkpoints(parent);
  if (static_cast<int64_t>(steps.size()) <= keep) return;
  const std::string newest = newest_checkpoint(parent, sink);
  for (size_t i = 0; i + static_cast<size_t>(keep) < steps.size(); i++) {
    const std::string path = checkpoint_path(parent, steps[i]);
    if (path != newest) remove_tree(path);
  }
}

}  // namespace moe
