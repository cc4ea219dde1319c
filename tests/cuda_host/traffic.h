// Counts of what warps ask of memory, where the kernels were compiled for the checker of races (traffic.cpp).
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace cuda_host {

struct SharedAccess {  // of one instruction of a kernel
  std::string kernel;
  uintptr_t instruction = 0;  // for addr2line -e of the program
  bool writes = false;
  size_t bytes = 0;                    // of a lane
  uint64_t wavefronts = 0, least = 0;  // of all warps; and without bank conflicts
};
struct DeviceReads {                // of all warps of a kernel
  uint64_t sectors = 0, bytes = 0;  // of 32 bytes that a warp touches, and the different bytes that it reads
};
struct Traffic {
  std::vector<SharedAccess> shared;
  std::map<std::string, DeviceReads> device;  // by kernel
};

// Forgets what was counted, and counts from now on or not.
void count_traffic(bool on);
Traffic traffic();

}  // namespace cuda_host
