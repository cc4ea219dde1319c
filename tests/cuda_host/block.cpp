// Runs the threads of a block as fibers of one system thread. A fiber gives way only at __syncthreads and at warp collectives;
// the warp whose lanes have all arrived goes on, a barrier opens when every thread of the block waits at it. With a seed the
// order of blocks, warps and lanes is random, and warps are left half way through.
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "cuda_host/device.h"
#include "cuda_host/internal.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// The toolkit declares these constant; here they are written before a fiber runs.
#define CUDA_HOST_VARIABLE(type, name) type variable_##name __asm__(#name) __attribute__((used, section(".data")));
CUDA_HOST_VARIABLE(uint3, threadIdx)
CUDA_HOST_VARIABLE(uint3, blockIdx)
CUDA_HOST_VARIABLE(dim3, blockDim)
CUDA_HOST_VARIABLE(dim3, gridDim)
extern "C" char __start_cuda_shared[] __attribute__((weak)), __stop_cuda_shared[] __attribute__((weak));

// Saves the registers that a call preserves, changes the stack, restores them: 13 ns, where ucontext takes two system calls.
extern "C" void cuda_host_switch(void **save_to, void *restore_from);
asm(R"(
.text
.globl cuda_host_switch
.type cuda_host_switch,@function
cuda_host_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  popq %rcx
  jmp *%rcx
.size cuda_host_switch, .-cuda_host_switch
)");

namespace cuda_host {

Statistics counters;

namespace {

constexpr int kMaxThreads = 1024, kCanary = 64;
constexpr size_t kPage = 4096, kMaxShared = 227 << 10;  // of a block at compute capability 9.0
#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kStack = 256 << 10;
#else
constexpr size_t kStack = 64 << 10;
#endif

enum class State : uint8_t { fresh, ready, at_barrier, at_collective, done };
struct Warp;
struct Fiber {
  void *stack_pointer = nullptr;
  char *stack = nullptr;
  State state = State::fresh;
  uint32_t thread = 0, warp_syncs = 0;
  uint3 index{};
  Warp *warp = nullptr;
  Site site{};
#if defined(__SANITIZE_ADDRESS__)
  void *fake_stack = nullptr;
#endif
  unsigned lane() const { return thread % 32; }
};
// Lanes that wait for each other; several groups of a warp can wait at once, each is kept at its lowest lane.
struct Meeting {
  unsigned mask = 0, arrived = 0;
  Combine combine = nullptr;
  Site site{};
  void *arguments[32];
};
struct Warp {
  Meeting meetings[32];
  unsigned present = 0, done = 0;
  int first = 0;
};

Fiber fibers[kMaxThreads];
Warp warps[kMaxThreads / 32];
Fiber *current;
void *scheduler_stack;
#if defined(__SANITIZE_ADDRESS__)
void *scheduler_fake_stack;
const void *scheduler_bottom;
size_t scheduler_size;
#endif
const std::function<void()> *kernel_body;
const char *kernel_name;
int threads_of_block, waiting, finished;
uint32_t epoch, blocks_run, first_block_of_launch;
uint64_t seed, random_state = 1;
alignas(256) char dynamic_memory[kMaxShared + kCanary];

char *stack_of(int i) {  // with a page below it that must not be touched
  static char *stacks;
  const size_t each = kStack + kPage;
  if (!stacks) {
    stacks = static_cast<char *>(
        mmap(nullptr, each * kMaxThreads, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (stacks == MAP_FAILED) fail("no memory for the stacks of a block");
    for (int j = 0; j < kMaxThreads; j++) mprotect(stacks + each * static_cast<size_t>(j), kPage, PROT_NONE);
  }
  return stacks + each * static_cast<size_t>(i) + kPage;
}

void to_scheduler(bool for_good) {
  counters.switches++;
  Fiber *const fiber = current;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(for_good ? nullptr : &fiber->fake_stack, scheduler_bottom, scheduler_size);
#else
  (void)for_good;
#endif
  cuda_host_switch(&fiber->stack_pointer, scheduler_stack);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fiber->fake_stack, nullptr, nullptr);
#endif
}

void run_thread() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_bottom, &scheduler_size);
#endif
  (*kernel_body)();
  current->state = State::done;
  current->warp->done |= 1u << current->lane();
  finished++;
  to_scheduler(true);
  __builtin_trap();
}

void resume(Fiber &fiber) {
  current = &fiber;
  variable_threadIdx = fiber.index;
  if (fiber.state == State::fresh) {
    fiber.stack = stack_of(static_cast<int>(fiber.thread));
    // Stacks whose tops lie at the same offset of a page would share one set of the first-level cache.
    void **top = reinterpret_cast<void **>(fiber.stack + kStack - (fiber.thread * 5 % 64) * 64);
    *--top = nullptr;
    *--top = reinterpret_cast<void *>(run_thread);
    for (int i = 0; i < 6; i++) *--top = nullptr;
    fiber.stack_pointer = top;
    fiber.state = State::ready;
  }
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&scheduler_fake_stack, fiber.stack, kStack);
#endif
  cuda_host_switch(&scheduler_stack, fiber.stack_pointer);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(scheduler_fake_stack, nullptr, nullptr);
#endif
  current = nullptr;
}

