// Likelihoods of token sequences under one model and overlay, many sequences in one inference pass. Keeps its caches and scratch
// memory from call to call. One thread at a time.
#pragma once
#include <memory>
#include <span>
#include <vector>

#include "data/tokenize.h"
#include "model/inference_pass.h"

namespace moe {

// Sums over tokens of the routing weights; empty without a mixture.
struct RoutingSum {
  std::vector<double> weights;  // [E + 1], sums
  int64_t tokens = 0;
  void add(const float *routing, int64_t tokens, size_t entries);
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
  std::vector<double> log_likelihood;  // result per choice: sum over its scored tokens
  RoutingSum routing;                  // result
};

// Tokens that one call of the scorer should get: enough to keep the processor busy, few enough to fit its caches.
constexpr int64_t kScoringTokens = 1024;
constexpr size_t kScoringItems = 32;  // bounds the logits of a pass

class Scorer {
 public:
  Scorer(const BaseModel &model, const Overlay &overlay, const Cancel *cancel)
      : model_(model), overlay_(overlay), cancel_(cancel) {}

  void score(std::span<ScoredSequence> sequences);
  // The shared prefix of each question goes through the model once; each choice appends to a copy of its cache.
  void score(std::span<ChoiceQuestion> questions);

 private:
  void score_prompts(std::span<ChoiceQuestion> questions);
  void score_continuations(std::span<ChoiceQuestion> questions);
  KvCache &cache(size_t index);
  size_t entries() const { return overlay_.mixture ? overlay_.mixture->experts.size() + 1 : 0; }
  void point_routing(std::vector<Segment> &segments, std::vector<std::vector<float>> &routing) const;

  const BaseModel &model_;
  Overlay overlay_;
  const Cancel *cancel_;
  InferenceScratch scratch_;
  std::vector<std::unique_ptr<KvCache>> caches_;
  std::vector<float> logits_;  // [questions, V]
};

// Ends of consecutive groups of items of at most kScoringTokens tokens (one item may have more) and kScoringItems items: group g
// is [ends[g - 1], ends[g]).
std::vector<size_t> groups_of_tokens(std::span<const int64_t> tokens);

}  // namespace moe
