// Inverted dropout (Srivastava et al. 2014): y = x mask / (1 - p), with the mask of lib/cpu/dropout.cpp: element (t, j) of rows
// of n takes word (j / 16) % 4 of Philox block t * 16 ceil(n / 64) + (j / 64) * 16 + j % 16. A thread makes one block and so
// decides four elements that stand 16 apart; 16 neighbouring threads touch neighbouring values.
#include <cmath>

#include "cuda/cuda_backend.h"
#include "cuda/rows.h"

namespace moe::cuda {
namespace {

// Philox4x32-10 (Salmon et al. 2011), as base/random.h.
__device__ __forceinline__ void philox(uint64_t index, uint64_t stream, uint64_t seed, uint32_t (&c)[4]) {
  c[0] = static_cast<uint32_t>(index), c[1] = static_cast<uint32_t>(index >> 32);
  c[2] = static_cast<uint32_t>(stream), c[3] = static_cast<uint32_t>(stream >> 32);
  uint32_t key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
#pragma unroll
  for (int round = 0; round < 10; round++) {
    const uint32_t high0 = __umulhi(0xD2511F53u, c[0]), low0 = 0xD2511F53u * c[0];
    const uint32_t high1 = __umulhi(0xCD9E8D57u, c[2]), low1 = 0xCD9E8D57u * c[2];
    c[0] = high1 ^ c[1] ^ key0, c[1] = low1;
    c[2] = high0 ^ c[3] ^ key1, c[3] = low0;
    key0 += 0x9E3779B9u, key1 += 0xBB67AE85u;
  }
}

__global__ void __launch_bounds__(256) dropout_kernel(int64_t count, unsigned row_blocks, int64_t n, View x, View y,
                                                      uint32_t threshold, float scale, uint64_t seed, uint64_t stream) {
  const int64_t block = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (block >= count) return;
  const int64_t t = block / row_blocks, in_row = block % row_blocks, first = in_row / 16 * 64 + in_row % 16;
  uint32_t words[4];
  philox(static_cast<uint64_t>(block), stream, seed, words);
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const int64_t j = first + 16 * i;
    if (j < n) store1(y, t, j, words[i] >= threshold ? load1(x, t, j) * scale : 0.0f);
  }
}

}  // namespace

void CudaBackend::dropout(int64_t tokens, int64_t n, Rows x, float p, uint64_t seed, uint64_t stream, Rows y) {
  if (!(p >= 0 && p < 1)) fail(Code::invalid, "dropout: expected a probability in [0, 1), found ", p);
  const auto threshold = static_cast<uint32_t>(std::min(std::round(static_cast<double>(p) * 0x1p32), 4294967295.0));
  const auto scale = static_cast<float>(1 / (1 - static_cast<double>(p)));
  const int64_t row_blocks = (n + 63) / 64 * 16, count = tokens * row_blocks;
  if (count == 0) return;
  MOE_LAUNCH((dropout_kernel), blocks_for(count, 256), 256, 0, on(), count, static_cast<unsigned>(row_blocks), n,
             view("dropout", x), view("dropout", y), threshold, scale, seed, stream);
}

}  // namespace moe::cuda
