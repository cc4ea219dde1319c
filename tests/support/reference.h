// Small helpers of the op tests: deterministic random data, activations of both types with their exact values as
// doubles, the error measure, and the backends under test.
//
//   for (const auto &backend : all_backends(2)) { ... backend->name() ... }
//   RowsData x = random_rows(7, 33, DType::bf16, 1);   // x.rows() for the op, x.at(t, j) for the reference
//   EXPECT_LT(nmse(expected, y.values()), tolerance(DType::bf16));
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "cpu/backend.h"
#include "cpu/kernels.h"
#include "tensor/backend.h"
#include "tensor/dequantize.h"
#include "tensor/matrix.h"

namespace moe::test {

// ---- random data: splitmix64 of (seed, index), independent of the library's own generator ----
inline uint64_t random_bits(uint64_t seed, uint64_t index) {
  uint64_t x = seed * 0x9E3779B97F4A7C15u + (index + 1) * 0xD1B54A32D192ED03u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}
// uniform in [0, 1)
inline double random_uniform(uint64_t seed, uint64_t index) {
  return static_cast<double>(random_bits(seed, index) >> 11) * 0x1p-53;
}
// standard normal (Box-Muller)
inline double random_normal(uint64_t seed, uint64_t index) {
  const double u = 1 - random_uniform(seed, 2 * index), v = random_uniform(seed, 2 * index + 1);
  return std::sqrt(-2 * std::log(u)) * std::cos(6.283185307179586 * v);
}
inline std::vector<float> random_floats(int64_t count, uint64_t seed, double deviation = 1) {
  std::vector<float> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); i++) values[i] = static_cast<float>(deviation * random_normal(seed, i));
  return values;
}
inline std::vector<uint16_t> to_bf16(const std::vector<float> &values) {
  std::vector<uint16_t> out(values.size());
  for (size_t i = 0; i < out.size(); i++) out[i] = float_to_bf16(values[i]);
  return out;
}
inline std::vector<double> to_double(const std::vector<float> &values) { return {values.begin(), values.end()}; }

// ---- activations that own their memory ----
// [T, n] with a stride that may exceed n; the gap holds NaN, so reading it shows, and `gap_untouched` sees writing.
class RowsData {
 public:
  RowsData(int64_t tokens, int64_t n, DType dtype, int64_t gap = 0) : tokens_(tokens), n_(n), stride_(n + gap), dtype_(dtype) {
    const size_t count = static_cast<size_t>(tokens * stride_);
    if (dtype == DType::f32) f32_.assign(count, std::nanf(""));
    else bf16_.assign(count, 0x7fc0);
  }
  int64_t tokens() const { return tokens_; }
  int64_t n() const { return n_; }
  DType dtype() const { return dtype_; }
  Rows rows() { return {dtype_ == DType::f32 ? static_cast<void *>(f32_.data()) : bf16_.data(), dtype_, stride_}; }
  double at(int64_t t, int64_t j) const {
    const size_t i = static_cast<size_t>(t * stride_ + j);
    return dtype_ == DType::f32 ? f32_[i] : bf16_to_float(bf16_[i]);
  }
  void set(int64_t t, int64_t j, float value) {
    const size_t i = static_cast<size_t>(t * stride_ + j);
    if (dtype_ == DType::f32) f32_[i] = value;
    else bf16_[i] = float_to_bf16(value);
  }
  std::vector<float> values() const {  // [T * n] without the gaps
    std::vector<float> out;
    for (int64_t t = 0; t < tokens_; t++)
      for (int64_t j = 0; j < n_; j++) out.push_back(static_cast<float>(at(t, j)));
    return out;
  }
  bool gap_untouched() const {
    for (int64_t t = 0; t < tokens_; t++)
      for (int64_t j = n_; j < stride_; j++)
        if (!std::isnan(at(t, j))) return false;
    return true;
  }
  bool same_bits(const RowsData &other) const {
    return f32_.size() == other.f32_.size() && bf16_ == other.bf16_ &&
           (f32_.empty() || std::memcmp(f32_.data(), other.f32_.data(), f32_.size() * sizeof(float)) == 0);
  }

 private:
  int64_t tokens_, n_, stride_;
  DType dtype_;
  std::vector<float> f32_;
  std::vector<uint16_t> bf16_;
};
inline RowsData random_rows(int64_t tokens, int64_t n, DType dtype, uint64_t seed, double deviation = 1, int64_t gap = 0) {
  RowsData rows(tokens, n, dtype, gap);
  for (int64_t t = 0; t < tokens; t++)
    for (int64_t j = 0; j < n; j++)
      rows.set(t, j, static_cast<float>(deviation * random_normal(seed, static_cast<uint64_t>(t * n + j))));
  return rows;
}

