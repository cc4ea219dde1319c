// Backward of the FFN mixture. With q = s A^dT B^dT delta:
//   dh_i = g_i (dhbar + q)      dh_0 = (1 - sum g_i) dhbar      dg_i = <dhbar, h_i - h_0> + <q, h_i>
//   da_i, db_i from dh_i        da0 = da_0 + sum da_i           du += s A^gT B^gT da_i + s A^uT B^uT db_i
// Phase 1 runs over blocks of tokens like the forward pass and recomputes its activations instead of storing them.
// Phase 2 runs only for experts that train; its tasks own columns of the factors' gradients (of f: dB^g, dB^u, dA^d; of d:
// dA^g, dA^u, dB^d) and walk all blocks in order, so sums have one order and nothing is shared.
#include <algorithm>

#include "cpu/cpu_backend.h"
#include "cpu/mixture_plan.h"

namespace moe::cpu {
namespace {

constexpr int64_t kStripValues = kMixtureBlock * kMixtureStrip;

// Arrays [block, strip] of one thread.
struct StripSpace {
  float *h0, *dhbar, *da0, *db0, *a, *b, *h, *q, *da, *db;
  static constexpr int64_t kValues = 10 * kStripValues;
  explicit StripSpace(float *space) {
    float **arrays[] = {&h0, &dhbar, &da0, &db0, &a, &b, &h, &q, &da, &db};
    for (float **array : arrays) {
      *array = space;
      space += kStripValues;
    }
  }
};

struct BackwardPass {
  const MixturePlan &plan;
  const Kernels &k;
  Rows u, a0, b0, dhbar, delta, da0, db0, du;
  float *dgates;

  bool trains_down_b(int64_t expert) const { return plan.experts[static_cast<size_t>(expert)].down_gradient.b; }

  void activation_backward(int64_t width, const float *a, const float *b, const float *dh, float *da, float *db) const {
    if (plan.shape.activation == Activation::silu) k.gated_silu_backward(width, a, b, dh, da, db);
    else k.gated_gelu_backward(width, a, b, dh, da, db);
  }

  // ---- phase 1: a block of tokens ----

  // low = s A u, down_gradient = s delta B^d of every visit, and dgates = 0.
  void enter(int64_t block, float *space) const {
    const int64_t d = plan.shape.hidden, experts = plan.shape.experts;
    std::fill_n(dgates + block * kMixtureBlock * experts, plan.block_rows(block) * experts, 0.0f);
    for (int64_t i = 0; i < experts; i++) {
      const MixturePlan::Visits v = plan.visits(block, i);
      if (v.count == 0) continue;
      if (plan.input_rank(v) > 0) {
        load_rows(k, u, 0, v.tokens, v.count, 0, d, space, d);
        plan.input_products(v, space);
      }
      const LowRank &down = plan.expert(v).down;
      if (down.rank == 0) continue;
      load_rows(k, delta, 0, v.tokens, v.count, 0, d, space, d);
      float *to = plan.down_gradient_of(v);
      multiply_panels(k, v.count, space, d, plan.packed[i].down_out_back, 0, d, 0, down.rank, to, plan.down_stride, false);
      for (int64_t j = 0; j < v.count; j++) k.scale(down.rank, down.scale, to + j * plan.down_stride, to + j * plan.down_stride);
    }
  }

  // Of the visits: a, b, h and q in columns [column, column + width). Without a down delta q is not touched.
  void recompute(const MixturePlan::Visits &v, int64_t column, int64_t width, const StripSpace &s) const {
    plan.pre_activations(v, a0, b0, column, width, s.a, s.b);
    plan.activate(v.count, width, s.a, s.b, s.h);
    const int64_t rank = plan.expert(v).down.rank;
    if (rank == 0) return;
    multiply_panels(k, v.count, plan.down_gradient_of(v), plan.down_stride, plan.packed[v.expert].down_in_back, 0, rank, column,
                    width, s.q, kMixtureStrip, false);
  }

  // da_i and db_i of visit j, whose dhbar is given; q is overwritten with dh_i.
  void differentiate(const MixturePlan::Visits &v, int64_t j, int64_t width, const float *dhbar_row, const StripSpace &s) const {
    const int64_t row = j * kMixtureStrip;
    float *dh = s.q + row;
    if (plan.expert(v).down.rank > 0) {
      k.add(width, dhbar_row, dh);
      k.scale(width, v.gates[j], dh, dh);
    } else {
      k.scale(width, v.gates[j], dhbar_row, dh);
    }
    activation_backward(width, s.a + row, s.b + row, dh, s.da + row, s.db + row);
  }

