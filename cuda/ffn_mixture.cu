// The FFN mixture (formulas: tensor/backend.h, MixtureExpert, and lib/cpu/ffn_mixture_backward.cpp) without a word from the host:
// the list of visits is made on the device (visits.h), the experts' products run over it (grouped_products.h), and what the
// experts make is added token by token in the order of the experts. h_i - h_0 is exactly zero where B = 0: both are `gated` of
// the same numbers. In memory of the op stand f values of each visit (backward: four times), d values, and its narrow rows;
// tokens are taken in pieces that bound it.
#include "cuda/cuda_backend.h"
#include "cuda/gated_activation.h"
#include "cuda/grouped_products.h"
#include "cuda/scratch.h"

namespace moe::cuda {
namespace {

constexpr int kThreads = 128;

std::vector<Group> groups_of(const FfnMixtureShape &shape, std::span<const MixtureExpert> experts) {
  std::vector<Group> groups;
  for (size_t i = 0; i < experts.size(); i++) {
    const MixtureExpert &e = experts[i];
    groups.push_back({{e.gate, e.up, e.down},
                      {e.gate_gradient, e.up_gradient, e.down_gradient},
                      shape.selected + i,
                      shape.gates + i,
                      shape.experts});
  }
  return groups;
}

// Of `shape`, tokens [first, first + count).
FfnMixtureShape piece_of(FfnMixtureShape shape, int64_t first, int64_t count) {
  shape.tokens = count;
  shape.selected += first * shape.experts;
  shape.gates += first * shape.experts;
  return shape;
}

int64_t experts_of_token(const FfnMixtureShape &shape) {
  return shape.top_k > 0 ? std::min(shape.top_k, shape.experts) : shape.experts;
}

// The arrays of the visits, f32.
struct MixtureArrays {
  Visits v;
  Narrow input{}, down{};                    // s A^g u and s A^u u; g s A^d h
  View h{}, out{};                           // [visits, f], [visits, d]
  View a{}, b{}, q{};                        // [visits, f]: a_i and b_i, then da_i and db_i; s A^dT B^dT delta
  Narrow input_gradient{}, down_gradient{};  // s B^gT da and s B^uT db; s B^dT delta

