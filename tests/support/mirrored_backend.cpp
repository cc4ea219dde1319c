#include "support/mirrored_backend.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "base/error.h"

namespace moe::test {
namespace {

// The arrays of one call. Names come first, pointers are changed to those of the device by enter(), leave() brings results back.
class Mirror {
 public:
  Mirror(Backend &device, const char *op) : device_(device), op_(op) {}

  template <class T>
  void array(T *&pointer, int64_t count) {
    add(pointer, static_cast<size_t>(count) * sizeof(T), !std::is_const_v<T>,
        [&pointer](char *to) { pointer = reinterpret_cast<T *>(to); });
  }
  void rows(Rows &x, int64_t rows, int64_t n, bool written) {
    if (rows == 0 || n == 0) return;
    add(x.data, static_cast<size_t>(row_bytes(x.dtype, (rows - 1) * x.stride + n)), written, [&x](char *to) { x.data = to; });
  }
  void in(Rows &x, int64_t t, int64_t n) { rows(x, t, n, false); }
  void out(Rows &x, int64_t t, int64_t n) { rows(x, t, n, true); }
  void matrix(Matrix &w) {
    add(w.data, static_cast<size_t>(w.rows * row_bytes(w.dtype, w.columns)), false, [&w](char *to) { w.data = to; });
  }
  void low_rank(LowRank &f, int64_t in, int64_t out) {
    array(f.a, f.rank * in);
    array(f.b, f.rank * out);
  }
  void gradient(LowRankGradient &g, int64_t rank, int64_t in, int64_t out) {
    array(g.a, rank * in);
    array(g.b, rank * out);
  }
  void column(const float *&first, int64_t count, int64_t stride) { array(first, count > 0 ? (count - 1) * stride + 1 : 0); }
  void column(float *&first, int64_t count, int64_t stride) { array(first, count > 0 ? (count - 1) * stride + 1 : 0); }

  void enter() {
    std::vector<const Array *> order;
    for (const Array &a : arrays_) order.push_back(&a);
    std::sort(order.begin(), order.end(), [](const Array *a, const Array *b) { return a->host < b->host; });
    for (const Array *a : order) {
      if (!regions_.empty() && a->host < regions_.back().end) {
        regions_.back().end = std::max(regions_.back().end, a->host + a->bytes);
        regions_.back().written |= a->written;
      } else {
        regions_.push_back({a->host, a->host + a->bytes, a->written, Memory(nullptr, nullptr)});
      }
    }
    for (Region &region : regions_) {
      region.memory = device_.allocate(region.bytes());
      device_.upload(region.memory.get(), region.host, region.bytes());
    }
    for (const Array &a : arrays_) {
      const auto region =
          std::find_if(regions_.begin(), regions_.end(), [&](const Region &r) { return a.host >= r.host && a.host < r.end; });
      a.move_to(reinterpret_cast<char *>(region->memory.get()) + (a.host - region->host));
    }
  }
  void leave() {
    device_.synchronize();
    for (const Region &region : regions_) {
      if (region.written) {
        device_.download(const_cast<char *>(region.host), region.memory.get(), region.bytes());
        continue;
      }
      std::vector<char> now(region.bytes());
      device_.download(now.data(), region.memory.get(), now.size());
      if (std::memcmp(now.data(), region.host, now.size()) != 0) fail(Code::internal, op_, " changed one of its inputs");
    }
  }

 private:
  struct Array {
    const char *host;
    size_t bytes;
    bool written;
    std::function<void(char *)> move_to;
  };
  struct Region {
    const char *host, *end;
    bool written;
    Memory memory;
    size_t bytes() const { return static_cast<size_t>(end - host); }
  };
  void add(const void *host, size_t bytes, bool written, std::function<void(char *)> move_to) {
    if (host && bytes > 0) arrays_.push_back({static_cast<const char *>(host), bytes, written, std::move(move_to)});
  }

  Backend &device_;
  const char *op_;
  std::vector<Array> arrays_;
  std::vector<Region> regions_;
};

class MirroredBackend final : public Backend {
 public:
  MirroredBackend(std::unique_ptr<Backend> device, std::function<void()> before_op)
      : device_(std::move(device)), before_op_(std::move(before_op)) {}
  const char *name() const override { return device_->name(); }
  bool fast_int8(int64_t tokens) const override { return device_->fast_int8(tokens); }
  uint64_t scratch_bytes(const PassSize &size) const override { return device_->scratch_bytes(size); }

