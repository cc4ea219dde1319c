#include "bench/device/cases.h"

#include <algorithm>
#include <cmath>

namespace moe::bench {
namespace {

constexpr int64_t kRank = 16, kExperts = 4;

double product(int64_t a, int64_t b, int64_t c) {
  return static_cast<double>(a) * static_cast<double>(b) * static_cast<double>(c);
}

std::string name_of(const char *op, const ModelShapes &model, const std::string &what, int64_t tokens) {
  return std::string(op) + "/" + model.name + "/" + what + "/" + std::to_string(tokens);
}
std::string name_of(const Linear &linear) {
  return linear.name + ":" + dtype_info(linear.type).name + ":" + std::to_string(linear.out) + "x" + std::to_string(linear.in);
}

class List {
 public:
  // A case of the same name is added once: projections of one shape and type are the same to a device.
  void add(std::string name, std::function<void(Backend &, Instance &)> prepare) {
    for (const Case &known : cases_)
      if (known.name == name) return;
    cases_.push_back({std::move(name), std::move(prepare)});
  }
  std::vector<Case> take() { return std::move(cases_); }

 private:
  std::vector<Case> cases_;
};

// ---- products ----
void add_product(List &list, const char *op, const ModelShapes &model, const Linear &linear, DType activations, int64_t tokens) {
  list.add(name_of(op, model, name_of(linear), tokens), [=](Backend &b, Instance &i) {
    const Rows x = i.read(tokens, linear.in, activations, 1), y = i.write(tokens, linear.out, activations);
    i.set(
        [&b, tokens, x, y, next = i.weights(linear.type, linear.out, linear.in)] { b.matmul(tokens, x, next(), y, Store::set); },
        2 * product(tokens, linear.out, linear.in), activations == DType::f32 ? Rate::f32 : Rate::bf16);
    i.compare(y, tokens, linear.out);
  });
}
void add_transposed(List &list, const ModelShapes &model, const Linear &linear, int64_t tokens) {
  const char *op = linear.type == DType::bf16 ? "gemm_transposed_bf16" : "gemm_transposed_packed";
  list.add(name_of(op, model, name_of(linear), tokens), [=](Backend &b, Instance &i) {
    const Rows dy = i.read(tokens, linear.out, DType::bf16, 1), dx = i.write(tokens, linear.in, DType::f32);
    i.set([&b, tokens, dy, dx,
           next = i.weights(linear.type, linear.out, linear.in)] { b.matmul_transposed(tokens, dy, next(), dx, Store::set); },
          2 * product(tokens, linear.out, linear.in), Rate::bf16);
    i.compare(dx, tokens, linear.in);
  });
}
void add_products(List &list, const ModelShapes &model, const Sizes &sizes) {
  const Linear head{"head", model.head_type, model.vocabulary, model.hidden};
  for (const int64_t tokens : {1, 8}) {
    for (const Linear &linear : model.layer) add_product(list, "gemv", model, linear, DType::bf16, tokens);
    add_product(list, "gemv", model, head, DType::bf16, tokens);
  }
  for (const Linear &linear : model.layer) {
    const Linear plain{linear.name, DType::bf16, linear.out, linear.in};
    for (const int64_t tokens : {sizes.prompt, sizes.training}) {
      if (linear.type != DType::bf16) add_product(list, "gemm_packed", model, linear, DType::bf16, tokens);
      add_product(list, "gemm_bf16", model, plain, DType::bf16, tokens);
    }
    if (linear.type != DType::bf16) add_product(list, "gemm_f32", model, linear, DType::f32, sizes.prompt);
    add_transposed(list, model, linear, sizes.training);
    add_transposed(list, model, plain, sizes.training);
  }
  const int64_t tokens = sizes.training, n = model.hidden;
  list.add(name_of("outer_product", model, "rank:" + std::to_string(kRank) + "x" + std::to_string(n), tokens),
           [=](Backend &b, Instance &i) {
             const Rows v = i.read(tokens, kRank, DType::f32, 1), x = i.read(tokens, n, DType::bf16, 2),
                        g = i.change(kRank, n, DType::f32, 3);
             i.set([&b, tokens, n, v, x, g] { b.outer_product(tokens, kRank, n, v, x, static_cast<float *>(g.data), false); },
                   2 * product(tokens, kRank, n), Rate::bf16);
             i.compare(g, kRank, n);
           });
}

// ---- attention ----
// Sequences of equal length; the rows of one follow those of the other.
struct Batch {
  AttentionShape shape;
  std::vector<AttentionSequence> sequences;
  Rows q, k, v, out;
  int64_t tokens, query_width, key_width;
  double pairs;  // of all sequences and heads, times the values of a head

