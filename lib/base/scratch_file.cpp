#include "base/scratch_file.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>

#include "base/file.h"
#include "base/system_call.h"

namespace moe {
namespace {

std::string temporary_folder() {
  const char *folder = getenv("TMPDIR");
  return folder && *folder ? folder : "/tmp";
}

}  // namespace

ScratchFile::ScratchFile() : folder_(temporary_folder()) {
  std::string name = join_path(folder_, "libmoe-XXXXXX");
  descriptor_ = mkostemp(name.data(), O_CLOEXEC);
  if (descriptor_ < 0) fail_io(folder_, "make a temporary file in this folder (TMPDIR)");
  unlink(name.c_str());
}

ScratchFile::~ScratchFile() { close(descriptor_); }

void ScratchFile::append(const void *bytes, size_t count) {
  const auto *from = static_cast<const char *>(bytes);
  while (count > 0) {
    const ssize_t put = retry([&] { return pwrite(descriptor_, from, count, static_cast<off_t>(size_)); });
    if (put <= 0) fail_io(folder_, "write to a temporary file in this folder (TMPDIR)");
    from += put;
    size_ += static_cast<uint64_t>(put);
    count -= static_cast<size_t>(put);
  }
}

void ScratchFile::read(uint64_t offset, void *to, size_t count) const {
  auto *next = static_cast<char *>(to);
  while (count > 0) {
    const ssize_t got = retry([&] { return pread(descriptor_, next, count, static_cast<off_t>(offset)); });
    if (got <= 0) fail_io(folder_, "read a temporary file in this folder (TMPDIR)");
    next += got;
    offset += static_cast<uint64_t>(got);
    count -= static_cast<size_t>(got);
  }
}

ScratchFolder::ScratchFolder() : path_(join_path(temporary_folder(), "libmoe-XXXXXX")) {
  if (!mkdtemp(path_.data())) fail_io(temporary_folder(), "make a temporary folder in this folder (TMPDIR)");
}

ScratchFolder::~ScratchFolder() {
  try {
    remove_tree(path_);
  } catch (const Error &) {  // somebody else changed it
  }
}

}  // namespace moe