template <class T>
void shuffle_order(T *order, int n) {
  std::iota(order, order + n, T{0});
  for (int i = n - 1; seed && i > 0; i--) std::swap(order[i], order[random_number() % static_cast<uint32_t>(i + 1)]);
}

// Runs the lanes of a warp until none can go on. False if none could.
bool run_warp(int w) {
  const int first = 32 * w, n = std::min(32, threads_of_block - first);
  int order[32];
  bool any = false;
  for (bool again = true; again;) {
    again = false;
    shuffle_order(order, n);
    for (int i = 0; i < n; i++) {
      Fiber &fiber = fibers[first + order[i]];
      if (fiber.state != State::fresh && fiber.state != State::ready) continue;
      resume(fiber);
      any = again = true;
    }
    if (seed && random_number() % 4 == 0) break;  // others overtake it
  }
  return any;
}

const char *base_name(const char *path) {
  const char *slash = path ? strrchr(path, '/') : nullptr;
  return slash ? slash + 1 : path ? path : "?";
}

void open_barrier() {
  const Fiber *first = nullptr;
  for (int i = 0; i < threads_of_block; i++) {
    Fiber &fiber = fibers[i];
    if (!first) first = &fiber;
    if (first->site.line != fiber.site.line || first->site.file != fiber.site.file) {
      fail("divergent __syncthreads: thread %u waits at %s:%d, thread %u at %s:%d", first->thread, base_name(first->site.file),
           first->site.line, fiber.thread, base_name(fiber.site.file), fiber.site.line);
    }
    fiber.state = State::ready;
  }
  waiting = 0;
  epoch++;
}

[[noreturn]] void report_deadlock() {
  for (int i = 0; i < threads_of_block; i++) {
    const Fiber &fiber = fibers[i];
    if (fiber.state == State::at_collective) {
      fail(
          "divergent warp: thread %u waits at %s:%d for lanes that do not come (%d of %d threads wait at __syncthreads, %d have "
          "returned)",
          fiber.thread, base_name(fiber.site.file), fiber.site.line, waiting, threads_of_block, finished);
    }
  }
  fail("divergent __syncthreads: %d of %d threads wait, %d have returned", waiting, threads_of_block, finished);
}

void run_block() {
  const int warp_count = (threads_of_block + 31) / 32;
  waiting = finished = 0;
  epoch = 0;
  for (int i = 0; i < threads_of_block; i++) fibers[i].state = State::fresh, fibers[i].warp_syncs = 0, fibers[i].site = {};
  for (int w = 0; w < warp_count; w++) {
    warps[w].done = 0;
    for (Meeting &meeting : warps[w].meetings) meeting.arrived = 0;
  }
  int order[kMaxThreads / 32];
  while (finished < threads_of_block) {
    bool any = false;
    shuffle_order(order, warp_count);
    for (int i = 0; i < warp_count; i++) any |= run_warp(order[i]);
    if (waiting == threads_of_block) open_barrier();
    else if (!any) report_deadlock();
  }
}

SharedMemory fill_shared(size_t dynamic_bytes) {
#if defined(__SANITIZE_ADDRESS__)
  ASAN_UNPOISON_MEMORY_REGION(dynamic_memory, sizeof dynamic_memory);
  memset(dynamic_memory, 0xff, dynamic_bytes);
  ASAN_POISON_MEMORY_REGION(dynamic_memory + dynamic_bytes, sizeof dynamic_memory - dynamic_bytes);
#else
  memset(dynamic_memory, 0xff, dynamic_bytes + kCanary);
#endif
  char *const first = __start_cuda_shared, *const end = __stop_cuda_shared;
  if (first) memset(first, 0xff, static_cast<size_t>(end - first));
  return {first, end, dynamic_memory, dynamic_bytes};
}

