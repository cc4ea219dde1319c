// Promise: no file crashes, hangs or exhausts the host. For each reader every truncation of a small valid file and thousands
// of random edits of it must give moe::Error or a valid result, without large allocations. Run with the sanitizers too.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <fstream>
#include <stdexcept>
#include <string>

#include "formats/codec.h"
#include "fuzz/readers.h"
#include "support/gguf_builder.h"
#include "support/temporary_folder.h"

namespace moe {
namespace {

using test::GgufBuilder;
using test::TemporaryFolder;

// Largest memory the process has held, in MiB.
double peak_mebibytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
#ifdef __APPLE__
  return static_cast<double>(usage.ru_maxrss) / (1 << 20);
#else
  return static_cast<double>(usage.ru_maxrss) / (1 << 10);
#endif
}

class Choices {
 public:
  uint64_t below(uint64_t bound) {
    state_ += 0x9E3779B97F4A7C15u;
    uint64_t x = state_;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return (x ^ (x >> 31)) % bound;
  }

 private:
  uint64_t state_ = 1;
};

// One to four edits: a bit flipped, a byte set to a telling value, eight bytes set to an extreme number, a byte added or
// removed, a piece copied over another.
std::string edited(std::string content, Choices &choose) {
  constexpr uint8_t kTelling[] = {0, 1, 0x7f, 0x80, 0xff, '"', '{', '}', '[', ']', ',', '-', '9', 'e', '\n', '\\'};
  constexpr uint64_t kExtreme[] = {0, UINT64_MAX, UINT64_MAX - 7, uint64_t{1} << 63, uint64_t{1} << 32, 0x7fffffff, 1 << 20};
  for (uint64_t edits = 1 + choose.below(4); edits > 0 && content.size() > 8; --edits) {
    const size_t at = choose.below(content.size());
    switch (choose.below(6)) {
      case 0: content[at] = static_cast<char>(content[at] ^ (1 << choose.below(8))); break;
      case 1: content[at] = static_cast<char>(kTelling[choose.below(std::size(kTelling))]); break;
      case 2: {
        const uint64_t number = kExtreme[choose.below(std::size(kExtreme))];
        content.replace(std::min(at, content.size() - 8), 8, reinterpret_cast<const char *>(&number), 8);
        break;
      }
      case 3: content.insert(at, 1, static_cast<char>(kTelling[choose.below(std::size(kTelling))])); break;
      case 4: content.erase(at, 1 + choose.below(4)); break;
      case 5: {
        const std::string piece = content.substr(choose.below(content.size()), 1 + choose.below(16));
        content.replace(at, std::min(piece.size(), content.size() - at), piece);
        break;
      }
    }
  }
  return content;
}

// Gives the reader the valid file, which it must accept, then what is left of it and what was made of it.
void attack(const std::string &valid, const std::string &name, void (*read)(const std::string &)) {
  TemporaryFolder folder;
  const std::string path = folder / name;
  int accepted = 0, refused = 0;
  const auto give = [&](const std::string &content) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << content;
    try {
      read(path);
      ++accepted;
    } catch (const Error &error) {
      ASSERT_NE(error.code(), Code::internal) << error.what();
      ASSERT_FALSE(error.message().empty());
      ++refused;
    }  // any other exception ends the test as a failure
  };
  std::ofstream(path, std::ios::binary) << valid;
  read(path);
  const double before = peak_mebibytes();
  for (size_t length = 0; length < valid.size(); ++length) give(valid.substr(0, length));
  Choices choose;
  for (int i = 0; i < 4000; ++i) give(edited(valid, choose));
  EXPECT_GT(refused, 0);
  EXPECT_GT(accepted, 0);
  EXPECT_LT(peak_mebibytes() - before, 300);
}

std::string small_safetensors() {
  const float a[6] = {1, 2, 3, 4, 5, 6};
  const uint16_t b[4] = {};
  const std::vector<TensorToWrite> tensors{{"a", DType::f32, {2, 3}, a}, {"b", DType::bf16, {4}, b}};
  return encode_safetensors(tensors, {{"format", "pt"}});
}

std::string small_gguf() {
  GgufBuilder b;
  b.head(3, 5);
  b.key("general.architecture", GgufType::string).string("llama");
  b.key("general.alignment", GgufType::u32).number<uint32_t>(32);
  b.list("tokens", GgufType::string, 3).string("a").string("").string("bc");
  b.list("scores", GgufType::f32, 2).number(1.0f).number(-2.0f);
  b.key("flag", GgufType::boolean).number<uint8_t>(1);
  b.tensor("q", {32, 2}, 2, 0).tensor("f", {3}, 0, 64).tensor("k", {256}, 12, 96);
  return b.pad(32).data(96 + 144).bytes;
}

