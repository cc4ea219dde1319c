#include "text/merges.h"

#include <algorithm>
#include <bit>
#include <cstddef>

namespace moe {
namespace {

constexpr size_t kShort = 24;  // symbols up to which looking for the minimum is faster than a heap

uint64_t pair_key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}
size_t pair_hash(uint64_t pair) { return static_cast<size_t>((pair * 0x9E3779B97F4A7C15) >> 24); }

}  // namespace

void Merges::reserve(size_t pairs) {
  std::vector<Slot> old(std::bit_ceil(2 * pairs + 16));
  old.swap(slots_);
  pairs_ = 0;
  for (const Slot &slot : old) {
    if (slot.merge.id < 0) continue;
    size_t at = pair_hash(slot.pair) & (slots_.size() - 1);
    while (slots_[at].merge.id >= 0) at = (at + 1) & (slots_.size() - 1);
    slots_[at] = slot;
    ++pairs_;
  }
}

void Merges::add_pair(int32_t left, int32_t right, Merge merge) {
  if (slots_.size() < 2 * (pairs_ + 1)) reserve(2 * (pairs_ + 1));
  const uint64_t pair = pair_key(left, right);
  size_t at = pair_hash(pair) & (slots_.size() - 1);
  for (; slots_[at].merge.id >= 0; at = (at + 1) & (slots_.size() - 1)) {
    if (slots_[at].pair == pair) return;
  }
  slots_[at] = {pair, merge};
  ++pairs_;
}

Merges::Merge Merges::look_up(int32_t left, int32_t right) const {
  if (left < 0 || right < 0 || slots_.empty()) return {};
  const uint64_t pair = pair_key(left, right);
  for (size_t at = pair_hash(pair) & (slots_.size() - 1); slots_[at].merge.id >= 0; at = (at + 1) & (slots_.size() - 1)) {
    if (slots_[at].pair == pair) return slots_[at].merge;
  }
  return {};
}

template <class Look>
void Merges::merge_short(std::vector<Symbol> &symbols, Look &&look) {
  std::array<Merge, kShort> merges;  // merges[i] joins the symbols i and i + 1
  size_t count = symbols.size();
  for (size_t i = 0; i + 1 < count; ++i) merges[i] = look(symbols[i], symbols[i + 1]);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i) {
      if (merges[i].rank < merges[best].rank) best = i;
    }
    if (merges[best].rank == kNoRank) break;
    symbols[best].end = symbols[best + 1].end;
    symbols[best].id = merges[best].id;
    std::copy(symbols.begin() + static_cast<ptrdiff_t>(best) + 2, symbols.begin() + static_cast<ptrdiff_t>(count),
              symbols.begin() + static_cast<ptrdiff_t>(best) + 1);
    for (size_t i = best + 1; i + 2 < count; ++i) merges[i] = merges[i + 1];
    --count;
    if (best > 0) merges[best - 1] = look(symbols[best - 1], symbols[best]);
    if (best + 1 < count) merges[best] = look(symbols[best], symbols[best + 1]);
  }
  symbols.resize(count);
}

// A heap of candidate pairs over a doubly linked list: n log n.
template <class Look>
void Merges::merge_long(std::vector<Symbol> &symbols, Scratch &scratch, Look &&look) {
  const auto count = static_cast<uint32_t>(symbols.size());
  auto &heap = scratch.heap;
  auto &previous = scratch.previous, &next = scratch.next;
  heap.clear();
  previous.resize(count);
  next.resize(count);
  const auto push = [&](uint32_t left, uint32_t right) {
    const Merge merge = look(symbols[left], symbols[right]);
    if (merge.rank == kNoRank) return;
    heap.push_back({merge.rank, left, symbols[left].end, symbols[right].end, merge.id});
    std::push_heap(heap.begin(), heap.end());
  };
  for (uint32_t i = 0; i < count; ++i) {
    previous[i] = i == 0 ? count : i - 1;  // `count` is no symbol
    next[i] = i + 1;
  }
  for (uint32_t i = 0; i + 1 < count; ++i) push(i, i + 1);
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end());
    const Scratch::Candidate best = heap.back();
    heap.pop_back();
    Symbol &left = symbols[best.left];
    const uint32_t right = next[best.left];
    if (right == count || left.end != best.middle || symbols[right].end != best.end) continue;  // one of them was merged
    left.end = best.end;
    left.id = best.id;
    symbols[right].end = symbols[right].begin;  // gone
    next[best.left] = next[right];
    if (next[right] != count) previous[next[right]] = best.left;
    next[right] = count;
    if (previous[best.left] != count) push(previous[best.left], best.left);
    if (next[best.left] != count) push(best.left, next[best.left]);
  }
  std::erase_if(symbols, [](const Symbol &symbol) { return symbol.begin == symbol.end; });
}

void Merges::merge(const Vocabulary &vocabulary, std::string_view piece, std::vector<Symbol> &symbols, Scratch &scratch) const {
  const auto by_pair = [&](const Symbol &left, const Symbol &right) { return look_up(left.id, right.id); };
  const auto by_joined_text = [&](const Symbol &left, const Symbol &right) -> Merge {
    const int32_t id = vocabulary.find(piece.substr(left.begin, right.end - left.begin));
    if (id < 0) return {};
    return {token_ranks_[static_cast<size_t>(id)], id};
  };
  const bool is_short = symbols.size() <= kShort;
  if (by_text()) {
    if (is_short) merge_short(symbols, by_joined_text);
    else merge_long(symbols, scratch, by_joined_text);
  } else {
    if (is_short) merge_short(symbols, by_pair);
    else merge_long(symbols, scratch, by_pair);
  }
}

}  // namespace moe
