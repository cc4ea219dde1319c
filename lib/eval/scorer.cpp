#include "eval/scorer.h"

#include <algorithm>

#include "generate/sampler.h"

namespace moe {
namespace {

// Positions up to the last label.
size_t labelled_length(const std::vector<int32_t> &labels) {
  size_t length = labels.size();
  while (length > 0 && labels[length - 1] == kNoLabel) length--;
  return length;
}

// What a choice appends to the shared tokens: all of its other tokens but the last, which nothing has to predict from.
struct Appended {
  std::span<const int32_t> tokens;
  std::vector<int32_t> labels;
};
Appended appended(const Continuation &choice, int64_t shared) {
  const auto size = static_cast<int64_t>(choice.tokens.size());
  Appended result;
  result.tokens =
      std::span(choice.tokens).subspan(static_cast<size_t>(shared), static_cast<size_t>(std::max<int64_t>(0, size - 1 - shared)));
  for (int64_t t = shared; t + 1 < size; t++) {
    result.labels.push_back(t + 1 >= choice.first_scored ? choice.tokens[static_cast<size_t>(t + 1)] : kNoLabel);
  }
  return result;
}

// Whether the last shared token predicts a token that is scored.
bool scores_first(const ChoiceQuestion &question) {
  const auto first = [&](const Continuation &choice) { return choice.first_scored == question.shared; };
  return question.shared > 0 && std::any_of(question.choices.begin(), question.choices.end(), first);
}

}  // namespace

void RoutingSum::add(const float *routing, int64_t count, size_t entries) {
  if (entries == 0) return;
  weights.resize(entries);
  for (int64_t t = 0; t < count; t++)
    for (size_t e = 0; e < entries; e++) weights[e] += routing[static_cast<size_t>(t) * entries + e];
  tokens += count;
}

KvCache &Scorer::cache(size_t index) {
  while (caches_.size() <= index) caches_.push_back(std::make_unique<KvCache>(model_, 0));
  return *caches_[index];
}

void Scorer::point_routing(std::vector<Segment> &segments, std::vector<std::vector<float>> &routing) const {
  routing.resize(segments.size());
  for (size_t i = 0; entries() > 0 && i < segments.size(); i++) {
    routing[i].resize(segments[i].tokens.size() * entries());
    segments[i].routing = routing[i].data();
  }
}

void Scorer::score(std::span<ScoredSequence> sequences) {
  std::vector<Segment> segments;
  for (ScoredSequence &sequence : sequences) {
    const size_t length = labelled_length(sequence.labels);
    KvCache &own = cache(segments.size());
    own.truncate(0);
    sequence.nll.assign(sequence.tokens.size(), 0);
    Segment segment;
    segment.tokens = std::span(sequence.tokens).first(length);
    segment.labels = std::span(sequence.labels).first(length);
    segment.nll = sequence.nll.data();
    segment.cache = &own;
    segments.push_back(segment);
  }
  std::vector<std::vector<float>> routing;
  point_routing(segments, routing);
  inference_pass(model_, overlay_, segments, scratch_, cancel_);
  for (size_t i = 0; i < sequences.size(); i++) {
    sequences[i].routing = {};
    sequences[i].routing.add(routing[i].data(), static_cast<int64_t>(segments[i].tokens.size()), entries());
  }
}

void Scorer::score(std::span<ChoiceQuestion> questions) {
  while (questions.size() > kScoringItems) {
    score(questions.first(kScoringItems));
    questions = questions.subspan(kScoringItems);
  }
  score_prompts(questions);
  score_continuations(questions);
}

// The shared tokens. Their last one predicts the first token of every choice, from one row of logits.
void Scorer::score_prompts(std::span<ChoiceQuestion> questions) {
  const auto vocabulary = static_cast<size_t>(model_.config().vocabulary);
  std::vector<Segment> segments;
  logits_.resize(questions.size() * vocabulary);
  for (ChoiceQuestion &question : questions) {
    KvCache &own = cache(segments.size());
    own.truncate(0);
    Segment segment;
    segment.tokens = std::span(question.choices.front().tokens).first(static_cast<size_t>(question.shared));
    segment.cache = &own;
    if (scores_first(question)) segment.logits = logits_.data() + segments.size() * vocabulary;
    segments.push_back(segment);
  }
  std::vector<std::vector<float>> routing;
  point_routing(segments, routing);
  inference_pass(model_, overlay_, segments, scratch_, cancel_);
  for (size_t q = 0; q < questions.size(); q++) {
    ChoiceQuestion &question = questions[q];
    question.routing = {};
    question.routing.add(routing[q].data(), question.shared, entries());
    question.log_likelihood.assign(question.choices.size(), 0);
    if (!segments[q].logits) continue;
    const std::span<const float> logits(segments[q].logits, vocabulary);
    const double normaliser = log_sum_exp(logits);
    for (size_t c = 0; c < question.choices.size(); c++) {
      const Continuation &choice = question.choices[c];
      if (choice.first_scored != question.shared) continue;
      question.log_likelihood[c] = logits[static_cast<size_t>(choice.tokens[static_cast<size_t>(question.shared)])] - normaliser;
    }
  }
}

// The other tokens of each choice, after a copy of the shared ones. A choice of one token has none.
void Scorer::score_continuations(std::span<ChoiceQuestion> questions) {
  std::vector<Appended> parts;
  for (const ChoiceQuestion &question : questions)
    for (const Continuation &choice : question.choices) parts.push_back(appended(choice, question.shared));
  std::vector<std::vector<float>> nll(parts.size()), routing;
  std::vector<Segment> segments;
  for (size_t q = 0; q < questions.size(); q++) {
    for (size_t c = 0; c < questions[q].choices.size(); c++) {
      const Appended &part = parts[segments.size()];
      nll[segments.size()].resize(part.tokens.size());
      KvCache &own = cache(questions.size() + segments.size());
      if (part.tokens.empty()) own.truncate(0);
      else own.copy_from(cache(q), questions[q].shared);
      Segment segment;
      segment.tokens = part.tokens;
      segment.labels = part.labels;
      segment.nll = nll[segments.size()].data();
      segment.cache = &own;
      segments.push_back(segment);
    }
  }
  point_routing(segments, routing);
  inference_pass(model_, overlay_, segments, scratch_, cancel_);
  size_t next = 0;
  for (ChoiceQuestion &question : questions) {
    for (size_t c = 0; c < question.choices.size(); c++, next++) {
      for (const float token : nll[next]) question.log_likelihood[c] -= token;
      if (static_cast<int64_t>(c) == question.routed) {
        question.routing.add(routing[next].data(), static_cast<int64_t>(segments[next].tokens.size()), entries());
      }
    }
  }
}

std::vector<size_t> groups_of_tokens(std::span<const int64_t> tokens) {
  std::vector<size_t> ends;
  int64_t sum = 0;
  for (size_t i = 0; i < tokens.size(); i++) {
    const size_t first = ends.empty() ? 0 : ends.back();
    if (i > first && (sum + tokens[i] > kScoringTokens || i - first == kScoringItems)) {
      ends.push_back(i);
      sum = 0;
    }
    sum += tokens[i];
  }
  if (!tokens.empty()) ends.push_back(tokens.size());
  return ends;
}

}  // namespace moe