void check_shared(size_t dynamic_bytes) {
#if defined(__SANITIZE_ADDRESS__)
  (void)dynamic_bytes;
#else
  for (int i = 0; i < kCanary; i++) {
    if (dynamic_memory[dynamic_bytes + static_cast<size_t>(i)] != '\xff')
      fail("write behind the %zu bytes of dynamic shared memory", dynamic_bytes);
  }
#endif
}

void run_launch(const char *name, dim3 grid, dim3 block, size_t shared, const std::function<void()> &body) {
  DeviceAccess access;
  counters.launches++;
  kernel_body = &body;
  kernel_name = name;
  threads_of_block = static_cast<int>(block.x * block.y * block.z);
  random_state = seed * 0x9E3779B97F4A7C15u + counters.launches * 0xD1B54A32D192ED03u + 1;
  for (int i = 0; i < threads_of_block; i++) {
    const auto t = static_cast<uint32_t>(i);
    fibers[i].thread = t;
    fibers[i].warp = &warps[i / 32];
    fibers[i].index = make_uint3(t % block.x, t / block.x % block.y, t / (block.x * block.y));
  }
  for (int w = 0; 32 * w < threads_of_block; w++) {
    const int count = threads_of_block - 32 * w;
    warps[w].first = 32 * w;
    warps[w].present = count >= 32 ? ~0u : (1u << count) - 1;
  }
  variable_blockDim = block;
  variable_gridDim = grid;
  first_block_of_launch = blocks_run + 1;
  const uint64_t count = static_cast<uint64_t>(grid.x) * grid.y * grid.z;
  uint64_t step = 1, offset = 0;
  if (seed && count > 1) {  // every block once, in another order
    offset = random_number() % count;
    do step = 1 + random_number() % count;
    while (std::gcd(step, count) != 1);
  }
  for (uint64_t i = 0; i < count; i++) {
    const uint64_t b = (i * step + offset) % count;
    variable_blockIdx = make_uint3(static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                                   static_cast<unsigned>(b / (static_cast<uint64_t>(grid.x) * grid.y)));
    blocks_run++;
    begin_block(fill_shared(shared));
    run_block();
    check_shared(shared);
    end_block(name);
    counters.blocks++;
  }
  check_canaries();
  kernel_name = nullptr;
}

}  // namespace

void fail(const char *format, ...) {
  fflush(stdout);
  va_list arguments;
  va_start(arguments, format);
  fputs("cuda_host: ", stderr);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  if (kernel_name) fprintf(stderr, "\n  in %s", kernel_name);
  if (current) {
    const uint3 b = variable_blockIdx, t = variable_threadIdx;
    fprintf(stderr, ", block (%u, %u, %u), thread (%u, %u, %u)", b.x, b.y, b.z, t.x, t.y, t.z);
  }
  fputc('\n', stderr);
  _exit(kExit);
}

void set_seed(uint64_t value) {
  seed = value;
  random_state = value * 0x9E3779B97F4A7C15u + 1;
}
bool has_seed() { return seed != 0; }
uint32_t random_number() {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return static_cast<uint32_t>(random_state >> 16);
}
Statistics statistics() { return counters; }
bool in_kernel() { return current != nullptr; }
unsigned lane() { return current->lane(); }
void *dynamic_shared() { return dynamic_memory; }
Place place() { return {current->thread, epoch, current->warp_syncs, blocks_run, first_block_of_launch}; }
bool on_fiber_guard(const void *address) {
  if (!current || !current->stack) return false;
  const char *a = static_cast<const char *>(address);
  return a >= current->stack - kPage && a < current->stack;
}

void barrier(Site site) {
  current->site = site;
  current->state = State::at_barrier;
  waiting++;
  counters.barriers++;
  to_scheduler(false);
}

