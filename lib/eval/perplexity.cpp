// Perplexity over overlapping windows; rule: evaluation.h.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "eval/evaluation.h"
#include "eval/scorer.h"

namespace moe {
namespace {

struct Window {
  int64_t first_scored = 0, end = 0;  // tokens of the text that it scores
  ScoredSequence sequence;
};

// The window that starts at text token `start`; `done` tokens are scored already.
Window make_window(const std::vector<int32_t> &tokens, int64_t start, int64_t window, int32_t bos, int64_t done) {
  const int64_t before = bos >= 0 ? 1 : 0;
  Window result;
  result.end = std::min(start + window - before, static_cast<int64_t>(tokens.size()));
  result.first_scored = std::max(done, start + 1 - before);
  result.sequence.tokens.assign(tokens.begin() + start, tokens.begin() + result.end);
  if (bos >= 0) result.sequence.tokens.insert(result.sequence.tokens.begin(), bos);
  result.sequence.labels.assign(result.sequence.tokens.size(), kNoLabel);
  for (int64_t t = result.first_scored; t < result.end; t++) {
    result.sequence.labels[static_cast<size_t>(t - start + before - 1)] = tokens[static_cast<size_t>(t)];
  }
  return result;
}

void check(const std::vector<int32_t> &tokens, int64_t window, int64_t stride, int64_t before) {
  if (window < 2) fail(Code::invalid, "window is ", window, ", expected at least 2");
  if (stride < 1 || stride > window - 1) {
    fail(Code::invalid, "stride is ", stride, ", expected 1 to ", window - 1, " with window ", window,
         ": every token needs one before it");
  }
  if (static_cast<int64_t>(tokens.size()) + before < 2)
    fail(Code::invalid, "the text has ", tokens.size(), " tokens: there is nothing to score");
}

}  // namespace

PerplexityResult perplexity(const BaseModel &model, const Overlay &overlay, const std::vector<int32_t> &tokens, int64_t window,
                            int64_t stride, const Cancel *cancel) {
  const Tokenizer *tokenizer = model.tokenizer();
  const int32_t bos = tokenizer && tokenizer->adds_bos() ? tokenizer->bos() : -1;
  const int64_t before = bos >= 0 ? 1 : 0, size = static_cast<int64_t>(tokens.size());
  check(tokens, window, stride, before);
  PerplexityResult result;
  result.window = window;
  result.stride = stride;
  result.tokens = size;
  Scorer scorer(model, overlay, cancel);
  std::vector<Window> windows;
  const auto flush = [&] {
    std::vector<ScoredSequence> sequences;
    for (Window &one : windows) sequences.push_back(std::move(one.sequence));
    scorer.score(sequences);
    for (const ScoredSequence &sequence : sequences)
      for (size_t t = 0; t < sequence.labels.size(); t++)
        if (sequence.labels[t] != kNoLabel) result.nll.push_back(sequence.nll[t]);
    windows.clear();
  };
  int64_t done = 1 - before, queued = 0;
  for (int64_t start = 0; done < size; start += stride) {
    windows.push_back(make_window(tokens, start, window, bos, done));
    done = std::max(done, windows.back().end);
    queued += static_cast<int64_t>(windows.back().sequence.tokens.size());
    if (queued < kScoringTokens && done < size) continue;
    flush();
    queued = 0;
  }
  double sum = 0;
  for (const double nll : result.nll) sum += nll;
  result.tokens_scored = static_cast<int64_t>(result.nll.size());
  result.mean_nll = sum / static_cast<double>(result.tokens_scored);
  result.perplexity = std::exp(result.mean_nll);
  return result;
}

}  // namespace moe
