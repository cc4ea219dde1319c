// The direction of includes: a file of lib/ includes its own layer and lower ones; a program includes moe.h and its own
// headers.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace {

namespace fs = std::filesystem;

constexpr std::array kLayers = {"base", "tensor", "formats", "text", "cpu", "model", "data", "train", "generate", "eval", "api"};

int rank_of(const std::string &layer) {
  return static_cast<int>(std::find(kLayers.begin(), kLayers.end(), layer) - kLayers.begin());
}

// Layers that do not know each other although their order would allow it.
bool forbidden_pair(const std::string &from, const std::string &to) {
  static const std::set<std::pair<std::string, std::string>> pairs = {
      {"cpu", "formats"}, {"cpu", "text"}, {"data", "cpu"}, {"data", "model"}, {"text", "tensor"}};
  return pairs.count({from, to}) > 0;
}

struct Include {
  std::string name;
  bool quoted;
};

std::vector<Include> includes_of(const std::string &content) {
  std::vector<Include> includes;
  std::istringstream lines(content);
  for (std::string line; std::getline(lines, line);) {
    size_t at = line.find_first_not_of(" \t");
    if (at == std::string::npos || line[at] != '#') continue;
    at = line.find_first_not_of(" \t", at + 1);
    if (at == std::string::npos || line.compare(at, 7, "include") != 0) continue;
    at = line.find_first_of("<\"", at);
    if (at == std::string::npos) continue;
    const size_t end = line.find(line[at] == '<' ? '>' : '"', at + 1);
    includes.push_back({line.substr(at + 1, end - at - 1), line[at] == '"'});
  }
  return includes;
}

// What is wrong with the includes of a file of `layer`, one line each.
std::vector<std::string> library_violations(const std::string &layer, const std::string &content) {
  std::vector<std::string> violations;
  for (const auto &[name, quoted] : includes_of(content)) {
    const std::string target = name.substr(0, name.find('/'));
    const bool known = rank_of(target) < static_cast<int>(kLayers.size());
    if (name == "moe.h" || name == "moe_experimental.h") {
      if (layer != "api") violations.push_back("only lib/api includes " + name);
    } else if (known && name != target) {
      if (rank_of(target) > rank_of(layer)) violations.push_back(layer + " includes upward: " + name);
      if (forbidden_pair(layer, target)) violations.push_back(layer + " must not know " + target + ": " + name);
    } else if (quoted) {
      violations.push_back("not written as \"<layer>/...\": " + name);
    }
  }
  return violations;
}

std::vector<std::string> app_violations(const fs::path &folder, const std::string &content) {
  std::vector<std::string> violations;
  for (const auto &[name, quoted] : includes_of(content)) {
    if (name == "moe.h" || name == "moe_experimental.h") continue;
    const bool own = fs::exists(folder / name) || fs::exists(folder.parent_path() / name);
    if (quoted ? !own : rank_of(name.substr(0, name.find('/'))) < static_cast<int>(kLayers.size()) && name.find('/') != std::string::npos) {
      violations.push_back("a program includes moe.h and its own headers only: " + name);
    }
  }
  return violations;
}

std::string read(const fs::path &path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<fs::path> sources_below(const fs::path &folder) {
  std::vector<fs::path> sources;
  if (!fs::exists(folder)) return sources;
  for (const auto &entry : fs::recursive_directory_iterator(folder)) {
    const std::string extension = entry.path().extension().string();
    if (extension == ".cpp" || extension == ".h" || extension == ".c") sources.push_back(entry.path());
  }
  std::sort(sources.begin(), sources.end());
  return sources;
}

const fs::path kRoot = MOE_SOURCE_DIR;

TEST(Layers, EveryFolderOfTheLibraryIsALayer) {
  for (const auto &entry : fs::directory_iterator(kRoot / "lib")) {
    EXPECT_LT(rank_of(entry.path().filename().string()), static_cast<int>(kLayers.size())) << entry.path();
  }
}

TEST(Layers, TheLibraryIncludesDownwardOnly) {
  size_t includes = 0;
  for (const auto &path : sources_below(kRoot / "lib")) {
    const std::string layer = fs::relative(path, kRoot / "lib").begin()->string(), content = read(path);
    includes += includes_of(content).size();
    for (const auto &violation : library_violations(layer, content)) ADD_FAILURE() << fs::relative(path, kRoot) << ": " << violation;
  }
  EXPECT_GT(includes, 100u);
}

TEST(Layers, ProgramsUseThePublicHeaderOnly) {
  for (const auto &path : sources_below(kRoot / "apps")) {
    for (const auto &violation : app_violations(path.parent_path(), read(path))) {
      ADD_FAILURE() << fs::relative(path, kRoot) << ": " << violation;
    }
  }
}

TEST(Layers, TheTestNoticesBadIncludes) {
  EXPECT_EQ(library_violations("base", "#include <vector>\n#include \"base/file.h\"\n").size(), 0u);
  EXPECT_EQ(library_violations("model", "#include \"tensor/dtype.h\"\n").size(), 0u);
  EXPECT_EQ(library_violations("base", "#include \"tensor/dtype.h\"\n").size(), 1u);
  EXPECT_EQ(library_violations("base", "  #  include <model/decoder.h>\n").size(), 1u);
  EXPECT_EQ(library_violations("cpu", "#include \"formats/gguf.h\"\n").size(), 1u);
  EXPECT_EQ(library_violations("data", "#include \"model/decoder.h\"\n").size(), 1u);
  EXPECT_EQ(library_violations("train", "#include \"moe.h\"\n").size(), 1u);
  EXPECT_EQ(library_violations("api", "#include \"moe.h\"\n").size(), 0u);
  EXPECT_EQ(library_violations("base", "#include \"file.h\"\n").size(), 1u);
  EXPECT_EQ(app_violations(kRoot / "apps/moe-train", "#include \"base/file.h\"\n#include <moe.h>\n").size(), 1u);
  EXPECT_EQ(app_violations(kRoot / "apps/moe-train", "#include <base/file.h>\n").size(), 1u);
}

}  // namespace
