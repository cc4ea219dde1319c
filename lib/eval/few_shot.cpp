#include "eval/few_shot.h"

#include <functional>
#include <set>
#include <string_view>
#include <unordered_map>

#include "data/leak.h"

namespace moe {
namespace {

constexpr size_t kRun = 8, kFewest = 8, kOften = 20;
constexpr double kSimilar = 0.7;

// Hashes of the runs of words of a folded prompt, each once.
std::set<size_t> runs_of(std::string_view key) {
  std::vector<size_t> begins{0};
  for (size_t i = 0; i < key.size(); i++)
    if (key[i] == ' ') begins.push_back(i + 1);
  std::set<size_t> runs;
  for (size_t w = 0; w + kRun <= begins.size(); w++) {
    const size_t end = w + kRun < begins.size() ? begins[w + kRun] - 1 : key.size();
    runs.insert(std::hash<std::string_view>()(key.substr(begins[w], end - begins[w])));
  }
  return runs;
}

class Items {
 public:
  explicit Items(const std::vector<Example> &items) : size_(items.size()) {
    for (const Example &item : items) {
      const std::string key = prompt_key(item);
      keys_[key]++;
      for (const size_t run : runs_of(key)) runs_[run]++;
    }
  }

  // own: the example is one of the items and does not count as another.
  bool repeat(const Example &example, bool own) const {
    const std::string key = prompt_key(example);
    const auto others = [&](const auto &counts, const auto &what) {
      const auto found = counts.find(what);
      return (found == counts.end() ? 0 : found->second) - (own ? 1 : 0);
    };
    if (others(keys_, key) > 0) return true;
    size_t counted = 0, known = 0;
    for (const size_t run : runs_of(key)) {
      const auto found = others(runs_, run);
      if (found > static_cast<int64_t>(size_ / kOften) && found > 1) continue;
      counted++;
      known += found > 0;
    }
    return counted >= kFewest && static_cast<double>(known) >= kSimilar * static_cast<double>(counted);
  }

 private:
  size_t size_;
  std::unordered_map<std::string, int64_t> keys_;
  std::unordered_map<size_t, int64_t> runs_;
};

}  // namespace

std::vector<size_t> choose_examples(const std::vector<Example> &pool, const std::vector<Example> &items, size_t count, bool own) {
  const Items known(items);
  std::vector<size_t> chosen;
  for (size_t i = 0; i < pool.size() && chosen.size() < count; i++)
    if (!known.repeat(pool[i], own)) chosen.push_back(i);
  return chosen;
}

std::string shots_of(const std::vector<Example> &pool, const std::vector<size_t> &chosen) {
  std::string shots;
  for (const size_t i : chosen) shots += pool[i].prompt + pool[i].completion + "\n\n";
  return shots;
}

}  // namespace moe
