// A temporary file without a name: bytes that do not fit into memory. It goes with its handle, also when the process is killed.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace moe {

class ScratchFile {
 public:
  ScratchFile();  // in the folder TMPDIR, otherwise /tmp; Code::io naming the folder
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

}  // namespace moe
