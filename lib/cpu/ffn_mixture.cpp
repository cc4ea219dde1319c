// The exact mixture of full feed-forward experts for one base pass (formulas: tensor/backend.h, MixtureExpert).
// A task is a block of tokens, walked in strips of columns that stay in the caches; inside a strip the experts follow in
// order, each over the block's tokens that select it, so nothing is sorted, nothing is shared between tasks and sums have one
// order. h_i - h_0 is exactly zero where B = 0, because both come from the same kernel and the same numbers.
#include <algorithm>

#include "cpu/cpu_backend.h"
#include "cpu/mixture_plan.h"

namespace moe::cpu {
namespace {

constexpr int64_t kFewTokens = 8;
constexpr int64_t kStripValues = kMixtureBlock * kMixtureStrip;

struct ForwardPass {
  const MixturePlan &plan;
  const Kernels &k;
  Rows u, a0, b0, hbar, y;

  // Columns [strip * kMixtureStrip, ...) of hbar, and their part of A^d h_i.
  void strip(int64_t block, int64_t strip, float *space) const {
    const int64_t first = block * kMixtureBlock, rows = plan.block_rows(block), column = strip * kMixtureStrip;
    const int64_t width = std::min(kMixtureStrip, plan.shape.intermediate - column);
    float *a = space, *b = a + kStripValues, *h0 = b + kStripValues, *h = h0 + kStripValues, *sum = h + kStripValues;
    load_rows(k, a0, first, nullptr, rows, column, width, a, kMixtureStrip);
    load_rows(k, b0, first, nullptr, rows, column, width, b, kMixtureStrip);
    plan.activate(rows, width, a, b, h0);
    for (int64_t r = 0; r < rows; r++) std::copy_n(h0 + r * kMixtureStrip, width, sum + r * kMixtureStrip);
    for (int64_t i = 0; i < plan.shape.experts; i++) {
      const MixturePlan::Visits v = plan.visits(block, i);
      if (v.count == 0) continue;
      plan.pre_activations(v, a0, b0, column, width, a, b);
      plan.activate(v.count, width, a, b, h);
      reduce_down(v, strip, column, width, h);
      for (int64_t j = 0; j < v.count; j++) {
        const int64_t row = (v.tokens[j] - first) * kMixtureStrip;
        k.axpy(width, -1.0f, h0 + row, h + j * kMixtureStrip);
        k.axpy(width, v.gates[j], h + j * kMixtureStrip, sum + row);
      }
    }
    store_rows(k, sum, rows, width, hbar, first, column);
  }

  void reduce_down(const MixturePlan::Visits &v, int64_t strip, int64_t column, int64_t width, const float *h) const {
    const LowRank &delta = plan.expert(v).down;
    if (delta.rank == 0) return;
    if (plan.packed) {
      multiply_panels(k, v.count, h, kMixtureStrip, plan.packed[v.expert].down_in, column, width, 0, delta.rank, plan.down_of(v),
                      plan.down_stride, column > 0);
    } else {
      float *part = plan.down_parts + (strip * plan.total + v.first) * plan.down_stride;
      k.dot_rows(DType::f32, delta.a + column, plan.shape.intermediate * 4, delta.rank, width, v.count, h, kMixtureStrip, part,
                 plan.down_stride, false);
    }
  }

  void enter(int64_t block, float *space) const {
    for (int64_t i = 0; i < plan.shape.experts; i++) {
      const MixturePlan::Visits v = plan.visits(block, i);
      if (v.count == 0 || plan.input_rank(v) == 0) continue;
      load_rows(k, u, 0, v.tokens, v.count, 0, plan.shape.hidden, space, plan.shape.hidden);
      plan.input_products(v, space);
    }
  }

  // y += g s B^d A^d h_i
  void leave(int64_t block, float *space) const {
    const int64_t d = plan.shape.hidden;
    for (int64_t i = 0; i < plan.shape.experts; i++) {
      const MixturePlan::Visits v = plan.visits(block, i);
      const LowRank &delta = plan.expert(v).down;
      if (v.count == 0 || delta.rank == 0) continue;
      float *z = plan.down_of(v);
      for (int64_t j = 0; j < v.count; j++)
        k.scale(delta.rank, v.gates[j] * delta.scale, z + j * plan.down_stride, z + j * plan.down_stride);
      if (plan.packed) {
        multiply_panels(k, v.count, z, plan.down_stride, plan.packed[i].down_out, 0, delta.rank, 0, d, space, d, false);
      } else {
        k.dot_rows(DType::f32, delta.b, delta.rank * 4, d, delta.rank, v.count, z, plan.down_stride, space, d, false);
      }
      for (int64_t j = 0; j < v.count; j++) k.add(d, space + j * d, static_cast<float *>(y.data) + v.tokens[j] * y.stride);
    }
  }

  void sum_parts() const {
    const int64_t values = plan.total * plan.down_stride;
    std::copy_n(plan.down_parts, values, plan.down);
    for (int64_t s = 1; s < plan.strips; s++) k.add(values, plan.down_parts + s * values, plan.down);
  }
};

}  // namespace

void CpuBackend::ffn_mixture(const FfnMixtureShape &shape, std::span<const MixtureExpert> experts, Rows u, Rows a0, Rows b0,
                             Rows hbar, Rows y) {
  if (shape.tokens == 0) return;
  const bool few = shape.tokens <= kFewTokens;
  MixturePlan plan(k_, shape, experts, few ? MixturePlan::Pass::few_tokens : MixturePlan::Pass::forward);
  prepare(plan);
  reserve_scratch(static_cast<size_t>(std::max(5 * kStripValues, kMixtureBlock * shape.hidden)) * sizeof(float));
  const ForwardPass pass{plan, k_, u, a0, b0, hbar, y};
  if (few) {  // one block: the threads share its strips
    pass.enter(0, scratch<float>(0));
    pool_->run(plan.strips, [&](int64_t strip, int thread) { pass.strip(0, strip, scratch<float>(thread)); });
    pass.sum_parts();
    pass.leave(0, scratch<float>(0));
    return;
  }
  pool_->run(plan.blocks, [&](int64_t block, int thread) {
    float *space = scratch<float>(thread);
    pass.enter(block, space);
    for (int64_t strip = 0; strip < plan.strips; strip++) pass.strip(block, strip, space);
    pass.leave(block, space);
  });
}

}  // namespace moe::cpu
