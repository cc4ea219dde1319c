// Likelihoods of token sequences under one model and overlay, many sequences in one inference pass. Keeps its scratch memory from
// call to call. One thread at a time.
#pragma once
#include <memory>
#include <span>
#include <vector>

#include "data/tokenize.h"
#include "model/inference_pass.h"

namespace moe {

// Sums over tokens of the routing weights; empty without a mixture.
struct RoutingSum {
  std::vector<double> weights;  // [E + 1], means over the layers
  std::vector<double> layers;   // [L, E + 1]
  int64_t tokens = 0;
  void add(const Segment &segment, size_t tokens, size_t entries, size_t usage);  // usage: size of segment.usage
  void add(const RoutingSum &other);
};

struct ScoredSequence {
  std::vector<int32_t> tokens, labels;  // [n] each; what follows the last label is not computed
  std::vector<float> nll;               // [n] result, 0 where there is no label
  RoutingSum routing;                   // result
};

// One prompt with several continuations, as tokenize_continuation gives them.
struct ChoiceQuestion {
  std::vector<Continuation> choices;
  int64_t shared = 0;                  // tokens at the beginning of all choices that are computed once
  int64_t routed = -1;                 // choice whose tokens count in the routing, with the shared ones; -1 = none
  int32_t end = -1;                    // token whose likelihood after the routed choice is wanted too; -1 = none
  std::vector<double> log_likelihood;  // result per choice: sum over its scored tokens
  double end_log_likelihood = 0;       // result, in none of the sums
  RoutingSum routing;                  // result
};

// Tokens the question costs.
int64_t tokens_of(const ChoiceQuestion &question);

// Tokens that one call of the scorer should get: enough to keep the processor busy, few enough to fit its caches.
constexpr int64_t kScoringTokens = 2048;
constexpr size_t kScoringItems = 32;  // bounds the logits of a pass
constexpr size_t kWorthSharing = 16;  // tokens of a common front that are computed apart

class Scorer {
 public:
  // memory: bytes that a pass may take, besides weights; 0 = any number. What does not fit into one pass goes through the model in
  // several; Code::no_memory when one sequence, or one question with its choices, does not fit.
  Scorer(const BaseModel &model, const Overlay &overlay, const Cancel *cancel, uint64_t memory = 0)
      : model_(model), overlay_(overlay), cancel_(cancel), memory_(memory) {}

  // Computes these tokens once; questions that begin with them cost only what follows, which has to begin before their choices
  // do.
  void set_front(std::span<const int32_t> tokens);
  // Tokens of a question that are computed: not those of the front.
  int64_t cost(const ChoiceQuestion &question) const { return tokens_of(question) - static_cast<int64_t>(skipped(question)); }

  void score(std::span<ScoredSequence> sequences);
  // The shared tokens of each question go through the model once, in one pass with all of its choices.
  void score(std::span<ChoiceQuestion> questions);
  int64_t passes() const { return passes_; }  // so far

 private:
  // What a choice appends to the shared tokens.
  struct Appended {
    std::span<const int32_t> tokens;
    std::vector<int32_t> labels;
    std::vector<float> nll;
  };
  static Appended appended(const ChoiceQuestion &question, size_t index);
  template <class Item>
  void in_passes(std::span<Item> items);
  bool fits();
  void run();
  void prepare(std::span<ScoredSequence> sequences);
  void prepare(std::span<ChoiceQuestion> questions);
  void take_results(std::span<ScoredSequence> sequences) const;
  void take_results(std::span<ChoiceQuestion> questions) const;
  void take_results(ChoiceQuestion &question, size_t first) const;
  size_t skipped(const ChoiceQuestion &question) const;  // tokens of the front that it begins with: all of them or none
  size_t entries() const { return overlay_.mixture ? overlay_.mixture->experts.size() + 1 : 0; }
  size_t usage_size() const { return entries() * static_cast<size_t>(model_.config().layers); }

  const BaseModel &model_;
  Overlay overlay_;
  const Cancel *cancel_;
  uint64_t memory_;
  int64_t passes_ = 0;
  InferenceScratch scratch_;
  std::vector<int32_t> front_;
  std::unique_ptr<KvCache> front_cache_;
  std::vector<Segment> segments_;  // of one pass
  std::vector<Appended> parts_;    // of its choices
  std::vector<float> logits_;   // [questions, V]
  std::vector<float> routing_;  // of all segments, one after another
  std::vector<double> usage_;   // [segments, L, E + 1]
};

// Ends of consecutive groups of items of at most kScoringTokens tokens (one item may have more) and kScoringItems items: group g
// is [ends[g - 1], ends[g]).
std::vector<size_t> groups_of_tokens(std::span<const int64_t> tokens);

}  // namespace moe
