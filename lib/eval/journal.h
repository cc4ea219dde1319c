// What an evaluation has computed so far, one JSON line for each group of items, so that an interrupted one goes on to the same
// bits. The first line holds the key of what is evaluated: models, tasks and options. A line that was cut off counts for nothing.
#pragma once
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/file.h"
#include "eval/evaluation.h"

namespace moe {

class EvalJournal {
 public:
  // resume: go on from the file at `path` when it has the same key. Otherwise it is begun anew.
  EvalJournal(const std::string &path, const std::string &key, bool resume);

  // Fills in what was computed for these items. False when the unit is not there.
  bool restore(const std::string &unit, std::span<const size_t> group, std::vector<EvalItem> &items) const;
  void keep(const std::string &unit, std::span<const size_t> group, const std::vector<EvalItem> &items);
  size_t units() const { return units_.size(); }  // that were there at the start

 private:
  void read(const std::string &path, const std::string &key);

  std::map<std::string, Json> units_;
  std::unique_ptr<AppendFile> file_;
};

}  // namespace moe
