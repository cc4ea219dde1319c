// Finds races, reads of uninitialised memory and accesses outside of allocations. The kernels are compiled with
// `clang++ -fsanitize=thread`, which calls a function at every access to memory; those functions are defined here instead of
// by ThreadSanitizer's library. Each byte of device and shared memory remembers its last write and its last read. Two accesses
// of one launch, one of them a write, race unless they are of one thread, or of one block with a __syncthreads between them,
// or of one warp with a __syncwarp between them, or both atomic. (Shuffles and votes order no memory.)
#include <string.h>

#include <vector>

#include "cuda_host/internal.h"

namespace cuda_host {
namespace {

// block 32 | epoch 12 | warp_syncs 6 | thread 10 | flags 4; block 0 = from outside of kernels
struct Cell {
  uint64_t write = 0, read = 0;
};
constexpr uint64_t kDefined = 1, kAtomic = 2, kManyLanes = 4, kManyWarps = 8;

uint32_t block_of(uint64_t record) { return static_cast<uint32_t>(record >> 32); }
uint32_t epoch_of(uint64_t record) { return record >> 20 & 0xfff; }
uint32_t syncs_of(uint64_t record) { return record >> 14 & 0x3f; }
uint32_t thread_of(uint64_t record) { return record >> 4 & 0x3ff; }
uint64_t record_of(const Place &p, uint64_t flags) {
  return static_cast<uint64_t>(p.block) << 32 | static_cast<uint64_t>(p.epoch & 0xfff) << 20 |
         static_cast<uint64_t>(p.warp_syncs & 0x3f) << 14 | static_cast<uint64_t>(p.thread) << 4 | flags;
}

SharedMemory shared;
std::vector<Cell> shared_cells;

// The cells of `bytes` at `address` of an allocation; nullptr where it is not the device's.
Cell *device_memory(const void *address, size_t bytes) {
  Allocation *a = owner(address);
  if (!a) return nullptr;
  const size_t offset = static_cast<size_t>(static_cast<const char *>(address) - a->data);
  if (!a->live || offset + bytes > a->bytes) return nullptr;
  if (!a->marks) a->marks = new Cell[a->bytes];
  return static_cast<Cell *>(a->marks) + offset;
}

[[noreturn]] void report(const char *what, bool in_shared, size_t bytes, uint64_t other) {
  if (other)
    fail("%s of %zu bytes of %s memory; the other access: thread %u of %s block", what, bytes, in_shared ? "shared" : "device",
         thread_of(other), block_of(other) == place().block ? "this" : "another");
  fail("%s of %zu bytes of %s memory", what, bytes, in_shared ? "shared" : "device");
}

struct Access {
  uint64_t mine;
  uint32_t first_block;
  bool is_shared;

  // Is the access `other` unordered with this one?
  bool conflicts(uint64_t other) const {
    if (block_of(other) < first_block) return false;  // of an earlier launch, or from outside
    if (block_of(other) != block_of(mine)) return !is_shared;
    if (epoch_of(other) != epoch_of(mine) || other & kManyWarps) return epoch_of(other) == epoch_of(mine);
    if (thread_of(other) / 32 != thread_of(mine) / 32) return true;
    if (syncs_of(other) != syncs_of(mine)) return false;
    return other & kManyLanes || thread_of(other) != thread_of(mine);
  }
  // (An atomic access is a write; it leaves no read behind.)
  void read(Cell &c, size_t bytes) const {
    if (!(c.write & kDefined)) report("uninitialised read", is_shared, bytes, 0);
    if (conflicts(c.write)) report("race: read after a write", is_shared, bytes, c.write);
    uint64_t many = 0;
    if (block_of(c.read) == block_of(mine) && epoch_of(c.read) == epoch_of(mine)) {
      many = c.read & kManyWarps;
      if (thread_of(c.read) / 32 != thread_of(mine) / 32) many |= kManyWarps;
      else if (syncs_of(c.read) == syncs_of(mine))
        many |= (c.read & kManyLanes) | (thread_of(c.read) != thread_of(mine) ? kManyLanes : 0);
    } else if (block_of(c.read) >= first_block && block_of(c.read) != block_of(mine)) {
      return;  // the first reader of another block stays: any write of this launch conflicts with it
    }
    c.read = mine | many;
  }
  void write(Cell &c, size_t bytes) const {
    if ((mine & kAtomic) && !(c.write & kDefined)) report("uninitialised read", is_shared, bytes, 0);
    if (!(mine & c.write & kAtomic) && conflicts(c.write)) report("race: two writes", is_shared, bytes, c.write);
    if (conflicts(c.read)) report("race: write after a read", is_shared, bytes, c.read);
    c.write = mine | kDefined;
  }
};

void access(void *address, size_t bytes, bool writes, bool atomic) {
  if (!in_kernel()) return;
  counters.accesses++;
  char *const a = static_cast<char *>(address);
  const bool dynamic = a >= shared.dynamic && a < shared.dynamic + (size_t{227} << 10),
             is_static = a >= shared.statics && a < shared.statics_end;
  Cell *cells = nullptr;
  if (dynamic) {
    const size_t offset = static_cast<size_t>(a - shared.dynamic);
    if (offset + bytes > shared.dynamic_bytes)
      fail("access of %zu bytes, %zu bytes into the %zu of dynamic shared memory", bytes, offset, shared.dynamic_bytes);
    cells = &shared_cells[static_cast<size_t>(shared.statics_end - shared.statics) + offset];
  } else if (is_static) {
    cells = &shared_cells[static_cast<size_t>(a - shared.statics)];
  } else if (in_device_memory(a)) {
    cells = device_memory(a, bytes);
    if (!cells) fail("%s of %zu bytes outside of device allocations", writes ? "write" : "read", bytes);
    if (reinterpret_cast<uintptr_t>(a) % bytes != 0) fail("misaligned access of %zu bytes", bytes);
  } else {
    return;  // the stack, constants
  }
  const Place here = place();
  const Access now{record_of(here, atomic ? kAtomic : 0), here.first_block, dynamic || is_static};
  const auto act = [&](Cell &c) { writes ? now.write(c, bytes) : now.read(c, bytes); };
  size_t same = 1;  // bytes with one history, nearly always all
  while (same < bytes && cells[same].write == cells[0].write && cells[same].read == cells[0].read) same++;
  if (same == bytes) {
    act(cells[0]);
    for (size_t i = 1; i < bytes; i++) cells[i] = cells[0];
  } else {
    for (size_t i = 0; i < bytes; i++) act(cells[i]);
  }
}

// Filling or copying by a function, which the compiler makes of loops: bytes of any alignment.
void access_range(const void *address, size_t bytes, bool writes) {
  char *const a = static_cast<char *>(const_cast<void *>(address));
  for (size_t i = 0; i < bytes; i++) access(a + i, 1, writes, false);
}

template <class Change>
void for_cells(const void *address, size_t bytes, Change change) {
  if (Cell *cells = bytes > 0 ? device_memory(address, bytes) : nullptr)
    for (size_t i = 0; i < bytes; i++) change(cells[i]);
}

}  // namespace

bool checks_races() { return true; }

void begin_block(const SharedMemory &memory) {
  shared = memory;
  shared_cells.assign(static_cast<size_t>(memory.statics_end - memory.statics) + memory.dynamic_bytes, Cell{});
  begin_traffic(memory);
}
void end_block(const char *kernel) { end_traffic(kernel); }
void mark_defined(void *address, size_t bytes) {
  for_cells(address, bytes, [](Cell &c) { c = {kDefined, 0}; });
}
void forget_marks(void *allocation) {
  Allocation *a = owner(allocation);
  delete[] static_cast<Cell *>(a->marks);
  a->marks = nullptr;
}
bool is_defined(const void *address, size_t bytes) {
  bool all = true;
  for_cells(address, bytes, [&](const Cell &c) { all &= (c.write & kDefined) != 0; });
  return all;
}
void copy_marks(void *to, const void *from, size_t bytes) {
  for (size_t i = 0; i < bytes; i++) {
    const Cell *source = device_memory(static_cast<const char *>(from) + i, 1);
    *device_memory(static_cast<char *>(to) + i, 1) = {source->write & kDefined, 0};
  }
}
void atomic_access(void *address, size_t bytes) { access(address, bytes, true, true); }

}  // namespace cuda_host

