// Uploads through the ring of pinned memory: what arrives, and when the host waits.
#include "cuda/staging.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "cuda/cuda_backend.h"
#include "cuda_host/host.h"
#include "support/reference.h"

namespace moe::test {
namespace {

using cuda::CudaBackend;
using cuda::Staging;

struct CudaStaging : testing::Test {
  CudaStaging() { cuda_host::set_async(true); }
  ~CudaStaging() override {
    cuda_host::set_seed(0);
    cuda_host::set_async(false);
  }
};

std::vector<uint8_t> random_bytes(size_t count, uint64_t seed) {
  std::vector<uint8_t> bytes(count);
  for (size_t i = 0; i < count; i++) bytes[i] = static_cast<uint8_t>(random_bits(seed, i));
  return bytes;
}

// One array of the host is the source of all uploads, each of which has changed it before.
void expect_arrives(CudaBackend &device, const std::vector<size_t> &sizes, uint64_t seed) {
  std::vector<Memory> memory;
  std::vector<uint8_t> source;
  for (size_t i = 0; i < sizes.size(); i++) {
    memory.push_back(device.allocate(sizes[i]));
    source = random_bytes(sizes[i], seed + i);
    device.upload(memory.back().get(), source.data(), sizes[i]);
    std::fill(source.begin(), source.end(), uint8_t{0});
  }
  for (size_t i = 0; i < sizes.size(); i++) {
    std::vector<uint8_t> got(sizes[i]);
    device.download(got.data(), memory[i].get(), sizes[i]);
    EXPECT_EQ(got, random_bytes(sizes[i], seed + i)) << sizes[i] << " bytes";
  }
}

TEST_F(CudaStaging, UploadsOfAnySizeArrive) {
  constexpr size_t slot = Staging::kSlotBytes;
  for (const uint64_t seed : {0, 1, 2}) {
    cuda_host::set_seed(seed);
    CudaBackend device(0);
    expect_arrives(device, {1, 300, slot, 7, slot - 1, slot + 1, 5 * slot + 3, 1000, slot / 2, slot / 2, slot / 2}, seed);
  }
}

TEST_F(CudaStaging, UploadsOfSeveralThreadsArrive) {
  CudaBackend device(0);
  std::vector<std::thread> threads;
  for (uint64_t i = 0; i < 3; i++) {
    threads.emplace_back([&device, i] {
      expect_arrives(device, {100, 2 * Staging::kSlotBytes + 5, 40, Staging::kSlotBytes}, 10 * i);
    });
  }
  for (std::thread &thread : threads) thread.join();
}

TEST_F(CudaStaging, TheHostWaitsOnlyWhereAllSlotsAreOnTheirWay) {
  CudaBackend device(0);
  EXPECT_EQ(device.staging_bytes(), Staging::kBytes);
  const Memory memory = device.allocate(Staging::kBytes);
  const std::vector<uint8_t> bytes(Staging::kBytes, 1);
  const uint64_t before = cuda_host::statistics().waits;
  device.upload(memory.get(), bytes.data(), bytes.size());
  EXPECT_EQ(cuda_host::statistics().waits, before);
  device.upload(memory.get(), bytes.data(), 1);
  EXPECT_EQ(cuda_host::statistics().waits, before + 1);
  device.upload(memory.get(), bytes.data(), 1);  // into the same slot
  EXPECT_EQ(cuda_host::statistics().waits, before + 1);
}

}  // namespace
}  // namespace moe::test
