// What nvcc gives to device code, for a C++ compiler of the host: cuda/*.cu are compiled against this header unchanged and every
// thread of a kernel runs as a fiber (block.cpp). Types and prototypes come from the toolkit's own headers; only what those
// leave to nvcc is defined here. Included by cuda/device.h alone.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <device_launch_parameters.h>  // declares threadIdx, blockIdx, blockDim, gridDim
#include <math.h>
#include <string.h>

#include <cstdint>
#include <functional>
#include <tuple>
#include <type_traits>
#include <utility>

#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __constant__
#undef __forceinline__
#undef __launch_bounds__
#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#if defined(__SANITIZE_ADDRESS__)
#define __shared__ static  // AddressSanitizer puts red zones round it
#else
#define __shared__ static __attribute__((section("cuda_shared")))  // filled with NaN before every block
#endif

namespace cuda_host {

struct Site {
  const char *file;
  int line;
};
using Combine = void (*)(void **of_lane, unsigned mask);

// ---- block.cpp ----
void barrier(Site site);
// Waits until all lanes of the mask are here; the last one runs `combine` on the arguments of all.
void collective(unsigned mask, Combine combine, void *argument, Site site, bool orders_memory);
unsigned lane();
void *dynamic_shared();
void atomic_access(void *address, size_t bytes);
[[noreturn]] void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
void launch(const char *name, const void *kernel, dim3 grid, dim3 block, size_t shared, cudaStream_t stream,
            std::function<void()> body);

template <class... Parameters, class... Arguments>
void launch_kernel(const char *name, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared, cudaStream_t stream,
                   Arguments &&...arguments) {
  static_assert(sizeof...(Parameters) == sizeof...(Arguments), "a kernel takes as many arguments as it has parameters");
  std::tuple<std::decay_t<Parameters>...> values(static_cast<Parameters>(std::forward<Arguments>(arguments))...);
  launch(name, reinterpret_cast<const void *>(kernel), grid, block, shared, stream,
         [kernel, values] { std::apply(kernel, values); });
}

template <class T>
struct Shuffle {
  T in, out;
  int source;
};
template <class T>
void combine_shuffle(void **of_lane, unsigned mask) {
  for (int l = 0; l < 32; l++) {
    if (!(mask >> l & 1)) continue;
    auto *to = static_cast<Shuffle<T> *>(of_lane[l]);
    if (!(mask >> to->source & 1)) fail("lane %d shuffles from lane %d, which is not in the mask %08x", l, to->source, mask);
    to->out = static_cast<Shuffle<T> *>(of_lane[to->source])->in;
  }
}
template <class T>
T shuffle(unsigned mask, T value, int source, Site site) {
  Shuffle<T> argument{value, value, source};
  collective(mask, combine_shuffle<T>, &argument, site, false);
  return argument.out;
}

struct Vote {
  bool yes;
  unsigned out;
};
void combine_votes(void **of_lane, unsigned mask);

// D [16, 8] f32 = A [16, 16] B [16, 8] + C in the fragment layout of mma.sync.m16n8k16 (PTX ISA, "Matrix fragments").
struct Mma {
  float *d;
  const uint32_t *a, *b;
  bool bf16;
};
void combine_mma(void **of_lane, unsigned mask);

}  // namespace cuda_host

#define CUDA_HOST_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()
inline void __syncthreads(CUDA_HOST_SITE) { cuda_host::barrier({file, line}); }
inline void __syncwarp(unsigned mask = ~0u, CUDA_HOST_SITE) { cuda_host::collective(mask, nullptr, nullptr, {file, line}, true); }
inline unsigned __ballot_sync(unsigned mask, int yes, CUDA_HOST_SITE) {
  cuda_host::Vote vote{yes != 0, 0};
  cuda_host::collective(mask, cuda_host::combine_votes, &vote, {file, line}, false);
  return vote.out;
}
inline int __any_sync(unsigned mask, int yes, CUDA_HOST_SITE) { return __ballot_sync(mask, yes, file, line) != 0; }
inline int __all_sync(unsigned mask, int yes, CUDA_HOST_SITE) { return __ballot_sync(mask, yes, file, line) == mask; }

// Lane l of its segment of `width` lanes; a source outside the segment gives a lane its own value back.
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, CUDA_HOST_SITE) {
  const int l = static_cast<int>(cuda_host::lane());
  return cuda_host::shuffle(mask, value, (l & ~(width - 1)) | (source & (width - 1)), {file, line});
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, CUDA_HOST_SITE) {
  const int l = static_cast<int>(cuda_host::lane()), source = l ^ bits;
  return cuda_host::shuffle(mask, value, source >= (l & ~(width - 1)) + width ? l : source, {file, line});
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32, CUDA_HOST_SITE) {
  const int l = static_cast<int>(cuda_host::lane()), source = l + static_cast<int>(by);
  return cuda_host::shuffle(mask, value, source >= (l & ~(width - 1)) + width ? l : source, {file, line});
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32, CUDA_HOST_SITE) {
  const int l = static_cast<int>(cuda_host::lane()), source = l - static_cast<int>(by);
  return cuda_host::shuffle(mask, value, source < (l & ~(width - 1)) ? l : source, {file, line});
}

// ---- arithmetic ----
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline void sincospi(double x, double *sine, double *cosine) {
  const double reduced = x - 2 * rint(x / 2);
  *sine = sin(M_PI * reduced);
  *cosine = cos(M_PI * reduced);
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(static_cast<uint64_t>(a) * b >> 32); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __int_as_float(int x) { return __builtin_bit_cast(float, x); }
inline int __float_as_int(float x) { return __builtin_bit_cast(int, x); }
inline float __uint_as_float(unsigned x) { return __builtin_bit_cast(float, x); }
inline unsigned __float_as_uint(float x) { return __builtin_bit_cast(unsigned, x); }
inline int __dp4a(int a, int b, int c) {
  for (int i = 0; i < 32; i += 8)
    c += static_cast<int>(static_cast<int8_t>(a >> i)) * static_cast<int>(static_cast<int8_t>(b >> i));
  return c;
}
template <class T>
T __ldg(const T *address) {
  return *address;
}
template <class T>
T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
T max(T a, T b) {
  return a < b ? b : a;
}

// ---- atomics: fibers only give way at barriers and collectives, so reading and writing in turn is atomic ----
#define CUDA_HOST_ATOMIC(name, next)                                                         \
  template <class T>                                                                         \
  __attribute__((no_sanitize("thread"))) T name(T *address, std::type_identity_t<T> value) { \
    cuda_host::atomic_access(address, sizeof(T));                                            \
    const T old = *address;                                                                  \
    *address = static_cast<T>(next);                                                         \
    return old;                                                                              \
  }
CUDA_HOST_ATOMIC(atomicAdd, old + value)
CUDA_HOST_ATOMIC(atomicMin, value < old ? value : old)
CUDA_HOST_ATOMIC(atomicMax, old < value ? value : old)
CUDA_HOST_ATOMIC(atomicExch, value)
#undef CUDA_HOST_ATOMIC
template <class T>
__attribute__((no_sanitize("thread"))) T atomicCAS(T *address, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  cuda_host::atomic_access(address, sizeof(T));
  const T old = *address;
  if (old == expected) *address = value;
  return old;
}
inline void __threadfence() {}
