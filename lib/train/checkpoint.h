// Checkpoints on disk: a folder appears whole, with a manifest of the length and sha256 of every file, and nothing is believed that
// does not match it. (Sequence: temporary folder, files, manifest last, fsync, rename, fsync of the parent, only then prune.)
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/log.h"

namespace moe {

// `write` puts files into the folder it is given; the manifest is added and the whole is renamed to `target`.
void write_checkpoint(const std::string &target, const std::function<void(const std::string &folder)> &write);

// Code::format naming the file that is missing, of another length, or of another hash.
void verify_checkpoint(const std::string &folder);

// checkpoint-N folders of `parent`, by rising N.
std::vector<int64_t> list_checkpoints(const std::string &parent);
std::string checkpoint_path(const std::string &parent, int64_t step);

// The newest checkpoint that verifies; damaged ones are logged as warnings and passed over. "" when there is none.
std::string newest_checkpoint(const std::string &parent, const Log &log);

// Removes the oldest beyond `keep`; never the newest one that verifies.
void prune_checkpoints(const std::string &parent, int64_t keep, const Log &log);

}  // namespace moe
