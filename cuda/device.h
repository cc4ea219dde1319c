// The one header through which files of this folder see CUDA. The same sources are compiled by nvcc for devices and, with
// MOE_CUDA_HOST, by the host's compiler for the tests, where kernels run thread by thread on the CPU. Kernels therefore keep to
// what both have: __syncthreads, __syncwarp, the _sync warp functions with explicit masks, __shared__ arrays, one dynamic
// shared block, integer atomics; kernels lie in anonymous namespaces and are launched by MOE_LAUNCH; PTX stands in mma.h only.
#pragma once
#include <cublas_v2.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "base/error.h"

#if defined(MOE_CUDA_HOST)
#include "cuda_host/device.h"
#define MOE_TEXT_OF_LINE_(line) #line
#define MOE_TEXT_OF_LINE(line) MOE_TEXT_OF_LINE_(line)
#define MOE_LAUNCH(kernel, grid, block, shared, stream, ...)                                                                  \
  (::cuda_host::launch_kernel(#kernel " at " __FILE__ ":" MOE_TEXT_OF_LINE(__LINE__), MOE_UNPACK kernel, grid, block, shared, \
                              stream, __VA_ARGS__),                                                                           \
   ::moe::cuda::check(cudaGetLastError(), #kernel))
#define MOE_DYNAMIC_SHARED(type, name) type *const name = static_cast<type *>(::cuda_host::dynamic_shared())
#else
// The kernel stands in parentheses, so that the commas of its template arguments do not end a macro argument.
// clang-format off
#define MOE_LAUNCH(kernel, grid, block, shared, stream, ...)                   \
  ((MOE_UNPACK kernel)<<<(grid), (block), (shared), (stream)>>>(__VA_ARGS__), \
   ::moe::cuda::check(cudaGetLastError(), #kernel))
// clang-format on
#define MOE_DYNAMIC_SHARED(type, name)                              \
  extern __shared__ __align__(16) unsigned char moe_shared_block[]; \
  type *const name = reinterpret_cast<type *>(moe_shared_block)
#endif
#define MOE_UNPACK(...) __VA_ARGS__

namespace moe::cuda {

// Code::no_memory, or Code::device with CUDA's own words. What a kernel did wrong shows at a later call.
inline void check(cudaError_t error, const char *what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // one that does not stick is told once
  if (error == cudaErrorMemoryAllocation) fail(Code::no_memory, "cuda: ", what, ": ", cudaGetErrorString(error));
  fail(Code::device, "cuda: ", what, ": ", cudaGetErrorString(error));
}
inline void check(cublasStatus_t status, const char *what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  fail(status == CUBLAS_STATUS_ALLOC_FAILED ? Code::no_memory : Code::device, "cuda: ", what, ": ",
       cublasGetStatusString(status));
}

// Blocks of `block` threads for `count` threads.
inline unsigned blocks_for(int64_t count, int64_t block) {
  const int64_t blocks = (count + block - 1) / block;
  if (blocks > 0x7fffffff) fail(Code::invalid, "cuda: ", count, " elements are more than one launch can take");
  return static_cast<unsigned>(blocks);
}

}  // namespace moe::cuda