void collective(unsigned mask, Combine combine, void *argument, Site site, bool orders_memory) {
  Fiber *const fiber = current;
  Warp &warp = *fiber->warp;
  const unsigned bit = 1u << fiber->lane();
  fiber->site = site;
  counters.collectives++;
  if (!(mask & bit))
    fail("%s:%d: lane %u calls a warp function whose mask %08x does not name it", base_name(site.file), site.line, fiber->lane(),
         mask);
  mask &= warp.present;
  if (mask & warp.done)
    fail("%s:%d: the mask %08x names lanes that have returned: %08x", base_name(site.file), site.line, mask, mask & warp.done);
  Meeting &meeting = warp.meetings[__builtin_ctz(mask)];
  if (meeting.arrived == 0) {
    meeting.mask = mask, meeting.combine = combine, meeting.site = site;
  } else if (meeting.mask != mask || meeting.combine != combine || meeting.site.line != site.line ||
             meeting.site.file != site.file) {
    fail("divergent warp: lane %u is at %s:%d with mask %08x, others at %s:%d with mask %08x", fiber->lane(),
         base_name(site.file), site.line, mask, base_name(meeting.site.file), meeting.site.line, meeting.mask);
  }
  meeting.arguments[fiber->lane()] = argument;
  meeting.arrived |= bit;
  if (meeting.arrived != mask) {
    fiber->state = State::at_collective;
    to_scheduler(false);
    return;
  }
  if (combine) combine(meeting.arguments, mask);
  meeting.arrived = 0;
  for (unsigned rest = mask; rest; rest &= rest - 1) {
    Fiber &other = fibers[warp.first + __builtin_ctz(rest)];
    other.state = State::ready;
    if (orders_memory) other.warp_syncs++;
  }
}

void launch(const char *name, const void *kernel, dim3 grid, dim3 block, size_t shared, cudaStream_t stream,
            std::function<void()> body) {
  const OneCall call;
  if (set_error(device_state()) != cudaSuccess) return;
  const uint64_t threads = static_cast<uint64_t>(block.x) * block.y * block.z;
  const bool empty = threads == 0 || grid.x == 0 || grid.y == 0 || grid.z == 0;
  if (empty || threads > kMaxThreads || block.z > 64 || grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535) {
    set_error(cudaErrorInvalidConfiguration);
  } else if (shared > largest_shared(kernel)) {
    set_error(cudaErrorInvalidValue);
  } else {
    enqueue(stream, [=, body = std::move(body)] { run_launch(name, grid, block, shared, body); });
  }
}

void combine_votes(void **of_lane, unsigned mask) {
  unsigned yes = 0;
  for (unsigned rest = mask; rest; rest &= rest - 1)
    yes |= static_cast<Vote *>(of_lane[__builtin_ctz(rest)])->yes ? rest & -rest : 0;
  for (unsigned rest = mask; rest; rest &= rest - 1) static_cast<Vote *>(of_lane[__builtin_ctz(rest)])->out = yes;
}

// Lane l holds rows l / 4 and l / 4 + 8 and columns 2 (l % 4) + {0, 1}; registers 2, 3 of A and 1 of B are 8 columns (rows)
// further.
void combine_mma(void **of_lane, unsigned) {
  const auto half = [](uint32_t word, int high, bool bf16) {
    const auto bits = static_cast<uint16_t>(high ? word >> 16 : word);
    return bf16 ? __uint_as_float(static_cast<unsigned>(bits) << 16) : __half2float(__ushort_as_half(bits));
  };
  float a[16][16], b[16][8];
  for (int l = 0; l < 32; l++) {
    const Mma &m = *static_cast<Mma *>(of_lane[l]);
    for (int i = 0; i < 8; i++) a[l / 4 + 8 * (i / 2 % 2)][2 * (l % 4) + i % 2 + 8 * (i / 4)] = half(m.a[i / 2], i % 2, m.bf16);
    for (int i = 0; i < 4; i++) b[2 * (l % 4) + i % 2 + 8 * (i / 2)][l / 4] = half(m.b[i / 2], i % 2, m.bf16);
  }
  for (int l = 0; l < 32; l++) {
    const Mma &m = *static_cast<Mma *>(of_lane[l]);
    for (int i = 0; i < 4; i++) {
      const int row = l / 4 + 8 * (i / 2), column = 2 * (l % 4) + i % 2;
      for (int k = 0; k < 16; k++) m.d[i] += a[row][k] * b[k][column];
    }
  }
}

}  // namespace cuda_host
