#include "base/limited_process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "base/file.h"
#include "base/system_call_filter.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace moe {
namespace {

using End = ProcessResult::End;

class LimitedProcesses : public testing::Test {
 protected:
  void SetUp() override {
    if (!MOE_HAVE_SYSTEM_CALL_FILTER) GTEST_SKIP() << "limits need Linux on x86-64 or 64-bit Arm";
    process_.folder = folder_.path();
  }
  ProcessResult shell(const std::string &script) {
    process_.command = {"/bin/sh", "-c", script};
    return run_limited(process_, nullptr);
  }
  test::TemporaryFolder folder_;
  LimitedProcess process_;
};

TEST_F(LimitedProcesses, GiveOutputReportAndStatus) {
  process_.environment = {"WORD=hello"};
  const ProcessResult result = shell("echo $WORD; echo oops >&2; echo done >&3; exit 7");
  EXPECT_EQ(result.end, End::exited);
  EXPECT_EQ(result.number, 7);
  EXPECT_EQ(result.output, "hello\noops\n");
  EXPECT_EQ(result.report, "done\n");
}

TEST_F(LimitedProcesses, ReadTheirInput) {
  EXPECT_EQ(shell("read line; echo $?").output, "1\n") << "it is empty";
  process_.input = "one\ntwo\n" + std::string(1 << 20, 'x');
  EXPECT_EQ(shell("read a; read b; echo $b $a").output, "two one\n");
  EXPECT_EQ(shell("exec wc -c").output, "1048584\n");
}

TEST_F(LimitedProcesses, AreStoppedAtTheirTimes) {
  process_.limits.cpu_seconds = 1;
  EXPECT_EQ(shell("while :; do :; done").end, End::timed_out);
  EXPECT_EQ(shell("trap '' XCPU; while :; do :; done").end, End::timed_out) << "that ignore the signal too";
  process_.confined = false;  // then it may have children
  process_.limits.seconds = 0.3;
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(shell("sleep 20 & sleep 20").end, End::timed_out);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
}

TEST_F(LimitedProcesses, ThatAreKilledSaySo) {
  process_.confined = false;
  const ProcessResult result = shell("kill -9 $$");
  EXPECT_EQ(result.end, End::signalled);
  EXPECT_EQ(result.number, SIGKILL);
}

TEST_F(LimitedProcesses, KeepABoundedOutput) {
  process_.limits.output = 1000;
  const ProcessResult result = shell("i=0; while [ $i -lt 50000 ]; do echo 0123456789 0123456789; i=$((i + 1)); done; echo end >&3");
  EXPECT_EQ(result.end, End::exited);
  EXPECT_EQ(result.output.size(), 1000u);
  EXPECT_EQ(result.report, "end\n");
}

TEST_F(LimitedProcesses, WriteNoFile) {
  write_file_atomic(folder_ / "old", "old");
  EXPECT_EQ(shell("echo x > new && echo written >&3").report, "");
  EXPECT_EQ(shell("echo x > old && echo written >&3").report, "");
  EXPECT_EQ(shell("echo x >> old && echo written >&3").report, "");
  EXPECT_EQ(read_file(folder_ / "old"), "old");
  EXPECT_FALSE(file_exists(folder_ / "new"));
  EXPECT_EQ(shell("exec rm old").number, 1);
  EXPECT_EQ(shell("exec mkdir folder").number, 1);
  EXPECT_EQ(shell("exec mv old other").number, 1);
  EXPECT_EQ(shell("exec chmod 0 old").number, 1);
  EXPECT_EQ(list_folder(folder_.path()), std::vector<std::string>{"old"});
  EXPECT_EQ(shell("exec cat old").output, "old") << "reading is allowed";
}

TEST_F(LimitedProcesses, MakeNoProcessAndSignalNone) {
  EXPECT_EQ(shell("(echo child >&3) && echo made >&3").report, "");
  EXPECT_EQ(shell("kill -TERM $PPID && echo sent >&3").report, "");
  EXPECT_EQ(shell("kill -0 $PPID && echo sent >&3").report, "");
}

TEST_F(LimitedProcesses, InheritNoDescriptor) {
  const int open_one = open("/dev/null", O_WRONLY);  // not close-on-exec
  ASSERT_GE(open_one, 3);
  const int number = fcntl(open_one, F_DUPFD, 5);
  ASSERT_LT(number, 10);  // the shell writes a descriptor as one digit
  EXPECT_EQ(shell("echo x >&" + std::to_string(number) + " && echo written >&3").report, "");
  process_.confined = false;
  EXPECT_EQ(shell("echo x >&" + std::to_string(number) + " && echo written >&3").report, "");
  close(open_one);
  close(number);
}

int g_signals = 0;

TEST_F(LimitedProcesses, RaiseNoSignalInTheHost) {
  struct sigaction before, count = {};
  count.sa_handler = [](int) { g_signals++; };
  sigaction(SIGCHLD, &count, &before);
  for (int i = 0; i < 5; i++) EXPECT_EQ(shell("exit 3").number, 3);
  sigaction(SIGCHLD, &before, nullptr);
  EXPECT_EQ(g_signals, 0);
}

TEST_F(LimitedProcesses, OfAHostThatIgnoresSignalsHaveTheirOwn) {
  struct sigaction before, ignore = {};
  ignore.sa_handler = SIG_IGN;
  sigaction(SIGTERM, &ignore, &before);
  process_.confined = false;
  EXPECT_EQ(shell("kill -TERM $$; echo lives >&3").report, "");
  sigaction(SIGTERM, &before, nullptr);
}

TEST_F(LimitedProcesses, ThatCannotStartAreErrors) {
  process_.command = {folder_ / "absent"};
  EXPECT_FAILS(run_limited(process_, nullptr), Code::io, "absent: cannot execute: No such file");
  process_.command = {"/bin/sh", "-c", ":"};
  process_.folder = folder_ / "nowhere";
  EXPECT_FAILS(run_limited(process_, nullptr), Code::io, "/bin/sh: cannot enter its folder: No such file");
  process_.command = {};
  EXPECT_FAILS(run_limited(process_, nullptr), Code::invalid, "the command is empty");
}

TEST_F(LimitedProcesses, AreKilledWhenCancelled) {
  process_.command = {"/bin/sh", "-c", "echo $$ >&3; while :; do :; done"};
  Cancel cancel;
  std::thread later([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    cancel.fire();
  });
  EXPECT_FAILS(run_limited(process_, &cancel), Code::cancelled, "");
  later.join();
}

}  // namespace
}  // namespace moe
