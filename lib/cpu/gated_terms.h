// The gated low-rank terms of a projection, each over the tokens whose gate is not 0: a mixture of many experts then costs what
// the experts cost that a token selects.
// A visit is one (term, token) pair with a gate other than 0; those of a term are neighbours in the order of the tokens. `u` of a
// term holds a row for each of its visits, without gaps. Both directions run X F -> narrow, scaled by gate and scale, -> narrow G:
//   forward    x A^T = u, then B^T       backward    dy B = V, then A
#pragma once
#include <algorithm>
#include <span>

#include "base/arena.h"
#include "base/thread_pool.h"
#include "cpu/panels.h"
#include "tensor/backend.h"

namespace moe::cpu {

struct GatedTerms {
  enum class Pass : uint8_t { forward, backward };
  struct Term {
    const LowRankTerm *term = nullptr;
    int64_t first = 0, count = 0;  // its visits
    Panels in, out;                // F, G
    float *v = nullptr;            // [count, rank]   scale gate V, only backward
    float *scaled = nullptr;       // [count, rank]   scale gate u, only backward where B trains
  };

  GatedTerms(const Kernels &kernels, int64_t tokens, const Matrix &w, std::span<const LowRankTerm> terms, Pass pass);
  void take(Arena &arena);      // every array below; the arena may be a measuring one
  void fill(ThreadPool &pool);  // lists the visits and packs the factors

  static bool takes(const LowRankTerm &term) { return term.gate && term.factors.rank > 0; }
  static float gate_of(const LowRankTerm &term, int64_t token) { return term.gate[token * term.gate_stride]; }
  int64_t block_begin(int64_t block) const { return std::min(token_count, block * block_tokens); }
  int64_t input_columns() const { return pass == Pass::forward ? in : out; }
  int64_t output_columns() const { return pass == Pass::forward ? out : in; }

  const Kernels &kernels;
  const std::span<const LowRankTerm> terms;
  const Pass pass;
  const int64_t token_count, in, out;
  int64_t block_tokens, blocks;               // tokens are cut into blocks of neighbours
  int64_t count = 0, total = 0, largest_rank = 0;  // gated terms, visits
  int64_t narrow_values = 0;                  // sum over the visits of the rank of their term
  Term *list = nullptr;                       // [count]
  int64_t *starts = nullptr;                  // [count, blocks + 1] first visit of a term in a block, counted from its own first
  int32_t *tokens = nullptr;                  // [total]
  float *v = nullptr, *scaled = nullptr;      // [narrow_values]

 private:
  void pack(const Term &term) const;
};

}  // namespace moe::cpu
