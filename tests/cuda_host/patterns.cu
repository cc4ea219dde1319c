#include "cuda_host/patterns.h"

#include "cuda/memory.h"

namespace cuda_host::patterns {
namespace {

using moe::cuda::check;
using moe::cuda::DeviceBuffer;

constexpr int kCount = 32 * 33;

__device__ bool is_zero(float x) { return x == 0; }
__device__ bool is_zero(uint16_t x) { return x == 0; }
__device__ bool is_zero(float4 x) { return x.x + x.y + x.z + x.w == 0; }

template <class T>
__global__ void shared_kernel(const T *zeros, int stride, float *out) {
  __shared__ T tile[kCount];
  const T zero = zeros[0];
  tile[threadIdx.x * stride] = zero;
  __syncthreads();
  const T other = tile[(31 - threadIdx.x) * stride];
  if (!is_zero(other)) out[0] = 1;
}
template <class T>
__global__ void device_kernel(const T *zeros, int stride, float *out) {
  const T mine = zeros[threadIdx.x * stride];
  if (!is_zero(mine)) out[0] = 1;
}

template <class T>
void run(void (*kernel)(const T *, int, float *), int stride) {
  const DeviceBuffer zeros(kCount * sizeof(T)), out(sizeof(float));
  check(cudaMemset(zeros.data(), 0, zeros.bytes()), "memory");
  MOE_LAUNCH((kernel), 1, 32, 0, nullptr, static_cast<const T *>(zeros.data()), stride, static_cast<float *>(out.data()));
  check(cudaDeviceSynchronize(), "the kernel");
}

}  // namespace

void shared_floats(int stride) { run(shared_kernel<float>, stride); }
void shared_halves(int stride) { run(shared_kernel<uint16_t>, stride); }
void shared_float4(int stride) { run(shared_kernel<float4>, stride); }
void device_floats(int stride) { run(device_kernel<float>, stride); }
void device_float4(int stride) { run(device_kernel<float4>, stride); }

}  // namespace cuda_host::patterns
