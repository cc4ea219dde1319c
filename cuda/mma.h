// The only PTX of the backend, each instruction beside its twin for the tests.
#pragma once
#include "cuda/device.h"

namespace moe::cuda {

// d [16, 8] += a [16, 16] b [16, 8] of a warp, bf16 operands and f32 sums (PTX ISA: mma.sync.m16n8k16). Lane l holds, as pairs,
//   a[0..3]: rows l/4, l/4 + 8 (odd registers) and columns 2 (l%4) + {0, 1}, + 8 (registers 2, 3)
//   b[0..1]: rows 2 (l%4) + {0, 1}, + 8 (register 1) and column l/4
//   d[0..3]: rows l/4, l/4 + 8 (registers 2, 3) and columns 2 (l%4) + {0, 1}
__device__ __forceinline__ void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if defined(MOE_CUDA_HOST)
  ::cuda_host::Mma argument{d, a, b, true};
  ::cuda_host::collective(~0u, ::cuda_host::combine_mma, &argument, {__builtin_FILE(), __builtin_LINE()}, false);
#elif __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  __trap();  // the host chooses kernels without it for such devices
#endif
}

}  // namespace moe::cuda
