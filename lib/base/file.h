// Files: reads by pread into owned memory, writes that are atomic and survive a crash, and a lock.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace moe {

// A regular file open for reading. Directories, devices and FIFOs are refused. Not affected by a change of
// the working directory. Close-on-exec.
class File {
 public:
  explicit File(const std::string &path);
  ~File();
  File(File &&other) noexcept;
  File &operator=(File &&other) = delete;

  const std::string &path() const { return path_; }
  uint64_t size() const { return size_; }
  void read(uint64_t offset, void *destination,
            size_t bytes) const;               // exactly `bytes`, else Code::format (too short) or Code::io
  std::string read_all(uint64_t limit) const;  // Code::format when larger than limit

 private:
  friend class FileMapping;

  std::string path_;
  int descriptor_ = -1;
  uint64_t size_ = 0;
};

std::string read_file(const std::string &path, uint64_t limit = uint64_t{1} << 30);

// A whole file in the address space, read-only: the system reads a page when it is first touched and may drop it again. Who cuts
// the file meanwhile ends the process (SIGBUS).
class FileMapping {
 public:
  explicit FileMapping(const File &file);
  ~FileMapping();
  FileMapping(FileMapping &&other) noexcept;
  FileMapping &operator=(FileMapping &&other) = delete;
  const std::byte *data() const { return data_; }  // nullptr of an empty file

 private:
  std::byte *data_ = nullptr;
  size_t size_ = 0;
};

// Bytes in 64-byte aligned memory (2 MiB pages where the system gives them), for weights.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t bytes);  // Code::no_memory on failure
  ~Buffer();
  Buffer(Buffer &&other) noexcept;
  Buffer &operator=(Buffer &&other) noexcept;
  std::byte *data() { return data_; }
  const std::byte *data() const { return data_; }
  size_t size() const { return size_; }

 private:
  std::byte *data_ = nullptr;
  size_t size_ = 0;
};

// Writes `path` so that a reader or a crash sees either the old content or the whole new one:
// temporary file beside it, write, fsync, rename, fsync of the folder.
void write_file_atomic(const std::string &path, std::string_view content);

// A folder that appears whole or not at all. Files are written into a temporary folder beside `target`;
// commit() fsyncs them, fsyncs the folder, renames it to `target` (replacing an older folder of that name without a
// moment in which neither exists whole), fsyncs the parent. Without commit the temporary folder is removed.
class AtomicFolder {
 public:
  explicit AtomicFolder(std::string target);
  ~AtomicFolder();
  AtomicFolder(const AtomicFolder &) = delete;
  const std::string &path() const { return temporary_; }          // write here
  void write(const std::string &name, std::string_view content);  // name may contain '/'
  void commit();

 private:
  std::string target_, temporary_;
  bool committed_ = false;
};

// Removes what killed writers left in `folder`: the temporary files and folders of the two above. For a caller that holds off
// other writers (FileLock).
void remove_unfinished(const std::string &folder);

// Append-only text file (metrics.jsonl): each line is one write call. A line that was cut off by a crash or a full disk is ended
// before the next one begins.
class AppendFile {
 public:
  explicit AppendFile(const std::string &path);
  ~AppendFile();
  AppendFile(const AppendFile &) = delete;
  void line(std::string_view text);
  void bytes(std::string_view content);  // as they are, for files that are not made of lines

 private:
  std::string path_;
  int descriptor_ = -1;
  bool cut_off_ = false;  // the file does not end with the end of a line
};

// An exclusive lock on `path` (created when absent), held until destruction. Code::busy when another
// process or handle holds it; the message names the file.
class FileLock {
 public:
  explicit FileLock(const std::string &path);
  ~FileLock();
  FileLock(const FileLock &) = delete;

 private:
  int descriptor_ = -1;
};

bool file_exists(const std::string &path);  // a regular file
bool folder_exists(const std::string &path);
bool is_link(const std::string &path);  // a symbolic one
void make_folders(const std::string &path);                     // like mkdir -p, durable
std::vector<std::string> list_folder(const std::string &path);  // names, sorted, without . and ..
// The regular files whose paths fit a pattern of the shell: * ? [...] inside of a component. Sorted.
std::vector<std::string> matching_files(const std::string &pattern);
void remove_tree(const std::string &path);                      // never follows symbolic links
std::string join_path(std::string_view a, std::string_view b);
std::string base_name(std::string_view path);
std::string parent_path(std::string_view path);
// True when `name` is one path component that cannot leave its folder: not empty, no '/', no NUL, not "." or "..".
bool is_plain_name(std::string_view name);
// True when a relative path stays inside its folder: no absolute path, no ".." component, no NUL.
bool is_inside(std::string_view relative);

}  // namespace moe
