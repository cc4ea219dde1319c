// The option mmap: weights that stay in the file are the weights, and what cannot stay there is read.
#include <gtest/gtest.h>

#include <cctype>
#include <cstring>
#include <fstream>
#include <sstream>

#include "base/file.h"
#include "formats/safetensors.h"
#include "model/model_runs.h"
#include "support/temporary_folder.h"

namespace moe {
namespace {

using test::golden_path;
using test::TemporaryFolder;

std::shared_ptr<const BaseModel> load_mapped(const std::string &path, const std::string &compute = "f32") {
  ModelOptions options = test::model_options(compute);
  options.mmap = true;
  return BaseModel::load(path, options);
}

// The path of the file that is mapped at an address, by the system; "" for memory of the process.
std::string file_at(const void *address) {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    uintptr_t begin = 0, end = 0;
    char dash = 0;
    std::istringstream fields(line);
    fields >> std::hex >> begin >> dash >> end;
    const auto at = reinterpret_cast<uintptr_t>(address);
    if (at >= begin && at < end) return line.find('/') == std::string::npos ? "" : line.substr(line.find('/'));
  }
  return "";
}

int64_t matrices_in_files(const BaseModel &model) {
  int64_t count = file_at(model.embedding().data).empty() ? 0 : 1;
  for (int64_t i = 0; i < model.config().layers; i++) {
    for (const Matrix &w : model.layer(i).projection) count += file_at(w.data).empty() ? 0 : 1;
  }
  return count;
}

class MappedWeights : public testing::TestWithParam<const char *> {
 protected:
  void SetUp() override {
#ifndef __linux__
    GTEST_SKIP() << "asks /proc/self/maps, which Linux has";
#endif
    if (!test::golden_model("models/llama")->backend().host_memory()) GTEST_SKIP() << "a device copies its weights";
  }
};

TEST_P(MappedWeights, GiveTheSameNumbersFromTheFile) {
  const std::string path = golden_path(GetParam());
  const auto read = BaseModel::load(path, test::model_options()), mapped = load_mapped(path);
  EXPECT_EQ(matrices_in_files(*read), 0);
  const bool gguf_llama = path.find("llama-") != std::string::npos;  // whose q and k stand in another order
  EXPECT_EQ(matrices_in_files(*mapped), 1 + mapped->config().layers * (gguf_llama ? kModules - 2 : kModules));
  EXPECT_EQ(mapped->weights_fingerprint(), read->weights_fingerprint());
  EXPECT_EQ(mapped->weight_bytes(), read->weight_bytes());
  const std::string family = mapped->config().family;
  const PackedBatch batch = test::golden_batch(family == "gemma3" ? "gemma3_text" : family);
  EXPECT_EQ(test::run_pass(*mapped, Overlay{}, batch).logits(), test::run_pass(*read, Overlay{}, batch).logits());
}
INSTANTIATE_TEST_SUITE_P(Files, MappedWeights,
                         testing::Values("models/llama", "models/qwen3", "gguf/llama-Q4_1.gguf", "gguf/qwen3-Q5_1.gguf",
                                         "gguf/gemma3-BF16.gguf", "gguf/qwen3-F32.gguf"),
                         [](const auto &info) {
                           std::string name = info.param;
                           std::replace_if(name.begin(), name.end(), [](char c) { return !std::isalnum(c); }, '_');
                           return name;
                         });

// One space more in the header moves every tensor off its alignment.
TEST_F(MappedWeights, OddPlacesAreRead) {
  const TemporaryFolder folder;
  std::ofstream(folder / "config.json") << read_file(golden_path("models/qwen3/config.json"));
  std::string content = read_file(golden_path("models/qwen3/model.safetensors"));
  uint64_t header = 0;
  std::memcpy(&header, content.data(), sizeof header);
  content.insert(sizeof header + header++, " ");
  std::memcpy(content.data(), &header, sizeof header);
  std::ofstream(folder / "model.safetensors") << content;
  const auto mapped = load_mapped(folder.path());
  EXPECT_EQ(matrices_in_files(*mapped), 0);
  EXPECT_EQ(mapped->weights_fingerprint(), test::golden_model("models/qwen3")->weights_fingerprint());
}

TEST_F(MappedWeights, StayWhenTheNameOfTheFileIsGone) {
  const TemporaryFolder folder;
  std::ofstream(folder / "model.gguf") << read_file(golden_path("gguf/qwen3-Q8_0.gguf"));
  const auto mapped = load_mapped(folder / "model.gguf");
  std::remove((folder / "model.gguf").c_str());
  const PackedBatch batch = test::golden_batch("qwen3");
  EXPECT_EQ(test::run_pass(*mapped, Overlay{}, batch).logits(),
            test::run_pass(*test::golden_model("gguf/qwen3-Q8_0.gguf"), Overlay{}, batch).logits());
}

}  // namespace
}  // namespace moe
