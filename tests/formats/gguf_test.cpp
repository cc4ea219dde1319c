#include "formats/gguf.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <set>

#include "base/json.h"
#include "support/expect_error.h"
#include "support/gguf_builder.h"
#include "support/temporary_folder.h"

namespace moe {
namespace {

using test::GgufBuilder;
using test::TemporaryFolder;

std::string golden(const std::string &name) { return std::string(MOE_TESTS_DIR) + "/golden/gguf/" + name; }

class GgufFile : public testing::Test {
 protected:
  Gguf open(const GgufBuilder &builder) {
    std::ofstream(folder_ / "x.gguf", std::ios::binary) << builder.bytes;
    return Gguf(folder_ / "x.gguf");
  }
  TemporaryFolder folder_;
};

TEST(GoldenGguf, MetadataOfAllModelsIsRead) {
  const Json expected = read_json(golden("expected.json"));
  int files = 0;
  for (const auto &[model, entry] : expected.at("models", "expected").members()) {
    const Json &config = entry.at("config", "expected");
    for (const auto &[name, numbers] : entry.at("files", "expected").members()) {
      const Gguf file(golden(name));
      const std::string family(file.string_at("general.architecture"));
      EXPECT_EQ(file.version(), 3u);
      EXPECT_EQ(file.integer_at(family + ".block_count"), config.integer_at("layers", name));
      EXPECT_EQ(file.integer_at(family + ".embedding_length"), config.integer_at("hidden_size", name));
      EXPECT_EQ(file.strings_at("tokenizer.ggml.tokens").count, 272u);
      EXPECT_EQ(file.strings_at("tokenizer.ggml.merges").string(1), "th e");
      EXPECT_EQ(file.integers_at("tokenizer.ggml.token_type").size(), 272u);
      ++files;
    }
  }
  EXPECT_GE(files, 18);
}

TEST(GoldenGguf, TensorsOfALlamaAreListedInHuggingFaceOrder) {
  const Gguf file(golden("llama-Q4_0.gguf"));
  EXPECT_EQ(file.at("token_embd.weight").shape, (std::vector<int64_t>{272, 32}));
  EXPECT_EQ(file.at("blk.0.attn_q.weight").shape, (std::vector<int64_t>{32, 32}));
  EXPECT_EQ(file.at("blk.0.attn_q.weight").dtype, DType::q4_0);
  EXPECT_EQ(file.at("blk.1.attn_k.weight").shape, (std::vector<int64_t>{16, 32}));
  EXPECT_EQ(file.at("blk.1.ffn_down.weight").shape, (std::vector<int64_t>{32, 64}));
  EXPECT_EQ(file.at("blk.1.ffn_norm.weight").dtype, DType::f32);
  EXPECT_EQ(file.at("rope_freqs.weight").dtype, DType::f32);
  EXPECT_EQ(file.find("blk.2.attn_q.weight"), nullptr);
}

TEST(GoldenGguf, QuantizedTensorsAreCloseToTheFloatsTheyCameFrom) {
  const Gguf floats(golden("llama-F32.gguf"));
  for (const auto &[type, limit] : {std::pair{"F16", 1e-3}, {"BF16", 5e-3}, {"Q8_0", 1e-2}, {"Q4_0", 0.15}, {"Q5_1", 0.06}}) {
    const Gguf file(golden(std::string("llama-") + type + ".gguf"));
    ASSERT_EQ(file.tensors().size(), floats.tensors().size());
    for (const TensorInfo &tensor : file.tensors()) {
      const std::vector<float> exact = floats.read_floats(floats.at(tensor.name)), near = file.read_floats(tensor);
      double error = 0, power = 0;
      for (size_t i = 0; i < exact.size(); ++i) {
        error += std::pow(near[i] - exact[i], 2);
        power += std::pow(exact[i], 2);
      }
      EXPECT_LE(std::sqrt(error / power), limit) << type << " " << tensor.name;
    }
  }
}

TEST(GoldenGguf, ATypeThatIsNotSupportedIsListedAndRefusedByName) {
  const Gguf file(golden("llama_kmix-KMIX.gguf"));
  std::set<std::string> types;
  const TensorInfo *unsupported = nullptr;
  for (const TensorInfo &tensor : file.tensors()) {
    types.insert(tensor.unsupported.empty() ? dtype_info(tensor.dtype).name : tensor.unsupported);
    if (!tensor.unsupported.empty()) unsupported = &tensor;
  }
  EXPECT_EQ(types, (std::set<std::string>{"F32", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS"}));
  ASSERT_TRUE(unsupported);
  EXPECT_FAILS(file.read_floats(*unsupported), Code::unsupported, "IQ4_XS");
  EXPECT_FAILS(file.read_floats(*unsupported), Code::unsupported, unsupported->name);
}

TEST_F(GgufFile, EveryKindOfValueIsRead) {
  GgufBuilder b;
  b.head(0, 14);
  b.key("u8", GgufType::u8).number<uint8_t>(200);
  b.key("i8", GgufType::i8).number<int8_t>(-3);
  b.key("u16", GgufType::u16).number<uint16_t>(65000);
  b.key("i16", GgufType::i16).number<int16_t>(-300);
  b.key("u32", GgufType::u32).number<uint32_t>(4'000'000'000);
  b.key("i32", GgufType::i32).number<int32_t>(-7);
  b.key("u64", GgufType::u64).number<uint64_t>(UINT64_MAX);
  b.key("i64", GgufType::i64).number<int64_t>(INT64_MIN);
  b.key("f32", GgufType::f32).number(0.5f);
  b.key("f64", GgufType::f64).number(0.1);
  b.key("bool", GgufType::boolean).number<uint8_t>(1);
  b.key("string", GgufType::string).string("caf\xC3\xA9");
  b.list("strings", GgufType::string, 3).string("a").string("").string("bc");
  b.list("floats", GgufType::f32, 2).number(1.0f).number(-2.0f);
  const Gguf file = open(b);
  EXPECT_EQ(file.integer_at("u8"), 200);
  EXPECT_EQ(file.integer_at("i8"), -3);
  EXPECT_EQ(file.integer_at("u16"), 65000);
  EXPECT_EQ(file.integer_at("i16"), -300);
  EXPECT_EQ(file.integer_at("u32"), 4'000'000'000);
  EXPECT_EQ(file.integer_at("i32"), -7);
  EXPECT_EQ(file.integer_at("i64"), INT64_MIN);
  EXPECT_FAILS(file.integer_at("u64"), Code::format, "x.gguf: key 'u64': the integer is too large");
  EXPECT_EQ(file.number_at("f32"), 0.5);
  EXPECT_EQ(file.number_at("f64"), 0.1);
  EXPECT_EQ(file.number_at("i32"), -7);
  EXPECT_TRUE(file.bool_or("bool", false));
  EXPECT_EQ(file.string_at("string"), "caf\xC3\xA9");
  const GgufValue &strings = file.strings_at("strings");
  EXPECT_EQ(strings.count, 3u);
  EXPECT_EQ(strings.string(0), "a");
  EXPECT_EQ(strings.string(1), "");
  EXPECT_EQ(strings.string(2), "bc");
  EXPECT_EQ(file.floats_at("floats"), (std::vector<float>{1, -2}));

  EXPECT_EQ(file.integer_or("absent", 5), 5);
  EXPECT_EQ(file.number_or("absent", 0.5), 0.5);
  EXPECT_EQ(file.string_or("absent", "x"), "x");
  EXPECT_TRUE(file.bool_or("absent", true));
  EXPECT_FAILS(file.integer_at("absent"), Code::format, "key 'absent' is missing");
  EXPECT_FAILS(file.integer_or("string", 1), Code::format, "expected an integer, found string");
  EXPECT_FAILS(file.string_at("strings"), Code::format, "found an array of string");
  EXPECT_FAILS(file.strings_at("floats"), Code::format, "found an array of f32");
  EXPECT_FAILS(file.bool_or("u8", false), Code::format, "expected a bool");
  EXPECT_FAILS(file.integers_at("floats"), Code::format, "expected an array of integers");
  EXPECT_FAILS(file.floats_at("f32"), Code::format, "expected an array of floats");
}

TEST_F(GgufFile, VersionAndMagicAreChecked) {
  EXPECT_FAILS(open(GgufBuilder{}), Code::format, "magic");
  EXPECT_FAILS(open(GgufBuilder{"GGML1234"}), Code::format, "'GGUF'");
  EXPECT_FAILS(open(GgufBuilder().head(0, 0, 1)), Code::unsupported, "version 1");
  EXPECT_FAILS(open(GgufBuilder().head(0, 0, 4)), Code::unsupported, "version 4");
  EXPECT_FAILS(open(GgufBuilder().head(0, 0, 0x03000000)), Code::unsupported, "big-endian");
  EXPECT_EQ(open(GgufBuilder().head(0, 0, 2)).version(), 2u);
}

TEST_F(GgufFile, CountsAndLengthsAreBoundedByTheFile) {
  EXPECT_FAILS(open(GgufBuilder().head(0, UINT64_MAX)), Code::format, "metadata entries do not fit");
  EXPECT_FAILS(open(GgufBuilder().head(UINT64_MAX, 0)), Code::format, "tensors do not fit");
  EXPECT_FAILS(open(GgufBuilder().head(0, 1).number<uint64_t>(1 << 30).data(50)), Code::format, "key at byte 24 has length");
  EXPECT_FAILS(open(GgufBuilder().head(0, 1).list("k", GgufType::f64, UINT64_MAX / 8)), Code::format, "key 'k'");
  EXPECT_FAILS(open(GgufBuilder().head(0, 1).list("k", GgufType::string, 100).data(16)), Code::format, "100 elements");
  EXPECT_FAILS(open(GgufBuilder().head(0, 1).key("k", GgufType::string).number<uint64_t>(9).data(8)), Code::format, "length 9");
  EXPECT_FAILS(open(GgufBuilder().head(0, 1).key("k", static_cast<GgufType>(13)).data(8)), Code::format, "value type 13");
  EXPECT_FAILS(open(GgufBuilder().head(0, 1).list("k", GgufType::array, 0)), Code::unsupported, "array of arrays");
  EXPECT_FAILS(open(GgufBuilder().head(0, 1).key("k", GgufType::boolean).number<uint8_t>(2)), Code::format, "neither 0 nor 1");
  EXPECT_FAILS(open(GgufBuilder().head(0, 1).key("a\nb", GgufType::u8).number<uint8_t>(2)), Code::format, "control characters");
}

TEST_F(GgufFile, DuplicatesAreRefused) {
  GgufBuilder keys;
  keys.head(0, 2);
  for (int i = 0; i < 2; ++i) keys.key("k", GgufType::u8).number<uint8_t>(1);
  EXPECT_FAILS(open(keys), Code::format, "key 'k' occurs twice");
  EXPECT_FAILS(open(GgufBuilder().head(2, 0).tensor("t", {8}, 0, 0).tensor("t", {8}, 0, 32).pad(32).data(64)), Code::format,
               "'t' occurs twice");
}

TEST_F(GgufFile, TensorsAreChecked) {
  const auto one = [&](const std::vector<uint64_t> &dimensions, uint32_t type, uint64_t offset, size_t data) {
    return open(GgufBuilder().head(1, 0).tensor("t", dimensions, type, offset).pad(32).data(data)).tensors().size();
  };
  EXPECT_EQ(one({32, 2}, 2, 0, 36), 1u);
  EXPECT_FAILS(one({32, 2}, 2, 0, 35), Code::format, "tensor 't': ends at byte");
  EXPECT_FAILS(one({32, 2}, 2, 8, 64), Code::format, "offset 8 is not a multiple of 32");
  EXPECT_FAILS(one({32, 2}, 2, 32, 64), Code::format, "ends at byte");
  EXPECT_FAILS(one({33, 2}, 2, 0, 64), Code::format, "33 columns do not divide into Q4_0 blocks of 32");
  EXPECT_FAILS(one({1, 1, 1, 1, 1}, 0, 0, 64), Code::format, "rank 5");
  EXPECT_FAILS(one({uint64_t{1} << 33, uint64_t{1} << 33}, 0, 0, 64), Code::format, "overflows");
  EXPECT_FAILS(one({0, uint64_t{1} << 33, uint64_t{1} << 33}, 0, 0, 64), Code::format, "overflows");
  EXPECT_FAILS(one({uint64_t{1} << 63}, 0, 0, 64), Code::format, "too large");
  EXPECT_FAILS(one({uint64_t{1} << 62}, 0, 0, 64), Code::format, "overflows");
  EXPECT_FAILS(one({8}, 0, UINT64_MAX - 31, 64), Code::format, "overflows");
  EXPECT_EQ(one({8}, 4711, 0, 64), 1u);
  const Gguf file(folder_ / "x.gguf");
  float value;
  EXPECT_FAILS(file.read(file.at("t"), &value), Code::unsupported, "tensor 't' has type number 4711");
}

TEST_F(GgufFile, OverlappingTensorsAreRefused) {
  const auto two = [&](uint64_t second) {
    return open(GgufBuilder().head(2, 0).tensor("a", {16}, 0, 0).tensor("b", {8}, 0, second).pad(32).data(96)).tensors().size();
  };
  EXPECT_EQ(two(64), 2u);
  EXPECT_FAILS(two(32), Code::format, "'a' and 'b' overlap");
  EXPECT_FAILS(two(0), Code::format, "overlap");
}

TEST_F(GgufFile, AlignmentIsAPowerOfTwoUpToOneMebibyte) {
  const auto with = [&](uint32_t alignment) {
    GgufBuilder b;
    b.head(1, 1).key("general.alignment", GgufType::u32).number(alignment).tensor("t", {1}, 0, 0);
    return open(b.pad(std::max<uint32_t>(1, std::min<uint32_t>(alignment, 1 << 20))).data(4)).at("t").offset;
  };
  EXPECT_EQ(with(8) % 8, 0u);
  EXPECT_EQ(with(1 << 20), 1u << 20);
  EXPECT_FAILS(with(0), Code::format, "power of two");
  EXPECT_FAILS(with(48), Code::format, "power of two");
  EXPECT_FAILS(with(1 << 21), Code::format, "power of two");
}

TEST_F(GgufFile, APartOfASplitModelIsRefused) {
  const GgufBuilder part = GgufBuilder().head(0, 1).key("split.count", GgufType::u16).number<uint16_t>(3);
  EXPECT_FAILS(open(part), Code::unsupported, "3 parts");
}

}  // namespace
}  // namespace moe