  // ---- products ----
  void matmul(int64_t tokens, Rows x, const Matrix &w, Rows y, Store store) override {
    Matrix weights = w;
    run(
        "matmul", [&](Mirror &m) { m.in(x, tokens, w.columns), m.matrix(weights), m.out(y, tokens, w.rows); },
        [&] { device_->matmul(tokens, x, weights, y, store); });
  }
  void matmul_transposed(int64_t tokens, Rows dy, const Matrix &w, Rows dx, Store store) override {
    Matrix weights = w;
    run(
        "matmul_transposed", [&](Mirror &m) { m.in(dy, tokens, w.rows), m.matrix(weights), m.out(dx, tokens, w.columns); },
        [&] { device_->matmul_transposed(tokens, dy, weights, dx, store); });
  }
  void outer_product(int64_t tokens, int64_t rank, int64_t n, Rows v, Rows x, float *g, bool transposed) override {
    run(
        "outer_product", [&](Mirror &m) { m.in(v, tokens, rank), m.in(x, tokens, n), m.array(g, rank * n); },
        [&] { device_->outer_product(tokens, rank, n, v, x, g, transposed); });
  }
  void projection(int64_t tokens, Rows x, const Matrix &w, const float *bias, std::span<LowRankTerm> terms, Rows y, Store store,
                  float *scratch) override {
    Matrix weights = w;
    std::vector<LowRankTerm> copies(terms.begin(), terms.end());
    run(
        "projection",
        [&](Mirror &m) {
          m.in(x, tokens, w.columns), m.matrix(weights), m.array(bias, w.rows), m.out(y, tokens, w.rows);
          m.array(scratch, projection_scratch(tokens, w.columns, w.rows, terms));
          for (LowRankTerm &term : copies) describe(m, term, tokens, w);
        },
        [&] { device_->projection(tokens, x, weights, bias, copies, y, store, scratch); });
  }
  void projection_backward(int64_t tokens, Rows x, const Matrix &w, std::span<LowRankTerm> terms, Rows dy, Rows dx, Store store,
                           float *scratch) override {
    Matrix weights = w;
    std::vector<LowRankTerm> copies(terms.begin(), terms.end());
    run(
        "projection_backward",
        [&](Mirror &m) {
          m.in(x, tokens, w.columns), m.matrix(weights), m.in(dy, tokens, w.rows), m.out(dx, tokens, w.columns);
          m.array(scratch, projection_scratch(tokens, w.columns, w.rows, terms));
          for (LowRankTerm &term : copies) describe(m, term, tokens, w);
        },
        [&] { device_->projection_backward(tokens, x, weights, copies, dy, dx, store, scratch); });
  }

