#include "formats/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

#include "base/json.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"
#include "tensor/dequantize.h"

namespace moe {
namespace {

using test::TemporaryFolder;

std::string with_length(const std::string &header) {
  const uint64_t length = header.size();
  return std::string(reinterpret_cast<const char *>(&length), 8) + header;
}

std::string put(const TemporaryFolder &folder, const std::string &name, const std::string &content) {
  const std::string path = folder / name;
  std::ofstream(path, std::ios::binary) << content;
  return path;
}

// A file with this header and `data_bytes` zero bytes.
std::string put_header(const TemporaryFolder &folder, const std::string &header, size_t data_bytes) {
  return put(folder, "x.safetensors", with_length(header) + std::string(data_bytes, '\0'));
}

TEST(Safetensors, WhatIsWrittenReadsBack) {
  TemporaryFolder folder;
  const float a[] = {1, 2, 3, 4, 5, 6};
  const uint16_t b[] = {float_to_bf16(1.5f), float_to_bf16(-2)};
  const int32_t c[] = {7};
  const std::vector<TensorToWrite> tensors{{"b", DType::bf16, {2}, b},
                                           {"a", DType::f32, {2, 3}, a},
                                           {"scalar \"c\"", DType::i32, {}, c},
                                           {"empty", DType::u8, {0, 4}, nullptr}};
  write_safetensors(folder / "x.safetensors", tensors, {{"format", "pt"}, {"key", "a \"value\"\n"}});

  const Safetensors file(folder / "x.safetensors");
  EXPECT_EQ(file.metadata(), (SafetensorsMetadata{{"format", "pt"}, {"key", "a \"value\"\n"}}));
  EXPECT_EQ(file.metadata_or("format", ""), "pt");
  EXPECT_EQ(file.metadata_or("absent", "x"), "x");
  ASSERT_EQ(file.tensors().size(), 4u);
  EXPECT_EQ(file.at("a").shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(file.at("a").dtype, DType::f32);
  EXPECT_EQ(file.read_floats(file.at("a")), (std::vector<float>{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(file.read_floats(file.at("b")), (std::vector<float>{1.5f, -2}));
  EXPECT_TRUE(file.at("scalar \"c\"").shape.empty());
  EXPECT_EQ(file.read_integers(file.at("scalar \"c\"")), std::vector<int32_t>{7});
  EXPECT_EQ(file.at("empty").bytes, 0u);
  float part[2];
  file.read_range(file.at("a"), 8, part, sizeof part);
  EXPECT_EQ(part[0], 3);
  EXPECT_EQ(part[1], 4);
  EXPECT_EQ(file.find("missing"), nullptr);
  EXPECT_FAILS(file.at("missing"), Code::format, "tensor 'missing' is missing");
  EXPECT_FAILS(file.read_range(file.at("a"), 20, part, 8), Code::invalid, "24 bytes");
  EXPECT_FAILS(file.read_floats(file.at("empty")), Code::format, "U8");
  EXPECT_FAILS(file.read_integers(file.at("a")), Code::format, "expected type I32, found F32");
}

TEST(Safetensors, EqualTensorsGiveEqualFilesInAnyOrder) {
  const float a[] = {1, 2};
  const uint8_t b[] = {3};
  const std::vector<TensorToWrite> one{{"a", DType::f32, {2}, a}, {"b", DType::u8, {1}, b}}, two{one[1], one[0]};
  EXPECT_EQ(encode_safetensors(one), encode_safetensors(two));
  TemporaryFolder folder;
  write_safetensors(folder / "1", one);
  write_safetensors_atomic(folder / "2", one);
  EXPECT_EQ(read_file(folder / "1"), encode_safetensors(one));
  EXPECT_EQ(read_file(folder / "2"), encode_safetensors(one));
}

TEST(Safetensors, EveryTensorIsAlignedToItsElement) {
  const std::vector<uint8_t> data(64);
  const std::vector<TensorToWrite> tensors{{"a", DType::u8, {3}, data.data()},
                                           {"b", DType::f16, {3}, data.data()},
                                           {"c", DType::i64, {3}, data.data()},
                                           {"d", DType::f32, {3}, data.data()}};
  TemporaryFolder folder;
  write_safetensors(folder / "x", tensors);
  const Safetensors file(folder / "x");
  for (const TensorInfo &tensor : file.tensors()) {
    EXPECT_EQ(tensor.offset % static_cast<uint64_t>(dtype_info(tensor.dtype).block_bytes), 0u) << tensor.name;
  }
}

TEST(Safetensors, WriterRefusesWhatCouldNotBeRead) {
  const float a[4] = {};
  const auto write = [&](std::vector<TensorToWrite> tensors) { return encode_safetensors(tensors); };
  EXPECT_FAILS(write({{"a", DType::f32, {4}, a}, {"a", DType::f32, {4}, a}}), Code::invalid, "'a' is taken");
  EXPECT_FAILS(write({{"__metadata__", DType::f32, {4}, a}}), Code::invalid, "__metadata__");
  EXPECT_FAILS(write({{"a", DType::q4_0, {32}, a}}), Code::unsupported, "Q4_0");
  EXPECT_FAILS(write({{"a", DType::f32, {-1}, a}}), Code::invalid, "[-1]");
  EXPECT_FAILS(write_safetensors("/nonexistent/x", {}), Code::io, "/nonexistent/x");
}

TEST(Safetensors, RefusesAHeaderThatIsNoHeader) {
  TemporaryFolder folder;
  const auto open = [&](const std::string &content) {
    return Safetensors(put(folder, "x.safetensors", content)).tensors().size();
  };
  EXPECT_FAILS(open(""), Code::format, "x.safetensors: 0 bytes");
  EXPECT_FAILS(open(std::string(8, '\xff')), Code::format, "header of 18446744073709551615 bytes");
  EXPECT_FAILS(open(with_length("{}").substr(0, 9)), Code::format, "header of 2 bytes");
  EXPECT_FAILS(open(std::string(8, '\0')), Code::format, "'{'");
  EXPECT_FAILS(open(with_length(" {}")), Code::format, "'{'");
  EXPECT_FAILS(open(with_length("{} x")), Code::format, "x.safetensors");
  EXPECT_FAILS(open(with_length("{\"a\":1}")), Code::format, "tensor 'a'");
  EXPECT_EQ(open(with_length("{}   ")), 0u);
  EXPECT_FAILS(open(with_length("{}") + "x"), Code::format, "end at byte 10, the file at byte 11");
}

TEST(Safetensors, EntriesAreChecked) {
  TemporaryFolder folder;
  const auto open = [&](const std::string &entries, size_t bytes) {
    return Safetensors(put_header(folder, "{" + entries + "}", bytes)).tensors().size();
  };
  const std::string good = R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})";
  EXPECT_EQ(open(good, 8), 1u);
  EXPECT_FAILS(open(good, 7), Code::format, "do not fit the 7 bytes");
  EXPECT_FAILS(open(good, 9), Code::format, "end at byte");
  EXPECT_FAILS(open(good + "," + good, 8), Code::format, "a");
  EXPECT_FAILS(open(R"("a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]})", 8), Code::format, "needs 12 bytes");
  EXPECT_FAILS(open(R"("a":{"dtype":"F32","shape":[2]})", 8), Code::format, "'data_offsets' is missing");
  EXPECT_FAILS(open(R"("a":{"dtype":"F32","data_offsets":[0,8]})", 8), Code::format, "'shape' is missing");
  EXPECT_FAILS(open(R"("a":{"shape":[2],"data_offsets":[0,8]})", 8), Code::format, "'dtype' is missing");
  EXPECT_FAILS(open(R"("a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]})", 8), Code::format, "data_offsets 8 to 0");
  EXPECT_FAILS(open(R"("a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]})", 8), Code::format, "shape");
  EXPECT_FAILS(open(R"("a":{"dtype":"F32","shape":[2.5],"data_offsets":[0,8]})", 8), Code::format, "shape");
  EXPECT_FAILS(open(R"("a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]})", 8), Code::format, "overflows");
  EXPECT_FAILS(open(R"("a":{"dtype":"F32","shape":[4611686018427387904,2],"data_offsets":[0,8]})", 8), Code::format, "too large");
  EXPECT_FAILS(open(R"("a":{"dtype":"F32","shape":[4294967296,2147483648,0],"data_offsets":[0,0]})", 0), Code::format, "too large");
  EXPECT_FAILS(open(R"("a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]})", 0), Code::format, "overflows");
  EXPECT_FAILS(open(R"("a\nb":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})", 8), Code::format, "control characters");
  EXPECT_FAILS(open(R"("__metadata__":{"a":1})", 0), Code::format, "metadata 'a'");
}