  void strip(int64_t block, int64_t column, const StripSpace &s) const {
    const int64_t first = block * kMixtureBlock, rows = plan.block_rows(block), experts = plan.shape.experts;
    const int64_t width = std::min(kMixtureStrip, plan.shape.intermediate - column);
    base(block, column, width, s);
    for (int64_t i = 0; i < experts; i++) {
      const MixturePlan::Visits v = plan.visits(block, i);
      if (v.count == 0) continue;
      const LowRank &gate = plan.expert(v).gate, &up = plan.expert(v).up, &down = plan.expert(v).down;
      recompute(v, column, width, s);
      if (trains_down_b(i) && down.rank > 0) {
        multiply_panels(k, v.count, s.h, kMixtureStrip, plan.packed[i].down_in, column, width, 0, down.rank, plan.down_of(v),
                        plan.down_stride, column > 0);
      }
      for (int64_t j = 0; j < v.count; j++) {
        const int64_t row = j * kMixtureStrip, base_row = (v.tokens[j] - first) * kMixtureStrip;
        float gradient = down.rank > 0 ? k.dot(width, s.q + row, s.h + row) : 0;
        k.axpy(width, -1.0f, s.h0 + base_row, s.h + row);
        gradient += k.dot(width, s.dhbar + base_row, s.h + row);
        dgates[v.tokens[j] * experts + i] += gradient;
        differentiate(v, j, width, s.dhbar + base_row, s);
        k.add(width, s.da + row, s.da0 + base_row);
        k.add(width, s.db + row, s.db0 + base_row);
      }
      float *to = plan.low_gradient_of(v);
      const PackedExpert &p = plan.packed[i];
      multiply_panels(k, v.count, s.da, kMixtureStrip, p.gate_back, column, width, 0, gate.rank, to, plan.input_stride,
                      column > 0);
      multiply_panels(k, v.count, s.db, kMixtureStrip, p.up_back, column, width, 0, up.rank, to + gate.rank, plan.input_stride,
                      column > 0);
    }
    store_rows(k, s.da0, rows, width, da0, first, column);
    store_rows(k, s.db0, rows, width, db0, first, column);
  }

  // The base's part: h0, dhbar, and da_0, db_0 of dh_0 = (1 - sum g) dhbar.
  void base(int64_t block, int64_t column, int64_t width, const StripSpace &s) const {
    const int64_t first = block * kMixtureBlock, rows = plan.block_rows(block);
    load_rows(k, a0, first, nullptr, rows, column, width, s.a, kMixtureStrip);
    load_rows(k, b0, first, nullptr, rows, column, width, s.b, kMixtureStrip);
    load_rows(k, dhbar, first, nullptr, rows, column, width, s.dhbar, kMixtureStrip);
    plan.activate(rows, width, s.a, s.b, s.h0);
    float share[kMixtureBlock];
    std::fill_n(share, rows, 1.0f);
    for (int64_t i = 0; i < plan.shape.experts; i++) {
      const MixturePlan::Visits v = plan.visits(block, i);
      for (int64_t j = 0; j < v.count; j++) share[v.tokens[j] - first] -= v.gates[j];
    }
    for (int64_t r = 0; r < rows; r++) {
      const int64_t row = r * kMixtureStrip;
      k.scale(width, share[r], s.dhbar + row, s.q + row);
      activation_backward(width, s.a + row, s.b + row, s.q + row, s.da0 + row, s.db0 + row);
    }
  }

  // Scales what strip() summed up; du += the input terms.
  void leave(int64_t block, float *space) const {
    const int64_t d = plan.shape.hidden;
    for (int64_t i = 0; i < plan.shape.experts; i++) {
      const MixturePlan::Visits v = plan.visits(block, i);
      const LowRank &gate = plan.expert(v).gate, &up = plan.expert(v).up, &down = plan.expert(v).down;
      for (int64_t j = 0; j < v.count; j++) {
        float *low = plan.low_gradient_of(v) + j * plan.input_stride, *z = plan.down_of(v) + j * plan.down_stride;
        k.scale(gate.rank, gate.scale, low, low);
        k.scale(up.rank, up.scale, low + gate.rank, low + gate.rank);
        if (trains_down_b(i)) k.scale(down.rank, v.gates[j] * down.scale, z, z);
      }
      const int64_t rank = plan.input_rank(v);
      if (v.count == 0 || rank == 0 || !du.data) continue;
      multiply_panels(k, v.count, plan.low_gradient_of(v), plan.input_stride, plan.packed[i].input_back, 0, rank, 0, d, space, d,
                      false);
      for (int64_t j = 0; j < v.count; j++) k.add(d, space + j * d, static_cast<float *>(du.data) + v.tokens[j] * du.stride);
    }
  }

