// Memory of the host, and the ops of Backend built from simpler ones: the projection with low-rank side products (Hu et al. 2021).
// u of a term holds A drop(x), unscaled and ungated; scale and gate are applied to the narrow [T, rank] side.
#include "tensor/backend.h"

#include <algorithm>
#include <cstring>

#include "base/memory.h"

namespace moe {
namespace {

Matrix factor_a(const LowRankTerm &term, int64_t in) { return {DType::f32, term.factors.rank, in, term.factors.a}; }
Matrix factor_b(const LowRankTerm &term, int64_t out) { return {DType::f32, out, term.factors.rank, term.factors.b}; }

int64_t largest_rank(std::span<const LowRankTerm> terms) {
  int64_t rank = 0;
  for (const LowRankTerm &term : terms) rank = std::max(rank, term.factors.rank);
  return rank;
}

bool any_dropout(std::span<const LowRankTerm> terms) {
  return std::any_of(terms.begin(), terms.end(),
                     [](const LowRankTerm &term) { return term.factors.rank > 0 && term.dropout > 0; });
}

// The usual case: a single term.
bool one_term(std::span<const LowRankTerm> terms) {
  return std::count_if(terms.begin(), terms.end(), [](const LowRankTerm &term) { return term.factors.rank > 0; }) == 1;
}

}  // namespace

Memory Backend::allocate(size_t bytes) { return Memory(allocate_aligned(bytes), free_aligned); }
void Backend::upload(void *to, const void *from, size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}
void Backend::download(void *to, const void *from, size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}
void Backend::copy_bytes(void *to, const void *from, size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}

// Layout: one wide f32 copy (the output of a bf16 projection, or drop(x)), with dropout a second one for the backward
// pass, then two narrow arrays.
int64_t Backend::projection_scratch(int64_t tokens, int64_t in, int64_t out, std::span<const LowRankTerm> terms) {
  return tokens * (std::max(in, out) + (any_dropout(terms) ? in : 0) + 2 * largest_rank(terms));
}

void Backend::projection(int64_t tokens, Rows x, const Matrix &w, const float *bias, std::span<LowRankTerm> terms, Rows y,
                         Store store, float *scratch) {
  const int64_t in = w.columns, out = w.rows, rank = largest_rank(terms);
  float *wide = scratch, *narrow = scratch + tokens * (std::max(in, out) + (any_dropout(terms) ? in : 0));
  // First every u, so that drop(x) and the f32 output can share the wide scratch.
  for (const LowRankTerm &term : terms) {
    if (term.factors.rank == 0) continue;
    Rows input = x;
    if (term.dropout > 0) {
      input = f32_rows(wide, in);
      dropout(tokens, in, x, term.dropout, term.dropout_seed, term.dropout_stream, input);
    }
    matmul(tokens, input, factor_a(term, in), f32_rows(term.u, term.factors.rank), Store::set);
  }
  // The sum is formed in f32 and rounded once.
  const bool joined = one_term(terms), round_at_end = !joined && y.dtype != DType::f32 && (bias || rank > 0);
  const Rows sum = round_at_end ? f32_rows(wide, out) : y;
  if (!joined) matmul(tokens, x, w, sum, store);
  for (const LowRankTerm &term : terms) {
    const int64_t r = term.factors.rank;
    if (r == 0) continue;
    const Rows scaled = f32_rows(narrow, r);
    scale_rows(tokens, r, f32_rows(term.u, r), term.gate, term.gate_stride, term.factors.scale, scaled);
    if (joined) return matmul_low_rank(tokens, x, w, false, scaled, factor_b(term, out), bias, y, store, wide);
    matmul(tokens, scaled, factor_b(term, out), sum, Store::add);
  }
  if (bias) add_bias(tokens, out, bias, sum);
  if (round_at_end) copy(tokens, out, sum, y, Store::set);
}

void Backend::projections(int64_t tokens, Rows x, std::span<const ProjectionPart> parts, float *scratch) {
  for (const ProjectionPart &part : parts) projection(tokens, x, *part.w, nullptr, part.terms, part.y, Store::set, scratch);
}

void Backend::projection_backward(int64_t tokens, Rows x, const Matrix &w, std::span<LowRankTerm> terms, Rows dy, Rows dx,
                                  Store store, float *scratch) {
  const int64_t in = w.columns, out = w.rows, rank = largest_rank(terms);
  float *dropped = scratch + tokens * std::max(in, out);
  float *narrow = dropped + (any_dropout(terms) ? tokens * in : 0);
  const bool joined = dx.data && one_term(terms) && !any_dropout(terms);
  const bool round_at_end = !joined && dx.data && dx.dtype != DType::f32 && rank > 0;
  const Rows sum = round_at_end ? f32_rows(scratch, in) : dx;
  if (dx.data && !joined) matmul_transposed(tokens, dy, w, sum, store);

  for (const LowRankTerm &term : terms) {
    const int64_t r = term.factors.rank;
    if (r == 0) continue;
    const Rows u = f32_rows(term.u, r), v = f32_rows(narrow, r), scaled = f32_rows(narrow + tokens * r, r);
    if (term.gradient.b) {  // dB += dy^T (scale gate u)
      scale_rows(tokens, r, u, term.gate, term.gate_stride, term.factors.scale, scaled);
      outer_product(tokens, r, out, scaled, dy, term.gradient.b, true);
    }
    if (!term.gate_gradient && !term.gradient.a && !dx.data) continue;
    matmul_transposed(tokens, dy, factor_b(term, out), v, Store::set);  // V = dy B
    if (term.gate_gradient) row_dots(tokens, r, v, u, term.factors.scale, term.gate_gradient, term.gate_stride);
    scale_rows(tokens, r, v, term.gate, term.gate_stride, term.factors.scale, scaled);  // W = scale gate V
    const Rows wide = f32_rows(dropped, in);
    if (term.gradient.a) {  // dA += W^T drop(x)
      if (term.dropout > 0) dropout(tokens, in, x, term.dropout, term.dropout_seed, term.dropout_stream, wide);
      outer_product(tokens, r, in, scaled, term.dropout > 0 ? wide : x, term.gradient.a, false);
    }
    if (!dx.data) continue;
    if (joined) {
      matmul_low_rank(tokens, dy, w, true, scaled, factor_a(term, in), nullptr, dx, store, scratch);
    } else if (term.dropout > 0) {  // dx += drop'(W A)
      matmul_transposed(tokens, scaled, factor_a(term, in), wide, Store::set);
      dropout(tokens, in, wide, term.dropout, term.dropout_seed, term.dropout_stream, wide);
      copy(tokens, in, wide, sum, Store::add);
    } else {
      matmul_transposed(tokens, scaled, factor_a(term, in), sum, Store::add);
    }
  }
  if (round_at_end) copy(tokens, in, sum, dx, Store::set);
}

void Backend::matmul_low_rank(int64_t tokens, Rows x, const Matrix &w, bool transposed, Rows narrow, const Matrix &factor,
                              const float *bias, Rows y, Store store, float *scratch) {
  const int64_t columns = transposed ? w.columns : w.rows;
  const bool round_at_end = y.dtype != DType::f32;
  const Rows sum = round_at_end ? f32_rows(scratch, columns) : y;
  const auto multiply = [&](Rows rows, const Matrix &matrix, Store how) {
    if (transposed) matmul_transposed(tokens, rows, matrix, sum, how);
    else matmul(tokens, rows, matrix, sum, how);
  };
  multiply(x, w, store);
  multiply(narrow, factor, Store::add);
  if (bias) add_bias(tokens, columns, bias, sum);
  if (round_at_end) copy(tokens, columns, sum, y, Store::set);
}

}  // namespace moe
