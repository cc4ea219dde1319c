// Leak check between splits: prompts of one file that stand in another too. Compared are folded prompts: white space, ASCII case
// and punctuation at the end of words do not count ("Loading dose is:-" is "loading dose is").
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "data/example.h"

namespace moe {

// The prompt of an example, folded; for messages what is not the assistant's, for kind text all of it.
std::string prompt_key(const Example &example);

struct LeakReport {
  int64_t count = 0;               // evaluation examples whose prompt is a training prompt
  std::vector<std::string> first;  // of at most five: "row 3 (training row 17): which of the ..."
};
LeakReport find_leaks(const std::vector<Example> &training, const std::vector<Example> &evaluation);

}  // namespace moe
