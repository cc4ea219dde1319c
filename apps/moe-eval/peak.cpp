#include "moe-eval/peak.h"

#include <moe.h>

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "cli/console.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace moe::cli {
namespace {

// Runs `rounds` rounds and returns a value that depends on them, so that nothing is left out.
using Kernel = float (*)(int64_t rounds);

struct Rate {
  Kernel kernel = nullptr;  // nullptr: not on this processor
  double operations = 0;    // of one round
};

#if defined(__x86_64__)

volatile int g_seed = 0;  // keeps operands unknown to the compiler

// Accumulators that do not wait for each other hide the latency of the units. They are written out by the pack I, one register
// each.
template <size_t... I>
__attribute__((target("avx512f"))) float f32_avx512(int64_t rounds, std::index_sequence<I...>) {
  const __m512 a = _mm512_set1_ps(static_cast<float>(g_seed));
  __m512 sums[] = {_mm512_set1_ps(static_cast<float>(g_seed + static_cast<int>(I)))...};
  for (int64_t i = 0; i < rounds; i++) ((sums[I] = _mm512_fmadd_ps(a, a, sums[I])), ...);
  __m512 total = _mm512_setzero_ps();
  ((total = _mm512_add_ps(total, sums[I])), ...);
  return _mm512_cvtss_f32(total);
}

template <size_t... I>
__attribute__((target("avx2,fma"))) float f32_avx2(int64_t rounds, std::index_sequence<I...>) {
  const __m256 a = _mm256_set1_ps(static_cast<float>(g_seed));
  __m256 sums[] = {_mm256_set1_ps(static_cast<float>(g_seed + static_cast<int>(I)))...};
  for (int64_t i = 0; i < rounds; i++) ((sums[I] = _mm256_fmadd_ps(a, a, sums[I])), ...);
  __m256 total = _mm256_setzero_ps();
  ((total = _mm256_add_ps(total, sums[I])), ...);
  return _mm256_cvtss_f32(total);
}

template <size_t... I>
__attribute__((target("avx512f,avx512bf16"))) float bf16_avx512(int64_t rounds, std::index_sequence<I...>) {
  const auto a = reinterpret_cast<__m512bh>(_mm512_set1_epi32(g_seed));
  __m512 sums[] = {_mm512_set1_ps(static_cast<float>(g_seed + static_cast<int>(I)))...};
  for (int64_t i = 0; i < rounds; i++) ((sums[I] = _mm512_dpbf16_ps(sums[I], a, a)), ...);
  __m512 total = _mm512_setzero_ps();
  ((total = _mm512_add_ps(total, sums[I])), ...);
  return _mm512_cvtss_f32(total);
}

template <size_t... I>
__attribute__((target("avx512f,avx512vnni"))) float int8_avx512(int64_t rounds, std::index_sequence<I...>) {
  const __m512i a = _mm512_set1_epi32(g_seed);
  __m512i sums[] = {_mm512_set1_epi32(g_seed + static_cast<int>(I))...};
  for (int64_t i = 0; i < rounds; i++) ((sums[I] = _mm512_dpbusd_epi32(sums[I], a, a)), ...);
  __m512i total = _mm512_setzero_si512();
  ((total = _mm512_xor_si512(total, sums[I])), ...);
  int32_t lanes[16];
  _mm512_storeu_si512(lanes, total);
  return static_cast<float>(lanes[0]);
}

// Four tiles of sums, each fed by the same operands; the products of a round.
constexpr int kTiles = 4;
__attribute__((target("amx-tile,amx-bf16"))) float bf16_tiles(int64_t rounds) {
  struct alignas(64) {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16};
  } shapes;
  alignas(64) float values[16 * 16];
  for (float &value : values) value = static_cast<float>(g_seed);
  asm volatile("" : : "r"(&shapes), "r"(values) : "memory");  // the tile intrinsics do not say that they read memory
  _tile_loadconfig(&shapes);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_loadd(4, values, 64);
  _tile_loadd(5, values, 64);
  for (int64_t i = 0; i < rounds; i++) {
    _tile_dpbf16ps(0, 4, 5);
    _tile_dpbf16ps(1, 4, 5);
    _tile_dpbf16ps(2, 4, 5);
    _tile_dpbf16ps(3, 4, 5);
  }
  _tile_stored(0, values, 64);
  _tile_release();
  return values[0];
}

constexpr int kWide = 20, kNarrow = 12;  // of 32 and of 16 registers

float f32_wide(int64_t rounds) { return f32_avx512(rounds, std::make_index_sequence<kWide>()); }
float f32_narrow(int64_t rounds) { return f32_avx2(rounds, std::make_index_sequence<kNarrow>()); }
float bf16_wide(int64_t rounds) { return bf16_avx512(rounds, std::make_index_sequence<kWide>()); }
float int8_wide(int64_t rounds) { return int8_avx512(rounds, std::make_index_sequence<kWide>()); }

Rate f32_rate() {
  if (__builtin_cpu_supports("avx512f")) return {f32_wide, kWide * 32.0};
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return {f32_narrow, kNarrow * 16.0};
  return {};
}
Rate bf16_rate() {
  if (moe_features() & MOE_FEATURE_AMX) return {bf16_tiles, kTiles * 16.0 * 16 * 64};
  return __builtin_cpu_supports("avx512bf16") ? Rate{bf16_wide, kWide * 64.0} : Rate{};
}
Rate int8_rate() { return __builtin_cpu_supports("avx512vnni") ? Rate{int8_wide, kWide * 128.0} : Rate{}; }

