#include "generate/stop_text.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace moe {
namespace {

// Length of the longest end of `text` that begins `stop` without being all of it.
size_t begun(std::string_view text, std::string_view stop) {
  size_t length = std::min(text.size(), stop.size() - 1);
  while (length > 0 && text.substr(text.size() - length) != stop.substr(0, length)) length--;
  return length;
}

}  // namespace

StopText::StopText(std::vector<std::string> stop) : stop_(std::move(stop)) {
  if (std::find(stop_.begin(), stop_.end(), "") != stop_.end()) fail(Code::invalid, "a stop string is empty");
}

std::string StopText::push(std::string_view piece) {
  if (stopped_) return "";
  held_ += piece;
  size_t first_end = std::string::npos, cut = 0;
  for (const std::string &stop : stop_) {
    const size_t begin = held_.find(stop);
    if (begin == std::string::npos) continue;
    const size_t end = begin + stop.size();
    if (end > first_end || (end == first_end && begin > cut)) continue;
    first_end = end;
    cut = begin;
  }
  stopped_ = first_end != std::string::npos;
  if (!stopped_) {
    size_t undecided = 0;
    for (const std::string &stop : stop_) undecided = std::max(undecided, begun(held_, stop));
    cut = held_.size() - undecided;
  }
  std::string out = held_.substr(0, cut);
  held_.erase(0, stopped_ ? held_.size() : cut);
  return out;
}

std::string StopText::finish() { return std::exchange(held_, {}); }

}  // namespace moe
