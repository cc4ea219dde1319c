// The CUDA runtime on the CPU: kernels compiled by the host compiler run thread by thread, one block at a time, and what is
// undefined on a device is an error here that ends the process with kExit and one message. What is seen in every mode: divergent
// barriers and warp collectives, shuffles from lanes outside the mask, use of freed memory, writes outside of device or shared
// memory; all memory that nobody has written holds NaN. Controls for tests:
#pragma once
#include <cstddef>
#include <cstdint>

namespace cuda_host {

constexpr int kExit = 99;

// Order in which warps, lanes and blocks run, and in asynchronous mode how far streams have come. 0 = by number.
void set_seed(uint64_t seed);
// Device memory is inaccessible to the host: a pointer of the device read by the host ends the process.
void set_strict(bool on);
// Streams keep their work until something waits for it (a seed lets them run ahead at random).
void set_async(bool on);
// The n-th device allocation from now on fails (1 = the next); 0 = none.
void fail_allocation(int n);
// Every call fails from now on, as after an illegal access on a device; false = a new device.
void break_device(bool on);
// 0 = no device; negative = no driver.
void set_devices(int count);
// Compute capability of the device, 80 by default.
void set_capability(int capability);

struct Statistics {
  uint64_t launches, blocks, switches, barriers, collectives, accesses, waits;  // waits of the host
  int64_t live_allocations, live_bytes;
};
Statistics statistics();
// True where the kernels were compiled for the checker of races and uninitialised reads (races.cpp).
bool checks_races();

}  // namespace cuda_host