  MixtureArrays(const FfnMixtureShape &shape, std::span<const MixtureExpert> experts) {
    v.tokens = shape.tokens;
    v.groups = shape.experts;
    v.most = shape.tokens * experts_of_token(shape);
    for (const MixtureExpert &e : experts) {
      input.stride = std::max(input.stride, e.gate.rank + e.up.rank);
      down.stride = std::max(down.stride, e.down.rank);
    }
    input_gradient.stride = input.stride;
    down_gradient.stride = down.stride;
  }
  void take(Arena &arena, const FfnMixtureShape &shape, bool backward) {
    const auto values = [&](int64_t n) { return arena.take<float>(static_cast<size_t>(v.most * n)); };
    const auto wide = [&](int64_t n) { return view("ffn_mixture", f32_rows(values((n + 3) / 4 * 4), (n + 3) / 4 * 4)); };
    v.take(arena);
    input.data = values(input.stride);
    down.data = values(down.stride);
    h = wide(shape.intermediate);
    out = wide(shape.hidden);
    if (!backward) return;
    for (View *x : {&a, &b, &q}) *x = wide(shape.intermediate);
    input_gradient.data = values(input.stride);
    down_gradient.data = values(down.stride);
  }
};

// hbar = h_0 + sum g_i (h_i - h_0)
struct Mix {
  Visits v;
  View a0, b0, h, hbar;
  int64_t n;
  Activation phi;
  __device__ void operator()(int64_t t, int64_t j) const {
    Eight base = load8(a0, t, j, n);
    const Eight up = load8(b0, t, j, n);
    for (int i = 0; i < 8; i++) base.v[i] = gated(phi, base.v[i], up.v[i]);
    Eight sum = base;
    each_visit(v, t, [&](int32_t visit) {
      const Eight own = load8(h, visit, j, n);
      const float g = v.gate[visit];
      for (int i = 0; i < 8; i++) sum.v[i] = fmaf(g, own.v[i] - base.v[i], sum.v[i]);
    });
    store8(hbar, t, j, n, sum);
  }
};

// da0 and db0 of dh_0 = (1 - sum g_i) dhbar, and those of the visits
struct BaseBackward {
  Visits v;
  View a0, b0, dhbar, da, db, da0, db0;
  int64_t n;
  Activation phi;
  __device__ void operator()(int64_t t, int64_t j) const {
    float share = 1;
    each_visit(v, t, [&](int32_t visit) { share -= v.gate[visit]; });
    Eight x = load8(a0, t, j, n), y = load8(b0, t, j, n);
    const Eight d = load8(dhbar, t, j, n);
    for (int i = 0; i < 8; i++) {
      const Gate g = gate(phi, x.v[i]);
      const float dh = d.v[i] * share;
      x.v[i] = dh * y.v[i] * g.slope;
      y.v[i] = dh * g.value;
    }
    each_visit(v, t, [&](int32_t visit) {
      const Eight a = load8(da, visit, j, n), b = load8(db, visit, j, n);
      for (int i = 0; i < 8; i++) x.v[i] += a.v[i], y.v[i] += b.v[i];
    });
    store8(da0, t, j, n, x);
    store8(db0, t, j, n, y);
  }
};

// Of a visit, by a block: dg = <q, h> + <dhbar, h - h_0>, and da, db of dh = g (dhbar + q) in the places of a and b.
__global__ void __launch_bounds__(kThreads) visit_backward_kernel(Visits v, int64_t n, Activation phi, View a0, View b0,
                                                                  View dhbar, View a, View b, View h, View q, float *dgates) {
  const VisitTile tile = visit_tile<1>(v, blockIdx.x);
  if (tile.count == 0) return;
  const int32_t visit = tile.first, t = v.token[visit];
  const float factor = v.gate[visit];
  float dots = 0;
  for (int64_t j = 8 * static_cast<int64_t>(threadIdx.x); j < n; j += 8 * kThreads) {
    const Eight d = load8(dhbar, t, j, n), base_gate = load8(a0, t, j, n), base_up = load8(b0, t, j, n);
    const Eight own = load8(h, visit, j, n), down = load8(q, visit, j, n);
    Eight x = load8(a, visit, j, n), y = load8(b, visit, j, n);
    for (int i = 0; i < 8; i++) {
      dots = fmaf(down.v[i], own.v[i], dots);
      dots = fmaf(d.v[i], own.v[i] - gated(phi, base_gate.v[i], base_up.v[i]), dots);
      const Gate g = gate(phi, x.v[i]);
      const float dh = factor * (d.v[i] + down.v[i]);
      x.v[i] = dh * y.v[i] * g.slope;
      y.v[i] = dh * g.value;
    }
    store8(a, visit, j, n, x);
    store8(b, visit, j, n, y);
  }
  dots = block_sum<kThreads>(dots);
  if (threadIdx.x == 0) dgates[t * v.groups + tile.group] = dots;
}

}  // namespace

size_t mixture_scratch(const PassSize &size) {
  FfnMixtureShape shape;
  shape.hidden = size.hidden;
  shape.intermediate = size.intermediate;
  shape.experts = size.experts;
  shape.top_k = size.top_k;
  if (shape.experts == 0) return 0;
  shape.tokens = std::min(size.tokens, tokens_of_piece(experts_of_token(shape), std::max(size.hidden, size.intermediate)));
  MixtureExpert expert;
  expert.gate.rank = expert.up.rank = expert.down.rank = size.rank;
  const std::vector<MixtureExpert> experts(static_cast<size_t>(size.experts), expert);
  Arena measure;
  MixtureArrays(shape, experts).take(measure, shape, true);
  return measure.peak();
}

void CudaBackend::ffn_mixture(const FfnMixtureShape &shape, std::span<const MixtureExpert> experts, Rows u, Rows a0, Rows b0,
                              Rows hbar, Rows y) {
  const char *op = "ffn_mixture";
  const int64_t d = shape.hidden, f = shape.intermediate, most = tokens_of_piece(experts_of_token(shape), std::max(d, f));
  for (int64_t i = 0; shape.tokens > most && i < shape.tokens; i += most) {
    ffn_mixture(piece_of(shape, i, std::min(most, shape.tokens - i)), experts, rows_from(u, i), rows_from(a0, i),
                rows_from(b0, i), rows_from(hbar, i), rows_from(y, i));
  }
  if (shape.tokens == 0 || shape.tokens > most) return;
  MixtureArrays m(shape, experts);
  with_scratch([&](Arena &arena) { m.take(arena, shape, false); });
  const View gate = view(op, a0), up = view(op, b0);
  list_visits(m.v, groups_of(shape, experts));
  narrow_product(on(), m.v, {view(op, u), true}, d, kGateUp, kScaled, m.input);
  expert_network(on(), m.v, m.input, f, shape.activation, gate, up, {}, {}, m.h);
  if (m.down.stride > 0) {
    narrow_product(on(), m.v, {m.h, false}, f, kDown, kBoth, m.down);
    wide_product(on(), m.v, m.down, d, kDown, m.out);
    add_visits(on(), m.v, m.out, view(op, y), view(op, y), d);
  }
  for_eights(on(), shape.tokens, f, Mix{m.v, gate, up, m.h, view(op, hbar), f, shape.activation});
}

void CudaBackend::ffn_mixture_backward(const FfnMixtureShape &shape, std::span<const MixtureExpert> experts, Rows u, Rows a0,
                                       Rows b0, Rows dhbar, Rows delta, Rows da0, Rows db0, Rows du, float *dgates) {
  const char *op = "ffn_mixture_backward";
  const int64_t d = shape.hidden, f = shape.intermediate, most = tokens_of_piece(experts_of_token(shape), std::max(d, f));
  for (int64_t i = 0; shape.tokens > most && i < shape.tokens; i += most) {
    ffn_mixture_backward(piece_of(shape, i, std::min(most, shape.tokens - i)), experts, rows_from(u, i), rows_from(a0, i),
                         rows_from(b0, i), rows_from(dhbar, i), rows_from(delta, i), rows_from(da0, i), rows_from(db0, i),
                         rows_from(du, i), dgates + i * shape.experts);
  }
  if (shape.tokens == 0 || shape.tokens > most) return;
  MixtureArrays m(shape, experts);
  with_scratch([&](Arena &arena) { m.take(arena, shape, true); });
  const View gate = view(op, a0), up = view(op, b0), dh = view(op, dhbar);
  const VisitRows of_u{view(op, u), true}, of_delta{view(op, delta), true}, of_h{m.h, false};
  list_visits(m.v, groups_of(shape, experts));
  narrow_product(on(), m.v, of_u, d, kGateUp, kScaled, m.input);
  expert_network(on(), m.v, m.input, f, shape.activation, gate, up, m.a, m.b, m.h);

  narrow_product_back(on(), m.v, of_delta, d, 2, 2, m.down_gradient);
  wide_product_back(on(), m.v, m.down_gradient, f, kDown, m.q);
  fill(shape.tokens * shape.experts, 0, dgates);
  MOE_LAUNCH((visit_backward_kernel), blocks_for(m.v.most, 1), kThreads, 0, on(), m.v, f, shape.activation, gate, up, dh, m.a,
             m.b, m.h, m.q, dgates);
  for_eights(on(), shape.tokens, f, BaseBackward{m.v, gate, up, dh, m.a, m.b, view(op, da0), view(op, db0), f, shape.activation});

  const VisitRows of_gate{m.a, false}, of_up{m.b, false};
  const auto any = [&](auto wants) { return std::any_of(experts.begin(), experts.end(), wants); };
  const bool trains_a = any([](const MixtureExpert &e) { return e.gate_gradient.a || e.up_gradient.a; });
  if (any([](const MixtureExpert &e) { return e.gate_gradient.b; }))
    add_b_gradients(on(), m.v, m.input, 0, 0, kUnscaled, of_gate, f);
  if (any([](const MixtureExpert &e) { return e.up_gradient.b; })) add_b_gradients(on(), m.v, m.input, 0, 1, kUnscaled, of_up, f);
  if (any([](const MixtureExpert &e) { return e.down_gradient.a; })) {
    add_a_gradients(on(), m.v, m.down_gradient, 2, 2, kGated, of_h, f);
  }
  if (any([](const MixtureExpert &e) { return e.down_gradient.b; })) {
    narrow_product(on(), m.v, of_h, f, kDown, kBoth, m.down);
    add_b_gradients(on(), m.v, m.down, 2, 2, kUnscaled, of_delta, d);
  }
  if (!trains_a && !du.data) return;
  narrow_product_back(on(), m.v, of_gate, f, 0, 0, m.input_gradient);
  narrow_product_back(on(), m.v, of_up, f, 0, 1, m.input_gradient);
  if (trains_a) {
    add_a_gradients(on(), m.v, m.input_gradient, 0, 0, kUnscaled, of_u, d);
    add_a_gradients(on(), m.v, m.input_gradient, 0, 1, kUnscaled, of_u, d);
  }
  if (!du.data) return;
  wide_product_back(on(), m.v, m.input_gradient, d, kGateUp, m.out);
  add_visits(on(), m.v, m.out, view(op, du), view(op, du), d);
}

}  // namespace moe::cuda
