// The gated low-rank terms of a projection (formulas: tensor/backend.h, LowRankTerm), each over the tokens whose gate is not 0,
// by the list of visits (visits.h) and the products of a mixture (grouped_products.h). The rest is the composite's: the base
// product, terms without a gate, and where something is dropped out all of it. A token whose gate is 0 gets no gate gradient.
// Nobody misses it: see lib/cpu/projection.cpp.
#include "cuda/cuda_backend.h"
#include "cuda/grouped_products.h"
#include "cuda/scratch.h"

namespace moe::cuda {
namespace {

constexpr int kThreads = 128;

bool is_gated(const LowRankTerm &term) { return term.gate && term.factors.rank > 0; }
bool takes_composite(std::span<const LowRankTerm> terms) {
  return std::none_of(terms.begin(), terms.end(), is_gated) ||
         std::any_of(terms.begin(), terms.end(), [](const LowRankTerm &term) { return term.dropout > 0; });
}
std::vector<LowRankTerm> without_gate(std::span<const LowRankTerm> terms) {
  std::vector<LowRankTerm> plain;
  std::remove_copy_if(terms.begin(), terms.end(), std::back_inserter(plain), is_gated);
  return plain;
}

// Of the tokens from `first` on.
std::vector<Group> groups_of(std::span<const LowRankTerm> terms, int64_t first) {
  std::vector<Group> groups;
  for (const LowRankTerm &term : terms) {
    if (!is_gated(term)) continue;
    Group group;
    group.factors[0] = term.factors;
    group.gradients[0] = term.gradient;
    group.gate = term.gate + first * term.gate_stride;
    if (term.gate_gradient) group.gate_gradient = term.gate_gradient + first * term.gate_stride;
    group.stride = term.gate_stride;
    groups.push_back(group);
  }
  return groups;
}

constexpr FactorRange kFirst{0, 0};

// The arrays of the visits, f32.
struct TermArrays {
  Visits v;
  Narrow low{}, gradient{};  // forward: s g A x;   backward: A x, and s B^T dy
  View wide{};               // [visits, n] what is added

