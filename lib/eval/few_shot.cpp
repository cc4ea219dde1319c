#include "eval/few_shot.h"

#include <algorithm>
#include <span>

#include "data/leak.h"

namespace moe {

std::vector<size_t> choose_examples(const std::vector<Example> &pool, const std::vector<Example> &items, size_t count, bool own) {
  const size_t part = std::max<size_t>(64, 4 * count);  // of a large pool the beginning is enough
  std::vector<size_t> chosen;
  for (size_t first = 0; first < pool.size() && chosen.size() < count; first += part) {
    const auto some = std::span(pool).subspan(first, std::min(part, pool.size() - first));
    const std::vector<bool> repeated = find_repeated(some, items, own ? std::optional(first) : std::nullopt);
    for (size_t i = 0; i < some.size() && chosen.size() < count; i++)
      if (!repeated[i]) chosen.push_back(first + i);
  }
  return chosen;
}

std::string shots_of(const std::vector<Example> &pool, const std::vector<size_t> &chosen) {
  std::string shots;
  for (const size_t i : chosen) shots += pool[i].prompt + pool[i].completion + "\n\n";
  return shots;
}

}  // namespace moe