#else

Rate f32_rate() { return {}; }
Rate bf16_rate() { return {}; }
Rate int8_rate() { return {}; }

#endif

std::atomic<uint64_t> g_sink{0};

// Seconds until `threads` threads have all done work(thread); they begin together.
template <class Work>
double run_threads(int threads, Work work) {
  std::atomic<int> ready{0};
  std::atomic<bool> go{false};
  std::vector<std::thread> all;
  for (int t = 0; t < threads; t++) {
    all.emplace_back([&, t] {
      ready++;
      while (!go) std::this_thread::yield();
      work(t);
    });
  }
  while (ready < threads) std::this_thread::yield();
  const double start = seconds_now();
  go = true;
  for (std::thread &thread : all) thread.join();
  return seconds_now() - start;
}

double rate_of(const Rate &rate, int threads) {
  if (!rate.kernel) return 0;
  constexpr int64_t kRounds = 1'000'000;
  const double seconds = run_threads(threads, [&](int) { g_sink += rate.kernel(kRounds) != 0; });
  return threads * static_cast<double>(kRounds) * rate.operations / seconds;
}

// Memory in large pages where the system gives them, as weights have it; every page is written once.
struct FreeMemory {
  void operator()(uint64_t *memory) const { std::free(memory); }
};
std::unique_ptr<uint64_t, FreeMemory> large_buffer(size_t bytes) {
  void *memory = nullptr;
  if (posix_memalign(&memory, size_t{2} << 20, bytes) != 0) return nullptr;
#ifdef MADV_HUGEPAGE
  madvise(memory, bytes, MADV_HUGEPAGE);
#endif
  std::memset(memory, 1, bytes);
  return std::unique_ptr<uint64_t, FreeMemory>(static_cast<uint64_t *>(memory));
}

// Sum of all words; eight sums do not wait for each other, and lines are asked for 4 KiB before they are used.
uint64_t read_all(const uint64_t *words, size_t count) {
  uint64_t sums[8] = {};
  for (size_t i = 0; i + 8 <= count; i += 8) {
    __builtin_prefetch(words + i + 512);
    for (size_t k = 0; k < 8; k++) sums[k] += words[i + k];
  }
  uint64_t total = 0;
  for (uint64_t sum : sums) total += sum;
  return total;
}

double read_rate(int threads) {
  constexpr size_t kBytes = size_t{256} << 20;
  static std::vector<std::unique_ptr<uint64_t, FreeMemory>> buffers;
  if (buffers.size() < static_cast<size_t>(threads)) buffers.resize(static_cast<size_t>(threads));
  run_threads(threads, [&](int t) {
    auto &buffer = buffers[static_cast<size_t>(t)];
    if (!buffer) buffer = large_buffer(kBytes);
  });
  for (const auto &buffer : buffers)
    if (!buffer) return 0;
  const double seconds = run_threads(threads, [&](int t) { g_sink += read_all(buffers[static_cast<size_t>(t)].get(), kBytes / 8); });
  return threads * static_cast<double>(kBytes) / seconds;
}

Peak measure(int threads) {
  return {measure_limit(Limit::f32, threads), measure_limit(Limit::bf16, threads), measure_limit(Limit::int8, threads),
          measure_limit(Limit::read, threads)};
}

// The answer of a child, or zeros when it failed.
Peak answer_of(int pipe_end, pid_t child) {
  Peak peak;
  char bytes[sizeof peak];
  size_t have = 0;
  ssize_t count;
  while (have < sizeof bytes && (count = read(pipe_end, bytes + have, sizeof bytes - have)) > 0)
    have += static_cast<size_t>(count);
  int status = 0;
  waitpid(child, &status, 0);
  if (have == sizeof bytes) std::memcpy(&peak, bytes, sizeof peak);
  return peak;
}

}  // namespace

double measure_limit(Limit limit, int threads) {
  switch (limit) {
    case Limit::f32: return rate_of(f32_rate(), threads);
    case Limit::bf16: return rate_of(bf16_rate(), threads);
    case Limit::int8: return rate_of(int8_rate(), threads);
    case Limit::read: return read_rate(threads);
  }
  return 0;
}

Peak measure_peak(int threads) {
  int ends[2];
  if (pipe(ends) != 0) return {};
  const pid_t child = fork();
  if (child == 0) {
    const Peak peak = measure(threads);
    const bool sent = write(ends[1], &peak, sizeof peak) == static_cast<ssize_t>(sizeof peak);
    _exit(sent ? 0 : 1);
  }
  close(ends[1]);
  const Peak peak = child > 0 ? answer_of(ends[0], child) : Peak{};
  close(ends[0]);
  return peak;
}

Peak best_of(const Peak &a, const Peak &b) {
  return {std::max(a.f32_flops, b.f32_flops), std::max(a.bf16_flops, b.bf16_flops), std::max(a.int8_ops, b.int8_ops),
          std::max(a.read_bytes, b.read_bytes)};
}

}  // namespace moe::cli