TEST(Safetensors, HolesAndOverlapsAreRefused) {
  TemporaryFolder folder;
  const auto open = [&](const std::string &first, const std::string &second) {
    const auto entry = [](const char *name, const std::string &offsets) {
      return std::string("\"") + name + R"(":{"dtype":"F32","shape":[1],"data_offsets":)" + offsets + "}";
    };
    return Safetensors(put_header(folder, "{" + entry("a", first) + "," + entry("b", second) + "}", 8)).tensors().size();
  };
  EXPECT_EQ(open("[0,4]", "[4,8]"), 2u);
  EXPECT_EQ(open("[4,8]", "[0,4]"), 2u);
  EXPECT_FAILS(open("[0,4]", "[0,4]"), Code::format, "overlap");
  EXPECT_FAILS(open("[0,4]", "[2,6]"), Code::format, "overlap");
  EXPECT_FAILS(open("[1,5]", "[4,8]"), Code::format, "hole");
}

TEST(Safetensors, ATypeThatIsNotSupportedIsRefusedByNameWhenItIsRead) {
  TemporaryFolder folder;
  const Safetensors file(put_header(folder, R"({"a":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},)"
                                            R"("b":{"dtype":"X9","shape":[5],"data_offsets":[8,11]}})", 11));
  uint8_t bytes[16];
  EXPECT_EQ(file.at("a").unsupported, "F64");
  EXPECT_FAILS(file.read(file.at("a"), bytes), Code::unsupported, "tensor 'a' has type F64");
  EXPECT_FAILS(file.read_floats(file.at("b")), Code::unsupported, "tensor 'b' has type X9");
  EXPECT_FAILS(Safetensors(put_header(folder, R"({"a":{"dtype":"F64","shape":[1],"data_offsets":[0,4]}})", 4)), Code::format,
               "F64");
}

