#include "formats/packed.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "formats/safetensors.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace moe {
namespace {

using test::TemporaryFolder;

const PackedBatch kGood{{5, 6, 7, 8, 9}, {0, 1, 0, 1, 2}, {0, 2, 5}, {6, kNoLabel, 8, 9, kNoLabel}, {}};

void expect_equal(const PackedBatch &a, const PackedBatch &b) {
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.positions, b.positions);
  EXPECT_EQ(a.starts, b.starts);
  EXPECT_EQ(a.labels, b.labels);
  EXPECT_EQ(a.domains, b.domains);
}

TEST(PackedFile, WhatIsWrittenReadsBack) {
  TemporaryFolder folder;
  PackedBatch batch = kGood;
  write_packed_batch(folder / "x", batch);
  expect_equal(read_packed_batch(folder / "x"), batch);
  batch.domains = {2, -1};
  write_packed_batch(folder / "x", batch);
  expect_equal(read_packed_batch(folder / "x"), batch);
}

TEST(PackedFile, GoldenBatchesAreRead) {
  const PackedBatch batch = read_packed_batch(std::string(MOE_TESTS_DIR) + "/golden/lora/qwen3_all_linear/expected.safetensors");
  EXPECT_EQ(batch.starts, (std::vector<int32_t>{0, 5, 22, 63}));
  EXPECT_EQ(batch.size(), 63);
  EXPECT_EQ(batch.supervised(), 44);
}

TEST(PackedFile, PositionsMayBeLeftOut) {
  TemporaryFolder folder;
  const std::vector<TensorToWrite> tensors{{"tokens", DType::i32, {5}, kGood.tokens.data()},
                                           {"labels", DType::i32, {5}, kGood.labels.data()},
                                           {"sequence_starts", DType::i32, {3}, kGood.starts.data()}};
  write_safetensors(folder / "x", tensors);
  expect_equal(read_packed_batch(folder / "x"), kGood);
}

TEST(PackedFile, PartsThatDoNotFitAreRefused) {
  const auto check = [](auto change) {
    PackedBatch batch = kGood;
    change(batch);
    check_packed_batch(batch, "x");
  };
  check([](PackedBatch &) {});
  EXPECT_FAILS(check([](PackedBatch &b) { b.starts = {1, 2, 5}; }), Code::format, "begins with 1");
  EXPECT_FAILS(check([](PackedBatch &b) { b.starts = {0, 2, 4}; }), Code::format, "ends with 4, there are 5 tokens");
  EXPECT_FAILS(check([](PackedBatch &b) { b.starts = {0, 2, 2, 5}; }), Code::format, "does not rise at entry 2");
  EXPECT_FAILS(check([](PackedBatch &b) { b.starts = {0, 9, 5}; }), Code::format, "does not rise at entry 2");
  EXPECT_FAILS(check([](PackedBatch &b) { b.starts = {0}; }), Code::format, "at least 2");
  EXPECT_FAILS(check([](PackedBatch &b) { b.labels.pop_back(); }), Code::format, "'labels' has 4 entries, expected 5");
  EXPECT_FAILS(check([](PackedBatch &b) { b.positions.push_back(0); }), Code::format, "'positions' has 6");
  EXPECT_FAILS(check([](PackedBatch &b) { b.positions[2] = 2; }), Code::format, "'positions' 2 is 2, expected 0");
  EXPECT_FAILS(check([](PackedBatch &b) { b.labels[1] = -1; }), Code::format, "'labels' 1 is -1");
  EXPECT_FAILS(check([](PackedBatch &b) { b.tokens[0] = -1; }), Code::format, "'tokens' 0 is -1");
  EXPECT_FAILS(check([](PackedBatch &b) { b.domains = {1}; }), Code::format, "'domains' has 1");
  EXPECT_FAILS(check([](PackedBatch &b) { b.domains = {1, -2}; }), Code::format, "'domains' 1 is -2");
}

TEST(PackedFile, TensorsOfTheWrongKindAreRefused) {
  TemporaryFolder folder;
  const auto read = [&](std::vector<TensorToWrite> tensors) {
    write_safetensors(folder / "x", tensors);
    return read_packed_batch(folder / "x").size();
  };
  const int64_t wide[5] = {};
  const TensorToWrite tokens{"tokens", DType::i32, {5}, kGood.tokens.data()};
  const TensorToWrite labels{"labels", DType::i32, {5}, kGood.labels.data()};
  EXPECT_FAILS(read({tokens, labels}), Code::format, "tensor 'sequence_starts' is missing");
  EXPECT_FAILS(read({{"tokens", DType::i64, {5}, wide}, labels}), Code::format, "expected type I32, found I64");
  EXPECT_FAILS(read({{"tokens", DType::i32, {5, 1}, kGood.tokens.data()}, labels}), Code::format, "expected a list");
}

}  // namespace
}  // namespace moe
