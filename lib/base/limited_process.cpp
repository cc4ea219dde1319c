#include "base/limited_process.h"

#include "base/error.h"
#include "base/system_call_filter.h"

#if MOE_HAVE_SYSTEM_CALL_FILTER
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <iterator>
#include <utility>

#include "base/system_call.h"

namespace moe {
namespace {

constexpr int kReport = 3;        // the descriptor of the child
constexpr char kNotStarted = 0;   // a report that begins with this comes from before the program: then errno and what failed

class Descriptor {
 public:
  Descriptor() = default;
  ~Descriptor() { reset(); }
  Descriptor(const Descriptor &) = delete;
  // Takes `from` to a number that is none of the child's.
  void take(int from) {
    number_ = fcntl(from, F_DUPFD_CLOEXEC, kReport + 1);
    close(from);
    if (number_ < 0) fail_io("a child process", "get a descriptor");
  }
  void reset() {
    if (number_ >= 0) close(number_);
    number_ = -1;
  }
  int number() const { return number_; }

 private:
  int number_ = -1;
};

// What the child needs, made before there is one: between clone and exec nothing may be allocated.
struct Start {
  std::vector<char *> command, environment;
  std::vector<sock_filter> filter;
  const LimitedProcess *process = nullptr;
  int input = -1, output = -1, report = -1, status = -1, last_descriptor = 1024;
};

std::vector<char *> pointers(const std::vector<std::string> &texts) {
  std::vector<char *> result;
  for (const std::string &text : texts) result.push_back(const_cast<char *>(text.c_str()));
  result.push_back(nullptr);
  return result;
}

void limit(int what, uint64_t value) {
  const rlimit both{value, value};
  setrlimit(static_cast<decltype(RLIMIT_CPU)>(what), &both);
}

[[noreturn]] void give_up(const char *verb) {
  char message[64] = {kNotStarted, static_cast<char>(errno)};
  size_t size = 2;
  for (; *verb && size < sizeof message; size++) message[size] = *verb++;
  if (write(kReport, message, size) < 0) _exit(126);
  _exit(127);
}

void close_all(int first, int last, int last_descriptor) {
  if (last < first || syscall(SYS_close_range, first, last, 0) == 0) return;
  for (int number = first; number <= std::min(last, last_descriptor); number++) close(number);
}

pid_t clone_with(int signal_at_end) {
  return static_cast<pid_t>(syscall(SYS_clone, signal_at_end, nullptr, nullptr, nullptr, nullptr));
}

// In the process that becomes the program.
[[noreturn]] void execute(const Start &start) {
  const ProcessLimits &limits = start.process->limits;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (chdir(start.process->folder.c_str()) != 0) give_up("enter its folder");
  if (dup2(start.input, 0) < 0 || dup2(start.output, 1) < 0 || dup2(start.output, 2) < 0) give_up("take its descriptors");
  close_all(kReport + 1, INT_MAX, start.last_descriptor);
  limit(RLIMIT_CORE, 0);
  const rlimit cpu{static_cast<rlim_t>(limits.cpu_seconds), static_cast<rlim_t>(limits.cpu_seconds + 1)};  // SIGXCPU, then SIGKILL
  setrlimit(RLIMIT_CPU, &cpu);
  limit(RLIMIT_AS, limits.memory);
  if (start.process->confined) {
    limit(RLIMIT_FSIZE, 0);
    limit(RLIMIT_NOFILE, 64);
    if (install(start.filter) != 0) give_up("refuse calls of the system (seccomp)");
  }
  execve(start.command[0], start.command.data(), start.environment.data());
  give_up("execute");
}

struct Ended {
  int status = 0;
  int64_t cpu_seconds = 0;
};

// In the child of the host: a process that executes nothing, so that its end raises no SIGCHLD there. The program is its child.
[[noreturn]] void supervise(const Start &start) {
  dup2(start.report, kReport);
  setsid();
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  for (int number = 1; number < NSIG; number++) signal(number, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  const pid_t program = clone_with(SIGCHLD);
  if (program < 0) give_up("start");
  if (program == 0) execute(start);
  close_all(0, start.status - 1, start.last_descriptor);
  close_all(start.status + 1, INT_MAX, start.last_descriptor);
  Ended ended;
  rusage usage = {};
  retry([&] { return wait4(program, &ended.status, 0, &usage); });
  ended.cpu_seconds = usage.ru_utime.tv_sec + usage.ru_stime.tv_sec;
  _exit(write(start.status, &ended, sizeof ended) == sizeof ended ? 0 : 1);
}

// In the end it is killed, with its group, and waited for.
class Child {
 public:
  explicit Child(const Start &start) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);  // no handler of the host runs in the child
    process_ = clone_with(0);
    if (process_ == 0) supervise(start);
    const int error = errno;
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    errno = error;
    if (process_ < 0) fail_io("a child process", "start");
  }
  ~Child() {
    kill(-process_, SIGKILL);
    kill(process_, SIGKILL);
    kill(-process_, SIGKILL);  // it may have made its group, and the program in it, between the two
    retry([&] { return waitpid(process_, nullptr, __WALL); });
  }
  Child(const Child &) = delete;

