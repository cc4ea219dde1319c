// Between the parts of the runtime.
#pragma once
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <functional>

#include "cuda_host/host.h"

namespace cuda_host {

[[noreturn]] void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

// Calls of the runtime come from any thread, one at a time.
class OneCall {
 public:
  OneCall();
  ~OneCall();
};

// ---- block.cpp ----
struct Place {                         // of the running thread
  uint32_t thread, epoch, warp_syncs;  // barriers and __syncwarp passed in this block
  uint32_t block;                      // number of the block among all that were run
  uint32_t first_block;                // of this launch
};
bool in_kernel();
Place place();
bool on_fiber_guard(const void *address);
uint32_t random_number();
bool has_seed();
extern Statistics counters;

// ---- memory.cpp ----
struct Allocation {
  char *data;
  size_t bytes;
  bool live;
  void *marks = nullptr;  // of races.cpp
};
bool in_device_memory(const void *address);
Allocation *owner(const void *address);  // of the page, live or not; nullptr = none
bool inside_allocation(const void *address, size_t bytes);
bool is_pinned(const void *address);
void check_canaries();
struct DeviceAccess {  // while one exists, strict mode lets the device's memory be touched
  DeviceAccess();
  ~DeviceAccess();
};
size_t largest_shared(const void *kernel);

// ---- stream.cpp ----
cudaError_t set_error(cudaError_t error);  // remembers it for cudaGetLastError
cudaError_t device_state();                // not cudaSuccess: every call returns it
void enqueue(cudaStream_t stream, std::function<void()> work);
void finish_everything();

// ---- races.cpp and traffic.cpp, or nothing in plain builds ----
struct SharedMemory {
  char *statics, *statics_end, *dynamic;
  size_t dynamic_bytes;
};
void begin_block(const SharedMemory &shared);
void end_block(const char *kernel);
void mark_defined(void *address, size_t bytes);
void forget_marks(void *allocation);  // it is about to go
bool is_defined(const void *address, size_t bytes);
void copy_marks(void *to, const void *from, size_t bytes);
void begin_traffic(const SharedMemory &shared);
void record_traffic(const void *instruction, const void *address, size_t bytes, bool writes);
void end_traffic(const char *kernel);

}  // namespace cuda_host
