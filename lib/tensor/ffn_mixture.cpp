// The FFN mixture built from the simpler ops (formulas: tensor/backend.h, MixtureExpert, and lib/cpu/ffn_mixture_backward.cpp).
// Expert by expert, the tokens that select it are gathered into neighbouring rows, pass through its network as one batch, and
// what comes out is added back where they came from; the indices of one expert are distinct, experts follow in order, so sums
// have one order. h_i - h_0 is exactly zero where B = 0, because the same op makes both from the same numbers.
// An expert whose three deltas have rank 0 equals the base and is left out. The host sorts the tokens by expert: on a device with
// memory of its own it waits there once for `selected`.
// How many tokens share an expert may choose the kernel of a product and with it the last bits of a token.
#include <algorithm>

#include "tensor/backend.h"

namespace moe {
namespace {

Rows take_rows(Arena &arena, int64_t tokens, int64_t n) {
  return f32_rows(arena.take<float>(static_cast<size_t>(tokens * n)), n);
}

// Where sums for `rows` are formed: in place, or in f32 memory that is rounded once at the end.
Rows take_sum(Arena &arena, int64_t tokens, int64_t n, Rows rows) {
  return rows.dtype == DType::f32 ? rows : take_rows(arena, tokens, n);
}

// The tokens of one expert, side by side. All arrays have room for every token: what is selected never changes their size.
struct ExpertBatch {
  Backend &ops;
  const FfnMixtureShape &shape;
  Rows u, a0, b0;
  const uint8_t *selected = nullptr;                // [T, E], of the host
  int64_t count = 0;
  int32_t *listed = nullptr;                        // [count], of the host
  int32_t *tokens = nullptr;                        // [count]
  float *gates = nullptr;                           // [count]
  Rows x{}, a{}, b{}, base{}, h{};                  // u, a_i, b_i, h_0, h_i
  Rows gate_low{}, up_low{}, down_low{}, narrow{};  // [count, rank]: s A^g u, s A^u u, g s A^d h_i, and one more
  Rows out{};                                       // [count, d]

  void take(Arena &arena, std::span<const MixtureExpert> experts) {
    int64_t rank = 0;
    for (const MixtureExpert &e : experts) rank = std::max({rank, e.gate.rank, e.up.rank, e.down.rank});
    tokens = arena.take<int32_t>(static_cast<size_t>(shape.tokens));
    gates = arena.take<float>(static_cast<size_t>(shape.tokens));
    for (Rows *rows : {&a, &b, &base, &h}) *rows = take_rows(arena, shape.tokens, shape.intermediate);
    for (Rows *rows : {&x, &out}) *rows = take_rows(arena, shape.tokens, shape.hidden);
    for (Rows *rows : {&gate_low, &up_low, &down_low, &narrow}) *rows = take_rows(arena, shape.tokens, rank);
  }

  // False where no token goes through expert i. Entry t of column i of an array [T, E] is row t, one wide, of column_of().
  bool gather(const MixtureExpert &e, int64_t i) {
    count = 0;
    if (e.gate.rank + e.up.rank + e.down.rank == 0) return false;
    for (int64_t t = 0; t < shape.tokens; t++) {
      if (selected[t * shape.experts + i]) listed[count++] = static_cast<int32_t>(t);
    }
    if (tokens != listed) ops.upload(tokens, listed, static_cast<size_t>(count) * sizeof(int32_t));
    if (count > 0) ops.gather(count, 1, column_of(shape.gates, i), tokens, f32_rows(gates, 1));
    return count > 0;
  }
  Rows column_of(const float *array, int64_t i) const { return f32_rows(array + i, shape.experts); }

  // low = factor s A x, factor by row or nullptr = 1
  void enter(const LowRank &delta, Rows input, int64_t in, const float *factor, Rows low) {
    ops.matmul(count, input, {DType::f32, delta.rank, in, delta.a}, low, Store::set);
    ops.scale_rows(count, delta.rank, low, factor, 1, delta.scale, low);
  }
  // y (=|+=) B low
  void leave(const LowRank &delta, Rows low, int64_t n, Rows y, Store store) {
    ops.matmul(count, low, {DType::f32, n, delta.rank, delta.b}, y, store);
  }
  void activate(Rows h_) { ops.gated_activation(count, shape.intermediate, shape.activation, a, b, h_); }

