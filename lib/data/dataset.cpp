#include "data/dataset.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "base/random.h"
#include "base/sha256.h"

namespace moe {
namespace {

constexpr uint64_t kOrderStream = uint64_t{0x6F72646572} << 24;  // streams of random numbers that nothing else uses

void append(PackedBatch &batch, const PackedBatch &item, int32_t entry) {
  if (batch.starts.empty()) batch.starts.push_back(0);
  const int32_t first = batch.starts.back();
  batch.tokens.insert(batch.tokens.end(), item.tokens.begin(), item.tokens.end());
  batch.labels.insert(batch.labels.end(), item.labels.begin(), item.labels.end());
  for (size_t s = 1; s < item.starts.size(); s++) {
    for (int32_t position = 0; position < item.starts[s] - item.starts[s - 1]; position++) batch.positions.push_back(position);
    batch.starts.push_back(first + item.starts[s]);
    batch.domains.push_back(item.domains.empty() ? entry : item.domains[s - 1]);
  }
}

void hash_numbers(Sha256 &hash, const std::vector<int32_t> &numbers) {
  const uint64_t count = numbers.size();
  hash.update(&count, sizeof count).update(numbers.data(), count * sizeof(int32_t));
}

}  // namespace

void Dataset::settle() {
  tokens_ = supervised_ = 0;
  Sha256 hash;
  for (const Item &item : items_) {
    tokens_ += item.batch.size();
    supervised_ += item.batch.supervised();
    hash_numbers(hash, item.batch.tokens);
    hash_numbers(hash, item.batch.labels);
    hash_numbers(hash, {static_cast<int32_t>(item.source), sources_[item.source].entry});
  }
  const std::string order = text(options_.seed, options_.shuffle ? " shuffled" : " in order");
  identity_ = hash.update(order.data(), order.size()).hex();
  rewind();
}

// Each source is shuffled by itself; item i of n of a source stands at (i + 1/2) / n of the epoch. Packed files keep their order.
void Dataset::order_epoch() {
  order_.resize(items_.size());
  std::iota(order_.begin(), order_.end(), 0u);
  if (packed_) return;
  std::vector<double> place(items_.size());
  for (size_t first = 0, source = 0; first < items_.size(); source++) {
    size_t n = 0;
    while (first + n < items_.size() && items_[first + n].source == source) n++;
    const Random random(options_.seed, kOrderStream + (static_cast<uint64_t>(epoch_) << 16) + source);
    for (size_t i = n; options_.shuffle && i > 1; i--)  // Fisher-Yates
      std::swap(order_[first + i - 1], order_[first + random.below(i, i)]);
    for (size_t i = 0; i < n; i++) place[order_[first + i]] = (static_cast<double>(i) + 0.5) / static_cast<double>(n);
    first += n;
  }
  std::stable_sort(order_.begin(), order_.end(), [&](uint32_t a, uint32_t b) { return place[a] < place[b]; });
}

int64_t Dataset::batches_per_epoch(int64_t rows) const {
  if (rows < 1) fail(Code::invalid, "data: a batch of ", rows, " rows, expected at least 1");
  return packed_ ? size() : (size() + rows - 1) / rows;
}

PackedBatch Dataset::next(int64_t rows) {
  if (rows < 1) fail(Code::invalid, "data: a batch of ", rows, " rows, expected at least 1");
  if (index_ == size()) {
    epoch_++;
    index_ = 0;
    order_epoch();
  }
  PackedBatch batch;
  for (int64_t i = 0, count = packed_ ? 1 : rows; i < count && index_ < size(); i++, index_++) {
    const Item &item = items_[order_[static_cast<size_t>(index_)]];
    append(batch, item.batch, sources_[item.source].entry);
  }
  return batch;
}

void Dataset::rewind() {
  epoch_ = index_ = 0;
  order_epoch();
}

Json Dataset::cursor() const { return Json::object().set("epoch", epoch_).set("index", index_).set("identity", identity_); }

void Dataset::restore(const Json &cursor) {
  const std::string source = "data cursor";
  if (!cursor.is_object()) fail(Code::format, source, ": not an object");
  if (cursor.string_at("identity", source) != identity_)
    fail(Code::state, "data: the examples, their order or the seed are not those of the checkpoint");
  const int64_t epoch = cursor.integer_at("epoch", source), index = cursor.integer_at("index", source);
  if (epoch < 0 || epoch > INT32_MAX || index < 0 || index > size())
    fail(Code::format, source, ": index ", index, " of ", size(), " sequences in epoch ", epoch);
  const bool same_epoch = epoch == epoch_;
  epoch_ = epoch;
  index_ = index;
  if (!same_epoch) order_epoch();
}

std::shared_ptr<Dataset> Dataset::take_validation(double fraction) {
  if (!(fraction > 0 && fraction < 1)) fail(Code::invalid, "validation split: ", fraction, ", expected a share between 0 and 1");
  if (packed_) fail(Code::invalid, "validation split: packed files are whole steps and cannot be split");
  // Per source the prompts with the smallest hashes, until the share is reached: at least one, never all.
  std::vector<uint64_t> limit(sources_.size(), 0);
  for (size_t source = 0; source < sources_.size(); source++) {
    std::vector<uint64_t> hashes;
    for (const Item &item : items_)
      if (item.source == source) hashes.push_back(item.prompt_hash);
    std::sort(hashes.begin(), hashes.end());
    const auto wanted = static_cast<size_t>(std::llround(fraction * static_cast<double>(hashes.size())));
    limit[source] = hashes[std::min(std::max<size_t>(wanted, 1), hashes.size()) - 1];
    if (limit[source] == hashes.back())
      fail(Code::invalid, "validation split: ", fraction, " of the ", hashes.size(), " sequences of '", sources_[source].path,
           "' leaves none to train on");
  }
  std::shared_ptr<Dataset> validation(new Dataset());
  validation->options_ = options_;
  validation->sources_ = sources_;
  validation->report_ = report_;
  validation->skipped_ = skipped_;
  const auto stays = [&](const Item &item) { return item.prompt_hash > limit[item.source]; };
  const auto taken = std::stable_partition(items_.begin(), items_.end(), stays);
  validation->items_.assign(std::make_move_iterator(taken), std::make_move_iterator(items_.end()));
  items_.erase(taken, items_.end());
  validation->settle();
  settle();
  return validation;
}

void Dataset::largest_batch(int64_t rows, int64_t *tokens, int64_t *supervised) const {
  std::vector<int64_t> lengths, labels;
  for (const Item &item : items_) {
    const PackedBatch &batch = item.batch;
    for (size_t s = 0; s + 1 < batch.starts.size(); s++) {
      const int32_t begin = batch.starts[s], end = batch.starts[s + 1];
      lengths.push_back(end - begin);
      labels.push_back(std::count_if(batch.labels.begin() + begin, batch.labels.begin() + end,
                                     [](int32_t label) { return label != kNoLabel; }));
    }
  }
  const auto sum_of_largest = [&](std::vector<int64_t> &values) {
    std::sort(values.rbegin(), values.rend());
    values.resize(std::min<size_t>(values.size(), static_cast<size_t>(std::max<int64_t>(rows, 0))));
    return std::accumulate(values.begin(), values.end(), int64_t{0});
  };
  *tokens = sum_of_largest(lengths);
  *supervised = sum_of_largest(labels);
}

void Dataset::each_sequence(const std::function<void(const Sequence &)> &use) const {
  for (const Item &item : items_) {
    const std::vector<int32_t> &starts = item.batch.starts;
    for (size_t s = 0; s + 1 < starts.size(); s++) {
      const auto begin = static_cast<size_t>(starts[s]), end = static_cast<size_t>(starts[s + 1]);
      use({std::span(item.batch.tokens).subspan(begin, end - begin), item.prompt_hash, item.file,
           item.row + static_cast<int64_t>(s)});
    }
  }
}

std::vector<int64_t> Dataset::tokens_by_domain(int64_t experts) const {
  std::vector<int64_t> tokens(static_cast<size_t>(experts));
  for (const Item &item : items_) {
    const PackedBatch &batch = item.batch;
    for (size_t s = 0; s + 1 < batch.starts.size(); s++) {
      const int32_t entry = batch.domains.empty() ? sources_[item.source].entry : batch.domains[s];
      if (entry >= 1 && entry <= experts) tokens[static_cast<size_t>(entry) - 1] += batch.starts[s + 1] - batch.starts[s];
    }
  }
  return tokens;
}

}  // namespace moe
