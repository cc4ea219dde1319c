// The projection with gated low-rank terms (formulas: tensor/backend.h, LowRankTerm): every term runs over the tokens whose gate
// is not 0. Phase 1 gives each task a block of tokens, in which the terms follow in order, so nothing is shared between tasks and
// sums have one order. Phase 2, for factors that train, gives each task columns of one gradient and walks the term's tokens in order.
// A token whose gate is 0 gets no gate gradient either. Nobody misses it: a gate is 0 where the router evaluates no expert, whose
// gradient it does not read, or where p of an evaluated expert has become 0, and then so has dz = p (...).
#include "cpu/cpu_backend.h"
#include "cpu/gated_terms.h"

namespace moe::cpu {
namespace {

constexpr int64_t kFewTokens = 8;  // up to here packing costs more than it saves
constexpr int64_t kRows = 64;      // visits that are worked on at a time
constexpr int64_t kStrip = 128;    // columns of a gradient: a multiple of kPanel

bool any_dropout(std::span<const LowRankTerm> terms) {
  return std::any_of(terms.begin(), terms.end(), [](const LowRankTerm &term) { return term.dropout > 0; });
}
bool any_gated(std::span<const LowRankTerm> terms) { return std::any_of(terms.begin(), terms.end(), GatedTerms::takes); }
bool any_active(const LowRankTerm &term, int64_t tokens) {
  for (int64_t t = 0; t < tokens; t++) {
    if (GatedTerms::gate_of(term, t) != 0) return true;
  }
  return false;
}

// The terms that the composite computes: those without a gate, of a few tokens also gated ones that some token selects.
void keep_plain(std::span<const LowRankTerm> terms, int64_t tokens, std::vector<LowRankTerm> &plain) {
  plain.clear();
  for (const LowRankTerm &term : terms) {
    if (!GatedTerms::takes(term) || (tokens <= kFewTokens && any_active(term, tokens))) plain.push_back(term);
  }
}

}  // namespace

// The dropout of the composite needs the scratch that the f32 sum below takes; a mixture has none.
void CpuBackend::projection(int64_t tokens, Rows x, const Matrix &w, const float *bias, std::span<LowRankTerm> terms, Rows y,
                            Store store, float *scratch) {
  if (!any_gated(terms) || any_dropout(terms)) return Backend::projection(tokens, x, w, bias, terms, y, store, scratch);
  keep_plain(terms, tokens, plain_terms_);
  if (tokens <= kFewTokens) return Backend::projection(tokens, x, w, bias, plain_terms_, y, store, scratch);
  const Rows sum = y.dtype == DType::f32 ? y : f32_rows(scratch, w.rows);  // rounded once
  Backend::projection(tokens, x, w, bias, plain_terms_, sum, store, scratch);
  GatedTerms gated(k_, tokens, w, terms, GatedTerms::Pass::forward);
  prepare(gated);
  run_gated_terms(gated, x, sum);
  if (sum.data != y.data) copy(tokens, w.rows, sum, y, Store::set);
}

void CpuBackend::projection_backward(int64_t tokens, Rows x, const Matrix &w, std::span<LowRankTerm> terms, Rows dy, Rows dx,
                                     Store store, float *scratch) {
  if (!any_gated(terms) || any_dropout(terms)) return Backend::projection_backward(tokens, x, w, terms, dy, dx, store, scratch);
  keep_plain(terms, tokens, plain_terms_);
  if (tokens <= kFewTokens) return Backend::projection_backward(tokens, x, w, plain_terms_, dy, dx, store, scratch);
  const Rows sum = !dx.data || dx.dtype == DType::f32 ? dx : f32_rows(scratch, w.columns);
  Backend::projection_backward(tokens, x, w, plain_terms_, dy, sum, store, scratch);
  GatedTerms gated(k_, tokens, w, terms, GatedTerms::Pass::backward);
  prepare(gated);
  run_gated_terms(gated, dy, sum);
  add_factor_gradients(gated, x, dy);
  if (sum.data != dx.data) copy(tokens, w.columns, sum, dx, Store::set);
}

// Phase 1. input is x or dy; sum, which may be without data in the backward pass, is y or dx.
void CpuBackend::run_gated_terms(const GatedTerms &gated, Rows input, Rows sum) {
  const int64_t wide_in = gated.input_columns(), wide_out = gated.output_columns();
  const bool back = gated.pass == GatedTerms::Pass::backward;
  reserve_scratch(static_cast<size_t>(kRows * (wide_in + wide_out + gated.largest_rank)) * sizeof(float));
  const auto visit_rows = [&](const GatedTerms::Term &term, int64_t first, int64_t count, float *space) {
    const LowRankTerm &t = *term.term;
    const int64_t rank = t.factors.rank;
    const int32_t *tokens = gated.tokens + term.first + first;
    float *rows = space, *product = rows + kRows * wide_in, *u = t.u + first * rank;
    float *low = back ? term.v + first * rank : u, *scaled = back ? low : product + kRows * wide_out;
    load_rows(k_, input, 0, tokens, count, 0, wide_in, rows, wide_in);
    multiply_panels(k_, count, rows, wide_in, term.in, 0, wide_in, 0, rank, low, rank, false);
    for (int64_t j = 0; j < count; j++) {
      const float factor = GatedTerms::gate_of(t, tokens[j]) * t.factors.scale;
      if (back && t.gate_gradient) {
        t.gate_gradient[tokens[j] * t.gate_stride] += t.factors.scale * k_.dot(rank, low + j * rank, u + j * rank);
      }
      if (back && t.gradient.b) k_.scale(rank, factor, u + j * rank, term.scaled + (first + j) * rank);
      k_.scale(rank, factor, low + j * rank, scaled + j * rank);
    }
    if (!sum.data) return;
    multiply_panels(k_, count, scaled, rank, term.out, 0, rank, 0, wide_out, product, wide_out, false);
    for (int64_t j = 0; j < count; j++)
      k_.add(wide_out, product + j * wide_out, static_cast<float *>(sum.data) + tokens[j] * sum.stride);
  };
  pool_->run(gated.blocks, [&](int64_t block, int thread) {
    for (int64_t i = 0; i < gated.count; i++) {
      const int64_t *range = gated.starts + i * (gated.blocks + 1) + block;
      for (int64_t first = range[0]; first < range[1]; first += kRows)
        visit_rows(gated.list[i], first, std::min(kRows, range[1] - first), scratch<float>(thread));
    }
  });
}

// Phase 2: dA += (scale gate V)^T x, dB += dy^T (scale gate u).
void CpuBackend::add_factor_gradients(const GatedTerms &gated, Rows x, Rows dy) {
  const auto trains = [](const GatedTerms::Term &term) { return term.term->gradient.a || term.term->gradient.b; };
  if (std::none_of(gated.list, gated.list + gated.count, trains)) return;
  const int64_t a_strips = (gated.in + kStrip - 1) / kStrip, strips = a_strips + (gated.out + kStrip - 1) / kStrip;
  reserve_scratch(static_cast<size_t>((kRows + gated.largest_rank) * kStrip) * sizeof(float));
  pool_->run(gated.count * strips, [&](int64_t task, int thread) {
    const GatedTerms::Term &term = gated.list[task / strips];
    const LowRankTerm &t = *term.term;
    const bool of_a = task % strips < a_strips;
    if (!(of_a ? t.gradient.a : t.gradient.b) || term.count == 0) return;
    const Rows wide = of_a ? x : dy;
    const float *narrow = of_a ? term.v : term.scaled;
    const int64_t rank = t.factors.rank, n = of_a ? gated.in : gated.out;
    const int64_t column = (task % strips - (of_a ? 0 : a_strips)) * kStrip, width = std::min(kStrip, n - column);
    float *rows = scratch<float>(thread), *sums = rows + kRows * kStrip;  // sums [rank, kStrip]
    std::fill_n(rows, (kRows + rank) * kStrip, 0.0f);                     // columns beyond the width stay zero
    for (int64_t first = 0; first < term.count; first += kRows) {
      const int64_t count = std::min(kRows, term.count - first);
      load_rows(k_, wide, 0, gated.tokens + term.first + first, count, column, width, rows, kStrip);
      for (int64_t c = 0; c < width; c += kPanel)
        k_.outer_f32(count, rank, kPanel, narrow + first * rank, rank, rows + c, kStrip, sums + c, kStrip);
    }
    for (int64_t r = 0; r < rank; r++) {
      if (of_a) k_.add(width, sums + r * kStrip, t.gradient.a + r * n + column);
      for (int64_t c = 0; !of_a && c < width; c++) t.gradient.b[(column + c) * rank + r] += sums[r * kStrip + c];
    }
  });
}

}  // namespace moe::cpu