  void take(Arena &arena, int64_t tokens, std::span<const LowRankTerm> terms, int64_t n, bool backward) {
    v.tokens = tokens;
    v.groups = std::count_if(terms.begin(), terms.end(), is_gated);
    v.most = tokens * v.groups;
    for (const LowRankTerm &term : terms) {
      if (is_gated(term)) low.stride = std::max(low.stride, term.factors.rank);
    }
    gradient.stride = low.stride;
    const auto values = [&](int64_t count) { return arena.take<float>(static_cast<size_t>(v.most * count)); };
    v.take(arena);
    low.data = values(low.stride);
    wide = view("projection", f32_rows(values((n + 3) / 4 * 4), (n + 3) / 4 * 4));
    if (backward) gradient.data = values(low.stride);
  }
};

// dL/dgate += <s B^T dy, A x>, and then the gate goes into the first. A warp takes a visit.
__global__ void __launch_bounds__(kThreads) term_gates_kernel(Visits v, Narrow gradient, Narrow u) {
  const VisitTile tile = visit_tile<1>(v, static_cast<int64_t>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32);
  if (tile.count == 0) return;
  const Group &group = v.group[tile.group];
  const int lane = static_cast<int>(threadIdx.x % 32);
  float *const values = gradient.data + tile.first * gradient.stride;
  const float *const products = u.data + tile.first * u.stride, gate = v.gate[tile.first];
  float sum = 0;
  for (int64_t r = lane; r < group.factors[0].rank; r += 32) {
    sum = fmaf(values[r], products[r], sum);
    values[r] *= gate;
  }
  sum = warp_sum(sum);
  if (lane == 0 && group.gate_gradient) group.gate_gradient[v.token[tile.first] * group.stride] += sum;
}

}  // namespace

size_t terms_scratch(const PassSize &size) {
  if (size.experts == 0 || size.rank == 0) return 0;
  const float gate = 1;
  LowRankTerm term;
  term.factors.rank = size.rank;
  term.gate = &gate;
  const std::vector<LowRankTerm> terms(static_cast<size_t>(size.experts), term);
  const int64_t width = std::max(size.hidden, size.query_width);
  Arena measure;
  TermArrays().take(measure, std::min(size.tokens, tokens_of_piece(size.experts, width)), terms, width, true);
  return measure.peak();
}

void CudaBackend::projection(int64_t tokens, Rows x, const Matrix &w, const float *bias, std::span<LowRankTerm> terms, Rows y,
                             Store store, float *scratch) {
  if (takes_composite(terms)) return Backend::projection(tokens, x, w, bias, terms, y, store, scratch);
  const Rows sum = y.dtype == DType::f32 ? y : f32_rows(scratch, w.rows);  // rounded once
  std::vector<LowRankTerm> plain = without_gate(terms);
  Backend::projection(tokens, x, w, bias, plain, sum, store, scratch);
  const int64_t most = tokens_of_piece(std::ssize(terms) - std::ssize(plain), w.rows);
  for (int64_t i = 0; i < tokens; i += most) {
    const int64_t count = std::min(most, tokens - i);
    TermArrays arrays;
    with_scratch([&](Arena &arena) { arrays.take(arena, count, terms, w.rows, false); });
    list_visits(arrays.v, groups_of(terms, i));
    narrow_product(on(), arrays.v, {any_view("projection", rows_from(x, i)), true}, w.columns, kFirst, kBoth, arrays.low);
    wide_product(on(), arrays.v, arrays.low, w.rows, kFirst, arrays.wide);
    add_visits(on(), arrays.v, arrays.wide, view("projection", rows_from(sum, i)), view("projection", rows_from(y, i)), w.rows);
  }
}

void CudaBackend::projection_backward(int64_t tokens, Rows x, const Matrix &w, std::span<LowRankTerm> terms, Rows dy, Rows dx,
                                      Store store, float *scratch) {
  const char *op = "projection_backward";
  if (takes_composite(terms)) return Backend::projection_backward(tokens, x, w, terms, dy, dx, store, scratch);
  const Rows sum = !dx.data || dx.dtype == DType::f32 ? dx : f32_rows(scratch, w.columns);
  std::vector<LowRankTerm> plain = without_gate(terms);
  Backend::projection_backward(tokens, x, w, plain, dy, sum, store, scratch);
  const int64_t most = tokens_of_piece(std::ssize(terms) - std::ssize(plain), w.columns);
  for (int64_t i = 0; i < tokens; i += most) {
    const int64_t count = std::min(most, tokens - i);
    TermArrays arrays;
    with_scratch([&](Arena &arena) { arrays.take(arena, count, terms, w.columns, true); });
    const VisitRows of_x{view(op, rows_from(x, i)), true}, of_dy{view(op, rows_from(dy, i)), true};
    list_visits(arrays.v, groups_of(terms, i));
    narrow_product(on(), arrays.v, of_x, w.columns, kFirst, kUnscaled, arrays.low);
    narrow_product_back(on(), arrays.v, of_dy, w.rows, 0, 0, arrays.gradient);
    MOE_LAUNCH((term_gates_kernel), blocks_for(arrays.v.most, kThreads / 32), kThreads, 0, on(), arrays.v, arrays.gradient,
               arrays.low);
    if (std::any_of(terms.begin(), terms.end(), [](const LowRankTerm &term) { return is_gated(term) && term.gradient.b; })) {
      add_b_gradients(on(), arrays.v, arrays.low, 0, 0, kBoth, of_dy, w.rows);
    }
    if (std::any_of(terms.begin(), terms.end(), [](const LowRankTerm &term) { return is_gated(term) && term.gradient.a; })) {
      add_a_gradients(on(), arrays.v, arrays.gradient, 0, 0, kUnscaled, of_x, w.columns);
    }
    if (!dx.data) continue;
    wide_product_back(on(), arrays.v, arrays.gradient, w.columns, kFirst, arrays.wide);
    add_visits(on(), arrays.v, arrays.wide, view(op, rows_from(sum, i)), view(op, rows_from(dx, i)), w.columns);
  }
}

}  // namespace moe::cuda
