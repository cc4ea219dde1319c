// Embedding rows of every stored type equal the dequantized rows times the scale.
#include <gtest/gtest.h>

#include "support/expect_error.h"
#include "support/reference.h"

namespace moe::test {
namespace {

// Blocks of random bytes whose f16 scales are finite: the high byte of every halfword stays below 0x7c.
std::vector<uint8_t> random_blocks(DType type, int64_t bytes, uint64_t seed) {
  std::vector<uint8_t> data(static_cast<size_t>(bytes));
  if (type == DType::f32 || type == DType::bf16 || type == DType::f16) {
    const int64_t size = type == DType::f32 ? 4 : 2, count = bytes / size;
    const std::vector<float> values = random_floats(count, seed);
    for (size_t i = 0; i < values.size(); i++) {
      const uint16_t half = type == DType::bf16 ? float_to_bf16(values[i]) : float_to_f16(values[i]);
      if (type == DType::f32) std::memcpy(&data[i * 4], &values[i], 4);
      else std::memcpy(&data[i * 2], &half, 2);
    }
    return data;
  }
  for (size_t i = 0; i < data.size(); i++) data[i] = static_cast<uint8_t>(random_bits(seed, i) & 0x3f);
  return data;
}

TEST(Embedding, ExpandsTheRowsOfEveryStoredType) {
  for (DType type : {DType::f32, DType::f16, DType::bf16, DType::q4_0, DType::q4_1, DType::q5_0, DType::q5_1, DType::q8_0,
                     DType::q2_k, DType::q3_k, DType::q4_k, DType::q5_k, DType::q6_k}) {
    SCOPED_TRACE(dtype_info(type).name);
    const int64_t rows = 19, d = type == DType::f32 || type == DType::f16 || type == DType::bf16 ? 37 : 512;
    std::vector<uint8_t> data = random_blocks(type, rows * row_bytes(type, d) + 1, 1);
    data.insert(data.begin(), 0);  // stored rows need no alignment
    const Matrix w{type, rows, d, data.data() + 1};
    std::vector<float> values(static_cast<size_t>(rows * d));
    dequantize(type, w.data, rows * d, values.data());
    const std::vector<int32_t> ids = {18, 0, 3, 3, 7, 11, 0};
    const int64_t tokens = static_cast<int64_t>(ids.size());
    for (DType to : {DType::f32, DType::bf16}) {
      on_every_backend(
          [&](Backend &backend) {
            RowsData out(tokens, d, to, 3);
            backend.embedding(tokens, ids.data(), w, 6.5f, out.rows());
            return out;
          },
          [&](const RowsData &out) {
            EXPECT_TRUE(out.gap_untouched());
            std::vector<double> expected;
            for (int32_t id : ids)
              for (int64_t j = 0; j < d; j++)
                expected.push_back(6.5 * static_cast<double>(values[static_cast<size_t>(id * d + j)]));
            EXPECT_LT(nmse(expected, out.values()), tolerance(to));
          });
    }
  }
}

TEST(Embedding, RefusesIdsOutsideTheVocabulary) {
  auto backend = std::move(all_backends(1).front());
  const std::vector<float> w = random_floats(20, 1);
  RowsData out(1, 4, DType::f32);
  for (int32_t id : {-1, 5})
    EXPECT_FAILS(backend->embedding(1, &id, Matrix{DType::f32, 5, 4, w.data()}, 1, out.rows()), Code::invalid, "below 5");
}

}  // namespace
}  // namespace moe::test
