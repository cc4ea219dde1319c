#include "cpu/gated_terms.h"

namespace moe::cpu {
namespace {

// Of a task: enough to use the packed factors often, few enough that all threads have work. Changes no result.
constexpr int64_t kLeastTokens = 64, kMostTokens = 256, kWantedBlocks = 8;

}  // namespace

GatedTerms::GatedTerms(const Kernels &kernels_, int64_t tokens_, const Matrix &w, std::span<const LowRankTerm> terms_, Pass pass_)
    : kernels(kernels_), terms(terms_), pass(pass_), token_count(tokens_), in(w.columns), out(w.rows),
      block_tokens(std::clamp(tokens_ / kWantedBlocks, kLeastTokens, kMostTokens)),
      blocks((tokens_ + block_tokens - 1) / block_tokens) {
  for (const LowRankTerm &term : terms) {
    if (!takes(term)) continue;
    count++;
    largest_rank = std::max(largest_rank, term.factors.rank);
    int64_t visits = 0;
    for (int64_t t = 0; t < token_count; t++) visits += gate_of(term, t) != 0;
    total += visits;
    narrow_values += visits * term.factors.rank;
  }
}

void GatedTerms::take(Arena &arena) {
  list = arena.take<Term>(static_cast<size_t>(count));
  starts = arena.take<int64_t>(static_cast<size_t>(count * (blocks + 1)));
  tokens = arena.take<int32_t>(static_cast<size_t>(total));
  if (pass == Pass::backward) {
    v = arena.take<float>(static_cast<size_t>(narrow_values));
    scaled = arena.take<float>(static_cast<size_t>(narrow_values));
  }
  int64_t i = 0;
  for (const LowRankTerm &term : terms) {
    if (!takes(term)) continue;
    Term taken;
    taken.term = &term;
    taken.in = take_panels(arena, input_columns(), term.factors.rank);
    taken.out = take_panels(arena, term.factors.rank, output_columns());
    if (list) list[i] = taken;
    i++;
  }
}

void GatedTerms::fill(ThreadPool &pool) {
  int64_t visit = 0, values = 0;
  for (int64_t i = 0; i < count; i++) {
    Term &term = list[i];
    term.first = visit;
    for (int64_t block = 0; block < blocks; block++) {
      starts[i * (blocks + 1) + block] = visit - term.first;
      for (int64_t t = block_begin(block); t < block_begin(block + 1); t++) {
        if (gate_of(*term.term, t) != 0) tokens[visit++] = static_cast<int32_t>(t);
      }
    }
    term.count = starts[i * (blocks + 1) + blocks] = visit - term.first;
    if (pass == Pass::backward) term.v = v + values, term.scaled = scaled + values;
    values += term.count * term.term->factors.rank;
  }
  pool.run(count, [&](int64_t i, int) {
    if (list[i].count > 0) pack(list[i]);
  });
}

void GatedTerms::pack(const Term &term) const {
  const LowRank &factors = term.term->factors;
  const auto pack_factor = pass == Pass::forward ? pack_transposed : pack_plain;
  pack_factor(kernels, pass == Pass::forward ? factors.a : factors.b, term.in);
  pack_factor(kernels, pass == Pass::forward ? factors.b : factors.a, term.out);
}

}  // namespace moe::cpu
