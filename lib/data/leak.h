// Leak check between splits: held-out sequences that stand in the training data too. Two things are compared:
// - prompts, folded: white space, ASCII case and punctuation at the end of words do not count ("Loading dose is:-" is "loading
//   dose is");
// - words, without case and punctuation: a sequence is similar when three quarters of its words stand, in their order, in one
//   training sequence. That one is found by runs of four words (of packed files: tokens), so the two have to share such a run. A run
//   that more than one in twenty sequences of a training file have is of a template; words that stand in no other run count for
//   nothing. Below eight words that count nothing is said.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/cancel.h"
#include "base/json.h"
#include "data/dataset.h"
#include "data/example.h"

namespace moe {

// The prompt of an example, folded; for messages what is not the assistant's, for kind text all of it.
std::string prompt_key(const Example &example);
// 0 when there is none.
uint64_t prompt_hash(const std::string &key);
// The words of a folded text as hashes: letters and digits, all else parts them; words of one ASCII character are left out (they
// letter options), and of scripts that are written without spaces each character is a word.
std::vector<int32_t> word_hashes(std::string_view folded);

struct Leak {
  std::string path, training_path;
  int64_t row = 0, training_row = 0;
  bool same_prompt = false;
  double share = 0;  // of the words that count; 0 for the same prompt
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

// Which of the examples stand in `others`, by the same rules. own: they are those of `others` that begin there, and none stands in
// itself.
std::vector<bool> find_repeated(std::span<const Example> examples, std::span<const Example> others,
                                std::optional<size_t> own = std::nullopt);

}  // namespace moe