  Batch(Instance &i, const ModelShapes &model, int64_t count, int64_t queries, int64_t keys)
      : shape{model.heads, model.kv_heads, model.head_dimension, model.window,
              1 / std::sqrt(static_cast<float>(model.head_dimension))},
        tokens(count * queries), query_width(model.heads * model.head_dimension),
        key_width(model.kv_heads * model.head_dimension),
        pairs(static_cast<double>(count) * visible_pairs(queries, keys, model.window) * static_cast<double>(query_width)) {
    q = i.read(tokens, query_width, DType::bf16, 1);
    k = i.read(count * keys, key_width, DType::bf16, 2);
    v = i.read(count * keys, key_width, DType::bf16, 3);
    out = i.write(tokens, query_width, DType::bf16);
    const int64_t unseen = model.window > 0 ? std::max(keys - queries + 1 - model.window, int64_t{0}) : 0;
    i.leave_out(2 * product(count, unseen, row_bytes(DType::bf16, key_width)));
    for (int64_t s = 0; s < count; s++) sequences.push_back({s * queries, queries, from(k, s * keys), from(v, s * keys), keys});
  }
  static Rows from(Rows rows, int64_t first) {
    rows.data = static_cast<uint16_t *>(rows.data) + first * rows.stride;
    return rows;
  }
};

void add_attention(List &list, const ModelShapes &model, int64_t count, int64_t queries, int64_t keys) {
  const char *op = queries < keys ? "attention_decoding" : "attention";
  list.add(name_of(op, model, "sequences:" + std::to_string(count), keys), [=](Backend &b, Instance &i) {
    const Batch batch(i, model, count, queries, keys);
    i.set([&b, batch] { b.attention(batch.shape, batch.sequences, batch.q, batch.out, nullptr); }, 4 * batch.pairs, Rate::bf16);
    i.compare(batch.out, batch.tokens, batch.query_width);
  });
}
void add_attention_backward(List &list, const ModelShapes &model, int64_t count, int64_t length) {
  list.add(name_of("attention_backward", model, "sequences:" + std::to_string(count), length), [=](Backend &b, Instance &i) {
    const Batch batch(i, model, count, length, length);
    float *const log_sum_exp = i.write_array<float>(batch.tokens * model.heads);
    b.attention(batch.shape, batch.sequences, batch.q, batch.out, log_sum_exp);
    const Rows dout = i.read(batch.tokens, batch.query_width, DType::bf16, 4);
    const Rows dq = i.write(batch.tokens, batch.query_width, DType::f32), dk = i.write(batch.tokens, batch.key_width, DType::f32),
               dv = i.write(batch.tokens, batch.key_width, DType::f32);
    i.set([&b, batch, log_sum_exp, dout, dq, dk,
           dv] { b.attention_backward(batch.shape, batch.sequences, batch.q, batch.out, log_sum_exp, dout, dq, dk, dv); },
          10 * batch.pairs, Rate::bf16);
    i.compare(dq, batch.tokens, batch.query_width);
    i.compare(dk, batch.tokens, batch.key_width);
    i.compare(dv, batch.tokens, batch.key_width);
  });
}

// ---- the head ----
void add_cross_entropy(List &list, const ModelShapes &model, int64_t rows, bool gradient) {
  list.add(name_of(gradient ? "cross_entropy_gradient" : "cross_entropy", model, dtype_info(model.head_type).name, rows),
           [=](Backend &b, Instance &i) {
             const Rows hidden = i.read(rows, model.hidden, DType::bf16, 1), nll = i.write(1, rows, DType::f32);
             const int32_t *labels = i.read_indices(rows, model.vocabulary);
             const Rows dh = gradient ? i.write(rows, model.hidden, DType::f32) : Rows{};
             const auto next = i.weights(model.head_type, model.vocabulary, model.hidden, gradient ? 2 : 1);
             i.set([&b, rows, hidden, next, labels, nll,
                    dh] { b.cross_entropy(rows, hidden, next(), labels, static_cast<float *>(nll.data), 1, dh); },
                   (gradient ? 4 : 2) * product(rows, model.vocabulary, model.hidden), Rate::bf16);
             i.compare(nll, 1, rows);
             if (gradient) i.compare(dh, rows, model.hidden);
           });
}

// ---- rows ----
void add_rms_norm(List &list, const ModelShapes &model, int64_t tokens) {
  const int64_t n = model.hidden;
  list.add(name_of("rms_norm", model, "f32:bf16", tokens), [=](Backend &b, Instance &i) {
    const Rows x = i.read(tokens, n, DType::f32, 1), weight = i.read(1, n, DType::f32, 2), y = i.write(tokens, n, DType::bf16);
    i.set([&b, tokens, n, x, weight, y] { b.rms_norm(tokens, n, x, static_cast<float *>(weight.data), 1e-5f, y, Store::set); }, 0,
          Rate::f32);
    i.compare(y, tokens, n);
  });
}
void add_gated_activation(List &list, const ModelShapes &model, int64_t tokens) {
  const int64_t n = model.intermediate;
  list.add(name_of("gated_activation", model, "bf16", tokens), [=](Backend &b, Instance &i) {
    const Rows x = i.read(tokens, n, DType::bf16, 1), y = i.read(tokens, n, DType::bf16, 2), h = i.write(tokens, n, DType::bf16);
    i.set([&b, tokens, n, x, y, h] { b.gated_activation(tokens, n, Activation::silu, x, y, h); }, 0, Rate::f32);
    i.compare(h, tokens, n);
  });
}

void add_router(List &list, const ModelShapes &model, int64_t tokens) {
  list.add(name_of("router", model, "experts:" + std::to_string(kExperts), tokens), [=](Backend &b, Instance &i) {
    RouterShape shape;
    shape.tokens = tokens, shape.hidden = model.hidden, shape.experts = kExperts, shape.top_k = 2;
    const Rows u = i.read(tokens, model.hidden, DType::bf16, 1), weight = i.read(kExperts + 1, model.hidden, DType::f32, 2),
               bias = i.read(1, kExperts + 1, DType::f32, 3), gates = i.write(tokens, kExperts, DType::f32);
    RouterState state;
    state.z = i.write_array<float>(tokens * (kExperts + 1)), state.p = i.write_array<float>(tokens * (kExperts + 1));
    state.picked = i.write_array<int32_t>(tokens * shape.top_k), state.selected = i.write_array<uint8_t>(tokens * kExperts);
    state.gates = static_cast<float *>(gates.data);
    i.set([&b, shape, u, weight, bias,
           state] { b.router(shape, u, static_cast<float *>(weight.data), static_cast<float *>(bias.data), state); },
          2 * product(tokens, kExperts + 1, model.hidden), Rate::f32);
    i.compare(gates, tokens, kExperts);
  });
}

// As many values as adapters on all maps of 32 layers have.
void add_adamw(List &list, const ModelShapes &model) {
  int64_t n = 0;
  for (const Linear &linear : model.layer) n += 32 * kRank * (linear.out + linear.in);
  list.add(name_of("adamw", model, "values", n), [=](Backend &b, Instance &i) {
    const Rows p = i.change(1, n, DType::f32, 1), g = i.read(1, n, DType::f32, 2), m = i.change(1, n, DType::f32, 3),
               v = i.change(1, n, DType::f32, 4);
    b.fill(n, 0.01f, static_cast<float *>(v.data));  // is never negative
    AdamW options;
    options.learning_rate = 1e-3f;
    i.set(
        [=, &b] {
          const auto floats = [](Rows rows) { return static_cast<float *>(rows.data); };
          b.adamw(n, floats(p), floats(g), floats(m), floats(v), options);
        },
        0, Rate::f32);
    i.compare(p, 1, n);
  });
}

}  // namespace

double visible_pairs(int64_t queries, int64_t keys, int64_t window) {
  double pairs = 0;
  for (int64_t i = keys - queries + 1; i <= keys; i++) pairs += static_cast<double>(window > 0 ? std::min(i, window) : i);
  return pairs;
}

Sizes measured_sizes() { return {models(), 512, 1600, 4000, 512}; }

Sizes small_sizes() {
  const auto layer = [](DType type) { return std::vector<Linear>{{"up", type, 72, 256}, {"down", type, 256, 256}}; };
  return {{{"small", 256, 72, 100, 4, 2, 64, 0, DType::q8_0, layer(DType::q4_k), false},
           {"window", 256, 40, 90, 2, 1, 256, 16, DType::q6_k, layer(DType::q4_1), false},
           {"plain", 256, 40, 70, 2, 1, 128, 0, DType::bf16, layer(DType::bf16), false}},
          12,
          33,
          300,
          9};
}

std::vector<Case> cases(const Sizes &sizes) {
  List list;
  for (const ModelShapes &model : sizes.models) {
    add_products(list, model, sizes);
    add_attention(list, model, 1, sizes.training, sizes.training);
    add_attention(list, model, 8, sizes.training / 8, sizes.training / 8);
    add_attention_backward(list, model, 8, sizes.training / 8);
    add_attention_backward(list, model, 1, sizes.training);
    for (const int64_t count : {1, 8}) add_attention(list, model, count, 1, sizes.cache);
    for (const bool gradient : {false, true}) add_cross_entropy(list, model, sizes.labels, gradient);
    for (const int64_t tokens : {int64_t{1}, sizes.training}) {
      add_rms_norm(list, model, tokens);
      add_gated_activation(list, model, tokens);
      add_router(list, model, tokens);
    }
    add_adamw(list, model);
  }
  return list.take();
}

}  // namespace moe::bench
