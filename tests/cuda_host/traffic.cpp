// What warps ask of shared and device memory, from the functions that `clang++ -fsanitize=thread` calls at every access. The n-th
// time that a lane passes an instruction belongs together with the n-th time of the other lanes of its warp; neighbouring words
// that every lane takes in turn, aligned as a whole, are one access of 8 or 16 bytes, as nvcc makes of uint2 and float4. The
// rules of devices: shared memory has 32 banks of 4 bytes; an access takes as many wavefronts as a bank has different words to
// give, at 8 bytes a lane for half a warp at a time and at 16 bytes for a quarter. Device memory is moved in sectors of 32 bytes.
#include "cuda_host/traffic.h"

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <unordered_map>
#include <unordered_set>

#include "cuda_host/internal.h"

namespace cuda_host {
namespace {

struct Access {
  const void *instruction;
  uintptr_t address;
  size_t bytes;
  bool writes;
};
using Accesses = std::vector<Access>;
struct Bytes {
  uintptr_t begin, end;
};
struct Warp {
  std::array<Accesses, 32> shared;  // of each lane
  std::vector<Bytes> reads;         // of device memory
};

bool counting;
SharedMemory shared_memory;
std::vector<Warp> warps;  // of the running block
std::map<std::pair<std::string, const void *>, SharedAccess> shared_accesses;
std::map<std::string, DeviceReads> device_reads;

// Do the accesses from i on, `count` of them, form one?
bool form_one(const Accesses &lane, size_t i, size_t count) {
  const Access &first = lane[i];
  if (i + count > lane.size() || first.address % (first.bytes * count) != 0) return false;
  for (size_t j = 1; j < count; j++) {
    const Access &next = lane[i + j];
    if (next.bytes != first.bytes || next.address != first.address + j * first.bytes || next.writes != first.writes) return false;
  }
  return true;
}

// Joins `count` accesses of `bytes` where they form one each time that any lane passes the first of them.
void join(size_t bytes, size_t count) {
  std::unordered_set<const void *> single;
  for (const Warp &warp : warps)
    for (const Accesses &lane : warp.shared)
      for (size_t i = 0; i < lane.size(); i++)
        if (lane[i].bytes == bytes && !form_one(lane, i, count)) single.insert(lane[i].instruction);
  for (Warp &warp : warps) {
    for (Accesses &lane : warp.shared) {
      size_t kept = 0;
      for (size_t i = 0; i < lane.size(); i++) {
        lane[kept] = lane[i];
        if (lane[i].bytes == bytes && single.count(lane[i].instruction) == 0) lane[kept].bytes *= count, i += count - 1;
        kept++;
      }
      lane.resize(kept);
    }
  }
}

using Request = std::array<const Access *, 32>;  // by lane; nullptr where it does not take part

uint64_t wavefronts(const Request &request, size_t first, size_t end) {
  std::vector<uintptr_t> words;
  for (size_t lane = first; lane < end; lane++) {
    const Access *a = request[lane];
    if (!a) continue;
    for (uintptr_t word = a->address / 4; word <= (a->address + a->bytes - 1) / 4; word++) words.push_back(word);
  }
  std::sort(words.begin(), words.end());
  words.erase(std::unique(words.begin(), words.end()), words.end());
  uint64_t of_bank[32] = {};
  for (const uintptr_t word : words) of_bank[word % 32]++;
  return *std::max_element(of_bank, of_bank + 32);
}

void count_shared(const std::string &kernel, const Warp &warp) {
  std::unordered_map<const void *, std::vector<Request>> requests;  // by instruction
  for (size_t lane = 0; lane < 32; lane++) {
    std::unordered_map<const void *, size_t> passed;
    for (const Access &a : warp.shared[lane]) {
      std::vector<Request> &of_instruction = requests[a.instruction];
      const size_t n = passed[a.instruction]++;
      if (n == of_instruction.size()) of_instruction.push_back({});
      of_instruction[n][lane] = &a;
    }
  }
  for (const auto &[instruction, all] : requests) {
    SharedAccess &counted = shared_accesses[{kernel, instruction}];
    const Access &one = **std::find_if(all[0].begin(), all[0].end(), [](const Access *a) { return a != nullptr; });
    Dl_info program{};
    dladdr(instruction, &program);
    counted.kernel = kernel, counted.writes = one.writes, counted.bytes = one.bytes;
    counted.instruction = reinterpret_cast<uintptr_t>(instruction) - reinterpret_cast<uintptr_t>(program.dli_fbase) - 1;
    const size_t at_once = one.bytes == 16 ? 8 : one.bytes == 8 ? 16 : 32;
    for (const Request &request : all) {
      for (size_t first = 0; first < 32; first += at_once) {
        const uint64_t n = wavefronts(request, first, first + at_once);
        counted.wavefronts += n, counted.least += n > 0;
      }
    }
  }
}

void count_reads(DeviceReads &counted, std::vector<Bytes> &reads) {
  std::sort(reads.begin(), reads.end(), [](const Bytes &a, const Bytes &b) { return a.begin < b.begin; });
  uintptr_t sector = 0, end = 0;  // the last sector counted, and the end of the bytes
  for (const Bytes &r : reads) {
    for (uintptr_t s = std::max(r.begin / 32, sector + 1); s <= (r.end - 1) / 32; s++) counted.sectors++, sector = s;
    if (r.end <= end) continue;
    counted.bytes += r.end - std::max(r.begin, end);
    end = r.end;
  }
}

}  // namespace

void count_traffic(bool on) {
  counting = on;
  shared_accesses.clear();
  device_reads.clear();
}
Traffic traffic() {
  Traffic all;
  for (const auto &[key, counted] : shared_accesses) all.shared.push_back(counted);
  all.device = device_reads;
  return all;
}

void begin_traffic(const SharedMemory &memory) {
  shared_memory = memory;
  warps.clear();
}
void record_traffic(const void *instruction, const void *address, size_t bytes, bool writes) {
  if (!counting || !in_kernel()) return;
  const char *a = static_cast<const char *>(address);
  const bool shared = (a >= shared_memory.statics && a < shared_memory.statics_end) ||
                      (a >= shared_memory.dynamic && a < shared_memory.dynamic + shared_memory.dynamic_bytes);
  if (!shared && (writes || !in_device_memory(a))) return;  // the stack, constants
  const uint32_t thread = place().thread;
  const auto at = reinterpret_cast<uintptr_t>(address);
  if (warps.size() <= thread / 32) warps.resize(thread / 32 + 1);
  Warp &warp = warps[thread / 32];
  if (shared) warp.shared[thread % 32].push_back({instruction, at, bytes, writes});
  else warp.reads.push_back({at, at + bytes});
}
void end_traffic(const char *kernel) {
  if (!counting) return;
  join(8, 2);
  join(4, 4);
  join(4, 2);
  for (Warp &warp : warps) {
    count_shared(kernel, warp);
    count_reads(device_reads[kernel], warp.reads);
  }
}

}  // namespace cuda_host
