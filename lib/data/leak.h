// Leak check between splits: held-out sequences that stand in the training data too. Two things are compared:
// - prompts, folded: white space, ASCII case and punctuation at the end of words do not count ("Loading dose is:-" is "loading
//   dose is");
// - runs of eight tokens: a sequence is similar when 70 % of its runs stand in the training data (the rule of PaLM, Chowdhery et
//   al. 2022, section 8, there for words). A run that more than one in twenty training sequences have is of a template and counts
//   for nothing; below eight runs that count nothing is said.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/cancel.h"
#include "base/json.h"
#include "data/dataset.h"
#include "data/example.h"

namespace moe {

// The prompt of an example, folded; for messages what is not the assistant's, for kind text all of it.
std::string prompt_key(const Example &example);

struct Leak {
  std::string path, training_path;
  int64_t row = 0, training_row = 0;
  bool same_prompt = false;
  double share = 0;  // of the runs that count; 0 when too few do
};

struct LeakReport {
  int64_t sequences = 0;                    // held-out ones that were looked at
  int64_t same_prompt = 0, similar = 0;     // of them: the prompt is a training prompt; another prompt, but similar
  std::vector<Leak> first;                  // at most five
  int64_t count() const { return same_prompt + similar; }
  void add(const LeakReport &other);        // of other held-out data
  std::string line() const;                 // for the log: counts and the first rows
  Json to_json() const;
};
LeakReport find_leaks(const Dataset &training, const Dataset &held_out, const Cancel *cancel);

}  // namespace moe
