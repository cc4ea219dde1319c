// Writing so that a crash at any instant leaves the old or the new content: data and names reach the disk in the order
// file, folder, rename, parent folder.
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>

#include "base/file.h"
#include "base/system_call.h"

namespace moe {
namespace {

class Descriptor {
 public:
  Descriptor(int value, const std::string &path, const char *verb) : value_(value) {
    if (value < 0) fail_io(path, verb);
  }
  ~Descriptor() {
    if (value_ >= 0) close(value_);
  }
  Descriptor(const Descriptor &) = delete;
  int get() const { return value_; }

 private:
  int value_;
};

void write_all(int descriptor, std::string_view content, const std::string &path) {
  while (!content.empty()) {
    const ssize_t written = retry([&] { return write(descriptor, content.data(), std::min(content.size(), size_t{1} << 30)); });
    if (written < 0) fail_io(path, "write");
    content.remove_prefix(static_cast<size_t>(written));
  }
}

void sync(int descriptor, const std::string &path) {
  if (retry([&] { return fsync(descriptor); }) != 0) fail_io(path, "fsync");
}

// Fsyncs every file below `path`, then the folders from the leaves up.
void sync_tree(const std::string &path) {
  for (const std::string &name : list_folder(path)) {
    const std::string child = join_path(path, name);
    struct stat status;
    if (lstat(child.c_str(), &status) != 0) fail_io(child, "look at");
    if (S_ISDIR(status.st_mode)) {
      sync_tree(child);
    } else if (S_ISREG(status.st_mode)) {
      const Descriptor file(retry([&] { return open(child.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW); }), child, "open");
      sync(file.get(), child);
    }
  }
  sync_folder(path);
}

void write_new_file(const std::string &path, int flags, std::string_view content) {
  const Descriptor file(retry([&] { return open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0666); }), path, "create");
  write_all(file.get(), content, path);
  sync(file.get(), path);
}

// A hidden name beside `target` that no other process or thread uses: ".<name>.<kind>-<process>-<time>-<count>".
std::string name_beside(const std::string &target, const char *kind) {
  static std::atomic<uint64_t> count{0};
  const auto now = std::chrono::system_clock::now().time_since_epoch().count();
  return join_path(parent_path(target), text('.', base_name(target), '.', kind, '-', getpid(), '-', now, '-', ++count));
}

// The path as seen from the root, so that a later change of the working directory does not move it.
std::string absolute(const std::string &path) {
  if (path.starts_with('/')) return path;
  char *here = getcwd(nullptr, 0);
  if (!here) fail_io(path, "find the working directory of");
  std::string joined = join_path(here, path);
  free(here);
  return joined;
}

// Swaps two names in one step; false where the system or the file system cannot.
bool exchange_names(const std::string &a, const std::string &b) {
#if defined(__linux__)
  return renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE) == 0;
#elif defined(__APPLE__)
  return renamex_np(a.c_str(), b.c_str(), RENAME_SWAP) == 0;
#else
  return (void)a, (void)b, false;
#endif
}

// Replaces a folder where names cannot be exchanged: the old one steps aside first, and back if the new one cannot take
// its place. Returns the name the old one has now.
std::string put_in_place_of(const std::string &temporary, const std::string &target) {
  const std::string old = name_beside(target, "old");
  if (rename(target.c_str(), old.c_str()) != 0) fail_io(target, "rename");
  if (rename(temporary.c_str(), target.c_str()) != 0) {
    const int error = errno;
    (void)rename(old.c_str(), target.c_str());
    errno = error;
    fail_io(target, "rename a new folder to");
  }
  return old;
}

