#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/memory.h"
#include "base/system_call.h"

namespace moe {

// O_NONBLOCK: a FIFO must be refused, not waited for.
File::File(const std::string &path) : path_(path) {
  if (path.find('\0') != std::string::npos) fail(Code::invalid, path.c_str(), ": the name contains a NUL byte");
  descriptor_ = retry([&] { return open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); });
  if (descriptor_ < 0) fail_io(path, "open");
  struct stat status;
  if (fstat(descriptor_, &status) != 0 || !S_ISREG(status.st_mode)) {
    close(descriptor_);
    fail(Code::io, path, ": expected a regular file, found ", S_ISDIR(status.st_mode) ? "a folder" : "something else");
  }
  size_ = static_cast<uint64_t>(status.st_size);
}

File::~File() {
  if (descriptor_ >= 0) close(descriptor_);
}

File::File(File &&other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)), size_(std::exchange(other.size_, 0)) {}

void File::read(uint64_t offset, void *destination, size_t bytes) const {
  constexpr size_t kLargestCall = size_t{1} << 30;
  if (offset > size_ || bytes > size_ - offset) {
    fail(Code::format, path_, ": too short: ", bytes, " bytes at offset ", offset, " are needed, the file has ", size_);
  }
  auto *to = static_cast<char *>(destination);
  while (bytes > 0) {
    const ssize_t got = retry([&] { return pread(descriptor_, to, std::min(bytes, kLargestCall), static_cast<off_t>(offset)); });
    if (got < 0) fail_io(path_, "read");
    if (got == 0) fail(Code::format, path_, ": was cut while it was read: it ends at offset ", offset, ", not at ", size_);
    to += got;
    offset += static_cast<uint64_t>(got);
    bytes -= static_cast<size_t>(got);
  }
}

std::string File::read_all(uint64_t limit) const {
  if (size_ > limit) fail(Code::format, path_, ": too large: expected at most ", limit, " bytes, found ", size_);
  std::string content(static_cast<size_t>(size_), '\0');
  read(0, content.data(), content.size());
  return content;
}

std::string read_file(const std::string &path, uint64_t limit) { return File(path).read_all(limit); }

FileMapping::FileMapping(const File &file) : size_(static_cast<size_t>(file.size_)) {
  if (size_ == 0) return;
  void *address = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.descriptor_, 0);
  if (address == MAP_FAILED) fail_io(file.path_, "map");
  data_ = static_cast<std::byte *>(address);
}

FileMapping::~FileMapping() {
  if (data_) munmap(data_, size_);
}

FileMapping::FileMapping(FileMapping &&other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

Buffer::Buffer(size_t bytes) : data_(allocate_aligned(bytes)), size_(bytes) {}

Buffer::~Buffer() { free_aligned(data_); }

Buffer::Buffer(Buffer &&other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

Buffer &Buffer::operator=(Buffer &&other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

FileLock::FileLock(const std::string &path) {
  descriptor_ = retry([&] { return open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOCTTY, 0666); });
  if (descriptor_ < 0) fail_io(path, "open");
  if (retry([&] { return flock(descriptor_, LOCK_EX | LOCK_NB); }) == 0) return;
  const int error = errno;
  close(descriptor_);
  if (error == EWOULDBLOCK) fail(Code::busy, path, ": is locked by another writer");
  errno = error;
  fail_io(path, "lock");
}

FileLock::~FileLock() { close(descriptor_); }

}  // namespace moe
