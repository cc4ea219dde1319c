// x[i] = value, in tasks of 64 Ki values.
#include <algorithm>

#include "cpu/cpu_backend.h"

namespace moe::cpu {

void CpuBackend::fill(int64_t n, float value, float *x) {
  constexpr int64_t part = 64 << 10;
  pool_->run((n + part - 1) / part, [&](int64_t task, int) { std::fill_n(x + task * part, std::min(part, n - task * part), value); });
}

}  // namespace moe::cpu
