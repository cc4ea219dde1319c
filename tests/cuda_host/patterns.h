// Kernels that go through memory in one way each, for the test of the counts of traffic.h. Each runs one warp, whose lanes store
// to shared memory and, after a barrier, read what another lane has stored there; or read from device memory.
#pragma once

namespace cuda_host::patterns {

void shared_floats(int stride);  // lane l takes float l * stride
void shared_halves(int stride);  // 16 bits
void shared_float4(int stride);
void device_floats(int stride);
void device_float4(int stride);

}  // namespace cuda_host::patterns