  // ---- rows ----
  void embedding(int64_t tokens, const int32_t *ids, const Matrix &w, float scale, Rows out) override {
    Matrix weights = w;
    run(
        "embedding", [&](Mirror &m) { m.array(ids, tokens), m.matrix(weights), m.out(out, tokens, w.columns); },
        [&] { device_->embedding(tokens, ids, weights, scale, out); });
  }
  void rms_norm(int64_t tokens, int64_t n, Rows x, const float *weight, float epsilon, Rows y, Store store) override {
    run(
        "rms_norm", [&](Mirror &m) { m.in(x, tokens, n), m.array(weight, n), m.out(y, tokens, n); },
        [&] { device_->rms_norm(tokens, n, x, weight, epsilon, y, store); });
  }
  void rms_norm_backward(int64_t tokens, int64_t n, Rows x, const float *weight, float epsilon, Rows dy, Rows dx,
                         Store store) override {
    run(
        "rms_norm_backward",
        [&](Mirror &m) { m.in(x, tokens, n), m.array(weight, n), m.in(dy, tokens, n), m.out(dx, tokens, n); },
        [&] { device_->rms_norm_backward(tokens, n, x, weight, epsilon, dy, dx, store); });
  }
  void fill(int64_t n, float value, float *x) override {
    run(
        "fill", [&](Mirror &m) { m.array(x, n); }, [&] { device_->fill(n, value, x); });
  }
  void copy(int64_t tokens, int64_t n, Rows x, Rows y, Store store) override {
    run(
        "copy", [&](Mirror &m) { m.in(x, tokens, n), m.out(y, tokens, n); }, [&] { device_->copy(tokens, n, x, y, store); });
  }
  void gather(int64_t rows, int64_t n, Rows x, const int32_t *index, Rows y) override {
    const int64_t from = largest(index, rows) + 1;
    run(
        "gather", [&](Mirror &m) { m.in(x, from, n), m.array(index, rows), m.out(y, rows, n); },
        [&] { device_->gather(rows, n, x, index, y); });
  }
  void scatter(int64_t rows, int64_t n, Rows x, const int32_t *index, Rows y, Store store) override {
    const int64_t to = largest(index, rows) + 1;
    run(
        "scatter", [&](Mirror &m) { m.in(x, rows, n), m.array(index, rows), m.out(y, to, n); },
        [&] { device_->scatter(rows, n, x, index, y, store); });
  }
  void scale_rows(int64_t tokens, int64_t n, Rows x, const float *factor, int64_t stride, float constant, Rows y) override {
    run(
        "scale_rows", [&](Mirror &m) { m.in(x, tokens, n), m.column(factor, tokens, stride), m.out(y, tokens, n); },
        [&] { device_->scale_rows(tokens, n, x, factor, stride, constant, y); });
  }
  void row_dots(int64_t tokens, int64_t n, Rows x, Rows y, float constant, float *out, int64_t stride) override {
    run(
        "row_dots", [&](Mirror &m) { m.in(x, tokens, n), m.in(y, tokens, n), m.column(out, tokens, stride); },
        [&] { device_->row_dots(tokens, n, x, y, constant, out, stride); });
  }
  void dropout(int64_t tokens, int64_t n, Rows x, float p, uint64_t seed, uint64_t stream, Rows y) override {
    run(
        "dropout", [&](Mirror &m) { m.in(x, tokens, n), m.out(y, tokens, n); },
        [&] { device_->dropout(tokens, n, x, p, seed, stream, y); });
  }
  void add_bias(int64_t tokens, int64_t n, const float *bias, Rows y) override {
    run(
        "add_bias", [&](Mirror &m) { m.array(bias, n), m.out(y, tokens, n); }, [&] { device_->add_bias(tokens, n, bias, y); });
  }

  // ---- attention ----
  void rotary_table(int64_t tokens, int64_t head_dimension, const int32_t *positions, const float *inverse_frequency,
                    float factor, float *table) override {
    run(
        "rotary_table",
        [&](Mirror &m) {
          m.array(positions, tokens), m.array(inverse_frequency, head_dimension / 2), m.array(table, tokens * head_dimension);
        },
        [&] { device_->rotary_table(tokens, head_dimension, positions, inverse_frequency, factor, table); });
  }
  void rotary(int64_t tokens, int64_t heads, int64_t h, Rows in, const float *norm_weight, float epsilon, const float *table,
              Rows out) override {
    run(
        "rotary",
        [&](Mirror &m) {
          m.in(in, tokens, heads * h), m.array(norm_weight, h), m.array(table, tokens * h), m.out(out, tokens, heads * h);
        },
        [&] { device_->rotary(tokens, heads, h, in, norm_weight, epsilon, table, out); });
  }
  void rotary_backward(int64_t tokens, int64_t heads, int64_t h, Rows in, const float *norm_weight, float epsilon,
                       const float *table, Rows dout, Rows din) override {
    run(
        "rotary_backward",
        [&](Mirror &m) {
          m.in(in, tokens, heads * h), m.array(norm_weight, h), m.array(table, tokens * h), m.in(dout, tokens, heads * h),
              m.out(din, tokens, heads * h);
        },
        [&] { device_->rotary_backward(tokens, heads, h, in, norm_weight, epsilon, table, dout, din); });
  }
  void attention(const AttentionShape &shape, std::span<const AttentionSequence> sequences, Rows q, Rows out,
                 float *log_sum_exp) override {
    std::vector<AttentionSequence> copies(sequences.begin(), sequences.end());
    const int64_t tokens = queries_of(sequences), width = shape.heads * shape.head_dimension;
    run(
        "attention",
        [&](Mirror &m) {
          m.in(q, tokens, width), m.out(out, tokens, width), m.array(log_sum_exp, tokens * shape.heads);
          for (AttentionSequence &s : copies) describe(m, s, shape);
        },
        [&] { device_->attention(shape, copies, q, out, log_sum_exp); });
  }
  void attention_backward(const AttentionShape &shape, std::span<const AttentionSequence> sequences, Rows q, Rows out,
                          const float *log_sum_exp, Rows dout, Rows dq, Rows dk, Rows dv) override {
    std::vector<AttentionSequence> copies(sequences.begin(), sequences.end());
    const int64_t tokens = queries_of(sequences), width = shape.heads * shape.head_dimension,
                  key_width = shape.kv_heads * shape.head_dimension;
    run(
        "attention_backward",
        [&](Mirror &m) {
          m.in(q, tokens, width), m.in(out, tokens, width), m.array(log_sum_exp, tokens * shape.heads), m.in(dout, tokens, width);
          m.out(dq, tokens, width), m.out(dk, tokens, key_width), m.out(dv, tokens, key_width);
          for (AttentionSequence &s : copies) describe(m, s, shape);
        },
        [&] { device_->attention_backward(shape, copies, q, out, log_sum_exp, dout, dq, dk, dv); });
  }

