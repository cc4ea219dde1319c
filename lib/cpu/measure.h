// Rates that this machine reaches, measured with the library's own kernels: what the speed of a run is compared with.
#pragma once

namespace moe::cpu {

struct MeasuredRates {
  double f32_flops_per_s = 0, bf16_flops_per_s = 0, q8_0_flops_per_s = 0;  // matrix products of large square weights
  double memory_bytes_per_s = 0;                                           // reading far more than the caches hold
};

// Takes about two seconds on `threads` threads (0 = the processors this process may use).
MeasuredRates measure_rates(int threads);

}  // namespace moe::cpu