std::string small_packed_batch() { return encode_packed_batch({{5, 6, 7}, {0, 1, 0}, {0, 2, 3}, {6, kNoLabel, 8}, {1, -1}}); }

TEST(HostileFiles, Safetensors) { attack(small_safetensors(), "x.safetensors", fuzz::read_safetensors); }
TEST(HostileFiles, Gguf) { attack(small_gguf(), "x.gguf", fuzz::read_gguf); }
TEST(HostileFiles, PackedBatch) { attack(small_packed_batch(), "x.safetensors", fuzz::read_packed); }
TEST(HostileFiles, LinesOfRows) {
  attack("{\"a\": [1, 2]}\n\n{\"b\": {\"c\": \"\\u00e9\"}}\r\n{\"d\": null}", "x.jsonl", fuzz::read_all_rows);
}
TEST(HostileFiles, DocumentOfRows) {
  attack("{\"questions\": [{\"a\": 1.5e3, \"b\": true},\n {\"c\": \"x\\ny\"}]}", "x.json", fuzz::read_all_rows);
}
TEST(HostileFiles, ListOfRows) { attack("[{\"a\": [1, {\"b\": \"]}\"}]},\n {\"c\": \"x\\ny\"}]\n", "x.json", fuzz::read_all_rows); }
TEST(HostileFiles, SeparatedRows) {
  attack("\xEF\xBB\xBFid,text,answer\r\n1,\"a, \"\"b\"\"\nc\",0\r\n2,\xC3\xA9,1\r\n3,x,2\r\n", "x.csv", fuzz::read_all_rows);
}
TEST(HostileFiles, UnnamedRows) { attack("id\ttext\n1\ta\n2\tb\n", "x", fuzz::read_all_rows); }
TEST(HostileFiles, Paragraphs) { attack("one\ntwo\n\nthr\xC3\xA9\xC3\xA9\r\n\r\n\n", "x.txt", fuzz::read_paragraphs); }
TEST(HostileFiles, CompressedRows) {
  for (const char *name : {"lines.jsonl.gz", "lines.jsonl.zst"})
    if (codec_available(std::string_view(name).ends_with("gz") ? Codec::gzip : Codec::zstd))
      attack(read_file(std::string(MOE_TESTS_DIR) + "/golden/rows/" + name), "x.jsonl", fuzz::read_all_rows);
}
TEST(HostileFiles, LoraConfig) {
  attack(R"({"peft_type":"LORA","r":4,"lora_alpha":8.5,"target_modules":["q_proj","down_proj"],"rank_pattern":{"q_proj":2},)"
         R"("alpha_pattern":{"layers.1":3},"layers_to_transform":[0,11],"layers_pattern":"layers","use_rslora":true})",
         "adapter_config.json", fuzz::read_lora_config);
}

// Nested columns with a dictionary; version 2 pages, deltas and a codec; a list of lists of the oldest form.
TEST(HostileFiles, Parquet) {
  for (const char *name : {"parquet-testing/map_no_value", "hyparquet/datapage_v2.snappy", "parquet-testing/old_list_structure"}) {
    if (std::string(name).ends_with("snappy") && !codec_available(Codec::snappy)) continue;
    attack(read_file(std::string(MOE_TESTS_DIR) + "/golden/parquet/" + name + ".parquet"), "x.parquet", fuzz::read_parquet);
  }
}

// The index and one shard of a checkpoint: the shard stays as it is.
TEST(HostileFiles, ShardIndex) {
  static const TemporaryFolder folder;
  std::ofstream(folder / "model-00001-of-00001.safetensors", std::ios::binary) << small_safetensors();
  attack(R"({"metadata":{"total_size":32},"weight_map":{"a":"model-00001-of-00001.safetensors",)"
         R"("b":"model-00001-of-00001.safetensors"}})",
         "index.json", [](const std::string &path) {
           std::ifstream in(path, std::ios::binary);
           std::ofstream(folder / "model.safetensors.index.json", std::ios::binary | std::ios::trunc) << in.rdbuf();
           fuzz::read_safetensors(folder.path());
         });
}

}  // namespace
}  // namespace moe