struct Sharded {
  TemporaryFolder folder;
  Sharded() {
    const float a[] = {1}, b[] = {2, 3};
    write_safetensors(folder / "model-00001-of-00002.safetensors", std::vector<TensorToWrite>{{"a", DType::f32, {1}, a}});
    write_safetensors(folder / "model-00002-of-00002.safetensors",
                      std::vector<TensorToWrite>{{"b", DType::f32, {2}, b}, {"not_mapped", DType::f32, {1}, a}});
  }
  void index(const std::string &map) {
    put(folder, "model.safetensors.index.json", R"({"metadata":{},"weight_map":)" + map + "}");
  }
};

TEST(ShardedSafetensors, TensorsOfAllShardsAreFound) {
  Sharded checkpoint;
  checkpoint.index(R"({"b":"model-00002-of-00002.safetensors","a":"model-00001-of-00002.safetensors"})");
  EXPECT_TRUE(has_safetensors(checkpoint.folder.path()));
  for (const std::string &path : {checkpoint.folder.path(), checkpoint.folder / "model.safetensors.index.json"}) {
    const Safetensors file(path);
    EXPECT_EQ(file.tensors().size(), 2u);
    EXPECT_EQ(file.read_floats(file.at("a")), std::vector<float>{1});
    EXPECT_EQ(file.read_floats(file.at("b")), (std::vector<float>{2, 3}));
    EXPECT_EQ(file.file_path(file.at("b")), checkpoint.folder / "model-00002-of-00002.safetensors");
  }
}

TEST(ShardedSafetensors, EveryEntryOfTheIndexIsChecked) {
  Sharded checkpoint;
  const auto open = [&](const std::string &map) {
    checkpoint.index(map);
    return Safetensors(checkpoint.folder.path()).tensors().size();
  };
  EXPECT_FAILS(open(R"({"c":"model-00001-of-00002.safetensors"})"), Code::format, "tensor 'c' is missing");
  EXPECT_FAILS(open(R"({"a":"model-00009-of-00002.safetensors"})"), Code::io, "model-00009");
  EXPECT_FAILS(open(R"({"a":"../model.safetensors"})"), Code::format, "not a plain file name");
  EXPECT_FAILS(open(R"({"a":"/etc/passwd"})"), Code::format, "not a plain file name");
  EXPECT_FAILS(open(R"({"a":".."})"), Code::format, "not a plain file name");
  EXPECT_FAILS(open(R"({"a":1})"), Code::format, "not a plain file name");
  EXPECT_FAILS(open(R"([])"), Code::format, "weight_map");
}

TEST(ShardedSafetensors, AFolderWithoutWeightsIsRefused) {
  TemporaryFolder folder;
  EXPECT_FALSE(has_safetensors(folder.path()));
  EXPECT_FAILS(Safetensors(folder.path()), Code::io, "model.safetensors");
}

}  // namespace
}  // namespace moe
