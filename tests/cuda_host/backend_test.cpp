// The backend as a whole: memory, failures, and a step of ops on device memory with nothing waiting in between.
#include <gtest/gtest.h>

#include <memory>

#include "cuda/cuda_backend.h"
#include "cuda_host/host.h"
#include "support/device_arrays.h"
#include "support/expect_error.h"
#include "support/reference.h"

namespace moe::test {
namespace {

using cuda::CudaBackend;

struct CudaDevice : testing::Test {
  ~CudaDevice() override {
    cuda_host::set_seed(0);
    cuda_host::set_strict(false);
    cuda_host::set_async(false);
    cuda_host::fail_allocation(0);
    cuda_host::break_device(false);
    cuda_host::set_devices(1);
    cuda_host::set_capability(80);
  }
};

// Loss, gradient of the hidden states and the updated factor of a small step: embedding, norm, projection with a low-rank term,
// rotation, attention, the gate, the head, and back through the projection into AdamW.
std::vector<float> step(Backend &b) {
  constexpr int64_t T = 21, d = 32, V = 50, rank = 4, heads = 2, h = 16;
  DeviceArrays arrays(b);
  std::vector<int32_t> ids(T), labels(T), positions(T);
  for (size_t t = 0; t < T; t++) {
    ids[t] = static_cast<int32_t>(random_bits(1, t) % V), labels[t] = static_cast<int32_t>(random_bits(2, t) % V);
    positions[t] = static_cast<int32_t>(t);
  }
  const auto matrix = [&](int64_t rows, int64_t columns, uint64_t seed) {
    return Matrix{DType::f32, rows, columns, arrays.put(random_floats(rows * columns, seed, 0.2))};
  };
  const auto rows = [&](int64_t n) { return f32_rows(arrays.take<float>(static_cast<size_t>(T * n)), n); };
  const Matrix table = matrix(V, d, 3), w = matrix(d, d, 4), head = matrix(V, d, 5);
  const float *const norm = arrays.put(random_floats(d, 6));
  std::vector<float> factor(static_cast<size_t>(rank * d), 0.1f);
  float *const a = arrays.put(random_floats(rank * d, 7, 0.2)), *const bb = arrays.put(random_floats(rank * d, 8, 0.2));
  float *const da = arrays.take<float>(factor.size()), *const m = arrays.take<float>(factor.size()),
               *const v = arrays.take<float>(factor.size());
  for (float *x : {da, m, v}) b.fill(rank * d, 0, x);

  LowRankTerm term;
  term.factors = {rank, 0.5f, a, bb};
  term.u = arrays.take<float>(static_cast<size_t>(T * rank));
  term.dropout = 0.1f;
  term.gradient.a = da;
  float *const scratch = arrays.take<float>(static_cast<size_t>(Backend::projection_scratch(T, d, d, {&term, 1})));
  const Rows x = rows(d), u = rows(d), y = rows(d), q = rows(d), out = rows(d), hidden = rows(d), dh = rows(d), dq = rows(d),
             dk = rows(d), dv = rows(d);
  float *const angles = arrays.take<float>(T * h), *const lse = arrays.take<float>(T * heads), *const nll = arrays.take<float>(T);
  std::vector<float> frequency(h / 2, 0.3f);

  b.embedding(T, arrays.put(ids), table, 2, x);
  b.rms_norm(T, d, x, norm, 1e-5f, u, Store::set);
  b.projection(T, u, w, nullptr, {&term, 1}, y, Store::set, scratch);
  b.rotary_table(T, h, arrays.put(positions), arrays.put(frequency), 1, angles);
  b.rotary(T, heads, h, y, nullptr, 0, angles, q);
  const AttentionShape shape{heads, heads, h, 0, 0.25f};
  const AttentionSequence sequence{0, T, y, u, T};
  b.attention(shape, {&sequence, 1}, q, out, lse);
  b.gated_activation(T, d, Activation::silu, out, x, hidden);
  b.cross_entropy(T, hidden, head, arrays.put(labels), nll, 1.0f / T, dh);
  b.attention_backward(shape, {&sequence, 1}, q, out, lse, dh, dq, dk, dv);
  b.rotary_backward(T, heads, h, {}, nullptr, 0, angles, dq, dq);
  b.copy(T, d, dk, dq, Store::add);
  b.projection_backward(T, u, w, {&term, 1}, dq, {}, Store::set, scratch);
  AdamW options;
  options.learning_rate = 0.01f;
  b.adamw(rank * d, a, da, m, v, options);

  std::vector<float> result(static_cast<size_t>(T + T * d + rank * d));
  b.download(result.data(), nll, T * sizeof(float));
  b.download(result.data() + T, dh.data, T * d * sizeof(float));
  b.download(result.data() + T + T * d, a, static_cast<size_t>(rank * d) * sizeof(float));
  return result;
}

TEST_F(CudaDevice, AStepEqualsThatOfTheCpu) {
  CudaBackend device(0);
  const std::vector<float> got = step(device), expected = step(*cpu_backend(cpu::best_kernels(), 1));
  EXPECT_LT(nmse(to_double(expected), got), 1e-10);
}

// Queued work that runs late, early or in another order gives the same bits, and no op reads memory of the device from the host.
TEST_F(CudaDevice, AStepDoesNotDependOnWhenTheDeviceWorks) {
  CudaBackend device(0);
  const std::vector<float> expected = step(device);
  cuda_host::set_strict(true);
  EXPECT_TRUE(same_bits(expected, step(device)));
  cuda_host::set_async(true);
  for (uint64_t seed = 0; seed < 6; seed++) {
    cuda_host::set_seed(seed);
    CudaBackend other(0);
    EXPECT_TRUE(same_bits(expected, step(device)) && same_bits(expected, step(other))) << "seed " << seed;
  }
}

// With W the identity the logits are those of u to the bit, ties among them: what is picked of them is what the CPU picks.
TEST_F(CudaDevice, PicksTheExpertsThatTheCpuPicks) {
  constexpr int64_t T = 300, E = 8, d = 16;
  std::vector<float> u(T * d), weight((E + 1) * d), bias(E + 1);
  for (size_t i = 0; i < u.size(); i++) u[i] = static_cast<float>(random_bits(3, i) % 7) / 4;
  for (size_t i = 0; i <= E; i++) weight[i * d + i] = 1;
  for (const GateForm form : {GateForm::delta, GateForm::renormalised_delta, GateForm::weighted, GateForm::straight_through}) {
    for (const int64_t k : {1, 2, 4}) {
      if (k == 1 && form == GateForm::weighted) continue;  // both refuse it: its gate would be constant
      const auto route = [&](Backend &b) {
        DeviceArrays arrays(b);
        RouterShape shape;
        shape.tokens = T, shape.hidden = d, shape.experts = E, shape.top_k = k, shape.form = form, shape.temperature = 0.7f;
        const RouterState state{arrays.take<float>(T * (E + 1)), arrays.take<float>(T * (E + 1)), arrays.take<int32_t>(T * k),
                                arrays.take<uint8_t>(T * E), arrays.take<float>(T * E)};
        b.router(shape, f32_rows(arrays.put(u), d), arrays.put(weight), arrays.put(bias), state);
        std::pair<std::vector<int32_t>, std::vector<uint8_t>> picks{std::vector<int32_t>(T * k), std::vector<uint8_t>(T * E)};
        b.download(picks.first.data(), state.picked, T * k * sizeof(int32_t));
        b.download(picks.second.data(), state.selected, T * E);
        return picks;
      };
      CudaBackend device(0);
      EXPECT_EQ(route(device), route(*cpu_backend(cpu::best_kernels(), 1))) << "k = " << k;
    }
  }
}

TEST_F(CudaDevice, EveryFailedAllocationIsAnErrorThatLeavesNothingBehind) {
  const auto before = cuda_host::statistics();
  int failures = 0;
  for (bool done = false; !done;) {
    cuda_host::fail_allocation(failures + 1);
    try {
      CudaBackend device(0);
      step(device);
      done = true;
    } catch (const Error &error) {
      ASSERT_EQ(error.code(), Code::no_memory) << error.message();
      failures++;
    }
    ASSERT_EQ(cuda_host::statistics().live_allocations, before.live_allocations);
    ASSERT_EQ(cuda_host::statistics().live_bytes, before.live_bytes);
  }
  EXPECT_GT(failures, 25);
}

TEST_F(CudaDevice, AllocationErrorsTellTheNumbers) {
  CudaBackend device(0);
  EXPECT_FAILS(device.allocate(size_t{1} << 50), Code::no_memory, "1125899906842624 bytes are needed");
}

TEST_F(CudaDevice, ABrokenDevicePoisonsItsBackendAndNothingElse) {
  CudaBackend device(0);
  const Memory block = device.allocate(64);
  float *const memory = reinterpret_cast<float *>(block.get());
  cuda_host::break_device(true);
  for (int i = 0; i < 2; i++) {
    EXPECT_FAILS(device.fill(16, 1, memory), Code::device, "illegal memory access");
    EXPECT_FAILS(device.synchronize(), Code::device, "illegal memory access");
    EXPECT_FAILS(device.sum_of_squares(16, memory), Code::device, "illegal memory access");
    EXPECT_FAILS(device.allocate(16), Code::device, "illegal memory access");
  }
  EXPECT_FAILS(CudaBackend(0), Code::device, "illegal memory access");
  float host[16];
  cpu_backend(cpu::best_kernels(), 1)->fill(16, 1, host);
  EXPECT_EQ(host[15], 1);
}

TEST_F(CudaDevice, SaysWhetherTheDriverOrTheDeviceIsMissing) {
  cuda_host::set_devices(-1);
  EXPECT_FAILS(CudaBackend(0), Code::device, "no driver");
  cuda_host::set_devices(0);
  EXPECT_FAILS(CudaBackend(0), Code::device, "finds no device");
  cuda_host::set_devices(2);
  EXPECT_FAILS(CudaBackend(2), Code::device, "device 2: expected 0 to 1");
  cuda_host::set_capability(70);
  EXPECT_FAILS(CudaBackend(0), Code::device, "expected compute capability 7.5 or later, found 7.0");
}

// Before sm_80 there is no mma.sync for bf16: products of bf16 activations with packed weights are then made in f32.
TEST_F(CudaDevice, WithoutTensorCoresProductsAreExact) {
  cuda_host::set_capability(75);
  CudaBackend device(0);
  EXPECT_STREQ(device.name(), "cuda:0 sm_75");
  constexpr int64_t T = 20, k = 64, n = 24;
  std::vector<uint8_t> bytes(static_cast<size_t>(n * row_bytes(DType::q8_0, k)));
  for (size_t i = 0; i < bytes.size(); i++)
    bytes[i] = i % 34 == 1 ? 0x2c : static_cast<uint8_t>(random_bits(1, i));  // scales about 1/16
  std::vector<float> values(n * k), y(T * n);
  dequantize(DType::q8_0, bytes.data(), n * k, values.data());
  const std::vector<uint16_t> x = to_bf16(random_floats(T * k, 2));
  DeviceArrays arrays(device);
  float *const out = arrays.take<float>(y.size());
  device.matmul(T, Rows{arrays.put(x), DType::bf16, k}, Matrix{DType::q8_0, n, k, arrays.put(bytes)}, f32_rows(out, n),
                Store::set);
  device.download(y.data(), out, y.size() * sizeof(float));
  std::vector<double> expected;
  for (int64_t t = 0; t < T; t++)
    for (int64_t o = 0; o < n; o++) {
      double sum = 0;
      for (int64_t i = 0; i < k; i++)
        sum += static_cast<double>(bf16_to_float(x[static_cast<size_t>(t * k + i)])) * values[static_cast<size_t>(o * k + i)];
      expected.push_back(sum);
    }
  EXPECT_LT(nmse(expected, y), tolerance(DType::f32));
}

}  // namespace
}  // namespace moe::test