  // ---- phase 2: columns of one expert's gradients ----

  // sums[rank][kMixtureStrip] += v^T x over the visits of one block; columns are rounded up to whole panels.
  void add_outer(int64_t count, int64_t rank, const float *v, int64_t ldv, const float *x, int64_t width, float *sums) const {
    for (int64_t c = 0; c < width; c += kPanel)
      k.outer_f32(count, rank, kPanel, v, ldv, x + c, kMixtureStrip, sums + c, kMixtureStrip);
  }
  // gradient[rank, n] += sums, columns [column, column + width)
  void add_rows(const float *sums, int64_t rank, int64_t column, int64_t width, float *gradient, int64_t n) const {
    for (int64_t r = 0; r < rank; r++) k.add(width, sums + r * kMixtureStrip, gradient + r * n + column);
  }
  // gradient[n, rank] += sums^T, rows [column, column + width)
  void add_columns(const float *sums, int64_t rank, int64_t column, int64_t width, float *gradient) const {
    for (int64_t c = 0; c < width; c++) {
      for (int64_t r = 0; r < rank; r++) gradient[(column + c) * rank + r] += sums[r * kMixtureStrip + c];
    }
  }

  // dB^g = da^T (s A^g u), dB^u likewise, dA^d = (g s delta B^d)^T h for columns of f. `sums` has room for all ranks.
  void inner_columns(int64_t i, int64_t strip, float *space, float *sums) const {
    const MixtureExpert &e = plan.experts[static_cast<size_t>(i)];
    const int64_t f = plan.shape.intermediate, column = strip * kMixtureStrip, width = std::min(kMixtureStrip, f - column);
    std::fill_n(space, StripSpace::kValues, 0.0f);  // columns beyond the width stay zero
    const StripSpace s(space);
    float *gate_sums = sums, *up_sums = gate_sums + e.gate.rank * kMixtureStrip, *down_sums = up_sums + e.up.rank * kMixtureStrip;
    std::fill_n(sums, (e.gate.rank + e.up.rank + e.down.rank) * kMixtureStrip, 0.0f);
    float *gated = s.h0;  // [visits, rank]: the strips of the base are free here
    for (int64_t block = 0; block < plan.blocks; block++) {
      const MixturePlan::Visits v = plan.visits(block, i);
      if (v.count == 0) continue;
      recompute(v, column, width, s);
      load_rows(k, dhbar, 0, v.tokens, v.count, column, width, s.dhbar, kMixtureStrip);
      for (int64_t j = 0; j < v.count; j++) differentiate(v, j, width, s.dhbar + j * kMixtureStrip, s);
      const float *low = plan.low_of(v);
      if (e.gate_gradient.b) add_outer(v.count, e.gate.rank, low, plan.input_stride, s.da, width, gate_sums);
      if (e.up_gradient.b) add_outer(v.count, e.up.rank, low + e.gate.rank, plan.input_stride, s.db, width, up_sums);
      // A strip of the base holds kMixtureStrip ranks.
      for (int64_t r = 0; e.down_gradient.a && r < e.down.rank; r += kMixtureStrip) {
        const int64_t rank = std::min(kMixtureStrip, e.down.rank - r);
        for (int64_t j = 0; j < v.count; j++) {
          k.scale(rank, v.gates[j], plan.down_gradient_of(v) + j * plan.down_stride + r, gated + j * kMixtureStrip);
        }
        add_outer(v.count, rank, gated, kMixtureStrip, s.h, width, down_sums + r * kMixtureStrip);
      }
    }
    if (e.gate_gradient.b) add_columns(gate_sums, e.gate.rank, column, width, e.gate_gradient.b);
    if (e.up_gradient.b) add_columns(up_sums, e.up.rank, column, width, e.up_gradient.b);
    if (e.down_gradient.a) add_rows(down_sums, e.down.rank, column, width, e.down_gradient.a, f);
  }

