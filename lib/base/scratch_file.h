// What is there for a while, in the folder TMPDIR or otherwise /tmp; Code::io naming the folder.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace moe {

// A file without a name: bytes that do not fit into memory. It goes with its handle, also when the process is killed.
class ScratchFile {
 public:
  ScratchFile();
  ~ScratchFile();
  ScratchFile(const ScratchFile &) = delete;

  void append(const void *bytes, size_t count);
  void read(uint64_t offset, void *to, size_t count) const;  // any thread
  uint64_t size() const { return size_; }

 private:
  std::string folder_;
  int descriptor_ = -1;
  uint64_t size_ = 0;
};

// An empty folder that nobody else can enter. It goes with its handle and all that is in it.
class ScratchFolder {
 public:
  ScratchFolder();
  ~ScratchFolder();
  ScratchFolder(const ScratchFolder &) = delete;
  const std::string &path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace moe