 private:
  pid_t process_ = 0;
};

void make_pipe(Descriptor &read_end, Descriptor &write_end) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) fail_io("a child process", "make a pipe");
  read_end.take(ends[0]);
  write_end.take(ends[1]);
  fcntl(read_end.number(), F_SETFL, O_NONBLOCK);
}

// In memory: nothing waits for a disk, and a program that does not read it holds nobody.
void give_input(const std::string &bytes, Descriptor &input) {
  const int file = memfd_create("input", MFD_CLOEXEC);
  if (file < 0) fail_io("a child process", "make its input");
  input.take(file);
  for (size_t at = 0; at < bytes.size();) {
    const ssize_t put = retry([&] { return write(input.number(), bytes.data() + at, bytes.size() - at); });
    if (put <= 0) fail_io("a child process", "write its input");
    at += static_cast<size_t>(put);
  }
  lseek(input.number(), 0, SEEK_SET);
}

// Some of what is there; at the end of the pipe the descriptor is closed.
void drain(Descriptor &from, std::string &kept, size_t most) {
  char bytes[16 << 10];
  const ssize_t got = retry([&] { return read(from.number(), bytes, sizeof bytes); });
  if (got > 0) kept.append(bytes, std::min(static_cast<size_t>(got), most - std::min(most, kept.size())));
  else if (got == 0 || errno != EAGAIN) from.reset();
}

}  // namespace

ProcessResult run_limited(const LimitedProcess &process, const Cancel *cancel) {
  using Clock = std::chrono::steady_clock;
  constexpr int kLook = 50;                  // milliseconds between looks at the clock and at `cancel`
  constexpr double kMostBetweenLooks = 0.5;  // a machine that was suspended is no time of the program
  if (process.command.empty()) fail(Code::invalid, "a child process: the command is empty");
  Descriptor input, output, output_end, report, report_end, status, status_end;
  give_input(process.input, input);
  make_pipe(output, output_end);
  make_pipe(report, report_end);
  make_pipe(status, status_end);
  Start start;
  start.process = &process;
  start.command = pointers(process.command);
  start.environment = pointers(process.environment);
  start.filter = system_call_filter();
  start.input = input.number();
  start.output = output_end.number();
  start.report = report_end.number();
  start.status = status_end.number();
  start.last_descriptor = static_cast<int>(std::clamp<long>(sysconf(_SC_OPEN_MAX), 1024, 1 << 16));

  ProcessResult result;
  std::string how;  // Ended
  double seconds = 0;
  Clock::time_point last = Clock::now();
  const Child child(start);
  output_end.reset();
  report_end.reset();
  status_end.reset();
  while (output.number() >= 0 || report.number() >= 0 || status.number() >= 0) {
    check_cancel(cancel);
    const Clock::time_point now = Clock::now();
    seconds += std::min(std::chrono::duration<double>(now - std::exchange(last, now)).count(), kMostBetweenLooks);
    if (seconds > process.limits.seconds) {
      result.end = ProcessResult::End::timed_out;
      return result;
    }
    pollfd ready[] = {{output.number(), POLLIN, 0}, {report.number(), POLLIN, 0}, {status.number(), POLLIN, 0}};
    poll(ready, std::size(ready), kLook);  // a closed one, -1, is passed over
    if (ready[0].revents) drain(output, result.output, process.limits.output);
    if (ready[1].revents) drain(report, result.report, process.limits.output);
    if (ready[2].revents) drain(status, how, sizeof(Ended));
  }
  if (result.report.size() > 1 && result.report[0] == kNotStarted) {
    errno = static_cast<unsigned char>(result.report[1]);
    fail_io(process.command[0], result.report.substr(2).c_str());
  }
  Ended ended{SIGKILL, 0};  // what a supervisor that was killed could not tell
  if (how.size() == sizeof ended) memcpy(&ended, how.data(), sizeof ended);
  const bool signalled = WIFSIGNALED(ended.status);
  result.number = signalled ? WTERMSIG(ended.status) : WEXITSTATUS(ended.status);
  const bool used_up = result.number == SIGXCPU || ended.cpu_seconds >= process.limits.cpu_seconds;
  if (signalled) result.end = used_up ? ProcessResult::End::timed_out : ProcessResult::End::signalled;
  return result;
}

}  // namespace moe
#else

namespace moe {

ProcessResult run_limited(const LimitedProcess &, const Cancel *) {
  fail(Code::unsupported, "a child process: its limits need Linux on x86-64 or 64-bit Arm");
}

}  // namespace moe
#endif
