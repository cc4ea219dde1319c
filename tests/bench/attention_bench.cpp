// Attention at the shapes of SmolLM2-135M (9 heads, 3 key/value heads of 64): training batches, a long prompt, decoding.
// GF/s counts the products of visible pairs only: 4 h flops a pair and head forward, 10 h backward. Arguments: sequences,
// tokens each, threads. With one thread rates are per CPU time, so other processes do not disturb them.
#include <benchmark/benchmark.h>

#include <cmath>

#include "support/reference.h"

namespace moe::test {
namespace {

constexpr AttentionShape kShape{9, 3, 64, 0, 0.125f};
constexpr int64_t kQueryWidth = kShape.heads * kShape.head_dimension, kKeyWidth = kShape.kv_heads * kShape.head_dimension;

struct Batch {
  int64_t count, length, tokens;
  RowsData q, k, v, dout, out, dq, dk, dv;
  std::vector<float> log_sum_exp;
  std::vector<AttentionSequence> sequences;

  Batch(int64_t n, int64_t each)
      : count(n),
        length(each),
        tokens(n * each),
        q(random_rows(tokens, kQueryWidth, DType::f32, 1)),
        k(random_rows(tokens, kKeyWidth, DType::f32, 2)),
        v(random_rows(tokens, kKeyWidth, DType::f32, 3)),
        dout(random_rows(tokens, kQueryWidth, DType::f32, 4)),
        out(tokens, kQueryWidth, DType::f32),
        dq(tokens, kQueryWidth, DType::f32),
        dk(tokens, kKeyWidth, DType::f32),
        dv(tokens, kKeyWidth, DType::f32),
        log_sum_exp(static_cast<size_t>(tokens * kShape.heads)) {
    for (int64_t s = 0; s < count; s++) {
      Rows keys = k.rows(), values = v.rows();
      keys.data = static_cast<float *>(keys.data) + s * length * keys.stride;
      values.data = static_cast<float *>(values.data) + s * length * values.stride;
      sequences.push_back({s * length, length, keys, values, length});
    }
  }
  double pairs() const { return static_cast<double>(count * kShape.heads) * static_cast<double>(length * (length + 1)) / 2; }
};

void report(benchmark::State &state, double flops, double tokens) {
  state.counters["GF/s"] = benchmark::Counter(flops * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["us/token"] =
      benchmark::Counter(tokens * 1e-6, benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}

void forward(benchmark::State &state) {
  Batch b(state.range(0), state.range(1));
  const auto backend = cpu_backend(cpu::best_kernels(), static_cast<int>(state.range(2)));
  for (auto _ : state) backend->attention(kShape, b.sequences, b.q.rows(), b.out.rows(), b.log_sum_exp.data());
  report(state, 4 * 64 * b.pairs(), static_cast<double>(b.tokens));
}

void backward(benchmark::State &state) {
  Batch b(state.range(0), state.range(1));
  const auto backend = cpu_backend(cpu::best_kernels(), static_cast<int>(state.range(2)));
  backend->attention(kShape, b.sequences, b.q.rows(), b.out.rows(), b.log_sum_exp.data());
  for (auto _ : state) {
    backend->attention_backward(kShape, b.sequences, b.q.rows(), b.out.rows(), b.log_sum_exp.data(), b.dout.rows(), b.dq.rows(),
                                b.dk.rows(), b.dv.rows());
  }
  report(state, 10 * 64 * b.pairs(), static_cast<double>(b.tokens));
}

// One new token of each sequence against a bf16 cache of `tokens each`.
void decode(benchmark::State &state) {
  const int64_t count = state.range(0), length = state.range(1);
  RowsData keys = random_rows(count * length, kKeyWidth, DType::bf16, 2),
           values = random_rows(count * length, kKeyWidth, DType::bf16, 3);
  RowsData q = random_rows(count, kQueryWidth, DType::f32, 1), out(count, kQueryWidth, DType::f32);
  std::vector<AttentionSequence> sequences;
  for (int64_t s = 0; s < count; s++) {
    Rows k = keys.rows(), v = values.rows();
    k.data = static_cast<uint16_t *>(k.data) + s * length * k.stride;
    v.data = static_cast<uint16_t *>(v.data) + s * length * v.stride;
    sequences.push_back({s, 1, k, v, length});
  }
  const auto backend = cpu_backend(cpu::best_kernels(), static_cast<int>(state.range(2)));
  for (auto _ : state) backend->attention(kShape, sequences, q.rows(), out.rows(), nullptr);
  report(state, 4 * 64 * static_cast<double>(count * kShape.heads * length), static_cast<double>(count));
}

#define MOE_TRAINING_SHAPES Args({8, 200, 1})->Args({3, 512, 1})->Args({1, 1640, 1})->Args({100, 16, 1})
BENCHMARK(forward)->MOE_TRAINING_SHAPES->Unit(benchmark::kMillisecond);
BENCHMARK(backward)->MOE_TRAINING_SHAPES->Unit(benchmark::kMillisecond);
BENCHMARK(decode)->Args({1, 500, 1})->Args({1, 4000, 1})->Args({16, 500, 1})->Unit(benchmark::kMicrosecond);
BENCHMARK(forward)->Args({8, 200, 2})->Args({1, 1640, 2})->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(backward)->Args({8, 200, 2})->Args({1, 1640, 2})->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(decode)->Args({1, 500, 2})->Args({1, 4000, 2})->UseRealTime()->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace moe::test

BENCHMARK_MAIN();
