// Blocks of one text, made once by each library's own compressor.
#include "formats/codec.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/error.h"
#include "support/expect_error.h"

namespace moe {
namespace {

std::string the_text() {
  std::string text;
  for (int i = 0; i < 6; ++i) text += "six times seven is forty-two. ";
  return text;
}

std::string bytes(const std::string &hex) {
  std::string out;
  for (size_t i = 0; i < hex.size(); i += 2) out += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return out;
}

struct Block {
  const char *name;
  Codec codec;
  std::string content;
};

std::vector<Block> blocks() {
  const std::string lz4 = "ff0f7369782074696d657320736576656e20697320666f7274792d74776f2e201e007e5074776f2e20";
  return {
      {"gzip", Codec::gzip,
       bytes("1f8b08000000000002032bceac5028c9cc4d2d56284e2d4bcd53c82c5648cb2f2aa9d42d29cfd753281e94b200bb3fc73cb4000000")},
      {"zlib", Codec::gzip, bytes("78da2bceac5028c9cc4d2d56284e2d4bcd53c82c5648cb2f2aa9d42d29cfd753281e94b2006ee941e9")},
      {"two gzip members", Codec::gzip,
       bytes("1f8b08000000000002032bceac5028c9cc4d2d56284e2d4bcd53c82c5648cb2f2aa9d42d29cfd75328a68a2c00cc5ce38564000000"
             "1f8b08000000000002032b4e2d4bcd53c82c5648cb2f2aa9d42d29cfd75328ceac5028c9cc4d2d562826591600132e1ad350000000")},
      {"zstd", Codec::zstd,
       bytes("28b52ffd20b42d0100f07369782074696d657320736576656e20697320666f7274792d74776f2e2001004e02a59c")},
      {"snappy", Codec::snappy, bytes("b401787369782074696d657320736576656e20697320666f7274792d74776f2e2073fe1e00fe1e00521e00")},
      {"lz4", Codec::lz4, bytes(lz4)},
      {"lz4 without framing", Codec::lz4_parquet, bytes(lz4)},
      {"lz4, Hadoop, one block", Codec::lz4_parquet, bytes("000000b400000029" + lz4)},
      {"lz4, Hadoop, two blocks", Codec::lz4_parquet,
       bytes("000000b400000029ff0f7369782074696d657320736576656e20697320666f7274792d74776f2e201e002e50696d6573200000002"
             "9ff0f736576656e20697320666f7274792d74776f2e207369782074696d6573201e001a5074776f2e20")},
      {"lz4 frame", Codec::lz4_parquet, bytes("04224d186440a729000000" + lz4 + "0000000040b9b8eb")},
      {"brotli", Codec::brotli, bytes("1bb300f8c56d6c5dc7b13b83965042958b8c2260b6d0034a4d1d82477f50aafdf42a00")},
  };
}

// Into memory of exactly that size, where a sanitizer sees a byte too many.
std::string decompressed(const Block &block, size_t size) {
  std::vector<char> out(size);
  decompress(block.codec, block.content, out.data(), size, "x.parquet: page");
  return std::string(out.begin(), out.end());
}

TEST(Codec, GivesTheTextBack) {
  for (const Block &block : blocks()) {
    if (!codec_available(block.codec)) continue;
    EXPECT_EQ(decompressed(block, the_text().size()), the_text()) << block.name;
  }
}

TEST(Codec, RefusesAnotherLength) {
  for (const Block &block : blocks()) {
    if (!codec_available(block.codec)) continue;
    for (const size_t size : {size_t{0}, size_t{1}, the_text().size() - 1, the_text().size() + 1, size_t{100'000}}) {
      SCOPED_TRACE(block.name);
      EXPECT_FAILS(decompressed(block, size), Code::format, "x.parquet: page");
    }
  }
}

TEST(Codec, RefusesEveryTruncation) {
  for (Block block : blocks()) {
    if (!codec_available(block.codec)) continue;
    while (!block.content.empty()) {
      block.content.pop_back();
      SCOPED_TRACE(block.name);
      EXPECT_FAILS(decompressed(block, the_text().size()), Code::format, codec_name(block.codec));
    }
  }
}

TEST(Codec, AFlippedBitIsAnErrorOrAnotherTextOfTheSameLength) {
  for (const Block &block : blocks()) {
    if (!codec_available(block.codec)) continue;
    int refused = 0;
    for (size_t bit = 0; bit < block.content.size() * 8; ++bit) {
      Block damaged = block;
      damaged.content[bit / 8] = static_cast<char>(damaged.content[bit / 8] ^ (1 << bit % 8));
      try {
        EXPECT_EQ(decompressed(damaged, the_text().size()).size(), the_text().size());
      } catch (const Error &error) {
        EXPECT_EQ(error.code(), Code::format) << block.name;
        ++refused;
      }
    }
    EXPECT_GT(refused, 0) << block.name;
  }
}

TEST(Codec, NothingGivesNothing) {
  for (const Block &block : blocks()) {
    if (codec_available(block.codec)) decompress(block.codec, "", nullptr, 0, "x");
  }
}

TEST(Codec, WithoutItsLibraryItIsRefusedByName) {
  for (const Block &block : blocks()) {
    if (!codec_available(block.codec))
      EXPECT_FAILS(decompressed(block, the_text().size()), Code::unsupported, "this build of libmoe has no");
  }
  EXPECT_TRUE(codec_available(Codec::none));
}

}  // namespace
}  // namespace moe
