// Device memory: every allocation has pages of its own, filled with NaN, its end on a canary and a page that cannot be touched;
// addresses are never used again, so what was freed faults. In strict mode the host cannot touch any of it.
#include <cuda_runtime.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <map>
#include <memory>
#include <vector>

#include "cuda_host/internal.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace cuda_host {
namespace {

constexpr size_t kPage = 4096, kArena = size_t{64} << 30, kDeviceBytes = size_t{8} << 30;
constexpr size_t kDefaultShared = 48 << 10;

char *arena;
size_t arena_used;
uint32_t *page_owners;  // index + 1 into allocations, by page
std::vector<std::unique_ptr<Allocation>> allocations;
std::vector<Allocation *> live;
std::map<const void *, size_t> pinned;
std::map<const void *, size_t> shared_limits;
bool strict, handler_installed;
int access_depth, failing_allocation;

size_t pages_of(size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }
void protect(const Allocation &a, bool open) { mprotect(a.data, pages_of(a.bytes), open ? PROT_READ | PROT_WRITE : PROT_NONE); }

void on_fault(int signal_number, siginfo_t *information, void *) {
  const void *address = information->si_addr;
  if (on_fiber_guard(address)) fail("the stack of a thread is used up");
  if (in_device_memory(address)) {
    const Allocation *a = owner(address);
    if (a && !a->live)
      fail("use of freed device memory, %zd bytes into %zu", static_cast<const char *>(address) - a->data, a->bytes);
    if (!in_kernel()) fail("the host touches device memory at %p", address);
    fail("access outside of device memory at %p", address);
  }
  signal(signal_number, SIG_DFL);  // not ours: the instruction runs again and ends the process
}

void install_handler() {
  if (handler_installed) return;
  handler_installed = true;
  static char stack[64 << 10];  // the stack of a fiber may be what is used up
  stack_t alternative{};
  alternative.ss_sp = stack;
  alternative.ss_size = sizeof stack;
  sigaltstack(&alternative, nullptr);
  struct sigaction action {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGSEGV, &action, nullptr);
  sigaction(SIGBUS, &action, nullptr);
}

void reserve_arena() {
  if (arena) return;
  const auto reserve = [](size_t bytes, int access) {
    void *memory = mmap(nullptr, bytes, access, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) fail("no address space for device memory");
    return memory;
  };
  arena = static_cast<char *>(reserve(kArena, PROT_NONE));
  page_owners = static_cast<uint32_t *>(reserve(kArena / kPage * sizeof(uint32_t), PROT_READ | PROT_WRITE));
}

}  // namespace

void set_strict(bool on) {
  for (const Allocation *a : live) protect(*a, !on);
  strict = on;
}
void fail_allocation(int n) { failing_allocation = n; }

DeviceAccess::DeviceAccess() {
  if (access_depth++ == 0 && strict)
    for (const Allocation *a : live) protect(*a, true);
}
DeviceAccess::~DeviceAccess() {
  if (--access_depth == 0 && strict)
    for (const Allocation *a : live) protect(*a, false);
}

bool in_device_memory(const void *address) {
  const char *a = static_cast<const char *>(address);
  return arena && a >= arena && a < arena + kArena;
}
Allocation *owner(const void *address) {
  if (!in_device_memory(address)) return nullptr;
  const uint32_t index = page_owners[static_cast<size_t>(static_cast<const char *>(address) - arena) / kPage];
  return index ? allocations[index - 1].get() : nullptr;
}
bool inside_allocation(const void *address, size_t bytes) {
  const Allocation *a = owner(address);
  return a && a->live && bytes <= a->bytes - static_cast<size_t>(static_cast<const char *>(address) - a->data);
}
bool is_pinned(const void *address) {
  auto next = pinned.upper_bound(address);
  if (next == pinned.begin()) return false;
  --next;
  return static_cast<const char *>(address) < static_cast<const char *>(next->first) + next->second;
}

void check_canaries() {
#if !defined(__SANITIZE_ADDRESS__)
  for (const Allocation *a : live) {
    for (const char *c = a->data + a->bytes; c < a->data + pages_of(a->bytes); c++) {
      if (*c != '\xff')
        fail("write %zd bytes behind a device allocation of %zu", c - a->data - static_cast<ptrdiff_t>(a->bytes), a->bytes);
    }
  }
#endif
}