  // h_0, then a_i, b_i, h_i
  void forward(const MixtureExpert &e) {
    const int64_t d = shape.hidden, f = shape.intermediate;
    ops.gather(count, d, u, tokens, x);
    ops.gather(count, f, a0, tokens, a);
    ops.gather(count, f, b0, tokens, b);
    activate(base);
    if (e.gate.rank > 0) enter(e.gate, x, d, nullptr, gate_low), leave(e.gate, gate_low, f, a, Store::add);
    if (e.up.rank > 0) enter(e.up, x, d, nullptr, up_low), leave(e.up, up_low, f, b, Store::add);
    activate(h);
  }
  void subtract_base() {  // h_i becomes h_i - h_0
    ops.scale_rows(count, shape.intermediate, base, nullptr, 0, -1, base);
    ops.copy(count, shape.intermediate, base, h, Store::add);
  }
  void add_back(int64_t n, Rows from, Rows to) { ops.scatter(count, n, from, tokens, to, Store::add); }
};

struct BackwardBatch : ExpertBatch {
  Rows delta, dhbar, du;
  Rows dy{}, q{}, da{}, db{};  // delta of the batch; s A^dT B^dT delta; da_i, db_i
  Rows da_sum{}, db_sum{};     // [T, f]
  float *dgate = nullptr;      // [count]
  float *share = nullptr;      // [T] 1 - sum g_i

  void take_all(Arena &arena, std::span<const MixtureExpert> experts, Rows da0, Rows db0) {
    take(arena, experts);
    dy = take_rows(arena, shape.tokens, shape.hidden);
    for (Rows *rows : {&q, &da, &db}) *rows = take_rows(arena, shape.tokens, shape.intermediate);
    da_sum = take_sum(arena, shape.tokens, shape.intermediate, da0);
    db_sum = take_sum(arena, shape.tokens, shape.intermediate, db0);
    dgate = arena.take<float>(static_cast<size_t>(shape.tokens));
    share = arena.take<float>(static_cast<size_t>(shape.tokens));
  }

  // da_0, db_0 of dh_0 = (1 - sum g_i) dhbar
  void backward_base(std::span<const MixtureExpert> experts) {
    const int64_t T = shape.tokens, f = shape.intermediate;
    ops.fill(T, 1, share);
    for (int64_t i = 0; i < shape.experts; i++) {
      if (!gather(experts[static_cast<size_t>(i)], i)) continue;
      ops.scale_rows(count, 1, f32_rows(gates, 1), nullptr, 0, -1, f32_rows(gates, 1));
      add_back(1, f32_rows(gates, 1), f32_rows(share, 1));
    }
    ops.scale_rows(T, f, dhbar, share, 1, 1, q);
    ops.gated_activation_backward(T, f, shape.activation, a0, b0, q, da_sum, db_sum);
  }

  // q, <q, h_i> and the gradients of the down factors
  void backward_down(const LowRank &down, const LowRankGradient &gradient) {
    const int64_t d = shape.hidden, f = shape.intermediate, rank = down.rank;
    ops.matmul_transposed(count, dy, {DType::f32, d, rank, down.b}, narrow, Store::set);
    ops.scale_rows(count, rank, narrow, nullptr, 0, down.scale, narrow);
    ops.matmul_transposed(count, narrow, {DType::f32, rank, f, down.a}, q, Store::set);
    ops.row_dots(count, f, q, h, 1, dgate, 1);
    if (gradient.a) {
      ops.scale_rows(count, rank, narrow, gates, 1, 1, narrow);
      ops.outer_product(count, rank, f, narrow, h, gradient.a, false);
    }
    if (gradient.b) {
      enter(down, h, f, gates, down_low);
      ops.outer_product(count, rank, d, down_low, dy, gradient.b, true);
    }
  }

  // From dz of z = z0 + B low, low = s A u: the gradients of the factors, and du += s A^T B^T dz.
  void backward_input(const LowRank &factors, const LowRankGradient &gradient, Rows low, Rows dz) {
    const int64_t d = shape.hidden, f = shape.intermediate, rank = factors.rank;
    if (rank == 0) return;
    if (gradient.b) ops.outer_product(count, rank, f, low, dz, gradient.b, true);
    if (!gradient.a && !du.data) return;
    ops.matmul_transposed(count, dz, {DType::f32, f, rank, factors.b}, narrow, Store::set);
    ops.scale_rows(count, rank, narrow, nullptr, 0, factors.scale, narrow);
    if (gradient.a) ops.outer_product(count, rank, d, narrow, x, gradient.a, false);
    if (!du.data) return;
    ops.matmul_transposed(count, narrow, {DType::f32, rank, d, factors.a}, out, Store::set);
    add_back(d, out, du);
  }

