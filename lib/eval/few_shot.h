// The solved examples in front of a prompt. They are the same for every item and model, and none of them is an item or nearly
// one: an example is left out when its prompt is that of an item but for case, white space and punctuation at the end of words,
// or when 70 % of its runs of eight words stand in items (the rule of data/leak.h; runs that more than one in twenty items have
// are of the template and do not count).
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
