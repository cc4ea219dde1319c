// Names and folders: the part of file.h that looks at paths and at what lies in a folder.
#include <dirent.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "base/file.h"
#include "base/system_call.h"

namespace moe {
namespace {

// Closes the stream and with it the descriptor it was made from.
struct Listing {
  explicit Listing(int descriptor) : stream(descriptor < 0 ? nullptr : fdopendir(descriptor)) {
    if (!stream && descriptor >= 0) close(descriptor);
  }
  ~Listing() {
    if (stream) closedir(stream);
  }
  Listing(const Listing &) = delete;

  // The next name without . and .., nullptr at the end or on an error (errno tells which).
  const char *next() {
    for (;;) {
      errno = 0;
      const dirent *entry = readdir(stream);
      if (!entry) return nullptr;
      const std::string_view name = entry->d_name;
      if (name != "." && name != "..") return entry->d_name;
    }
  }

  DIR *stream;
};

std::vector<std::string> names_in(int descriptor, const std::string &path) {
  Listing listing(descriptor);
  if (!listing.stream) fail_io(path, "list");
  std::vector<std::string> names;
  while (const char *name = listing.next()) names.emplace_back(name);
  if (errno != 0) fail_io(path, "list");
  std::sort(names.begin(), names.end());
  return names;
}

int open_folder(int parent, const char *name) {
  return retry([&] { return openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC); });
}

// Each name is opened relative to its open parent and never through a link, so a link that is put in place of a folder
// while this runs is removed, not followed.
void remove_entry(int parent, const char *name, const std::string &path) {
  if (unlinkat(parent, name, 0) == 0 || errno == ENOENT) return;
  if (errno != EISDIR && errno != EPERM) fail_io(path, "remove");
  const int unlink_error = errno;
  const int folder = open_folder(parent, name);
  if (folder < 0) {
    if (errno == ENOTDIR) errno = unlink_error;
    fail_io(path, "remove");
  }
  const int listed = fcntl(folder, F_DUPFD_CLOEXEC, 0);
  try {
    for (const std::string &child : names_in(listed, path)) remove_entry(folder, child.c_str(), join_path(path, child));
  } catch (...) {
    close(folder);
    throw;
  }
  close(folder);
  if (unlinkat(parent, name, AT_REMOVEDIR) != 0 && errno != ENOENT) fail_io(path, "remove");
}

bool has_mode(const std::string &path, mode_t type) {
  struct stat status;
  return stat(path.c_str(), &status) == 0 && (status.st_mode & S_IFMT) == type;
}

}  // namespace

bool file_exists(const std::string &path) { return has_mode(path, S_IFREG); }

bool folder_exists(const std::string &path) { return has_mode(path, S_IFDIR); }

void make_folders(const std::string &path) {
  if (path.empty() || folder_exists(path)) return;
  const std::string parent = parent_path(path);
  if (parent != path && parent != ".") make_folders(parent);
  if (mkdir(path.c_str(), 0777) == 0) sync_folder(parent);
  else if (errno != EEXIST || !folder_exists(path)) fail_io(path, "make the folder");
}

std::vector<std::string> list_folder(const std::string &path) {
  return names_in(retry([&] { return open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); }), path);
}

std::vector<std::string> matching_files(const std::string &pattern) {
  std::vector<std::string> paths{pattern.starts_with('/') ? "/" : ""};  // that fit the components so far
  for (size_t at = 0; at < pattern.size();) {
    const size_t end = std::min(pattern.find('/', at), pattern.size());
    const std::string component = pattern.substr(at, end - at);
    at = end + 1;
    if (component.empty()) continue;
    std::vector<std::string> longer;
    for (const std::string &path : paths) {
      if (component.find_first_of("*?[") == std::string::npos) {
        longer.push_back(path.empty() ? component : join_path(path, component));
      } else if (folder_exists(path.empty() ? "." : path)) {
        for (const std::string &name : list_folder(path.empty() ? "." : path))
          if (fnmatch(component.c_str(), name.c_str(), FNM_PERIOD) == 0) longer.push_back(path.empty() ? name : join_path(path, name));
      }
    }
    paths = std::move(longer);
  }
  std::erase_if(paths, [](const std::string &path) { return !file_exists(path); });
  return paths;
}

bool is_link(const std::string &path) {
  struct stat status;
  return lstat(path.c_str(), &status) == 0 && S_ISLNK(status.st_mode);
}

void remove_tree(const std::string &path) {
  std::string name = path;
  while (name.size() > 1 && name.back() == '/') name.pop_back();  // "link/" would follow the link
  remove_entry(AT_FDCWD, name.c_str(), name);
}

std::string join_path(std::string_view a, std::string_view b) {
  if (a.empty() || b.starts_with('/')) return std::string(b);
  std::string path(a);
  if (path.back() != '/') path += '/';
  return path.append(b);
}

std::string base_name(std::string_view path) {
  while (path.size() > 1 && path.ends_with('/')) path.remove_suffix(1);
  if (path == "/") return "/";
  return std::string(path.substr(path.rfind('/') + 1));
}

std::string parent_path(std::string_view path) {
  while (path.size() > 1 && path.ends_with('/')) path.remove_suffix(1);
  const size_t slash = path.rfind('/');
  if (slash == std::string_view::npos) return ".";
  path = path.substr(0, slash);
  while (path.ends_with('/')) path.remove_suffix(1);
  return path.empty() ? "/" : std::string(path);
}

bool is_plain_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string_view::npos &&
         name.find('\0') == std::string_view::npos;
}

bool is_inside(std::string_view relative) {
  if (relative.empty() || relative.front() == '/' || relative.find('\0') != std::string_view::npos) return false;
  for (size_t begin = 0; begin <= relative.size();) {
    const size_t end = std::min(relative.find('/', begin), relative.size());
    if (relative.substr(begin, end - begin) == "..") return false;
    begin = end + 1;
  }
  return true;
}

}  // namespace moe