using cuda_host::access;
using cuda_host::access_range;
using cuda_host::record_traffic;

extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit() {}
#define CUDA_HOST_RECORD(address, bytes, writes) record_traffic(__builtin_return_address(0), address, bytes, writes)
#define CUDA_HOST_READ(bytes, name) \
  void __tsan_##name##bytes(void *a) { CUDA_HOST_RECORD(a, bytes, false), access(a, bytes, false, false); }
#define CUDA_HOST_WRITE(bytes, name) \
  void __tsan_##name##bytes(void *a) { CUDA_HOST_RECORD(a, bytes, true), access(a, bytes, true, false); }
#define CUDA_HOST_READ_WRITE(bytes, name)                              \
  void __tsan_##name##bytes(void *a) {                                 \
    CUDA_HOST_RECORD(a, bytes, false), access(a, bytes, false, false); \
    CUDA_HOST_RECORD(a, bytes, true), access(a, bytes, true, false);   \
  }
#define CUDA_HOST_ACCESS(bytes)                                                                                              \
  CUDA_HOST_READ(bytes, read)                                                                                                \
  CUDA_HOST_READ(bytes, unaligned_read) CUDA_HOST_READ(bytes, volatile_read) CUDA_HOST_WRITE(bytes, write)                   \
      CUDA_HOST_WRITE(bytes, unaligned_write) CUDA_HOST_WRITE(bytes, volatile_write) CUDA_HOST_READ_WRITE(bytes, read_write) \
          CUDA_HOST_READ_WRITE(bytes, unaligned_read_write)
CUDA_HOST_ACCESS(1)
CUDA_HOST_ACCESS(2)
CUDA_HOST_ACCESS(4)
CUDA_HOST_ACCESS(8)
CUDA_HOST_ACCESS(16)
void __tsan_read_range(void *a, unsigned long bytes) { access_range(a, bytes, false); }
void __tsan_write_range(void *a, unsigned long bytes) { access_range(a, bytes, true); }
void __tsan_vptr_update(void **, void *) {}
void __tsan_vptr_read(void **) {}
// clang 14 calls memcpy, memset and memmove; the build renames them to these.
void *__tsan_memcpy(void *to, const void *from, unsigned long bytes) {
  CUDA_HOST_RECORD(from, bytes, false), access_range(from, bytes, false);
  CUDA_HOST_RECORD(to, bytes, true), access_range(to, bytes, true);
  return memcpy(to, from, bytes);
}
void *__tsan_memset(void *to, int value, unsigned long bytes) {
  CUDA_HOST_RECORD(to, bytes, true), access_range(to, bytes, true);
  return memset(to, value, bytes);
}
void *__tsan_memmove(void *to, const void *from, unsigned long bytes) {
  CUDA_HOST_RECORD(from, bytes, false), access_range(from, bytes, false);
  CUDA_HOST_RECORD(to, bytes, true), access_range(to, bytes, true);
  return memmove(to, from, bytes);
}

}  // extern "C"
