#include "data/dataset.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <numeric>

#include "base/error.h"
#include "base/random.h"
#include "base/sha256.h"

namespace moe {
namespace {

constexpr uint64_t kOrderStream = uint64_t{0x6F72646572} << 24;  // streams of random numbers that nothing else uses

// Appends sequences that stand one after another behind the batch's tokens already.
void append_starts(PackedBatch &batch, std::span<const int32_t> lengths, std::span<const int32_t> domains) {
  if (batch.starts.empty()) batch.starts.push_back(0);
  for (size_t s = 0; s < lengths.size(); s++) {
    for (int32_t position = 0; position < lengths[s]; position++) batch.positions.push_back(position);
    batch.starts.push_back(batch.starts.back() + lengths[s]);
    batch.domains.push_back(domains[s]);
  }
}

}  // namespace

void Dataset::settle() {
  tokens_ = supervised_ = 0;
  Sha256 hash;
  for (Source &source : sources_) source.first = source.count = 0;
  for (size_t i = 0; i < items_.size(); i++) {
    const Item &item = items_[i];
    Source &source = sources_[item.source];
    if (source.count++ == 0) source.first = i;
    tokens_ += item.tokens;
    supervised_ += item.supervised;
    hash.update(&item.content_hash, sizeof item.content_hash);
    const std::array place{static_cast<int32_t>(item.source), source.entry};
    hash.update(place.data(), sizeof place);
  }
  share_epoch();
  std::string order = text(options_.seed, options_.shuffle ? " shuffled" : " in order");
  for (const Source &source : sources_)
    if (source.weight > 0) order += text(" ", source.drawn);
  identity_ = hash.update(order.data(), order.size()).hex();
  rewind();
}

// Largest remainders: the shares add up to the size exactly.
void Dataset::share_epoch() {
  std::map<std::string, std::pair<double, size_t>> domains;  // weight and items: the files of a domain share its weight by size
  for (const Source &source : sources_) {
    auto &[weight, count] = domains[source.domain];
    weight = source.weight;
    count += source.count;
  }
  double sum = 0;
  for (const auto &[name, domain] : domains) sum += domain.first;
  std::vector<std::pair<double, size_t>> remainders;
  size_t given = 0;
  for (size_t s = 0; s < sources_.size(); s++) {
    Source &source = sources_[s];
    double share = static_cast<double>(source.count);
    if (sum > 0) share *= source.weight / sum * static_cast<double>(items_.size()) / static_cast<double>(domains[source.domain].second);
    source.drawn = static_cast<size_t>(share);
    given += source.drawn;
    remainders.emplace_back(static_cast<double>(source.drawn) - share, s);
  }
  std::sort(remainders.begin(), remainders.end());
  for (size_t i = 0; given < items_.size(); i++, given++) sources_[remainders[i % remainders.size()].second].drawn++;
}

// Draw i of n of a source stands at (i + 1/2) / n of the epoch. Packed files keep their order.
void Dataset::order_epoch() {
  order_.resize(items_.size());
  std::iota(order_.begin(), order_.end(), 0u);
  if (packed_) return;
  std::vector<std::pair<double, uint32_t>> places;
  places.reserve(items_.size());
  for (size_t number = 0; number < sources_.size(); number++) {
    const Source &source = sources_[number];
    std::vector<uint32_t> pass(source.count);
    uint64_t begun = UINT64_MAX;  // the pass that is in `pass`
    for (size_t i = 0; i < source.drawn; i++) {
      const uint64_t draw = static_cast<uint64_t>(epoch_) * source.drawn + i;
      if (const uint64_t which = draw / source.count; which != begun) {
        begun = which;
        std::iota(pass.begin(), pass.end(), static_cast<uint32_t>(source.first));
        const Random random(options_.seed, kOrderStream + (which << 16) + number);
        for (size_t k = source.count; options_.shuffle && k > 1; k--) std::swap(pass[k - 1], pass[random.below(k, k)]);  // Fisher-Yates
      }
      places.emplace_back((static_cast<double>(i) + 0.5) / static_cast<double>(source.drawn), pass[draw % source.count]);
    }
  }
  std::stable_sort(places.begin(), places.end(), [](const auto &a, const auto &b) { return a.first < b.first; });
  for (size_t i = 0; i < places.size(); i++) order_[i] = places[i].second;
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
    const uint32_t number = order_[static_cast<size_t>(index_)];
    const Item &item = items_[number];
    const int32_t entry = sources_[item.source].entry;
    if (packed_) {
      batch = packed_batches_[number];
      if (batch.domains.empty()) batch.domains.assign(static_cast<size_t>(batch.sequences()), entry);
    } else {
      store_->read(item.place, item.tokens, batch.tokens);
      store_->read(item.place + item.tokens, item.tokens, batch.labels);
      append_starts(batch, std::array{static_cast<int32_t>(item.tokens)}, std::array{entry});
    }
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
  validation->store_ = store_;
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
  for (const PackedBatch &batch : packed_batches_) {
    for (size_t s = 0; s + 1 < batch.starts.size(); s++) {
      const int32_t begin = batch.starts[s], end = batch.starts[s + 1];
      lengths.push_back(end - begin);
      labels.push_back(std::count_if(batch.labels.begin() + begin, batch.labels.begin() + end,
                                     [](int32_t label) { return label != kNoLabel; }));
    }
  }
  for (const Item &item : items_) {
    if (packed_) break;
    const Source &source = sources_[item.source];
    // An epoch that is not a whole pass can hold the end of one and the beginning of the next.
    const size_t times = source.drawn == source.count ? 1 : source.drawn == 0 ? 0 : (source.drawn - 1) / source.count + 2;
    lengths.insert(lengths.end(), std::min<size_t>(times, static_cast<size_t>(std::max<int64_t>(rows, 0))), item.tokens);
    labels.insert(labels.end(), std::min<size_t>(times, static_cast<size_t>(std::max<int64_t>(rows, 0))), item.supervised);
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
  std::vector<int32_t> numbers;
  for (size_t i = 0; i < items_.size(); i++) {
    const Item &item = items_[i];
    if (!packed_) {
      numbers.clear();
      store_->read(item.place, item.tokens, numbers);
      store_->read(item.place + 2 * uint64_t{item.tokens}, item.words, numbers);
      const std::span<const int32_t> all(numbers);
      use({all.first(item.tokens), all.subspan(item.tokens), item.prompt_hash, item.file, item.row});
      continue;
    }
    const PackedBatch &batch = packed_batches_[i];
    for (size_t s = 0; s + 1 < batch.starts.size(); s++) {
      const auto begin = static_cast<size_t>(batch.starts[s]), end = static_cast<size_t>(batch.starts[s + 1]);
      use({std::span(batch.tokens).subspan(begin, end - begin), {}, item.prompt_hash, item.file, item.row + static_cast<int64_t>(s)});
    }
  }
}

std::vector<int64_t> Dataset::tokens_by_domain(int64_t experts) const {
  std::vector<double> tokens(static_cast<size_t>(experts));
  const auto add = [&](int32_t entry, double count) {
    if (entry >= 1 && entry <= experts) tokens[static_cast<size_t>(entry) - 1] += count;
  };
  for (size_t i = 0; i < items_.size(); i++) {
    const Source &source = sources_[items_[i].source];
    if (!packed_) {
      add(source.entry, items_[i].tokens * (static_cast<double>(source.drawn) / static_cast<double>(source.count)));
      continue;
    }
    const PackedBatch &batch = packed_batches_[i];
    for (size_t s = 0; s + 1 < batch.starts.size(); s++)
      add(batch.domains.empty() ? source.entry : batch.domains[s], batch.starts[s + 1] - batch.starts[s]);
  }
  std::vector<int64_t> result;
  for (const double count : tokens) result.push_back(std::llround(count));
  return result;
}

}  // namespace moe
