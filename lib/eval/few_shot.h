// The solved examples in front of a prompt. They are the same for every item and model, and none of them is an item or nearly
// one: an example is left out when it stands in the items by the rules of the leak check (data/leak.h).
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "data/example.h"

namespace moe {

// The first `count` indices of `pool` that repeat no item. own: the pool is the items' own file, and an example no item itself.
// Fewer when there are no more.
std::vector<size_t> choose_examples(const std::vector<Example> &pool, const std::vector<Example> &items, size_t count, bool own);

// The examples solved, each followed by an empty line.
std::string shots_of(const std::vector<Example> &pool, const std::vector<size_t> &chosen);

}  // namespace moe
