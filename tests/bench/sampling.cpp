#include "sampling.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <thread>
#include <vector>

#include "base/processors.h"
#include "base/thread_pool.h"
#include "cli/console.h"
#include "cpu/backend.h"

namespace moe::bench {
namespace {

using cli::seconds_now;

constexpr double kSampleSeconds = 0.01;  // an op is repeated until a sample lasts as long
constexpr double kSeconds = 0.4;         // of a benchmark, once the fewest samples are there
constexpr double kMostSeconds = 5;       // of a benchmark, once there is any
constexpr int kFewestSamples = 5, kMostSamples = 15, kMostTries = 30;
constexpr double kTwoCores = 1.3;  // two threads on two cores reach more than this times one

struct Sample {
  double seconds = 0, limit_seconds = 0, rate = 0, limit = 0, hand_off = 0;
  Limit kind = Limit::f32;
};

// The best of ten short exchanges of a number between two threads, one way. 0 on one processor: there it would be time slices.
double hand_off_seconds() {
  constexpr int kExchanges = 200, kRounds = 10;
  if (usable_processors() < 2) return 0;
  alignas(64) std::atomic<int> turn{0};
  double best = INFINITY;
  const auto play = [&](int me) {
    for (int round = 0; round < kRounds; round++) {
      const double start = seconds_now();
      for (int i = 0; i < kExchanges; i++) {
        while (turn.load(std::memory_order_acquire) != me) {
        }
        turn.store(1 - me, std::memory_order_release);
      }
      if (me == 0) best = std::min(best, (seconds_now() - start) / (2 * kExchanges));
    }
  };
  std::thread other(play, 1);
  play(0);
  other.join();
  return best;
}

bool on_one_core(int threads) {
  return threads > 1 && cli::measure_limit(Limit::f32, threads) < kTwoCores * cli::measure_limit(Limit::f32, 1);
}

// Both limits before and after the op; the better one counts, so that a disturbed moment does not flatter the op.
class Limits {
 public:
  Limits(const Work &work, int threads) : work_(work), threads_(threads) { look(); }
  void look() {
    if (work_.operations > 0) operations_ = std::max(operations_, cli::measure_limit(work_.kind, threads_));
    if (work_.bytes > 0) bytes_ = std::max(bytes_, cli::measure_limit(Limit::read, threads_));
  }
  Sample result(double seconds) const {
    const double computing = operations_ > 0 ? work_.operations / operations_ : 0,
                 reading = bytes_ > 0 ? work_.bytes / bytes_ : 0;
    const bool reads = reading > computing || work_.operations == 0;
    Sample sample;
    sample.seconds = seconds;
    sample.limit_seconds = std::max(computing, reading);
    sample.rate = (reads ? work_.bytes : work_.operations) / seconds;
    sample.limit = reads ? bytes_ : operations_;
    sample.kind = reads ? Limit::read : work_.kind;
    return sample;
  }

 private:
  Work work_;
  int threads_;
  double operations_ = 0, bytes_ = 0;  // per second
};

double time_of(int64_t calls, const std::function<void()> &op) {
  const double start = seconds_now();
  for (int64_t i = 0; i < calls; i++) op();
  return (seconds_now() - start) / static_cast<double>(calls);
}

template <class Value>
double median(const std::vector<Sample> &samples, Value value) {
  std::vector<double> values;
  for (const Sample &sample : samples) values.push_back(value(sample));
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

const char *name_of(Limit limit) {
  switch (limit) {
    case Limit::f32: return "f32";
    case Limit::bf16: return "bf16";
    case Limit::int8: return "int8";
    case Limit::read: return "read";
  }
  return "";
}

void report(benchmark::State &state, const std::vector<Sample> &samples, int dropped) {
  state.SetIterationTime(median(samples, [](const Sample &s) { return s.seconds; }));
  state.SetLabel(name_of(samples.back().kind));
  state.counters["rate"] = median(samples, [](const Sample &s) { return s.rate * 1e-9; });
  state.counters["limit"] = median(samples, [](const Sample &s) { return s.limit * 1e-9; });
  state.counters["share"] = median(samples, [](const Sample &s) { return s.limit_seconds / s.seconds; });
  state.counters["handoff_ns"] = median(samples, [](const Sample &s) { return s.hand_off * 1e9; });
  state.counters["dropped"] = dropped;
}

}  // namespace

Limit bf16_products() {
  static const Limit limit = [] {
    double f32 = 0, bf16 = 0;
    for (int i = 0; i < 3; i++) {
      f32 = std::max(f32, cli::measure_limit(Limit::f32, 1));
      bf16 = std::max(bf16, cli::measure_limit(Limit::bf16, 1));
    }
    return bf16 > f32 ? Limit::bf16 : Limit::f32;
  }();
  return limit;
}

std::unique_ptr<Backend> make_backend(int threads) {
  return cpu::make_backend(std::make_shared<ThreadPool>(threads), cpu::best_kernels());
}

void sample(benchmark::State &state, int threads, const Work &work, const std::function<void()> &op) {
  op();  // page faults, scratch memory
  const auto calls = static_cast<int64_t>(std::ceil(kSampleSeconds / std::max(time_of(1, op), 1e-7)));
  for (auto _ : state) {
    std::vector<Sample> samples;
    int tries = 0;
    for (const double start = seconds_now(); tries < kMostTries && samples.size() < kMostSamples; tries++) {
      const int taken = static_cast<int>(samples.size());
      if (taken > 0 && seconds_now() - start > (taken < kFewestSamples ? kMostSeconds : kSeconds)) break;
      if (on_one_core(threads)) continue;
      const double hand_off = hand_off_seconds();
      Limits limits(work, threads);
      const double seconds = time_of(calls, op);
      limits.look();
      if (on_one_core(threads)) continue;
      samples.push_back(limits.result(seconds));
      samples.back().hand_off = hand_off;
    }
    if (!samples.empty()) report(state, samples, tries - static_cast<int>(samples.size()));
    else state.SetLabel("all " + std::to_string(tries) + " samples dropped: one physical core, or a busy machine");
  }
}

void add(const std::string &name, std::function<void(benchmark::State &)> body) {
  benchmark::RegisterBenchmark(name.c_str(), [body = std::move(body)](benchmark::State &state) { body(state); })
      ->UseManualTime()
      ->Iterations(1)
      ->Unit(benchmark::kMicrosecond);
}

}  // namespace moe::bench
