// Bank conflicts and the use of device memory's sectors, counted while the kernels run: what warps ask of shared memory by the
// tiles of attention and of products takes no more wavefronts than its bytes need, and what they load from device memory no more
// sectors.
#include "cuda_host/traffic.h"

#include <gtest/gtest.h>

#include <cmath>

#include "cpu/mixture_problem.h"
#include "cuda/cuda_backend.h"
#include "cuda_host/host.h"
#include "cuda_host/patterns.h"
#include "support/device_arrays.h"
#include "support/mirrored_backend.h"
#include "support/stored_matrix.h"

namespace moe::test {
namespace {

using cuda::CudaBackend;
using cuda_host::Traffic;

struct MemoryTraffic : testing::Test {
  void SetUp() override {
    if (!cuda_host::checks_races()) GTEST_SKIP() << "counted by the programs whose kernels are compiled for the checker of races";
    cuda_host::count_traffic(true);
  }
  ~MemoryTraffic() override {
    cuda_host::count_traffic(false);
    cuda_host::set_capability(80);
  }
};

// Of each access to shared memory that run() makes, by one warp.
void expect_shared(size_t bytes, uint64_t wavefronts, uint64_t least, const std::function<void()> &run) {
  cuda_host::count_traffic(true);
  run();
  const Traffic counted = cuda_host::traffic();
  EXPECT_EQ(counted.shared.size(), 2u);  // it stores and reads
  for (const cuda_host::SharedAccess &access : counted.shared) {
    EXPECT_EQ(access.bytes, bytes);
    EXPECT_EQ(access.wavefronts, wavefronts);
    EXPECT_EQ(access.least, least);
  }
}
void expect_reads(uint64_t sectors, uint64_t bytes, const std::function<void()> &run) {
  cuda_host::count_traffic(true);
  run();
  const Traffic counted = cuda_host::traffic();
  ASSERT_EQ(counted.device.size(), 1u);
  EXPECT_EQ(counted.device.begin()->second.sectors, sectors);
  EXPECT_EQ(counted.device.begin()->second.bytes, bytes);
}

TEST_F(MemoryTraffic, IsCountedAsDevicesMoveIt) {
  using namespace cuda_host::patterns;
  expect_shared(4, 1, 1, [] { shared_floats(1); });
  expect_shared(4, 2, 1, [] { shared_floats(2); });
  expect_shared(4, 32, 1, [] { shared_floats(32); });
  expect_shared(4, 1, 1, [] { shared_floats(33); });
  expect_shared(2, 1, 1, [] { shared_halves(1); });
  expect_shared(2, 16, 1, [] { shared_halves(32); });
  expect_shared(16, 4, 4, [] { shared_float4(1); });
  expect_shared(16, 8, 4, [] { shared_float4(2); });
  expect_reads(4, 128, [] { device_floats(1); });
  expect_reads(8, 128, [] { device_floats(2); });
  expect_reads(32, 128, [] { device_floats(8); });
  expect_reads(1, 4, [] { device_floats(0); });
  expect_reads(16, 512, [] { device_float4(1); });
  expect_reads(32, 512, [] { device_float4(2); });
}

// Rows on the device.
Rows put_rows(DeviceArrays &arrays, int64_t tokens, int64_t n, DType type, uint64_t seed) {
  const std::vector<float> values = random_floats(tokens * n, seed);
  if (type == DType::f32) return f32_rows(arrays.put(values), n);
  return {arrays.put(to_bf16(values)), DType::bf16, n};
}

// No bank conflict in these kernels, which have run since count_traffic(true); and of the sectors that a warp reads it uses at
// least this share.
void expect_no_waste(const std::vector<std::string> &kernels, double share) {
  const Traffic counted = cuda_host::traffic();
  for (const std::string &name : kernels) {
    bool seen = false;
    for (const cuda_host::SharedAccess &access : counted.shared) {
      if (access.kernel.find(name) == std::string::npos) continue;
      seen = true;
      EXPECT_EQ(access.wavefronts, access.least) << name << (access.writes ? " writes " : " reads ") << access.bytes
                                                 << " bytes a lane; addr2line -e this program " << std::hex << access.instruction;
    }
    EXPECT_TRUE(seen) << name << " has not run";
    for (const auto &[kernel, reads] : counted.device) {
      if (kernel.find(name) == std::string::npos) continue;
      EXPECT_GE(static_cast<double>(reads.bytes), share * 32 * static_cast<double>(reads.sectors)) << name;
    }
  }
}

struct AttentionRun {
  CudaBackend device{0};
  DeviceArrays arrays{device};
  AttentionShape shape;
  Rows q, k, v, out, dout, dq, dk, dv;
  AttentionSequence sequence;
  float *log_sum_exp;