// The name beside which `name` was made by name_beside, "" when it was not.
std::string name_behind(std::string_view name, std::string_view kind) {
  const size_t at = name.rfind(text('.', kind, '-'));
  if (!name.starts_with('.') || at == std::string_view::npos || at < 2) return "";
  const std::string_view numbers = name.substr(at + kind.size() + 2);
  const bool three_numbers =
      std::count(numbers.begin(), numbers.end(), '-') == 2 && numbers.find_first_not_of("-0123456789") == std::string_view::npos;
  return three_numbers ? std::string(name.substr(1, at - 1)) : "";
}

}  // namespace

void sync_folder(const std::string &path) {
  const Descriptor folder(retry([&] { return open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); }), path, "open");
  sync(folder.get(), path);
}

void remove_unfinished(const std::string &folder) {
  if (!folder_exists(folder)) return;
  for (const std::string &name : list_folder(folder)) {
    const std::string path = join_path(folder, name), old = name_behind(name, "old");
    if (!old.empty() && !folder_exists(join_path(folder, old))) {  // killed while it was being replaced: it steps back
      if (rename(path.c_str(), join_path(folder, old).c_str()) != 0) fail_io(path, "rename");
    } else if (!old.empty() || !name_behind(name, "new").empty()) {
      remove_tree(path);
    }
  }
}

void write_file_atomic(const std::string &path, std::string_view content) {
  const std::string temporary = name_beside(path, "new");
  try {
    write_new_file(temporary, O_EXCL, content);
    if (rename(temporary.c_str(), path.c_str()) != 0) fail_io(path, "rename a new file to");
  } catch (...) {
    unlink(temporary.c_str());
    throw;
  }
  sync_folder(parent_path(path));
}

AtomicFolder::AtomicFolder(std::string target) : target_(absolute(target)) {
  while (target_.size() > 1 && target_.ends_with('/')) target_.pop_back();
  struct stat status;
  if (lstat(target_.c_str(), &status) == 0 && !S_ISDIR(status.st_mode)) {
    fail(Code::io, target_, ": expected a folder or nothing, found a file");
  }
  temporary_ = name_beside(target_, "new");
  if (mkdir(temporary_.c_str(), 0777) != 0) fail_io(temporary_, "make the folder");
}

AtomicFolder::~AtomicFolder() {
  if (committed_) return;
  try {
    remove_tree(temporary_);
  } catch (const Error &) {  // nothing of value is lost: the name says that it is not a result
  }
}

void AtomicFolder::write(const std::string &name, std::string_view content) {
  if (!is_inside(name)) fail(Code::invalid, target_, ": the name '", name, "' leaves the folder");
  const std::string path = join_path(temporary_, name);
  make_folders(parent_path(path));
  write_new_file(path, O_TRUNC, content);
}

void AtomicFolder::commit() {
  sync_tree(temporary_);
  std::string old;  // the replaced folder, under the name it has now
  if (rename(temporary_.c_str(), target_.c_str()) != 0) {
    if (errno != ENOTEMPTY && errno != EEXIST) fail_io(target_, "rename a new folder to");
    old = exchange_names(temporary_, target_) ? temporary_ : put_in_place_of(temporary_, target_);
  }
  committed_ = true;
  sync_folder(parent_path(target_));
  if (!old.empty()) remove_tree(old);
}

AppendFile::AppendFile(const std::string &path) : path_(path) {
  descriptor_ = retry([&] { return open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0666); });
  if (descriptor_ < 0) fail_io(path, "open");
  struct stat status;
  char last = '\n';
  if (fstat(descriptor_, &status) == 0 && status.st_size > 0 && pread(descriptor_, &last, 1, status.st_size - 1) != 1) last = 0;
  cut_off_ = last != '\n';
}

AppendFile::~AppendFile() { close(descriptor_); }

void AppendFile::line(std::string_view text) {
  std::string whole = cut_off_ ? "\n" : "";
  whole.append(text) += '\n';
  cut_off_ = true;
  write_all(descriptor_, whole, path_);
  cut_off_ = false;
}

void AppendFile::bytes(std::string_view content) { write_all(descriptor_, content, path_); }

}  // namespace moe
