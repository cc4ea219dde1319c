#include "eval/scorer.h"

#include <algorithm>

#include "base/error.h"
#include "generate/sampler.h"

namespace moe {
namespace {

// Positions up to the last label.
size_t labelled_length(const std::vector<int32_t> &labels) {
  size_t length = labels.size();
  while (length > 0 && labels[length - 1] == kNoLabel) length--;
  return length;
}

// Whether the last shared token predicts a token that is scored.
bool scores_first(const ChoiceQuestion &question) {
  const auto first = [&](const Continuation &choice) { return choice.first_scored == question.shared; };
  return question.shared > 0 && std::any_of(question.choices.begin(), question.choices.end(), first);
}

}  // namespace

int64_t tokens_of(const ChoiceQuestion &question) {
  int64_t tokens = question.shared + (question.end >= 0);
  for (const Continuation &choice : question.choices) tokens += static_cast<int64_t>(choice.tokens.size()) - 1 - question.shared;
  return tokens;
}

void RoutingSum::add(const Segment &segment, size_t count, size_t entries, size_t usage) {
  if (entries == 0) return;
  weights.resize(entries);
  layers.resize(usage);
  for (size_t t = 0; t < count; t++)
    for (size_t e = 0; e < entries; e++) weights[e] += segment.routing[t * entries + e];
  for (size_t i = 0; i < usage; i++) layers[i] += segment.usage[i];
  tokens += static_cast<int64_t>(count);
}

void RoutingSum::add(const RoutingSum &other) {
  weights.resize(other.weights.size());
  layers.resize(other.layers.size());
  for (size_t e = 0; e < weights.size(); e++) weights[e] += other.weights[e];
  for (size_t i = 0; i < layers.size(); i++) layers[i] += other.layers[i];
  tokens += other.tokens;
}

// All of its other tokens but the last, which nothing has to predict from unless an end token is wanted.
Scorer::Appended Scorer::appended(const ChoiceQuestion &question, size_t index) {
  const Continuation &choice = question.choices[index];
  const bool ends = question.end >= 0 && static_cast<int64_t>(index) == question.routed;
  const auto first = static_cast<size_t>(question.shared), size = choice.tokens.size();
  Appended result;
  result.tokens = std::span(choice.tokens).subspan(first, size - first - (ends ? 0 : 1));
  for (size_t t = first + 1; t < size; t++) {
    result.labels.push_back(static_cast<int64_t>(t) >= choice.first_scored ? choice.tokens[t] : kNoLabel);
  }
  if (ends) result.labels.push_back(question.end);
  result.nll.resize(result.tokens.size());
  return result;
}

// Whether a pass over segments_ stays within the memory.
bool Scorer::fits() {
  if (memory_ == 0) return true;
  const uint64_t front = front_cache_ ? front_cache_->bytes() : 0;
  return front + logits_.size() * sizeof(float) + inference_pass_bytes(model_, overlay_, segments_) <= memory_;
}

// As many items in a pass as fit, halved until they do.
template <class Item>
void Scorer::in_passes(std::span<Item> items) {
  size_t count = kScoringItems;
  while (!items.empty()) {
    count = std::min(count, items.size());
    for (prepare(items.first(count)); !fits(); prepare(items.first(count))) {
      if (count == 1) {
        fail(Code::no_memory, "memory_limit: ", memory_, " bytes are left for a pass, but one item needs ",
             inference_pass_bytes(model_, overlay_, segments_), "; use a smaller max_length");
      }
      count /= 2;
    }
    run();
    take_results(items.first(count));
    items = items.subspan(count);
  }
}

// One pass over segments_, with their routing in routing_ and usage_.
void Scorer::run() {
  size_t tokens = 0;
  for (const Segment &segment : segments_) tokens += segment.tokens.size();
  routing_.resize(tokens * entries());
  usage_.assign(segments_.size() * usage_size(), 0);
  float *at = routing_.data();
  for (size_t i = 0; i < segments_.size() && entries() > 0; i++) {
    segments_[i].routing = at;
    segments_[i].usage = usage_.data() + i * usage_size();
    at += segments_[i].tokens.size() * entries();
  }
  inference_pass(model_, overlay_, segments_, scratch_, cancel_);
  passes_++;
}

void Scorer::set_front(std::span<const int32_t> tokens) {
  front_.assign(tokens.begin(), tokens.end());
  front_cache_ = std::make_unique<KvCache>(model_, static_cast<int64_t>(front_.size()));
  Segment segment;
  segment.tokens = front_;
  segment.cache = front_cache_.get();
  inference_pass(model_, overlay_, {&segment, 1}, scratch_, cancel_);
}

size_t Scorer::skipped(const ChoiceQuestion &question) const {
  const std::vector<int32_t> &tokens = question.choices.front().tokens;
  const bool fits =
      static_cast<size_t>(question.shared) > front_.size() && std::equal(front_.begin(), front_.end(), tokens.begin());
  return fits ? front_.size() : 0;
}

void Scorer::score(std::span<ScoredSequence> sequences) { in_passes(sequences); }
void Scorer::score(std::span<ChoiceQuestion> questions) { in_passes(questions); }

void Scorer::prepare(std::span<ScoredSequence> sequences) {
  segments_.clear();
  logits_.clear();
  for (ScoredSequence &sequence : sequences) {
    const size_t length = labelled_length(sequence.labels);
    sequence.nll.assign(sequence.tokens.size(), 0);
    Segment &segment = segments_.emplace_back();
    segment.tokens = std::span(sequence.tokens).first(length);
    segment.labels = std::span(sequence.labels).first(length);
    segment.nll = sequence.nll.data();
  }
}

void Scorer::take_results(std::span<ScoredSequence> sequences) const {
  for (size_t i = 0; i < sequences.size(); i++) {
    sequences[i].routing = {};
    sequences[i].routing.add(segments_[i], segments_[i].tokens.size(), entries(), usage_size());
  }
}

// The shared tokens of each question are a segment that its choices continue. Their last one predicts the first token of every
// choice, from one row of logits; the labels of a choice are the tokens after that.
void Scorer::prepare(std::span<ChoiceQuestion> questions) {
  const auto vocabulary = static_cast<size_t>(model_.config().vocabulary);
  parts_.clear();
  for (const ChoiceQuestion &question : questions)
    for (size_t c = 0; c < question.choices.size(); c++) parts_.push_back(appended(question, c));
  logits_.resize(questions.size() * vocabulary);
  segments_.clear();
  for (size_t q = 0, part = 0; q < questions.size(); q++) {
    const ChoiceQuestion &question = questions[q];
    const auto shared = static_cast<int32_t>(segments_.size());
    Segment &prompt = segments_.emplace_back();
    const size_t begin = skipped(question);
    prompt.tokens = std::span(question.choices.front().tokens).subspan(begin, static_cast<size_t>(question.shared) - begin);
    if (begin > 0) prompt.front = front_cache_.get();
    const Segment start = prompt;
    if (scores_first(question)) prompt.logits = logits_.data() + q * vocabulary;
    for (size_t c = 0; c < question.choices.size(); c++, part++) {
      Segment &choice = segments_.emplace_back();
      choice.tokens = parts_[part].tokens;
      choice.labels = parts_[part].labels;
      choice.nll = parts_[part].nll.data();
      choice.front = start.front;
      choice.prefix = shared;
      choice.prefix_tokens = static_cast<int64_t>(start.tokens.size());
    }
  }
}

void Scorer::take_results(std::span<ChoiceQuestion> questions) const {
  size_t first = 0;
  for (ChoiceQuestion &question : questions) {
    take_results(question, first);
    first += 1 + question.choices.size();
  }
}

// Of the question whose shared tokens are segment `first`.
void Scorer::take_results(ChoiceQuestion &question, size_t first) const {
  const Segment &prompt = segments_[first];
  question.log_likelihood.assign(question.choices.size(), 0);
  question.end_log_likelihood = 0;
  question.routing = {};
  question.routing.add(prompt, prompt.tokens.size(), entries(), usage_size());
  const std::span<const float> logits(prompt.logits, prompt.logits ? static_cast<size_t>(model_.config().vocabulary) : 0);
  const double normaliser = prompt.logits ? log_sum_exp(logits) : 0;
  for (size_t c = 0; c < question.choices.size(); c++) {
    const Continuation &choice = question.choices[c];
    const Segment &segment = segments_[first + 1 + c];
    const bool routed = static_cast<int64_t>(c) == question.routed, ends = routed && question.end >= 0;
    double &sum = question.log_likelihood[c];
    if (prompt.logits && choice.first_scored == question.shared)
      sum += logits[static_cast<size_t>(choice.tokens[static_cast<size_t>(question.shared)])] - normaliser;
    for (size_t t = 0; t + (ends ? 1 : 0) < segment.tokens.size(); t++) sum -= segment.nll[t];
    if (ends) question.end_log_likelihood = -segment.nll[segment.tokens.size() - 1];
    if (routed) question.routing.add(segment, segment.tokens.size(), entries(), usage_size());
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
