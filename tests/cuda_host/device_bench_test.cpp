// The bytes and operations that device_bench divides by time, against counts made here.
#include <gtest/gtest.h>

#include <set>

#include "bench/device/cases.h"
#include "cuda/cuda_backend.h"

namespace moe::bench {
namespace {

void expect_work(const std::string &name, double bytes, double operations) {
  SCOPED_TRACE(name);
  int found = 0;
  for (const Case &c : cases(small_sizes())) {
    if (c.name != name) continue;
    cuda::CudaBackend device(0);
    Instance instance(device, 1);
    c.prepare(device, instance);
    EXPECT_EQ(instance.bytes(), bytes);
    EXPECT_EQ(instance.operations(), operations);
    found++;
  }
  EXPECT_EQ(found, 1);
}

// One key after the other, as a sequence of `keys` tokens sees them with this window (0 = all).
int64_t counted_pairs(int64_t first_query, int64_t keys, int64_t window) {
  int64_t pairs = 0;
  for (int64_t query = first_query; query < keys; query++)
    for (int64_t key = 0; key <= query; key++) pairs += window == 0 || query - key < window;
  return pairs;
}

TEST(DeviceBench, CountsBytesAndOperations) {
  // 256 values of Q4_K take 144 bytes, 32 of Q8_0 take 34, 32 of Q4_1 take 20
  expect_work("gemv/small/up:Q4_K:72x256/1", 72 * 144 + 2 * (256 + 72), 2.0 * 72 * 256);
  expect_work("gemv/small/head:Q8_0:100x256/8", 100 * 8 * 34 + 8 * 2 * (256 + 100), 2.0 * 8 * 100 * 256);
  expect_work("gemm_packed/window/up:Q4_1:72x256/12", 72 * 8 * 20 + 12 * 2 * (256 + 72), 2.0 * 12 * 72 * 256);
  expect_work("gemm_f32/window/down:Q4_1:256x256/12", 256 * 8 * 20 + 12 * 4 * 512, 2.0 * 12 * 256 * 256);
  expect_work("gemm_bf16/plain/up:BF16:72x256/33", 72 * 256 * 2 + 33 * 2 * (256 + 72), 2.0 * 33 * 72 * 256);
  expect_work("gemm_transposed_packed/small/up:Q4_K:72x256/33", 72 * 144 + 33 * (2 * 72 + 4 * 256), 2.0 * 33 * 72 * 256);
  expect_work("outer_product/small/rank:16x256/33", 33 * (4 * 16 + 2 * 256) + 2 * 4 * 16 * 256, 2.0 * 33 * 16 * 256);
  // small: 4 and 2 heads of 64; window: 2 and 1 heads of 256, 16 keys visible
  const double queries = 33 * 4 * 64, keys = 33 * 2 * 64, pairs = 33.0 * 34 / 2;
  expect_work("attention/small/sequences:1/33", 2 * (2 * queries + 2 * keys), 4 * 256 * pairs);
  expect_work("attention_backward/small/sequences:1/33", 2 * (3 * queries + 2 * keys) + 4 * (queries + 2 * keys) + 4 * 33 * 4,
              10 * 256 * pairs);
  expect_work("attention/window/sequences:1/33", 2 * (2 * 33 * 512 + 2 * 33 * 256),
              4.0 * 512 * static_cast<double>(counted_pairs(0, 33, 16)));
  expect_work("attention_decoding/small/sequences:8/300", 8 * 2 * (2 * 256 + 2 * 300 * 128), 8 * 4.0 * 256 * 300);
  expect_work("attention_decoding/window/sequences:1/300", 2 * (2 * 512 + 2 * 16 * 256),
              4.0 * 512 * static_cast<double>(counted_pairs(299, 300, 16)));
  expect_work("cross_entropy/small/Q8_0/9", 100 * 8 * 34 + 9 * (2 * 256 + 4 + 4), 2.0 * 9 * 100 * 256);
  expect_work("cross_entropy_gradient/small/Q8_0/9", 2 * 100 * 8 * 34 + 9 * (2 * 256 + 4 + 4 + 4 * 256), 4.0 * 9 * 100 * 256);
  expect_work("rms_norm/small/f32:bf16/33", 33 * 256 * (4 + 2) + 4 * 256, 0);
  expect_work("gated_activation/small/bf16/33", 33 * 72 * 3 * 2, 0);
  expect_work("router/small/experts:4/33", 2 * 33 * 256 + 4 * 5 * 256 + 4 * 5 + 33 * (2 * 4 * 5 + 4 * 4 + 4 * 2 + 4),
              2.0 * 33 * 5 * 256);
  expect_work("adamw/plain/values/430080", 28 * 430080.0, 0);
}

TEST(DeviceBench, MeasuresEveryOpOfEveryModel) {
  std::set<std::string> names, ops, pairs;
  for (const Case &c : cases(measured_sizes())) {
    EXPECT_TRUE(names.insert(c.name).second) << c.name;
    const size_t op = c.name.find('/');
    ops.insert(c.name.substr(0, op));
    pairs.insert(c.name.substr(0, c.name.find('/', op + 1)));
  }
  EXPECT_EQ(ops.size(), 16u);
  EXPECT_EQ(pairs.size(), 16 * models().size());
}

}  // namespace
}  // namespace moe::bench
