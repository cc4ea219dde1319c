// The controls of host.h for programs that open the shared object: tests of the C API find them by name (api/device_test.cpp).
#include "cuda_host/host.h"

#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED void cuda_host_fail_allocation(int n) { cuda_host::fail_allocation(n); }
EXPORTED void cuda_host_break_device(int on) { cuda_host::break_device(on != 0); }
EXPORTED void cuda_host_set_devices(int count) { cuda_host::set_devices(count); }
EXPORTED int64_t cuda_host_live_bytes() { return cuda_host::statistics().live_bytes; }
