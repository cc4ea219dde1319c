#include "cuda_host/bugs.h"

#include "cuda/memory.h"

namespace cuda_host::bugs {
namespace {

using moe::cuda::check;
using moe::cuda::DeviceBuffer;
using moe::cuda::Stream;

constexpr int kThreads = 64;

struct Floats {  // 64 numbers of the device
  DeviceBuffer buffer{kThreads * sizeof(float)};
  float *data() const { return static_cast<float *>(buffer.data()); }
  Floats() = default;
  explicit Floats(float value) {
    float values[kThreads];
    for (float &x : values) x = value;
    check(cudaMemcpy(data(), values, sizeof values, cudaMemcpyHostToDevice), "copy");
  }
  bool all(float expected) const {
    float values[kThreads];
    check(cudaMemcpy(values, data(), sizeof values, cudaMemcpyDeviceToHost), "copy");
    for (float x : values)
      if (x != expected) return false;
    return true;
  }
};

__global__ void broadcast_kernel(float *out, const float *x, bool fixed) {
  __shared__ float value;
  if (threadIdx.x == 40) value = x[0];
  if (fixed) __syncthreads();
  out[threadIdx.x] = value;
}

__global__ void two_barriers_kernel(float *out, bool fixed) {
  if (fixed || threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = 1;
}

__global__ void early_return_kernel(float *out, bool fixed) {
  out[threadIdx.x] = 1;
  if (!fixed && threadIdx.x == 7) return;
  __syncthreads();
}

__global__ void shared_kernel(float *out, int by) {
  __shared__ float values[kThreads], others[kThreads];
  others[threadIdx.x] = 1;
  values[threadIdx.x] = 1;
  __syncthreads();
  values[threadIdx.x + by] = 1;
  __syncthreads();
  out[threadIdx.x] = values[threadIdx.x] * others[threadIdx.x];
}

__global__ void dynamic_shared_kernel(float *out, int by) {
  MOE_DYNAMIC_SHARED(float, values);
  values[threadIdx.x + by] = 1;
  __syncthreads();
  out[threadIdx.x] = 1;
}

__global__ void neighbour_kernel(float *out, bool fixed) {
  __shared__ float values[kThreads];
  values[threadIdx.x] = 1;
  if (fixed) __syncwarp();
  out[threadIdx.x] = values[threadIdx.x ^ 1];
}

__global__ void count_kernel(int *out, bool fixed) {
  if (fixed) atomicAdd(out, 1);
  else *out += 1;
}

__global__ void mask_kernel(float *out, unsigned mask) { out[threadIdx.x] = __shfl_xor_sync(mask, 1.0f, 1); }

__global__ void absent_kernel(float *out, bool fixed) {
  float x = 1;
  if (threadIdx.x % 32 < 16) x = __shfl_sync(0x0000ffffu, x, fixed ? 3 : 20);
  out[threadIdx.x] = x;
}

__global__ void divergent_kernel(float *out, bool fixed) {
  float x = 1;
  if (fixed || threadIdx.x % 2) x = __shfl_xor_sync(~0u, x, 2);
  out[threadIdx.x] = x;
}

__global__ void set_kernel(float *out, float value, int by) { out[static_cast<int>(threadIdx.x) + by] = value; }
__global__ void copy_kernel(float *out, const float *x, int by) { out[threadIdx.x] = x[static_cast<int>(threadIdx.x) + by]; }
__global__ void is_kernel(float *out, const float *x) { out[threadIdx.x] = x[threadIdx.x] > 5 ? 0 : 1; }

__global__ void half_written_kernel(float *out, int written) {
  __shared__ float values[kThreads];
  if (static_cast<int>(threadIdx.x) < written) values[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = values[threadIdx.x] > 5 ? 0 : 1;
}

__global__ void blocks_kernel(float *out, bool fixed) { out[fixed ? blockIdx.x * blockDim.x + threadIdx.x : threadIdx.x] = 1; }

// The compiler makes a call of memset of this loop.
__global__ void clear_kernel(float *out, bool fixed) {
  if (threadIdx.x != 0 || (fixed && blockIdx.x != 0)) return;
  for (int i = 0; i < kThreads; i++) out[i] = 0;
}

__global__ void pair_kernel(float *out, const float *x, int by) {
  const int i = static_cast<int>(threadIdx.x) / 2 * 2;
  const auto pair = *reinterpret_cast<const uint64_t *>(x + (i + by < kThreads - 1 ? i + by : 0));
  out[threadIdx.x] = pair != 0 ? 1 : 0;
}

__device__ __attribute__((noinline)) float deep(int depth, float x) {
  volatile float space[64];
  space[depth % 64] = x;
  return depth == 0 ? x : deep(depth - 1, space[depth % 64]) + 0 * space[(depth + 1) % 64 == depth % 64 ? 0 : depth % 64];
}
__global__ void recursion_kernel(float *out, int depth) { out[threadIdx.x] = deep(depth, 1); }

}  // namespace

bool missing_barrier(bool fixed) {
  Floats out, x(1);
  MOE_LAUNCH((broadcast_kernel), 1, kThreads, 0, nullptr, out.data(), x.data(), fixed);
  return out.all(1);
}
bool divergent_barrier(bool fixed) {
  Floats out;
  MOE_LAUNCH((two_barriers_kernel), 1, kThreads, 0, nullptr, out.data(), fixed);
  return out.all(1);
}
bool barrier_after_return(bool fixed) {
  Floats out;
  MOE_LAUNCH((early_return_kernel), 1, kThreads, 0, nullptr, out.data(), fixed);
  return out.all(1);
}
bool shared_overrun(bool fixed) {
  Floats out;
  MOE_LAUNCH((shared_kernel), 1, kThreads, 0, nullptr, out.data(), fixed ? 0 : 1024);
  return out.all(1);
}
bool dynamic_shared_overrun(bool fixed) {
  Floats out;
  MOE_LAUNCH((dynamic_shared_kernel), 1, kThreads, kThreads * sizeof(float), nullptr, out.data(), fixed ? 0 : 1);
  return out.all(1);
}
bool missing_syncwarp(bool fixed) {
  Floats out;
  MOE_LAUNCH((neighbour_kernel), 1, kThreads, 0, nullptr, out.data(), fixed);
  return out.all(1);
}
bool non_atomic_add(bool fixed) {
  DeviceBuffer count(sizeof(int));
  check(cudaMemset(count.data(), 0, sizeof(int)), "fill");
  MOE_LAUNCH((count_kernel), 1, kThreads, 0, nullptr, static_cast<int *>(count.data()), fixed);
  int result = 0;
  check(cudaMemcpy(&result, count.data(), sizeof result, cudaMemcpyDeviceToHost), "copy");
  return result == kThreads;
}
bool bad_shuffle_mask(bool fixed) {
  Floats out;
  MOE_LAUNCH((mask_kernel), 1, kThreads, 0, nullptr, out.data(), fixed ? ~0u : 0x0fffffffu);
  return out.all(1);
}
bool shuffle_from_absent_lane(bool fixed) {
  Floats out;
  MOE_LAUNCH((absent_kernel), 1, kThreads, 0, nullptr, out.data(), fixed);
  return out.all(1);
}
bool divergent_shuffle(bool fixed) {
  Floats out;
  MOE_LAUNCH((divergent_kernel), 1, kThreads, 0, nullptr, out.data(), fixed);
  return out.all(1);
}
bool write_out_of_bounds(bool fixed) {
  Floats out(1);
  MOE_LAUNCH((set_kernel), 1, kThreads, 0, nullptr, out.data(), 1.0f, fixed ? 0 : 1);
  return out.all(1);
}
bool read_out_of_bounds(bool fixed) {
  Floats out, x(1);
  MOE_LAUNCH((copy_kernel), 1, kThreads, 0, nullptr, out.data(), static_cast<const float *>(x.data()), fixed ? 0 : 1);
  return out.all(1);
}
bool use_after_free(bool fixed) {
  Floats out, x(1);
  const float *const from = x.data();
  if (!fixed) x.buffer = DeviceBuffer();
  MOE_LAUNCH((copy_kernel), 1, kThreads, 0, nullptr, out.data(), from, 0);
  return out.all(1);
}
bool uninitialised_read(bool fixed) {
  Floats out, x;
  if (fixed) check(cudaMemset(x.data(), 0, x.buffer.bytes()), "fill");
  MOE_LAUNCH((is_kernel), 1, kThreads, 0, nullptr, out.data(), static_cast<const float *>(x.data()));
  return out.all(1);
}
bool uninitialised_shared_read(bool fixed) {
  Floats out;
  MOE_LAUNCH((half_written_kernel), 1, kThreads, 0, nullptr, out.data(), fixed ? kThreads : kThreads - 1);
  return out.all(1);
}
bool race_between_blocks(bool fixed) {
  Floats out;
  MOE_LAUNCH((blocks_kernel), fixed ? 1 : 2, kThreads, 0, nullptr, out.data(), fixed);
  return out.all(1);
}
bool race_of_filling_loops(bool fixed) {
  Floats out;
  MOE_LAUNCH((clear_kernel), 2, kThreads, 0, nullptr, out.data(), fixed);
  return out.all(0);
}
bool misaligned_read(bool fixed) {
  Floats out, x(1);
  MOE_LAUNCH((pair_kernel), 1, kThreads, 0, nullptr, out.data(), static_cast<const float *>(x.data()), fixed ? 0 : 1);
  return out.all(1);
}

// ---- the host's side ----
bool unsynchronised_host_read(bool fixed) {
  Floats out;
  Stream stream;
  stream.create();
  MOE_LAUNCH((set_kernel), 1, kThreads, 0, stream.get(), out.data(), 1.0f, 0);
  float result = 0;
  check(cudaMemcpyAsync(&result, out.data(), sizeof result, cudaMemcpyDeviceToHost, stream.get()), "copy");
  if (fixed) check(cudaStreamSynchronize(stream.get()), "wait");
  const bool right = result == 1;
  check(cudaStreamSynchronize(stream.get()), "wait");
  return right;
}
bool staging_reused_too_early(bool fixed) {
  Floats out;
  Stream stream;
  stream.create();
  void *memory = nullptr;
  check(cudaMallocHost(&memory, kThreads * sizeof(float)), "pinned memory");
  float *const staging = static_cast<float *>(memory);
  for (int i = 0; i < kThreads; i++) staging[i] = 1;
  check(cudaMemcpyAsync(out.data(), staging, kThreads * sizeof(float), cudaMemcpyHostToDevice, stream.get()), "copy");
  if (fixed) check(cudaStreamSynchronize(stream.get()), "wait");
  for (int i = 0; i < kThreads; i++) staging[i] = 2;
  check(cudaStreamSynchronize(stream.get()), "wait");
  const bool right = out.all(1);
  check(cudaFreeHost(memory), "pinned memory");
  return right;
}
// Three pieces through a ring of two slots; the bug does not wait for the event of the slot.
bool ring_slot_reused_too_early(bool fixed) {
  constexpr int kSlots = 2, kPieces = 3;
  Floats out[kPieces];
  Stream stream;
  stream.create();
  moe::cuda::PinnedBuffer ring;
  ring.create(kSlots * kThreads * sizeof(float));
  moe::cuda::Event done[kSlots];
  for (moe::cuda::Event &event : done) event.create();
  for (int piece = 0; piece < kPieces; piece++) {
    const int slot = piece % kSlots;
    float *const values = reinterpret_cast<float *>(ring.data()) + slot * kThreads;
    if (fixed) done[slot].wait();
    for (int i = 0; i < kThreads; i++) values[i] = static_cast<float>(piece);
    check(cudaMemcpyAsync(out[piece].data(), values, kThreads * sizeof(float), cudaMemcpyHostToDevice, stream.get()), "copy");
    done[slot].record(stream.get());
  }
  check(cudaStreamSynchronize(stream.get()), "wait");
  return out[0].all(0) && out[1].all(1) && out[2].all(2);
}
bool missing_event(bool fixed) {
  Floats x(2), out;
  Stream first, second;
  first.create();
  second.create();
  cudaEvent_t done;
  check(cudaEventCreateWithFlags(&done, cudaEventDisableTiming), "event");
  MOE_LAUNCH((set_kernel), 1, kThreads, 0, first.get(), x.data(), 1.0f, 0);
  check(cudaEventRecord(done, first.get()), "event");
  if (fixed) check(cudaStreamWaitEvent(second.get(), done, 0), "event");
  MOE_LAUNCH((copy_kernel), 1, kThreads, 0, second.get(), out.data(), static_cast<const float *>(x.data()), 0);
  check(cudaStreamSynchronize(second.get()), "wait");
  const bool right = out.all(1);
  check(cudaStreamSynchronize(first.get()), "wait");
  check(cudaEventDestroy(done), "event");
  return right;
}
bool host_read_of_device_memory(bool fixed) {
  Floats x(1);
  if (!fixed) return *static_cast<volatile float *>(x.data()) == 1;
  return x.all(1);
}
bool endless_recursion(bool fixed) {
  Floats out;
  MOE_LAUNCH((recursion_kernel), 1, kThreads, 0, nullptr, out.data(), fixed ? 3 : 1 << 20);
  return out.all(1);
}

}  // namespace cuda_host::bugs
