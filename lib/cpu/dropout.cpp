// Inverted dropout (Srivastava et al. 2014): y = x mask / (1 - p). The mask is a pure function of (seed, stream, t, column):
// element (t, j) of rows of n takes word (j / 16) % 4 of Philox block t * 16 ceil(n / 64) + (j / 64) * 16 + j % 16
// (base/random.h) and is dropped where that word is below round(2^32 p). Lanes of a register are then neighbouring blocks and
// neighbouring elements.
#include <cmath>

#include "base/error.h"
#include "cpu/cpu_backend.h"
#include "cpu/row_tasks.h"

namespace moe::cpu {

void CpuBackend::dropout(int64_t tokens, int64_t n, Rows x, float p, uint64_t seed, uint64_t stream, Rows y) {
  if (!(p >= 0 && p < 1)) fail(Code::invalid, "dropout: expected a probability in [0, 1), found ", p);
  const uint32_t threshold = static_cast<uint32_t>(std::min(std::round(static_cast<double>(p) * 0x1p32), 4294967295.0));
  const float scale = static_cast<float>(1 / (1 - static_cast<double>(p)));
  const uint64_t row_blocks = static_cast<uint64_t>((n + 63) / 64 * 16);
  reserve_scratch(static_cast<size_t>(n) * sizeof(float));
  for_each_row(*pool_, tokens, n, [&](int64_t t, int thread) {
    float *space = scratch<float>(thread), *row = f32_row_or(y, t, space);
    k_.dropout(n, as_f32(x, t, n, space), seed, stream, static_cast<uint64_t>(t) * row_blocks, threshold, scale, row);
    put_row(row, n, y, t, Store::set);
  });
}

}  // namespace moe::cpu
