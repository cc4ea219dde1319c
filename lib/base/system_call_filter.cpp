#include "base/system_call_filter.h"

#if MOE_HAVE_SYSTEM_CALL_FILTER
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <cstdint>

namespace moe {
namespace {

#ifdef __x86_64__
constexpr uint32_t kProcessor = AUDIT_ARCH_X86_64;
#else
constexpr uint32_t kProcessor = AUDIT_ARCH_AARCH64;
#endif

// Those that old kernel headers do not name have the same number on every processor.
constexpr int kFaccessat2 = 439, kRseq = 293, kCloseRange = 436, kClone3 = 435;

constexpr int kAllowed[] = {
    // memory
    SYS_brk, SYS_mmap, SYS_munmap, SYS_mremap, SYS_mprotect, SYS_madvise, SYS_membarrier,
    // files that are open, and looking at others
    SYS_read, SYS_readv, SYS_pread64, SYS_write, SYS_writev, SYS_lseek, SYS_close, kCloseRange, SYS_dup, SYS_dup3, SYS_fstat,
    SYS_newfstatat, SYS_statx, SYS_statfs, SYS_fstatfs, SYS_faccessat, kFaccessat2, SYS_readlinkat, SYS_getdents64, SYS_getcwd,
    SYS_chdir, SYS_fchdir, SYS_fadvise64, SYS_pipe2, SYS_ppoll, SYS_pselect6, SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_pwait,
    SYS_eventfd2, SYS_umask,
    // itself
    SYS_execve, SYS_exit, SYS_exit_group, SYS_getpid, SYS_getppid, SYS_gettid, SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid,
    SYS_getresuid, SYS_getresgid, SYS_getgroups, SYS_getpgid, SYS_getsid, SYS_getrusage, SYS_times, SYS_sysinfo, SYS_uname,
    SYS_wait4, SYS_waitid, SYS_futex, SYS_set_robust_list, SYS_get_robust_list, SYS_set_tid_address, SYS_sched_yield,
    SYS_sched_getaffinity, SYS_getcpu, SYS_getrandom,
    // its signals
    SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_rt_sigsuspend, SYS_rt_sigpending, SYS_rt_sigtimedwait,
    SYS_sigaltstack, SYS_setitimer, SYS_getitimer,
    // time
    SYS_clock_gettime, SYS_clock_getres, SYS_clock_nanosleep, SYS_nanosleep, SYS_gettimeofday, SYS_restart_syscall,
#ifdef __x86_64__
    SYS_rseq, SYS_stat, SYS_lstat, SYS_access, SYS_readlink, SYS_pipe, SYS_dup2, SYS_poll, SYS_select, SYS_epoll_create,
    SYS_epoll_wait, SYS_eventfd, SYS_arch_prctl, SYS_getpgrp, SYS_pause, SYS_alarm, SYS_time, SYS_getrlimit,
#else
    kRseq,
#endif
};

constexpr uint32_t kAllow = SECCOMP_RET_ALLOW;
constexpr uint32_t refuse(uint32_t error) { return SECCOMP_RET_ERRNO | error; }

// Of a filter: `value` is what was loaded last; a jump skips instructions.
sock_filter load(size_t offset) { return {BPF_LD | BPF_W | BPF_ABS, 0, 0, static_cast<uint32_t>(offset)}; }
sock_filter load_argument(size_t index) { return load(offsetof(seccomp_data, args) + 8 * index); }       // its lower half
sock_filter load_upper_half(size_t index) { return load(offsetof(seccomp_data, args) + 8 * index + 4); }
sock_filter give(uint32_t result) { return {BPF_RET | BPF_K, 0, 0, result}; }
sock_filter unless_equal_skip(uint32_t value, size_t count) {
  return {BPF_JMP | BPF_JEQ | BPF_K, 0, static_cast<uint8_t>(count), value};
}
sock_filter unless_any_bit_skip(uint32_t bits, size_t count) {
  return {BPF_JMP | BPF_JSET | BPF_K, 0, static_cast<uint8_t>(count), bits};
}

using Instructions = std::vector<sock_filter>;

// Every path through `judge` ends with a result.
void add(Instructions &filter, long call, const Instructions &judge) {
  filter.push_back(unless_equal_skip(static_cast<uint32_t>(call), judge.size()));
  filter.insert(filter.end(), judge.begin(), judge.end());
}

Instructions allow_argument(size_t index, std::initializer_list<unsigned long> values, uint32_t otherwise) {
  Instructions judge{load_argument(index)};
  for (const unsigned long value : values) {
    judge.push_back(unless_equal_skip(static_cast<uint32_t>(value), 1));
    judge.push_back(give(kAllow));
  }
  judge.push_back(give(otherwise));
  return judge;
}

Instructions refuse_bits(size_t index, uint32_t bits, uint32_t result) {
  return {load_argument(index), unless_any_bit_skip(bits, 1), give(result), give(kAllow)};
}

}  // namespace

Instructions system_call_filter() {
  constexpr uint32_t kTemporaryFile = 020000000, kWriting = O_ACCMODE | O_CREAT | O_TRUNC | kTemporaryFile;
  Instructions filter{load(offsetof(seccomp_data, arch)), {BPF_JMP | BPF_JEQ | BPF_K, 1, 0, kProcessor}, give(SECCOMP_RET_KILL_PROCESS),
                      load(offsetof(seccomp_data, nr))};
  for (const int call : kAllowed) add(filter, call, {give(kAllow)});
  add(filter, SYS_openat, refuse_bits(2, kWriting, refuse(EROFS)));
#ifdef SYS_open
  add(filter, SYS_open, refuse_bits(1, kWriting, refuse(EROFS)));
#endif
  add(filter, SYS_clone,  // threads only
      {load_argument(0), unless_any_bit_skip(CLONE_THREAD, 1), give(kAllow), give(refuse(EPERM))});
  add(filter, kClone3, {give(refuse(ENOSYS))});  // then the C library takes clone, whose flags can be seen
  add(filter, SYS_fcntl,
      allow_argument(1, {F_DUPFD, F_DUPFD_CLOEXEC, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_GETLK, F_SETLK}, refuse(EPERM)));
  add(filter, SYS_ioctl, allow_argument(1, {TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIOCLEX, FIONCLEX}, refuse(ENOTTY)));
  add(filter, SYS_prctl, allow_argument(0, {PR_SET_NAME, PR_GET_NAME}, refuse(EPERM)));
  add(filter, SYS_prlimit64,  // its own limits, to read: process 0, no new value
      {load_argument(0), unless_equal_skip(0, 5), load_argument(2), unless_equal_skip(0, 3), load_upper_half(2),
       unless_equal_skip(0, 1), give(kAllow), give(refuse(EPERM))});
  filter.push_back(give(refuse(EPERM)));
  return filter;
}

int install(const Instructions &filter) {
  const sock_fprog program{static_cast<unsigned short>(filter.size()), const_cast<sock_filter *>(filter.data())};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return -1;
  return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0);
}

}  // namespace moe
#endif
