/* Preloaded into a program: counts its system calls on files below one folder and makes one of them go wrong.
 *
 *   MOE_FAULT_FOLDER  the folder (absolute)
 *   MOE_FAULT_LOG     every counted call as a line "<n> <call> <path>"; a write to standard output as "0 said <text>"
 *   MOE_FAULT_CALL    n, from 1; 0 = none
 *   MOE_FAULT_KIND    kill   SIGKILL instead of call n
 *                     torn   call n writes half of its bytes, then SIGKILL
 *                     short  call n writes half of its bytes and says so
 *                     error  call n fails: ENOSPC where it takes space, else EIO
 *                     full   from call n on every call that takes space fails with ENOSPC
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static long counted;

/* The next definition of a function after this one: the C library's. */
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static void note(long n, const char *call, const char *text, size_t length) {
  const char *path = getenv("MOE_FAULT_LOG");
  char line[PATH_MAX + 64];
  if (!path) return;
  const int size = snprintf(line, sizeof line, "%ld %s %.*s\n", n, call, (int)length, text);
  const long log = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (log < 0) return;
  if (syscall(SYS_write, log, line, size) < 0) abort();
  syscall(SYS_close, log);
}

/* The path of `name` below the open folder `parent`, or of the open file `parent` itself when name is NULL. */
static const char *full_path(int parent, const char *name, char *space) {
  char link[64];
  if (name && (name[0] == '/' || parent == AT_FDCWD)) return name;
  snprintf(link, sizeof link, "/proc/self/fd/%d", parent);
  const ssize_t size = readlink(link, space, PATH_MAX - 1);
  if (size < 0) return "";
  space[size] = 0;
  if (name) snprintf(space + size, PATH_MAX - (size_t)size, "/%s", name);
  return space;
}

static int is_kind(const char *kind) {
  const char *chosen = getenv("MOE_FAULT_KIND");
  return chosen && strcmp(chosen, kind) == 0;
}

/* Counts a call; returns 0 when it may go on, -1 with errno when it has to fail, and 1 when it has to write half. */
static int fault(const char *call, int parent, const char *name, int takes_space) {
  char space[2 * PATH_MAX];
  const char *folder = getenv("MOE_FAULT_FOLDER"), *chosen = getenv("MOE_FAULT_CALL");
  const char *path = full_path(parent, name, space);
  if (!folder || strncmp(path, folder, strlen(folder)) != 0) return 0;
  const long n = ++counted, wanted = chosen ? atol(chosen) : 0;
  note(n, call, path, strlen(path));
  if (wanted > 0 && n >= wanted && takes_space && is_kind("full")) return errno = ENOSPC, -1;
  if (n != wanted) return 0;
  if (is_kind("kill")) kill(getpid(), SIGKILL);
  if (is_kind("error")) return errno = takes_space ? ENOSPC : EIO, -1;
  return is_kind("torn") || is_kind("short");
}

static int opens(const char *call, int parent, const char *path, int flags) {
  return fault(flags & O_CREAT ? "create" : call, parent, path, flags & O_CREAT ? 1 : 0);
}

#define OPEN(name, parameters, parent, ...)                                    \
  int name parameters {                                                        \
    mode_t mode = 0;                                                           \
    if (flags & O_CREAT) {                                                     \
      va_list rest;                                                            \
      va_start(rest, flags);                                                   \
      mode = va_arg(rest, mode_t);                                             \
      va_end(rest);                                                            \
    }                                                                          \
    return opens("open", parent, path, flags) < 0 ? -1 : REAL(name)(__VA_ARGS__, flags, mode); \
  }
OPEN(open, (const char *path, int flags, ...), AT_FDCWD, path)
OPEN(open64, (const char *path, int flags, ...), AT_FDCWD, path)
OPEN(openat, (int parent, const char *path, int flags, ...), parent, parent, path)
OPEN(openat64, (int parent, const char *path, int flags, ...), parent, parent, path)

FILE *fopen(const char *path, const char *mode) {
  return fault(mode[0] == 'r' ? "open" : "create", AT_FDCWD, path, mode[0] != 'r') < 0 ? NULL : REAL(fopen)(path, mode);
}
FILE *fopen64(const char *path, const char *mode) {
  return fault(mode[0] == 'r' ? "open" : "create", AT_FDCWD, path, mode[0] != 'r') < 0 ? NULL : REAL(fopen64)(path, mode);
}

/* Half of what is asked for where that is more than one byte. */
static ssize_t half_written(int file, const void *data, size_t size) {
  const ssize_t written = REAL(write)(file, data, size > 1 ? size / 2 : size);
  if (is_kind("torn")) kill(getpid(), SIGKILL);
  return written;
}

ssize_t write(int file, const void *data, size_t size) {
  if (file == STDOUT_FILENO) note(0, "said", data, size - 1);
  const int what = fault("write", file, NULL, 1);
  if (what < 0) return -1;
  return what ? half_written(file, data, size) : REAL(write)(file, data, size);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
  const int what = fault("write", file, NULL, 1);
  if (what < 0) return -1;
  return what ? half_written(file, parts[0].iov_base, parts[0].iov_len) : REAL(writev)(file, parts, count);
}

#define CALL(result, name, parameters, parent, path, takes_space, ...)         \
  result name parameters { return fault(#name, parent, path, takes_space) < 0 ? -1 : REAL(name)(__VA_ARGS__); }
CALL(ssize_t, pread, (int file, void *data, size_t size, off_t offset), file, NULL, 0, file, data, size, offset)
CALL(ssize_t, pread64, (int file, void *data, size_t size, off64_t offset), file, NULL, 0, file, data, size, offset)
CALL(int, fsync, (int file), file, NULL, 0, file)
CALL(int, fdatasync, (int file), file, NULL, 0, file)
CALL(int, ftruncate, (int file, off_t size), file, NULL, 1, file, size)
CALL(int, mkdir, (const char *path, mode_t mode), AT_FDCWD, path, 1, path, mode)
CALL(int, unlink, (const char *path), AT_FDCWD, path, 0, path)
CALL(int, rmdir, (const char *path), AT_FDCWD, path, 0, path)
CALL(int, unlinkat, (int parent, const char *path, int flags), parent, path, 0, parent, path, flags)

/* Counted by the new name, which is what appears or does not; the line before has the old one. */
int rename(const char *old, const char *path) {
  note(0, "from", old, strlen(old));
  return fault("rename", AT_FDCWD, path, 0) < 0 ? -1 : REAL(rename)(old, path);
}
int renameat2(int parent, const char *old, int new_parent, const char *path, unsigned flags) {
  note(0, "from", old, strlen(old));
  return fault("rename", new_parent, path, 0) < 0 ? -1 : REAL(renameat2)(parent, old, new_parent, path, flags);
}
