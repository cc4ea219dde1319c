#include "cpu/measure.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "base/file.h"
#include "base/processors.h"
#include "cpu/backend.h"

namespace moe::cpu {
namespace {

constexpr int64_t kTokens = 512, kWidth = 2048;
constexpr size_t kMemory = size_t{256} << 20;  // bytes read
constexpr double kSeconds = 0.4;               // of each measurement

// The best rate of several runs within the time: other programs only make it smaller.
template <class Run>
double best_rate(double work, Run run) {
  using Clock = std::chrono::steady_clock;
  const auto seconds = [](Clock::duration d) { return std::chrono::duration<double>(d).count(); };
  run();  // caches, page faults
  double best = 0;
  for (const auto start = Clock::now(); seconds(Clock::now() - start) < kSeconds;) {
    const auto begin = Clock::now();
    run();
    best = std::max(best, work / seconds(Clock::now() - begin));
  }
  return best;
}

double product_rate(Backend &backend, DType weights, DType activations) {
  Buffer w(static_cast<size_t>(kWidth * row_bytes(weights, kWidth))),
      x(static_cast<size_t>(kTokens * row_bytes(activations, kWidth))), y(static_cast<size_t>(kTokens * kWidth) * sizeof(float));
  for (Buffer *buffer : {&w, &x, &y}) std::memset(buffer->data(), 0, buffer->size());
  const Matrix matrix{weights, kWidth, kWidth, w.data()};
  const Rows in{x.data(), activations, kWidth}, out{y.data(), DType::f32, kWidth};
  return best_rate(2.0 * kTokens * kWidth * kWidth, [&] { backend.matmul(kTokens, in, matrix, out, Store::set); });
}

double read_rate(Backend &backend) {
  Buffer memory(kMemory);
  std::memset(memory.data(), 0, kMemory);
  volatile double sum = 0;  // keeps the reads
  return best_rate(static_cast<double>(kMemory), [&] {
    sum = backend.sum_of_squares(static_cast<int64_t>(kMemory / sizeof(float)), reinterpret_cast<const float *>(memory.data()));
  });
}

}  // namespace

MeasuredRates measure_rates(int threads) {
  const auto pool = std::make_shared<ThreadPool>(threads > 0 ? threads : usable_processors());
  const std::unique_ptr<Backend> backend = make_backend(pool, best_kernels());
  MeasuredRates rates;
  rates.f32_flops_per_s = product_rate(*backend, DType::f32, DType::f32);
  rates.bf16_flops_per_s = product_rate(*backend, DType::bf16, DType::bf16);
  rates.q8_0_flops_per_s = product_rate(*backend, DType::q8_0, DType::bf16);
  rates.memory_bytes_per_s = read_rate(*backend);
  return rates;
}

}  // namespace moe::cpu
