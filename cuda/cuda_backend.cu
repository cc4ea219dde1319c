// The device itself: opening it, its memory, and what it has to say when the host waits for it.
#include "cuda/cuda_backend.h"

#include "base/error.h"
#include "cuda/check_index.h"
#include "cuda/scratch.h"

namespace moe::cuda {
namespace {

void require_driver_and_device(int device) {
  int driver = 0, count = 0;
  check(cudaDriverGetVersion(&driver), "version of the driver");
  if (driver == 0)
    fail(Code::device, "cuda: no driver: install the NVIDIA driver of this system (the library needs CUDA ",
         CUDART_VERSION / 1000, ")");
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaErrorInsufficientDriver) {
    fail(Code::device, "cuda: the driver is too old: expected CUDA ", CUDART_VERSION / 1000, " or later, found ", driver / 1000,
         ".", driver % 1000 / 10);
  }
  if (error == cudaErrorNoDevice || (error == cudaSuccess && count == 0))
    fail(Code::device, "cuda: the driver is there, but it finds no device");
  check(error, "the devices of the driver");
  if (device < 0 || device >= count) fail(Code::device, "cuda: device ", device, ": expected 0 to ", count - 1);
}

int attribute(int device, cudaDeviceAttr which) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, which, device), "an attribute of the device");
  return value;
}

}  // namespace

CudaBackend::CudaBackend(int device) : device_(device) {
  require_driver_and_device(device);
  select();
  const int major = attribute(device, cudaDevAttrComputeCapabilityMajor),
            minor = attribute(device, cudaDevAttrComputeCapabilityMinor);
  if (10 * major + minor < 75)
    fail(Code::device, "cuda: device ", device, ": expected compute capability 7.5 or later, found ", major, ".", minor);
  tensor_cores_ = major >= 8;
  name_ = text("cuda:", device, " sm_", major, minor, tensor_cores_ ? " bf16" : "");
  stream_.create();
  staging_.create();
  blas_.create(stream_.get());
  bad_index_ = DeviceBuffer(kIndexKinds * sizeof(BadIndex));
  check(cudaMemsetAsync(bad_index_.data(), 0xff, bad_index_.bytes(), stream_.get()), "memory of the device");
}

CudaBackend::~CudaBackend() {
  cudaSetDevice(device_);
  if (stream_.get()) cudaStreamSynchronize(stream_.get());
}

Memory CudaBackend::allocate(size_t bytes) {
  select();
  void *memory = nullptr;
  const cudaError_t error = cudaMalloc(&memory, std::max<size_t>(bytes, 1));
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    size_t free_bytes = 0, total = 0;
    cudaMemGetInfo(&free_bytes, &total);
    fail(Code::no_memory, name_, ": ", bytes, " bytes are needed, ", free_bytes, " of ", total, " are free");
  }
  check(error, "memory of the device");
  return Memory(static_cast<std::byte *>(memory), [](std::byte *data) noexcept { cudaFree(data); });  // of whatever device
}

uint64_t CudaBackend::scratch_bytes(const PassSize &size) const {
  const auto floats = [](int64_t count) { return static_cast<size_t>(count) * sizeof(float); };
  const size_t largest = std::max({mixture_scratch(size), terms_scratch(size), outer_product_scratch(size),
                                   floats(size.tokens * size.heads),          // backward pass of attention
                                   floats(size.tokens * (size.experts + 1)),  // of the router
                                   sum_of_squares_scratch(size)});
  return GrowingBuffer::size_for(largest) + GrowingBuffer::size_for(cross_entropy_scratch(size));
}

void CudaBackend::upload(void *to, const void *from, size_t bytes) {
  select();
  staging_.upload(stream_.get(), to, from, bytes);
}
void CudaBackend::download(void *to, const void *from, size_t bytes) {
  select();
  if (bytes > 0) check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream_.get()), "copy from the device");
  synchronize();
}
void CudaBackend::copy_bytes(void *to, const void *from, size_t bytes) {
  select();
  if (bytes > 0) check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_.get()), "copy on the device");
}

void CudaBackend::synchronize() {
  select();
  BadIndex bad[kIndexKinds];
  check(cudaMemcpyAsync(bad, bad_index_.data(), sizeof bad, cudaMemcpyDeviceToHost, stream_.get()), "copy from the device");
  check(cudaStreamSynchronize(stream_.get()), "the work of the device");
  for (int kind = 0; kind < kIndexKinds; kind++) {
    if (bad[kind] == kNoBadIndex) continue;
    check(cudaMemsetAsync(bad_index_.data(), 0xff, bad_index_.bytes(), stream_.get()), "memory of the device");
    const uint64_t position = bad[kind] >> 32;
    const auto found = static_cast<int32_t>(bad[kind]);
    if (kind == static_cast<int>(IndexOf::embedding)) {
      fail(Code::invalid, "embedding: token ", position, ": expected an id below ", index_limits_[kind], ", found ", found);
    }
    fail(Code::invalid, "cross_entropy: label of row ", position, ": expected 0 to ", index_limits_[kind] - 1, ", found ", found);
  }
}

}  // namespace moe::cuda
