// Opening the backend as users do: through the shared object, with one clear error for whatever is missing.
#include <gtest/gtest.h>
#include <unistd.h>

#include <string>

#include "cuda_host/host.h"
#include "support/expect_error.h"
#include "support/reference.h"
#include "tensor/cuda.h"

namespace moe::test {
namespace {

const std::string kModules = MOE_CUDA_MODULES;
const std::string kOnHost = kModules + "/libmoe_cuda_on_host.so";

TEST(CudaModule, OpensADeviceAndRunsOps) {
  const auto backend = open_cuda("cuda:0", kOnHost);
  EXPECT_STREQ(backend->name(), "cuda:0 sm_80 bf16");
  EXPECT_FALSE(backend->host_memory());
  const Memory block = backend->allocate(3 * sizeof(float));
  float *const memory = reinterpret_cast<float *>(block.get());
  backend->fill(3, 2.5f, memory);
  EXPECT_EQ(backend->sum_of_squares(3, memory), 3 * 6.25);
}

// Errors are thrown on one side and caught on the other.
TEST(CudaModule, ErrorsPassTheBorder) {
  EXPECT_FAILS(open_cuda("cuda:7", kOnHost), Code::device, "device 7: expected 0 to 0");
  const auto backend = open_cuda("cuda", kOnHost);
  EXPECT_FAILS(backend->dropout(1, 1, {}, 2.0f, 0, 0, {}), Code::invalid, "probability");
}

TEST(CudaModule, SaysThatTheSharedObjectIsMissing) {
  EXPECT_FAILS(open_cuda("cuda", kModules + "/libmoe_cuda_missing.so"), Code::unsupported,
               "the CUDA part of the library is missing");
  EXPECT_FAILS(open_cuda("cuda", "libmoe_cuda_missing.so"), Code::unsupported, "nor where the system looks");
}

TEST(CudaModule, RefusesOneOfAnotherBuild) {
  EXPECT_FAILS(open_cuda("cuda", kModules + "/libmoe_cuda_of_another_build.so"), Code::unsupported,
               "of another build: expected version");
  EXPECT_FAILS(open_cuda("cuda", "libc.so.6"), Code::unsupported, "not the CUDA part");
}

TEST(CudaModule, RefusesOtherDevices) {
  for (const char *device : {"", "cpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1x", "cuda:99999999999"})
    EXPECT_FAILS(open_cuda(device, kOnHost), Code::invalid, "expected cuda or cuda:N");
}

// The object for real devices: on a machine without one the error says which part is missing.
TEST(CudaModule, TheRealOneSaysWhatIsMissing) {
  if (access(MOE_CUDA_LIBRARY, F_OK) != 0) GTEST_SKIP() << "libmoe_cuda was not built: there is no nvcc";
  try {
    const auto backend = open_cuda("cuda", MOE_CUDA_LIBRARY);
    std::string name = backend->name();
    EXPECT_EQ(name.rfind("cuda:0 sm_", 0), 0u);
  } catch (const Error &error) {
    EXPECT_EQ(error.code(), Code::device) << error.message();
    EXPECT_TRUE(error.message().find("driver") != std::string::npos) << error.message();
    std::cout << "[ message  ] " << error.message() << "\n";
  }
}

}  // namespace
}  // namespace moe::test
