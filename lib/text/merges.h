// Byte pair encoding of one piece of text: begin with single characters (or bytes) and merge the pair of lowest rank, the
// leftmost of equals, until no pair can merge (Sennrich et al. 2016). Which pairs merge is either a table of pairs of ids
// (tokenizer.json, byte-level GGUF) or every pair whose joined text is a token, ranked by the token's score
// (SentencePiece in GGUF).
#pragma once
#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "text/vocabulary.h"

namespace moe {

class Merges {
 public:
  struct Merge {
    uint32_t rank = kNoRank;
    int32_t id = -1;
  };
  static constexpr uint32_t kNoRank = 0xFFFFFFFF;

  // Buffers of one encode call, kept between calls.
  struct Scratch;

  void reserve(size_t pairs);
  void add_pair(int32_t left, int32_t right, Merge merge);  // the first of two equal pairs is kept
  // Instead of pairs: the rank of each token, lower is sooner; kNoRank for tokens that no merge makes.
  void set_token_ranks(std::vector<uint32_t> ranks) { token_ranks_ = std::move(ranks); }
  bool by_text() const { return !token_ranks_.empty(); }
  // For every id that a merge can make, in no order, possibly repeated.
  template <class Visit>
  void each_result(Visit &&visit) const {
    for (const Slot &slot : slots_) {
      if (slot.merge.id >= 0) visit(slot.merge.id);
    }
    for (size_t id = 0; id < token_ranks_.size(); ++id) {
      if (token_ranks_[id] != kNoRank) visit(static_cast<int32_t>(id));
    }
  }

  struct Symbol {
    uint32_t begin = 0, end = 0;  // bytes of the piece
    int32_t id = -1;              // -1: text that is no token (yet)
  };
  // Merges the symbols of `piece` in place; they are in order and do not overlap.
  void merge(const Vocabulary &vocabulary, std::string_view piece, std::vector<Symbol> &symbols, Scratch &scratch) const;

 private:
  struct Slot {
    uint64_t pair = 0;
    Merge merge;
  };
  template <class Look>
  static void merge_short(std::vector<Symbol> &symbols, Look &&look);
  template <class Look>
  static void merge_long(std::vector<Symbol> &symbols, Scratch &scratch, Look &&look);
  Merge look_up(int32_t left, int32_t right) const;

  std::vector<Slot> slots_;  // open addressing, a power of two, at most half full; free slots have id -1
  size_t pairs_ = 0;
  std::vector<uint32_t> token_ranks_;
};

struct Merges::Scratch {
  struct Candidate {
    uint32_t rank, left;   // index of the left symbol
    uint32_t middle, end;  // where the two symbols met and end: they changed since when this no longer fits
    int32_t id;
    bool operator<(const Candidate &other) const {  // for a heap with the best on top
      return rank != other.rank ? rank > other.rank : left > other.left;
    }
  };
  std::vector<Candidate> heap;
  std::vector<uint32_t> previous, next;
};

}  // namespace moe