size_t largest_shared(const void *kernel) {
  const auto found = shared_limits.find(kernel);
  return found == shared_limits.end() ? kDefaultShared : found->second;
}

}  // namespace cuda_host

using namespace cuda_host;

extern "C" {

cudaError_t cudaMalloc(void **pointer, size_t bytes) {
  const OneCall call;
  if (const cudaError_t state = device_state()) return set_error(state);
  if (failing_allocation > 0 && --failing_allocation == 0) return set_error(cudaErrorMemoryAllocation);
  if (bytes > kDeviceBytes || counters.live_bytes + static_cast<int64_t>(bytes) > static_cast<int64_t>(kDeviceBytes)) {
    return set_error(cudaErrorMemoryAllocation);
  }
  *pointer = nullptr;
  if (bytes == 0) return cudaSuccess;
  reserve_arena();
  install_handler();
  if (arena_used + pages_of(bytes) + kPage > kArena) fail("the address space for device memory is used up");

  auto a = std::make_unique<Allocation>();
  a->data = arena + arena_used;
  a->bytes = bytes;
  a->live = true;
  protect(*a, true);
  memset(a->data, 0xff, pages_of(bytes));
#if defined(__SANITIZE_ADDRESS__)
  ASAN_POISON_MEMORY_REGION(a->data + bytes, pages_of(bytes) - bytes);
#endif
  *pointer = a->data;
  for (size_t page = arena_used / kPage, n = pages_of(bytes) / kPage; n > 0; n--, page++)
    page_owners[page] = static_cast<uint32_t>(allocations.size() + 1);
  arena_used += pages_of(bytes) + kPage;
  if (strict && access_depth == 0) protect(*a, false);
  live.push_back(a.get());
  counters.live_allocations++;
  counters.live_bytes += static_cast<int64_t>(bytes);
  allocations.push_back(std::move(a));
  return cudaSuccess;
}

cudaError_t cudaFree(void *pointer) {
  const OneCall call;
  if (!pointer) return cudaSuccess;
  finish_everything();
  Allocation *a = owner(pointer);
  if (!a || !a->live || a->data != pointer) return set_error(cudaErrorInvalidValue);
  {
    DeviceAccess access;
    check_canaries();
  }
  forget_marks(a->data);
#if defined(__SANITIZE_ADDRESS__)
  ASAN_UNPOISON_MEMORY_REGION(a->data, pages_of(a->bytes));
#endif
  madvise(a->data, pages_of(a->bytes), MADV_DONTNEED);
  protect(*a, false);
  a->live = false;
  counters.live_allocations--;
  counters.live_bytes -= static_cast<int64_t>(a->bytes);
  for (Allocation *&entry : live) {
    if (entry == a) {
      entry = live.back();
      live.pop_back();
      break;
    }
  }
  return cudaSuccess;
}

cudaError_t cudaMallocHost(void **pointer, size_t bytes) {
  const OneCall call;
  if (const cudaError_t state = device_state()) return set_error(state);
  if (failing_allocation > 0 && --failing_allocation == 0) return set_error(cudaErrorMemoryAllocation);
  *pointer = malloc(bytes);
  if (!*pointer) return set_error(cudaErrorMemoryAllocation);
  pinned[*pointer] = bytes;
  counters.live_allocations++;
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void *pointer) {
  const OneCall call;
  finish_everything();
  if (!pointer) return cudaSuccess;
  if (pinned.erase(pointer) == 0) return set_error(cudaErrorInvalidValue);
  counters.live_allocations--;
  free(pointer);
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
  const OneCall call;
  *total = kDeviceBytes;
  *free_bytes = kDeviceBytes - static_cast<size_t>(counters.live_bytes);
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute attribute, int value) {
  const OneCall call;
  if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize) {
    if (value < 0 || value > 99 << 10)
      return set_error(cudaErrorInvalidValue);  // the least of all devices from compute capability 8.0 on
    shared_limits[kernel] = static_cast<size_t>(value);
  }
  return cudaSuccess;
}

}  // extern "C"