  // ---- feed-forward ----
  void gated_activation(int64_t tokens, int64_t f, Activation phi, Rows a, Rows b, Rows h) override {
    run(
        "gated_activation", [&](Mirror &m) { m.in(a, tokens, f), m.in(b, tokens, f), m.out(h, tokens, f); },
        [&] { device_->gated_activation(tokens, f, phi, a, b, h); });
  }
  void gated_activation_backward(int64_t tokens, int64_t f, Activation phi, Rows a, Rows b, Rows dh, Rows da, Rows db) override {
    run(
        "gated_activation_backward",
        [&](Mirror &m) {
          m.in(a, tokens, f), m.in(b, tokens, f), m.in(dh, tokens, f), m.out(da, tokens, f), m.out(db, tokens, f);
        },
        [&] { device_->gated_activation_backward(tokens, f, phi, a, b, dh, da, db); });
  }

  // The device's own op, or the default with all its arrays on the device.
  void ffn_mixture(const FfnMixtureShape &shape, std::span<const MixtureExpert> experts, Rows u, Rows a0, Rows b0, Rows hbar,
                   Rows y) override {
    FfnMixtureShape s = shape;
    std::vector<MixtureExpert> copies(experts.begin(), experts.end());
    run(
        "ffn_mixture",
        [&](Mirror &m) {
          m.in(u, s.tokens, s.hidden), m.in(a0, s.tokens, s.intermediate), m.in(b0, s.tokens, s.intermediate);
          m.out(hbar, s.tokens, s.intermediate), m.out(y, s.tokens, s.hidden);
          describe(m, s, copies);
        },
        [&] { device_->ffn_mixture(s, copies, u, a0, b0, hbar, y); });
  }
  void ffn_mixture_backward(const FfnMixtureShape &shape, std::span<const MixtureExpert> experts, Rows u, Rows a0, Rows b0,
                            Rows dhbar, Rows delta, Rows da0, Rows db0, Rows du, float *dgates) override {
    FfnMixtureShape s = shape;
    std::vector<MixtureExpert> copies(experts.begin(), experts.end());
    run(
        "ffn_mixture_backward",
        [&](Mirror &m) {
          m.in(u, s.tokens, s.hidden), m.in(a0, s.tokens, s.intermediate), m.in(b0, s.tokens, s.intermediate),
              m.in(dhbar, s.tokens, s.intermediate);
          m.in(delta, s.tokens, s.hidden), m.out(da0, s.tokens, s.intermediate), m.out(db0, s.tokens, s.intermediate),
              m.out(du, s.tokens, s.hidden);
          m.array(dgates, s.tokens * s.experts);
          describe(m, s, copies);
        },
        [&] { device_->ffn_mixture_backward(s, copies, u, a0, b0, dhbar, delta, da0, db0, du, dgates); });
  }

  // ---- router ----
  void router(const RouterShape &shape, Rows u, const float *weight, const float *bias, const RouterState &state) override {
    RouterShape s = shape;
    RouterState on_device = state;
    run(
        "router",
        [&](Mirror &m) {
          const int64_t entries = s.experts + 1;
          m.in(u, s.tokens, s.hidden), m.array(weight, entries * s.hidden), m.array(bias, entries),
              m.array(s.bias_for_selection, entries);
          describe(m, on_device, s);
        },
        [&] { device_->router(s, u, weight, bias, on_device); });
  }
  void router_backward(const RouterShape &shape, Rows u, const float *weight, const RouterState &state, const float *dgates,
                       const RouterLossGradient &losses, float *dz, float *dweight, float *dbias, Rows du) override {
    RouterShape s = shape;
    RouterState on_device = state;
    RouterLossGradient l = losses;
    run(
        "router_backward",
        [&](Mirror &m) {
          const int64_t entries = s.experts + 1;
          m.in(u, s.tokens, s.hidden), m.array(weight, entries * s.hidden), m.array(s.bias_for_selection, entries),
              m.array(dgates, s.tokens * s.experts);
          m.array(l.balance, entries), m.array(l.starts, l.sequences + 1), m.array(l.supervised_entry, l.sequences),
              m.array(l.supervised, l.sequences);
          m.array(dz, s.tokens * entries), m.array(dweight, entries * s.hidden), m.array(dbias, entries),
              m.out(du, s.tokens, s.hidden);
          describe(m, on_device, s);
        },
        [&] { device_->router_backward(s, u, weight, on_device, dgates, l, dz, dweight, dbias, du); });
  }