  // dA^g = (s da B^g)^T u, dA^u likewise, dB^d = delta^T (g s A^d h) for columns of d.
  void outer_columns(int64_t i, int64_t strip, float *space, float *sums) const {
    const MixtureExpert &e = plan.experts[static_cast<size_t>(i)];
    const int64_t d = plan.shape.hidden, column = strip * kMixtureStrip, width = std::min(kMixtureStrip, d - column);
    std::fill_n(space, kStripValues, 0.0f);
    float *gate_sums = sums, *up_sums = gate_sums + e.gate.rank * kMixtureStrip, *down_sums = up_sums + e.up.rank * kMixtureStrip;
    std::fill_n(sums, (e.gate.rank + e.up.rank + e.down.rank) * kMixtureStrip, 0.0f);
    for (int64_t block = 0; block < plan.blocks; block++) {
      const MixturePlan::Visits v = plan.visits(block, i);
      if (v.count == 0) continue;
      if (e.gate_gradient.a || e.up_gradient.a) {
        load_rows(k, u, 0, v.tokens, v.count, column, width, space, kMixtureStrip);
        const float *low = plan.low_gradient_of(v);
        if (e.gate_gradient.a) add_outer(v.count, e.gate.rank, low, plan.input_stride, space, width, gate_sums);
        if (e.up_gradient.a) add_outer(v.count, e.up.rank, low + e.gate.rank, plan.input_stride, space, width, up_sums);
      }
      if (e.down_gradient.b) {
        load_rows(k, delta, 0, v.tokens, v.count, column, width, space, kMixtureStrip);
        add_outer(v.count, e.down.rank, plan.down_of(v), plan.down_stride, space, width, down_sums);
      }
    }
    if (e.gate_gradient.a) add_rows(gate_sums, e.gate.rank, column, width, e.gate_gradient.a, d);
    if (e.up_gradient.a) add_rows(up_sums, e.up.rank, column, width, e.up_gradient.a, d);
    if (e.down_gradient.b) add_columns(down_sums, e.down.rank, column, width, e.down_gradient.b);
  }
};

bool trains_inner(const MixtureExpert &e) { return e.gate_gradient.b || e.up_gradient.b || e.down_gradient.a; }
bool trains_outer(const MixtureExpert &e) { return e.gate_gradient.a || e.up_gradient.a || e.down_gradient.b; }

}  // namespace

void CpuBackend::ffn_mixture_backward(const FfnMixtureShape &shape, std::span<const MixtureExpert> experts, Rows u, Rows a0,
                                      Rows b0, Rows dhbar, Rows delta, Rows da0, Rows db0, Rows du, float *dgates) {
  if (shape.tokens == 0) return;
  MixturePlan plan(k_, shape, experts, MixturePlan::Pass::backward);
  prepare(plan);
  const int64_t block_values = std::max(StripSpace::kValues, kMixtureBlock * shape.hidden);
  reserve_scratch(static_cast<size_t>(block_values + (plan.input_stride + plan.down_stride) * kMixtureStrip) * sizeof(float));
  const BackwardPass pass{plan, k_, u, a0, b0, dhbar, delta, da0, db0, du, dgates};
  pool_->run(plan.blocks, [&](int64_t block, int thread) {
    float *space = scratch<float>(thread);
    pass.enter(block, space);
    for (int64_t strip = 0; strip < plan.strips; strip++) pass.strip(block, strip * kMixtureStrip, StripSpace(space));
    pass.leave(block, space);
  });
  if (std::none_of(experts.begin(), experts.end(), [](const MixtureExpert &e) { return trains_inner(e) || trains_outer(e); }))
    return;
  const int64_t outer_strips = (shape.hidden + kMixtureStrip - 1) / kMixtureStrip, strips = plan.strips + outer_strips;
  pool_->run(shape.experts * strips, [&](int64_t task, int thread) {
    const int64_t expert = task / strips, strip = task % strips;
    const MixtureExpert &e = experts[static_cast<size_t>(expert)];
    float *space = scratch<float>(thread), *sums = space + block_values;
    if (strip < plan.strips && trains_inner(e)) pass.inner_columns(expert, strip, space, sums);
    if (strip >= plan.strips && trains_outer(e)) pass.outer_columns(expert, strip - plan.strips, space, sums);
  });
}

}  // namespace moe::cpu
