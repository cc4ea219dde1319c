#include "cpu/mixture_plan.h"

#include <algorithm>
#include <cstring>

namespace moe::cpu {

void store_rows(const Kernels &kernels, const float *in, int64_t rows, int64_t width, Rows y, int64_t first, int64_t column) {
  for (int64_t r = 0; r < rows; r++, in += kMixtureStrip) {
    const int64_t offset = (first + r) * y.stride + column;
    if (y.dtype == DType::f32) std::memcpy(static_cast<float *>(y.data) + offset, in, static_cast<size_t>(width) * sizeof(float));
    else kernels.to_bf16(in, width, static_cast<uint16_t *>(y.data) + offset);
  }
}

MixturePlan::MixturePlan(const Kernels &kernels_, const FfnMixtureShape &shape_, std::span<const MixtureExpert> experts_,
                         Pass pass_)
    : kernels(kernels_), shape(shape_), experts(experts_), pass(pass_),
      blocks((shape_.tokens + kMixtureBlock - 1) / kMixtureBlock),
      strips((shape_.intermediate + kMixtureStrip - 1) / kMixtureStrip) {
  for (const MixtureExpert &expert : experts) {
    input_stride = std::max(input_stride, expert.gate.rank + expert.up.rank);
    down_stride = std::max(down_stride, expert.down.rank);
  }
  for (int64_t t = 0; t < shape.tokens; t++) {
    for (int64_t i = 0; i < shape.experts; i++) total += visited(t, i);
  }
}

bool MixturePlan::visited(int64_t token, int64_t expert) const {
  const MixtureExpert &e = experts[static_cast<size_t>(expert)];
  return shape.selected[token * shape.experts + expert] && e.gate.rank + e.up.rank + e.down.rank > 0;
}

MixturePlan::Visits MixturePlan::visits(int64_t block, int64_t expert) const {
  const int64_t *range = starts + block * shape.experts + expert;
  return {expert, range[0], range[1] - range[0], tokens + range[0], gates + range[0]};
}

void MixturePlan::take(Arena &arena) {
  const size_t n = static_cast<size_t>(total), count = static_cast<size_t>(shape.experts);
  const size_t low_values = n * static_cast<size_t>(input_stride), down_values = n * static_cast<size_t>(down_stride);
  const int64_t d = shape.hidden, f = shape.intermediate;
  starts = arena.take<int64_t>(static_cast<size_t>(blocks) * count + 1);
  tokens = arena.take<int32_t>(n);
  gates = arena.take<float>(n);
  low = arena.take<float>(low_values);
  down = arena.take<float>(down_values);
  if (pass == Pass::few_tokens) {
    down_parts = arena.take<float>(static_cast<size_t>(strips) * down_values);
    return;
  }
  if (pass == Pass::backward) {
    low_gradient = arena.take<float>(low_values);
    down_gradient = arena.take<float>(down_values);
  }
  packed = arena.take<PackedExpert>(count);
  for (size_t i = 0; i < count; i++) {
    const MixtureExpert &e = experts[i];
    const int64_t input_rank = e.gate.rank + e.up.rank;
    PackedExpert p;
    p.input_rows = arena.take<float>(static_cast<size_t>(input_rank * d));
    p.input = take_panels(arena, d, input_rank);
    p.gate = take_panels(arena, e.gate.rank, f);
    p.up = take_panels(arena, e.up.rank, f);
    p.down_in = take_panels(arena, f, e.down.rank);
    if (pass == Pass::forward) {
      p.down_out = take_panels(arena, e.down.rank, d);
    } else {
      p.input_back = take_panels(arena, input_rank, d);
      p.gate_back = take_panels(arena, f, e.gate.rank);
      p.up_back = take_panels(arena, f, e.up.rank);
      p.down_in_back = take_panels(arena, e.down.rank, f);
      p.down_out_back = take_panels(arena, d, e.down.rank);
    }
    if (packed) packed[i] = p;
  }
}

void MixturePlan::fill(ThreadPool &pool) {
  int64_t visit = 0;
  for (int64_t block = 0; block < blocks; block++) {
    const int64_t first = block * kMixtureBlock;
    for (int64_t i = 0; i < shape.experts; i++) {
      starts[block * shape.experts + i] = visit;
      for (int64_t t = first; t < first + block_rows(block); t++) {
        if (!visited(t, i)) continue;
        tokens[visit] = static_cast<int32_t>(t);
        gates[visit] = shape.gates[t * shape.experts + i];
        visit++;
      }
    }
  }
  starts[blocks * shape.experts] = visit;
  if (pass != Pass::few_tokens) pool.run(shape.experts, [&](int64_t expert, int) { pack(expert); });
}

void MixturePlan::pack(int64_t i) {
  int64_t count = 0;
  for (int64_t block = 0; block < blocks; block++) count += visits(block, i).count;
  if (count == 0) return;
  const MixtureExpert &e = experts[static_cast<size_t>(i)];
  const PackedExpert &p = packed[i];
  const int64_t gate_values = e.gate.rank * shape.hidden, up_values = e.up.rank * shape.hidden;
  std::copy_n(e.gate.a, gate_values, p.input_rows);
  std::copy_n(e.up.a, up_values, p.input_rows + gate_values);
  pack_transposed(kernels, p.input_rows, p.input);
  pack_transposed(kernels, e.gate.b, p.gate);
  pack_transposed(kernels, e.up.b, p.up);
  pack_transposed(kernels, e.down.a, p.down_in);
  if (pass == Pass::forward) {
    pack_transposed(kernels, e.down.b, p.down_out);
    return;
  }
  pack_plain(kernels, p.input_rows, p.input_back);
  pack_plain(kernels, e.gate.b, p.gate_back);
  pack_plain(kernels, e.up.b, p.up_back);
  pack_plain(kernels, e.down.a, p.down_in_back);
  pack_plain(kernels, e.down.b, p.down_out_back);
}

void MixturePlan::input_products(const Visits &v, const float *u) const {
  const LowRank &gate = expert(v).gate, &up = expert(v).up;
  const int64_t d = shape.hidden, rank = input_rank(v);
  float *to = low_of(v);
  if (pass == Pass::few_tokens) {
    kernels.dot_rows(DType::f32, gate.a, d * 4, gate.rank, d, v.count, u, d, to, input_stride, false);
    kernels.dot_rows(DType::f32, up.a, d * 4, up.rank, d, v.count, u, d, to + gate.rank, input_stride, false);
  } else {
    multiply_panels(kernels, v.count, u, d, packed[v.expert].input, 0, d, 0, rank, to, input_stride, false);
  }
  for (int64_t j = 0; j < v.count; j++, to += input_stride) {
    kernels.scale(gate.rank, gate.scale, to, to);
    kernels.scale(up.rank, up.scale, to + gate.rank, to + gate.rank);
  }
}

void MixturePlan::pre_activations(const Visits &v, Rows a0, Rows b0, int64_t column, int64_t width, float *a, float *b) const {
  load_rows(kernels, a0, 0, v.tokens, v.count, column, width, a, kMixtureStrip);
  load_rows(kernels, b0, 0, v.tokens, v.count, column, width, b, kMixtureStrip);
  const float *gate_low = low_of(v), *up_low = gate_low + expert(v).gate.rank;
  const auto add_delta = [&](const LowRank &delta, const Panels PackedExpert::*panels, const float *x, float *out) {
    if (delta.rank == 0) return;
    if (pass == Pass::few_tokens) {
      kernels.dot_rows(DType::f32, delta.b + column * delta.rank, delta.rank * 4, width, delta.rank, v.count, x, input_stride,
                       out, kMixtureStrip, true);
    } else {
      multiply_panels(kernels, v.count, x, input_stride, packed[v.expert].*panels, 0, delta.rank, column, width, out,
                      kMixtureStrip, true);
    }
  };
  add_delta(expert(v).gate, &PackedExpert::gate, gate_low, a);
  add_delta(expert(v).up, &PackedExpert::up, up_low, b);
}

// Row by row, as gated_activation does.
void MixturePlan::activate(int64_t rows, int64_t width, const float *a, const float *b, float *h) const {
  const auto gated = shape.activation == Activation::silu ? kernels.gated_silu : kernels.gated_gelu;
  for (int64_t r = 0; r < rows; r++) gated(width, a + r * kMixtureStrip, b + r * kMixtureStrip, h + r * kMixtureStrip);
}

}  // namespace moe::cpu