  AttentionRun(DType type, int64_t h, int64_t queries, int64_t keys) : shape{2, 1, h, 0, 0.1f} {
    q = put_rows(arrays, queries, 2 * h, type, 1);
    k = put_rows(arrays, keys, h, type, 2);
    v = put_rows(arrays, keys, h, type, 3);
    out = put_rows(arrays, queries, 2 * h, type, 4);
    sequence = {0, queries, k, v, keys};
    log_sum_exp = arrays.take<float>(static_cast<size_t>(queries * 2));
    cuda_host::count_traffic(true);
    device.attention(shape, {&sequence, 1}, q, out, log_sum_exp);
    device.synchronize();
  }
  void backward() {
    const Rows dout = put_rows(arrays, sequence.queries, q.stride, DType::f32, 5),
               dq = put_rows(arrays, sequence.queries, q.stride, DType::f32, 6);
    const Rows dk = put_rows(arrays, sequence.key_count, k.stride, DType::f32, 7),
               dv = put_rows(arrays, sequence.key_count, k.stride, DType::f32, 8);
    cuda_host::count_traffic(true);
    device.attention_backward(shape, {&sequence, 1}, q, out, log_sum_exp, dout, dq, dk, dv);
    device.synchronize();
  }
};

TEST_F(MemoryTraffic, AttentionInF32) {
  for (const int64_t h : {64, 128, 256}) {
    AttentionRun run(DType::f32, h, 33, 33);
    expect_no_waste({"attention_kernel"}, 0.99);
    run.backward();
    expect_no_waste({"query_gradient_kernel", "key_gradient_kernel"}, 0.99);
  }
}

TEST_F(MemoryTraffic, AttentionOnTensorCores) {
  for (const int64_t h : {64, 128}) {
    AttentionRun run(DType::bf16, h, 70, 70);
    expect_no_waste({"attention_bf16_kernel"}, 0.99);
  }
}

TEST_F(MemoryTraffic, DecodingOverACache) {
  AttentionRun run(DType::bf16, 64, 2, 300);
  expect_no_waste({"attention_kernel"}, 0.99);
}

void multiply(DType weights, DType activations, int64_t tokens, bool transposed) {
  constexpr int64_t kOut = 128, kIn = 256;
  CudaBackend device(0);
  DeviceArrays arrays(device);
  const Stored w(weights, kOut, kIn, 1);
  const Matrix matrix{weights, kOut, kIn, arrays.put(w.bytes)};
  const Rows x = put_rows(arrays, tokens, transposed ? kOut : kIn, activations, 2);
  const Rows y = put_rows(arrays, tokens, transposed ? kIn : kOut, DType::f32, 3);
  cuda_host::count_traffic(true);
  if (transposed) device.matmul_transposed(tokens, x, matrix, y, Store::set);
  else device.matmul(tokens, x, matrix, y, Store::set);
  device.synchronize();
}

// The tiles take 16 or 32 values of a row at a time, and blocks of packed weights do not begin where sectors do: what is left of
// a sector is read from the cache by the next step.
bool packed(DType type) { return dtype_info(type).quantized; }
constexpr DType kWeights[] = {DType::f32,  DType::f16,  DType::bf16, DType::q4_0, DType::q4_1, DType::q5_0, DType::q5_1,
                              DType::q8_0, DType::q2_k, DType::q3_k, DType::q4_k, DType::q5_k, DType::q6_k};

TEST_F(MemoryTraffic, ProductsOnTensorCores) {
  for (const DType type : kWeights) {
    for (const bool transposed : {false, true}) {
      if (type == DType::f32 || type == DType::bf16) continue;  // made by other kernels
      multiply(type, DType::bf16, 64, transposed);
      expect_no_waste({"bf16_product_kernel"}, packed(type) ? 0.75 : 0.99);
    }
  }
}

TEST_F(MemoryTraffic, ProductsInF32) {
  for (const DType type : kWeights) {
    for (const bool transposed : {false, true}) {
      if (type == DType::f32) continue;  // cuBLAS
      multiply(type, DType::f32, 64, transposed);
      expect_no_waste({"f32_product_kernel"}, packed(type) ? 0.75 : 0.99);
    }
  }
}

TEST_F(MemoryTraffic, ProductsOfFewTokens) {
  for (const DType type : kWeights) {
    multiply(type, DType::bf16, 8, false);
    expect_no_waste({"few_tokens_kernel"}, 0.97);
  }
}

TEST_F(MemoryTraffic, GradientsOfFactors) {
  constexpr int64_t kTokens = 300, kRank = 16, kWide = 128;
  for (const DType type : {DType::f32, DType::bf16}) {
    CudaBackend device(0);
    DeviceArrays arrays(device);
    const Rows v = put_rows(arrays, kTokens, kRank, DType::f32, 1), x = put_rows(arrays, kTokens, kWide, type, 2);
    float *const g = arrays.put(std::vector<float>(kRank * kWide));
    cuda_host::count_traffic(true);
    device.outer_product(kTokens, kRank, kWide, v, x, g, false);
    device.synchronize();
    expect_no_waste({"outer_product_kernel"}, 0.99);
  }
}

TEST_F(MemoryTraffic, MixturesAndTheirGradients) {
  constexpr int64_t kTokens = 70, kHidden = 64, kIntermediate = 128;
  const auto backend = mirrored(std::make_unique<CudaBackend>(0), nullptr);
  mixture::Problem p({kTokens, kHidden, kIntermediate, {{16, 16, 16}, {16, 16, 16}}});
  cuda_host::count_traffic(true);
  mixture::forward(*backend, p);
  mixture::backward(*backend, p, true);
  expect_no_waste({"narrow_kernel", "narrow_back_kernel", "wide_kernel", "network_kernel", "gradient_kernel"}, 0);
}

}  // namespace
}  // namespace moe::test
