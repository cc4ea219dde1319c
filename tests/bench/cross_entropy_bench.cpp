// The vocabulary head with cross-entropy at the shape of SmolLM2-135M (V 49152, d 576, Q8_0). GF/s counts the two products
// (4 V d flops a row), one for the loss alone. Arguments: rows, threads. With one thread rates are per CPU time, so other
// processes do not disturb them.
#include <benchmark/benchmark.h>

#include "support/reference.h"

namespace moe::test {
namespace {

constexpr int64_t kVocabulary = 49152, kHidden = 576;

std::vector<uint8_t> random_weights() {
  std::vector<uint8_t> bytes(static_cast<size_t>(kVocabulary * row_bytes(DType::q8_0, kHidden)));
  for (size_t i = 0; i < bytes.size(); i++) bytes[i] = static_cast<uint8_t>(random_bits(7, i));
  const uint16_t scale = float_to_f16(0.0012f);
  for (size_t at = 0; at < bytes.size(); at += 34) std::memcpy(bytes.data() + at, &scale, 2);
  return bytes;
}

void run(benchmark::State &state, bool gradient) {
  const int64_t rows = state.range(0);
  static const std::vector<uint8_t> bytes = random_weights();
  const Matrix w{DType::q8_0, kVocabulary, kHidden, bytes.data()};
  RowsData hidden = random_rows(rows, kHidden, DType::f32, 1), dh(rows, kHidden, DType::f32);
  std::vector<int32_t> labels(static_cast<size_t>(rows));
  for (size_t t = 0; t < labels.size(); t++) labels[t] = static_cast<int32_t>(random_bits(2, t) % kVocabulary);
  std::vector<float> nll(labels.size());
  const auto backend = cpu_backend(cpu::best_kernels(), static_cast<int>(state.range(1)));
  for (auto _ : state)
    backend->cross_entropy(rows, hidden.rows(), w, labels.data(), nll.data(), 1, gradient ? dh.rows() : Rows{});
  const double flops = (gradient ? 4.0 : 2.0) * static_cast<double>(rows * kVocabulary * kHidden);
  state.counters["GF/s"] = benchmark::Counter(flops * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["us/row"] = benchmark::Counter(static_cast<double>(rows) * 1e-6,
                                                benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}
void loss_and_gradient(benchmark::State &state) { run(state, true); }
void loss(benchmark::State &state) { run(state, false); }

BENCHMARK(loss_and_gradient)->Args({1000, 1})->Args({200, 1})->Args({32, 1})->Unit(benchmark::kMillisecond);
BENCHMARK(loss)->Args({1000, 1})->Args({32, 1})->Args({4, 1})->Args({1, 1})->Unit(benchmark::kMillisecond);
BENCHMARK(loss_and_gradient)->Args({1000, 2})->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK(loss)->Args({1, 2})->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace moe::test

BENCHMARK_MAIN();
