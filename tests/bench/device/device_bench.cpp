// device_bench: the ops of the CUDA backend at the shapes of real models, as shares of what the device reaches.
//
//   device_bench [--device cuda[:N]] [--filter TEXT] [--seconds S] [--library FILE]      measures
//   device_bench --list                                                                  names of what would be measured
//   device_bench --check [--device cuda[:N]] [--library FILE]                            runs small cases once, compares with the
//   CPU
//
// Names are op/model/what/tokens. A time is the median of samples of --seconds (0.05), each of as many calls as it takes with one
// wait for the device at its end. GB/s count each array once for reading and once for writing, TFLOP/s the operations of the op
// (docs/cuda.md). The share is the time that the device's limit would take, of the time taken: the slower of bytes at the rate of
// a copy and operations at that of cuBLAS on operands of the type, both measured first.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/error.h"
#include "bench/device/cases.h"
#include "cpu/backend.h"
#include "cpu/kernels.h"
#include "support/reference.h"
#include "tensor/cuda.h"

namespace moe::bench {
namespace {

constexpr int64_t kBeyondCaches = int64_t{256} << 20;  // bytes
constexpr double kTolerance = 1e-4;                    // normalised squared error: operands in bf16, sums in another order

struct Options {
  std::string device = "cuda", library = MOE_CUDA_LIBRARY, filter;
  double seconds = 0.05;
  bool list = false, check = false;
};

Options parse(int argc, char **argv) {
  Options options;
  for (int i = 1; i < argc; i++) {
    const std::string name = argv[i];
    const auto value = [&]() -> std::string {
      if (++i == argc) fail(Code::invalid, name, " needs a value");
      return argv[i];
    };
    if (name == "--device") options.device = value();
    else if (name == "--library") options.library = value();
    else if (name == "--filter") options.filter = value();
    else if (name == "--list") options.list = true;
    else if (name == "--check") options.check = true;
    else if (name == "--seconds") {
      const std::string text = value();
      char *end = nullptr;
      options.seconds = std::strtod(text.c_str(), &end);
      if (*end != 0 || !(options.seconds > 0)) fail(Code::invalid, "--seconds: expected a positive number, found ", text);
    } else {
      fail(Code::invalid, "unknown option ", name, ": expected --device, --library, --filter, --seconds, --list or --check");
    }
  }
  return options;
}

std::vector<Case> chosen_cases(const Options &options) {
  std::vector<Case> chosen = cases(options.check ? small_sizes() : measured_sizes());
  std::erase_if(chosen, [&](const Case &c) { return c.name.find(options.filter) == std::string::npos; });
  if (chosen.empty()) fail(Code::invalid, "--filter: no name contains ", options.filter);
  return chosen;
}

// Seconds of one call.
double time_of(Backend &backend, double sample_seconds, const std::function<void()> &run) {
  const auto seconds_of = [&](int64_t calls) {
    const auto start = std::chrono::steady_clock::now();
    for (int64_t i = 0; i < calls; i++) run();
    backend.synchronize();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  seconds_of(1);  // the first call allocates
  int64_t calls = 1;
  while (seconds_of(calls) < sample_seconds) calls *= 2;
  double samples[5];
  for (double &sample : samples) sample = seconds_of(calls) / static_cast<double>(calls);
  std::sort(std::begin(samples), std::end(samples));
  return samples[2];
}

struct Limits {  // a second
  double bytes = 0, bf16 = 0, f32 = 0;
};

Limits measure_limits(Backend &backend, double seconds) {
  constexpr int64_t n = 4096;
  Limits limits;
  const Memory from = backend.allocate(kBeyondCaches), to = backend.allocate(kBeyondCaches);
  limits.bytes = 2 * static_cast<double>(kBeyondCaches) /
                 time_of(backend, seconds, [&] { backend.copy_bytes(to.get(), from.get(), kBeyondCaches); });
  for (const DType type : {DType::bf16, DType::f32}) {
    Instance i(backend, 0);
    const Rows x = i.read(n, n, type, 1), y = i.write(n, n, type);
    const auto next = i.weights(type, n, n);
    const double time = time_of(backend, seconds, [&] { backend.matmul(n, x, next(), y, Store::set); });
    (type == DType::bf16 ? limits.bf16 : limits.f32) = 2 * static_cast<double>(n * n * n) / time;
  }
  return limits;
}

void measure(Backend &backend, const Options &options) {
  const std::vector<Case> chosen = chosen_cases(options);
  const Limits limits = measure_limits(backend, options.seconds);
  std::printf("%s: copies %.0f GB/s, cuBLAS %.1f TFLOP/s of bf16 and %.1f of f32 (4096 x 4096 x 4096)\n", backend.name(),
              limits.bytes * 1e-9, limits.bf16 * 1e-12, limits.f32 * 1e-12);
  std::printf("%-68s %11s %8s %9s  %-8s %6s\n", "", "time us", "GB/s", "TFLOP/s", "limit", "share");
  for (const Case &c : chosen) {
    Instance instance(backend, kBeyondCaches);
    c.prepare(backend, instance);
    const double time = time_of(backend, options.seconds, [&] { instance.run(); });
    const bool bf16 = instance.rate() == Rate::bf16;
    const double moving = instance.bytes() / limits.bytes, computing = instance.operations() / (bf16 ? limits.bf16 : limits.f32);
    std::printf("%-68s %11.2f %8.1f %9.2f  %-8s %5.1f%%\n", c.name.c_str(), time * 1e6, instance.bytes() / time * 1e-9,
                instance.operations() / time * 1e-12,
                moving > computing ? "memory"
                : bf16             ? "bf16"
                                   : "f32",
                100 * std::max(moving, computing) / time);
    std::fflush(stdout);
  }
}

// Returns whether all agree.
bool check(Backend &backend, const Options &options) {
  const std::vector<Case> chosen = chosen_cases(options);
  const auto cpu = cpu::make_backend(std::make_shared<ThreadPool>(1), cpu::best_kernels());
  size_t wrong = 0;
  for (const Case &c : chosen) {
    Instance got(backend, 1), expected(*cpu, 1);
    c.prepare(backend, got), c.prepare(*cpu, expected);
    got.run(), expected.run();
    const auto results = got.results(), references = expected.results();
    double worst = 0;
    for (size_t i = 0; i < results.size(); i++) worst = std::max(worst, test::nmse(test::to_double(references[i]), results[i]));
    const bool counted = got.bytes() > 0 && !results.empty();
    if (worst <= kTolerance && counted) continue;
    std::printf("%s: expected what the CPU computes, found a normalised squared error of %g\n", c.name.c_str(), worst);
    wrong++;
  }
  std::printf("%s: %zu of %zu cases agree with the CPU\n", backend.name(), chosen.size() - wrong, chosen.size());
  return wrong == 0;
}

}  // namespace
}  // namespace moe::bench

int main(int argc, char **argv) {
  using namespace moe::bench;
  try {
    const Options options = parse(argc, argv);
    if (options.list) {
      for (const Case &c : chosen_cases(options)) std::printf("%s\n", c.name.c_str());
      return 0;
    }
    const auto backend = moe::open_cuda(options.device, options.library);
    if (options.check) return check(*backend, options) ? 0 : 1;
    measure(*backend, options);
    return 0;
  } catch (const moe::Error &error) {
    std::fprintf(stderr, "device_bench: %s\n", error.message().c_str());
    return error.code() == moe::Code::invalid ? 2 : 1;
  }
}
