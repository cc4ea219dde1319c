// The limits of this machine, measured: multiply-adds in registers (f32, bf16 dot products or tiles, int8 dot products) and memory read
// far beyond the caches. What the speed of a run is compared with.
#pragma once
#include <cstdint>

namespace moe::cli {

enum class Limit : uint8_t { f32, bf16, int8, read };  // multiply-adds, dot products or AMX tiles, dot products, memory

struct Peak {
  double f32_flops = 0, bf16_flops = 0, int8_ops = 0;  // per second; 0 where this processor has no such instruction
  double read_bytes = 0;                               // per second
};

// One rate in this process: 5 ms, reading 20 ms a thread. What is read, 256 MiB a thread, stays allocated.
double measure_limit(Limit limit, int threads);

// All of them, about 60 ms. In a process of its own, so that its buffers do not count as memory of this one.
Peak measure_peak(int threads);

// The larger of each.
Peak best_of(const Peak &a, const Peak &b);

}  // namespace moe::cli