  // ---- head and optimizer ----
  void cross_entropy(int64_t tokens, Rows hidden, const Matrix &w, const int32_t *labels, float *nll, float scale,
                     Rows dh) override {
    Matrix weights = w;
    run(
        "cross_entropy",
        [&](Mirror &m) {
          m.in(hidden, tokens, w.columns), m.matrix(weights), m.array(labels, tokens), m.array(nll, tokens),
              m.out(dh, tokens, w.columns);
        },
        [&] { device_->cross_entropy(tokens, hidden, weights, labels, nll, scale, dh); });
  }
  void adamw(int64_t n, float *p, const float *g, float *m, float *v, const AdamW &options) override {
    run(
        "adamw", [&](Mirror &mirror) { mirror.array(p, n), mirror.array(g, n), mirror.array(m, n), mirror.array(v, n); },
        [&] { device_->adamw(n, p, g, m, v, options); });
  }
  double sum_of_squares(int64_t n, const float *x) override {
    double sum = 0;
    run(
        "sum_of_squares", [&](Mirror &m) { m.array(x, n); }, [&] { sum = device_->sum_of_squares(n, x); });
    return sum;
  }

 private:
  template <class Describe, class Op>
  void run(const char *op, Describe describe, Op call) {
    if (before_op_) before_op_();
    Mirror mirror(*device_, op);
    describe(mirror);
    mirror.enter();
    call();
    mirror.leave();
  }
  static int64_t largest(const int32_t *index, int64_t count) { return count > 0 ? *std::max_element(index, index + count) : -1; }
  static int64_t queries_of(std::span<const AttentionSequence> sequences) {
    int64_t end = 0;
    for (const AttentionSequence &s : sequences) end = std::max(end, s.first_query + s.queries);
    return end;
  }
  static void describe(Mirror &m, AttentionSequence &s, const AttentionShape &shape) {
    m.in(s.keys, s.key_count, shape.kv_heads * shape.head_dimension);
    m.in(s.values, s.key_count, shape.kv_heads * shape.head_dimension);
  }
  static void describe(Mirror &m, LowRankTerm &term, int64_t tokens, const Matrix &w) {
    m.low_rank(term.factors, w.columns, w.rows);
    m.gradient(term.gradient, term.factors.rank, w.columns, w.rows);
    m.array(term.u, tokens * term.factors.rank);
    m.column(term.gate, tokens, term.gate_stride);
    m.column(term.gate_gradient, tokens, term.gate_stride);
  }
  static void describe(Mirror &m, FfnMixtureShape &s, std::vector<MixtureExpert> &experts) {
    m.array(s.selected, s.tokens * s.experts), m.array(s.gates, s.tokens * s.experts);
    for (MixtureExpert &e : experts) {
      m.low_rank(e.gate, s.hidden, s.intermediate), m.gradient(e.gate_gradient, e.gate.rank, s.hidden, s.intermediate);
      m.low_rank(e.up, s.hidden, s.intermediate), m.gradient(e.up_gradient, e.up.rank, s.hidden, s.intermediate);
      m.low_rank(e.down, s.intermediate, s.hidden), m.gradient(e.down_gradient, e.down.rank, s.intermediate, s.hidden);
    }
  }
  static void describe(Mirror &m, RouterState &state, const RouterShape &s) {
    const int64_t entries = s.tokens * (s.experts + 1);
    m.array(state.z, entries), m.array(state.p, entries), m.array(state.picked, s.tokens * s.top_k);
    m.array(state.selected, s.tokens * s.experts), m.array(state.gates, s.tokens * s.experts);
  }

  std::unique_ptr<Backend> device_;
  std::function<void()> before_op_;
};

}  // namespace

std::unique_ptr<Backend> mirrored(std::unique_ptr<Backend> device, std::function<void()> before_op) {
  return std::make_unique<MirroredBackend>(std::move(device), std::move(before_op));
}

}  // namespace moe::test
