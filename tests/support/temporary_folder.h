// A folder of a test's own, removed with all that is in it.
#pragma once
#include <stdlib.h>

#include <cstdint>
#include <filesystem>
#include <stdexcept>
#include <string>

namespace moe::test {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (place() / "moe-test-XXXXXX").string();
    if (!mkdtemp(name.data())) throw std::runtime_error("no temporary folder");
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder &) = delete;
  const std::string &path() const { return path_; }
  std::string operator/(const std::string &name) const { return path_ + "/" + name; }

 private:
  // Memory where there is enough of it: tests write thousands of small files. TMPDIR decides when it is set.
  static std::filesystem::path place() {
    const std::filesystem::path memory = "/dev/shm";
    std::error_code error;
    const auto space = std::filesystem::space(memory, error);
    if (!getenv("TMPDIR") && !error && space.available >= (uint64_t{1} << 30)) return memory;
    return std::filesystem::temp_directory_path();
  }

  std::string path_;
};

}  // namespace moe::test