  void backward(const MixtureExpert &e, Rows dgates) {
    const int64_t f = shape.intermediate;
    forward(e);
    ops.fill(count, 0, dgate);
    ops.gather(count, shape.hidden, delta, tokens, dy);
    if (e.down.rank > 0) backward_down(e.down, e.down_gradient);
    ops.gather(count, f, dhbar, tokens, da);  // until da_i takes its place
    subtract_base();
    ops.row_dots(count, f, da, h, 1, dgate, 1);
    ops.scatter(count, 1, f32_rows(dgate, 1), tokens, dgates, Store::set);
    if (e.down.rank > 0) ops.copy(count, f, q, da, Store::add);
    ops.scale_rows(count, f, da, gates, 1, 1, q);
    ops.gated_activation_backward(count, f, shape.activation, a, b, q, da, db);
    add_back(f, da, da_sum);
    add_back(f, db, db_sum);
    backward_input(e.gate, e.gate_gradient, gate_low, da);
    backward_input(e.up, e.up_gradient, up_low, db);
  }
};

}  // namespace

// take(arena) cuts the arrays of an op from the arena: once to measure, once to have them.
template <class Take>
void Backend::with_memory(Take &&take) {
  Arena measure;
  take(measure);
  if (!memory_ || memory_->capacity() < measure.peak()) {
    memory_.reset();
    memory_ = std::make_unique<Arena>(allocate(measure.peak()), measure.peak());
  }
  memory_->release(0);
  take(*memory_);
}

// Gives the batch what the host reads, `selected`, and where it writes its lists.
template <class Batch>
void Backend::show_host(Batch &batch) {
  batch.selected = batch.shape.selected;
  batch.listed = batch.tokens;
  if (host_memory()) return;
  selected_.resize(static_cast<size_t>(batch.shape.tokens * batch.shape.experts));
  listed_.resize(static_cast<size_t>(batch.shape.tokens));
  download(selected_.data(), batch.shape.selected, selected_.size());
  batch.selected = selected_.data();
  batch.listed = listed_.data();
}

void Backend::ffn_mixture(const FfnMixtureShape &shape, std::span<const MixtureExpert> experts, Rows u, Rows a0, Rows b0,
                          Rows hbar, Rows y) {
  const int64_t T = shape.tokens, d = shape.hidden, f = shape.intermediate;
  if (T == 0) return;
  ExpertBatch batch{*this, shape, u, a0, b0};
  Rows sum;
  with_memory([&](Arena &arena) {
    batch.take(arena, experts);
    sum = take_sum(arena, T, f, hbar);
  });
  show_host(batch);
  gated_activation(T, f, shape.activation, a0, b0, sum);
  for (int64_t i = 0; i < shape.experts; i++) {
    const MixtureExpert &e = experts[static_cast<size_t>(i)];
    if (!batch.gather(e, i)) continue;
    batch.forward(e);
    if (e.down.rank > 0) {  // y += g s B^d A^d h_i
      batch.enter(e.down, batch.h, f, batch.gates, batch.down_low);
      batch.leave(e.down, batch.down_low, d, batch.out, Store::set);
      batch.add_back(d, batch.out, y);
    }
    batch.subtract_base();
    scale_rows(batch.count, f, batch.h, batch.gates, 1, 1, batch.h);
    batch.add_back(f, batch.h, sum);
  }
  if (sum.data != hbar.data) copy(T, f, sum, hbar, Store::set);
}

void Backend::ffn_mixture_backward(const FfnMixtureShape &shape, std::span<const MixtureExpert> experts, Rows u, Rows a0, Rows b0,
                                   Rows dhbar, Rows delta, Rows da0, Rows db0, Rows du, float *dgates) {
  const int64_t T = shape.tokens, f = shape.intermediate;
  if (T == 0) return;
  BackwardBatch batch{{*this, shape, u, a0, b0}, delta, dhbar, du};
  with_memory([&](Arena &arena) { batch.take_all(arena, experts, da0, db0); });
  show_host(batch);
  fill(T * shape.experts, 0, dgates);
  batch.backward_base(experts);
  for (int64_t i = 0; i < shape.experts; i++) {
    const MixtureExpert &e = experts[static_cast<size_t>(i)];
    if (batch.gather(e, i)) batch.backward(e, batch.column_of(dgates, i));
  }
  if (batch.da_sum.data != da0.data) copy(T, f, batch.da_sum, da0, Store::set);
  if (batch.db_sum.data != db0.data) copy(T, f, batch.db_sum, db0, Store::set);
}

}  // namespace moe
