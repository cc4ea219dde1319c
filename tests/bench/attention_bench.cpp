// Attention on packed batches of bf16 rows, gradients f32, as in training; and of one new token over a cache. Only the products
// of visible pairs count: 4 h operations a pair and head forward, 10 h backward; decoding has to read the keys and values.
#include <algorithm>
#include <cmath>

#include "inputs.h"
#include "models.h"
#include "sampling.h"

namespace moe::bench {
namespace {

AttentionShape shape_of(const ModelShapes &model) {
  return {model.heads, model.kv_heads, model.head_dimension, model.window,
          1 / std::sqrt(static_cast<float>(model.head_dimension))};
}

// Pairs of a query and a key that it sees, in `count` sequences of `length` tokens.
double visible_pairs(int64_t count, int64_t length, int64_t window) {
  double pairs = 0;
  for (int64_t i = 1; i <= length; i++) pairs += static_cast<double>(window > 0 ? std::min(i, window) : i);
  return static_cast<double>(count) * pairs;
}

struct Batch {
  int64_t tokens, query_width, key_width;
  Activations q, k, v, out, dout, dq, dk, dv;
  std::vector<float> log_sum_exp;
  std::vector<AttentionSequence> sequences;

  Batch(Backend &backend, const ModelShapes &model, int64_t count, int64_t length)
      : tokens(count * length), query_width(model.heads * model.head_dimension), key_width(model.kv_heads * model.head_dimension),
        q(backend, tokens, query_width, DType::bf16, 1), k(backend, tokens, key_width, DType::bf16, 2),
        v(backend, tokens, key_width, DType::bf16, 3), out(backend, tokens, query_width, DType::bf16),
        dout(backend, tokens, query_width, DType::bf16, 4), dq(backend, tokens, query_width, DType::f32),
        dk(backend, tokens, key_width, DType::f32), dv(backend, tokens, key_width, DType::f32),
        log_sum_exp(static_cast<size_t>(tokens * model.heads)) {
    for (int64_t s = 0; s < count; s++) {
      sequences.push_back({s * length, length, from(k.rows(), s * length), from(v.rows(), s * length), length});
    }
  }
  static Rows from(Rows rows, int64_t first) {
    rows.data = static_cast<uint16_t *>(rows.data) + first * rows.stride;
    return rows;
  }
};

void add_batch(const ModelShapes &model, int64_t count, int64_t length, int threads) {
  const double products = visible_pairs(count, length, model.window) * static_cast<double>(model.heads * model.head_dimension);
  const std::string what = "sequences:" + std::to_string(count);
  add(shape_name("attention", model.name, what, length, threads), [=](benchmark::State &state) {
    const auto backend = make_backend(threads);
    Batch b(*backend, model, count, length);
    sample(state, threads, {4 * products, bf16_products()},
           [&] { backend->attention(shape_of(model), b.sequences, b.q.rows(), b.out.rows(), b.log_sum_exp.data()); });
  });
  add(shape_name("attention_backward", model.name, what, length, threads), [=](benchmark::State &state) {
    const auto backend = make_backend(threads);
    Batch b(*backend, model, count, length);
    backend->attention(shape_of(model), b.sequences, b.q.rows(), b.out.rows(), b.log_sum_exp.data());
    sample(state, threads, {10 * products, bf16_products()}, [&] {
      backend->attention_backward(shape_of(model), b.sequences, b.q.rows(), b.out.rows(), b.log_sum_exp.data(), b.dout.rows(),
                                  b.dq.rows(), b.dk.rows(), b.dv.rows());
    });
  });
}

// One new token of each sequence over `length` cached ones.
void add_decoding(const ModelShapes &model, int64_t count, int64_t length, int threads) {
  add(shape_name("attention_decoding", model.name, "sequences:" + std::to_string(count), length, threads),
      [=](benchmark::State &state) {
        const auto backend = make_backend(threads);
        Batch b(*backend, model, count, length);
        for (int64_t s = 0; s < count; s++) {
          b.sequences[static_cast<size_t>(s)].first_query = s;
          b.sequences[static_cast<size_t>(s)].queries = 1;
        }
        const double pairs = static_cast<double>(count * (model.window > 0 ? std::min(length, model.window) : length));
        sample(state, threads,
               {4 * pairs * static_cast<double>(model.heads * model.head_dimension), Limit::f32,
                4 * pairs * static_cast<double>(b.key_width)},
               [&] { backend->attention(shape_of(model), b.sequences, b.q.rows(), b.out.rows(), nullptr); });
      });
}

}  // namespace

void add_attention() {
  for (const ModelShapes &model : models()) {
    for (const int threads : {1, 2}) {
      for (const auto &[count, length] : {std::pair<int64_t, int64_t>{8, 200}, {3, 512}, {1, 1640}}) {
        add_batch(model, count, length, threads);
      }
      for (const int64_t count : {1, 8}) add_decoding(model, count, 1000, threads);
    }
  }
}

}  // namespace moe::bench
