// Products at the shapes of SmolLM2-135M and Gemma 3 270M: GF/s forward and transposed for many tokens, GB/s of stored weights for one.
// Run beside peak_bench, whose f32 figure is the limit of these kernels on machines without a fast bf16 dot product.
#include <benchmark/benchmark.h>

#include <random>
#include <vector>

#include "cpu/backend.h"
#include "tensor/dequantize.h"

namespace {

using namespace moe;

struct Bench {
  Bench(DType type, int64_t out, int64_t in, int64_t tokens, int threads)
      : pool(std::make_shared<ThreadPool>(threads)), backend(cpu::make_backend(pool, cpu::best_kernels())),
        bytes(static_cast<size_t>(out * row_bytes(type, in)), 0x11), x(static_cast<size_t>(tokens * in), 0x3f80), dy(static_cast<size_t>(tokens * out), 0x3f80),
        y(static_cast<size_t>(tokens * std::max(in, out))), w{type, out, in, bytes.data()} {}
  std::shared_ptr<ThreadPool> pool;
  std::unique_ptr<Backend> backend;
  std::vector<uint8_t> bytes;
  std::vector<uint16_t> x, dy;
  std::vector<float> y;
  Matrix w;
};

DType type_of(int64_t i) { return static_cast<DType>(i); }

void forward(benchmark::State &state) {
  const int64_t out = state.range(1), in = state.range(2), tokens = state.range(3);
  Bench b(type_of(state.range(0)), out, in, tokens, static_cast<int>(state.range(4)));
  for (auto _ : state) b.backend->matmul(tokens, {b.x.data(), DType::bf16, in}, b.w, f32_rows(b.y.data(), out), Store::set);
  state.counters["GF/s"] = benchmark::Counter(2e-9 * static_cast<double>(out * in * tokens), benchmark::Counter::kIsIterationInvariantRate);
  state.counters["GB/s"] = benchmark::Counter(1e-9 * static_cast<double>(b.bytes.size()), benchmark::Counter::kIsIterationInvariantRate);
}
void transposed(benchmark::State &state) {
  const int64_t out = state.range(1), in = state.range(2), tokens = state.range(3);
  Bench b(type_of(state.range(0)), out, in, tokens, static_cast<int>(state.range(4)));
  for (auto _ : state) b.backend->matmul_transposed(tokens, {b.dy.data(), DType::bf16, out}, b.w, f32_rows(b.y.data(), in), Store::set);
  state.counters["GF/s"] = benchmark::Counter(2e-9 * static_cast<double>(out * in * tokens), benchmark::Counter::kIsIterationInvariantRate);
}

void shapes(benchmark::internal::Benchmark *b) {
  b->ArgNames({"type", "out", "in", "T", "threads"})->UseRealTime();
  for (int64_t tokens : {8, 64, 512, 1640}) {
    for (auto [out, in] : {std::pair<int64_t, int64_t>{576, 576}, {192, 576}, {1536, 576}, {576, 1536}, {16, 576}, {576, 16}}) {
      b->Args({static_cast<int64_t>(in == 16 || out == 16 ? DType::f32 : DType::q4_1), out, in, tokens, 2});
    }
  }
}
BENCHMARK(forward)->Apply(shapes);
BENCHMARK(transposed)->Apply(shapes);
BENCHMARK(forward)->Name("one_token")->UseRealTime()->ArgNames({"type", "out", "in", "T", "threads"})
    ->Args({static_cast<int64_t>(DType::q4_1), 1536, 576, 1, 2})->Args({static_cast<int64_t>(DType::q8_0), 49152, 576, 1, 2})
    ->Args({static_cast<int64_t>(DType::q4_1), 49152, 576, 1, 2})->Args({static_cast<int64_t>(DType::q6_k), 49152, 1536, 1, 2});

}  // namespace

BENCHMARK_MAIN();