// ---- errors ----
// Normalised mean squared error: sum (got - expected)^2 / sum expected^2. NaN or infinity in `got` gives infinity.
inline double nmse(const double *expected, const float *got, int64_t count) {
  double error = 0, power = 0;
  for (int64_t i = 0; i < count; i++) {
    const double difference = static_cast<double>(got[i]) - expected[i];
    if (!std::isfinite(difference)) return INFINITY;
    error += difference * difference;
    power += expected[i] * expected[i];
  }
  return power > 0 ? error / power : (error > 0 ? INFINITY : 0);
}
inline double nmse(const std::vector<double> &expected, const std::vector<float> &got) {
  return expected.size() == got.size() ? nmse(expected.data(), got.data(), static_cast<int64_t>(got.size())) : INFINITY;
}
// The largest |got - expected| / (1 + |expected|): sees a small error of few elements that an average hides.
inline double largest_error(const std::vector<double> &expected, const std::vector<float> &got) {
  double largest = expected.size() == got.size() ? 0 : INFINITY;
  for (size_t i = 0; i < got.size() && i < expected.size(); i++) {
    const double error = std::abs(static_cast<double>(got[i]) - expected[i]) / (1 + std::abs(expected[i]));
    if (!(error <= largest)) largest = std::isnan(error) ? INFINITY : error;
  }
  return largest;
}
// The promised NMSE of an op whose output has this type.
inline double tolerance(DType dtype) { return dtype == DType::bf16 ? 1e-5 : 1e-11; }
inline bool same_bits(const std::vector<float> &a, const std::vector<float> &b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

// ---- devices ----
// The kernel tables of every level that this build and machine have.
inline std::vector<const cpu::Kernels *> all_kernels() {
  std::vector<const cpu::Kernels *> found;
  for (const char *level : {"scalar", "avx2", "avx2_vnni", "avx512", "avx512_vnni", "avx512_bf16", "amx", "neon", "neon_dotprod", "neon_i8mm"})
    if (const cpu::Kernels *kernels = cpu::kernels_of(level)) found.push_back(kernels);
  return found;
}
inline std::unique_ptr<Backend> cpu_backend(const cpu::Kernels &kernels, int threads) {
  return cpu::make_backend(std::make_shared<ThreadPool>(threads), kernels);
}
// The backends that the op tests of this program check: every level of the CPU with this many threads, or a device, where
// another number of "threads" runs the threads of the device in another order (support/cpu_backends.cpp, cuda_host/backends.cpp).
std::vector<std::unique_ptr<Backend>> all_backends(int threads);
// True where the tests run slowly: a large case then runs smaller, or not at all where small ones reach the same code.
bool small_cases_only();
#define LARGE_CASE() \
  if (::moe::test::small_cases_only()) GTEST_SKIP() << "a large case, left to the programs that run at full speed"
inline bool is_cuda(const Backend &backend) { return std::string(backend.name()).rfind("cuda", 0) == 0; }
// A level of the CPU that rounds both operands of a product to bf16 when its rows are.
inline bool has_bf16_operands(const Backend &backend) {
  const std::string name = backend.name(), cpu = "cpu ";
  return name.starts_with(cpu) && cpu::kernels_of(name.substr(cpu.size()).c_str())->bf16_operands;
}
// The last of them: the fastest level, or the device.
inline std::unique_ptr<Backend> best_backend(int threads) { return std::move(all_backends(threads).back()); }
// One of them, to be had with any number of threads.
struct BackendMaker {
  size_t index;
  std::unique_ptr<Backend> operator()(int threads) const { return std::move(all_backends(threads)[index]); }
};
inline std::vector<BackendMaker> backend_makers() {
  std::vector<BackendMaker> makers;
  for (size_t i = 0; i < all_backends(1).size(); i++) makers.push_back({i});
  return makers;
}
// op(backend) returns what it computed (RowsData); check(result) compares it with the reference. Runs on every backend; a second
// thread must not change a bit.
template <class Op, class Check>
void on_every_backend(Op op, Check check) {
  const auto one_thread = all_backends(1), two_threads = all_backends(2);
  for (size_t i = 0; i < one_thread.size(); i++) {
    SCOPED_TRACE(one_thread[i]->name());
    const auto one = op(*one_thread[i]), two = op(*two_threads[i]);
    EXPECT_TRUE(one.same_bits(two)) << "two threads give other bits than one";
    check(one);
  }
}

}  // namespace moe::test
