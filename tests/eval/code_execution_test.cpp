// Programs of every bad kind, run with tests. What they try has to be refused or to be without effect outside.
#include "eval/code_execution.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <memory>

#include "base/file.h"
#include "base/system_call_filter.h"
#include "data/example_file.h"
#include "eval/evaluation.h"
#include "support/expect_error.h"
#include "support/needs.h"
#include "support/temporary_folder.h"
#include "support/tiny_model.h"

namespace moe {
namespace {

class CodeExecution : public testing::Test {
 protected:
  void SetUp() override {
    if (!MOE_HAVE_SYSTEM_CALL_FILTER) GTEST_SKIP() << "limits need Linux on x86-64 or 64-bit Arm";
    if (system("python3 -c 1") != 0) GTEST_SKIP() << "python3 is not installed";
    ProcessLimits limits;
    limits.cpu_seconds = 1;
    runner_ = std::make_unique<CodeRunner>(limits);
  }
  CodeResult run(const std::string &answer, const std::string &tests = "assert True") {
    return runner_->run({"", tests}, answer, nullptr);
  }
  std::string outcome(const std::string &answer, const std::string &tests = "assert True") {
    const CodeResult result = run(answer, tests);
    last_detail_ = result.detail;
    return kCodeOutcomes[static_cast<size_t>(result.outcome)];
  }
  // "refused" or what it did.
  std::string attempt(const std::string &statement) {
    const CodeResult result = run("import os, socket, subprocess\ntry:\n    " + statement +
                                  "\nexcept OSError:\n    pass\nelse:\n    assert False, 'done'");
    return result.outcome == CodeOutcome::passed ? "refused" : result.detail;
  }
  std::unique_ptr<CodeRunner> runner_;
  std::string last_detail_;
};

TEST_F(CodeExecution, TellsPassedFromFailedAndErrors) {
  const std::string twice = "def twice(x):\n    return 2 * x\n", tests = "assert twice(3) == 6\nassert twice('a') == 'aa'";
  EXPECT_EQ(outcome(twice, tests), "passed");
  EXPECT_EQ(outcome("def twice(x):\r\n    return x + x\r\n", tests), "passed") << "lines of Windows";
  EXPECT_EQ(outcome("def twice(x):\n    return 6\n", tests), "failed");
  EXPECT_EQ(outcome("def once(x):\n    return x\n", tests), "error");
  EXPECT_EQ(last_detail_, "NameError: name 'twice' is not defined");
  EXPECT_EQ(outcome("", "assert 1 == 2, 'one\\nis not two'"), "failed");
  EXPECT_EQ(last_detail_, "one is not two");
}

TEST_F(CodeExecution, APrematureEndIsNoPass) {
  EXPECT_EQ(outcome("import sys\nsys.exit(0)"), "error");
  EXPECT_EQ(last_detail_, "SystemExit: 0");
  EXPECT_EQ(outcome("import os\nos._exit(0)"), "error");
  EXPECT_EQ(last_detail_, "ended by itself with status 0");
  EXPECT_EQ(outcome("print('passed')", "assert False"), "failed");
}

TEST_F(CodeExecution, OfTheAnswerTheCodeIsRun) {
  const std::string code = "def one():\n    return 1\n", tests = "assert one() == 1";
  EXPECT_EQ(code_of_answer("Here:\n```python\n" + code + "```\nDone. ```x```"), code);
  EXPECT_EQ(code_of_answer("```\n" + code), code);
  EXPECT_EQ(code_of_answer("```"), "");
  EXPECT_EQ(code_of_answer(code), code);
  EXPECT_EQ(code_of_answer(code + "[DONE]\nNext task: ```x```"), code);
  EXPECT_EQ(code_of_answer("```\n" + code + "[DONE]"), code);
  EXPECT_EQ(code_of_answer("print('[DONE]')\n"), "print('[DONE]')\n");
  EXPECT_EQ(outcome("Here:\n```python\n" + code + "```\nThat is it.", tests), "passed");
  EXPECT_EQ(outcome(code + "\nThis function returns one.\n", tests), "passed");
  EXPECT_EQ(outcome(code + "\ndef two(x", tests), "passed") << "a line that was cut off";
  EXPECT_EQ(outcome("This is one:\n" + code, tests), "error");
  EXPECT_EQ(runner_->run({"def one():\n", tests}, "    return 1\n\nno code", nullptr).outcome, CodeOutcome::passed);
}

TEST_F(CodeExecution, TimeIsLimited) {
  EXPECT_EQ(outcome("while True:\n    pass"), "timeout");
  EXPECT_EQ(outcome("import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True:\n    pass"), "timeout");
  ProcessLimits limits;
  limits.seconds = 2;
  const CodeRunner impatient(limits);
  EXPECT_EQ(impatient.run({"", "import time\ntime.sleep(60)"}, "", nullptr).outcome, CodeOutcome::timeout);
  EXPECT_EQ(outcome("import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()"), "passed")
      << "threads do not hold it";
}

TEST_F(CodeExecution, MemoryIsLimited) {
  EXPECT_EQ(outcome("x = bytearray(1 << 30)"), "error");
  EXPECT_EQ(last_detail_, "MemoryError:");
  EXPECT_EQ(outcome("x = []\nwhile True:\n    x.append(bytearray(1 << 20))"), "error");
  EXPECT_EQ(outcome("def f(): f()\nf()"), "error");
  EXPECT_EQ(outcome("import ctypes\nctypes.string_at(0)"), "killed");
  EXPECT_EQ(last_detail_, "signal 11");
}

TEST_F(CodeExecution, OutputIsLimited) { EXPECT_EQ(outcome("for i in range(300000):\n    print('0123456789' * 10)"), "passed"); }

TEST_F(CodeExecution, ProcessesAreRefused) {
  EXPECT_EQ(attempt("os.fork()"), "refused");
  EXPECT_EQ(attempt("subprocess.run(['/bin/true'])"), "refused");
  EXPECT_EQ(attempt("os.posix_spawn('/bin/true', ['true'], {})"), "refused");
  EXPECT_EQ(attempt("os.kill(os.getppid(), 9)"), "refused");
  EXPECT_EQ(attempt("os.kill(-1, 9)"), "refused");
  EXPECT_EQ(outcome("import os\nwhile True:\n    os.fork()"), "error");
  EXPECT_EQ(last_detail_, "PermissionError: [Errno 1] Operation not permitted");
}

TEST_F(CodeExecution, TheNetworkIsRefused) {
  EXPECT_EQ(attempt("socket.socket()"), "refused");
  EXPECT_EQ(attempt("socket.socket(socket.AF_UNIX)"), "refused");
  EXPECT_EQ(attempt("socket.socketpair()"), "refused");
  EXPECT_EQ(attempt("socket.create_connection(('127.0.0.1', 80))"), "refused");
  EXPECT_EQ(attempt("socket.getaddrinfo('example.org', 80)"), "refused");
}

TEST_F(CodeExecution, WritingIsRefused) {
  const test::TemporaryFolder folder;
  write_file_atomic(folder / "kept", "kept");
  const std::string kept = "'" + folder / "kept'";
  for (const char *mode : {"'w'", "'a'", "'r+'", "'x'"}) {
    EXPECT_EQ(attempt("open(" + kept + ", " + mode + ")"), "refused") << mode;
    EXPECT_EQ(attempt("open('file', " + std::string(mode) + ")"), "refused") << mode;
  }
  for (const std::string &call : std::vector<std::string>{
           "os.remove(" + kept + ")", "os.truncate(" + kept + ", 0)", "os.rename(" + kept + ", 'x')",
           "os.chmod(" + kept + ", 0)", "os.utime(" + kept + ")", "os.symlink('x', 'y')", "os.mkdir('x')", "os.rmdir('.')",
           "os.mkfifo('x')", "os.memfd_create('x')"})
    EXPECT_EQ(attempt(call), "refused") << call;
  EXPECT_EQ(read_file(folder / "kept"), "kept");
  EXPECT_EQ(list_folder(folder.path()), std::vector<std::string>{"kept"});
}

TEST_F(CodeExecution, TheLimitsStay) {
  EXPECT_EQ(outcome("import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))"), "error");
  EXPECT_EQ(outcome("import resource, os\nresource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (0, 0))"), "error");
  EXPECT_EQ(outcome("import os, sys\nassert sys.stdin.read() == ''\nassert os.listdir('.') == []\n"
                    "assert not any(name in os.environ for name in ('LD_PRELOAD', 'PYTHONPATH', 'USER'))"),
            "passed");
}

TEST_F(CodeExecution, ThePublishedSolutionsPass) {
  const std::string mbpp = std::string(MOE_DATA_DIR) + "/mbpp/heldout.jsonl";
  size_t examples = 0;
  for (const Example &example : read_examples(mbpp, "", 25).examples) {
    const CodeResult result = runner_->run(example.program, example.completion, nullptr);
    EXPECT_EQ(result.outcome, CodeOutcome::passed) << "row " << example.row << ": " << result.detail;
    EXPECT_EQ(runner_->run(example.program, "pass", nullptr).outcome, CodeOutcome::error) << "row " << example.row;
    examples++;
  }
  EXPECT_EQ(examples, 25u);
}

// Whatever the small model writes, of it runs what compiles: the tests alone decide here.
TEST_F(CodeExecution, InAnEvaluationIsAMeasureOfItsOwn) {
  NEEDS_UTF8PROC();
  const test::TemporaryFolder folder;
  const std::string path = folder / "code.jsonl";
  std::string rows;
  for (const char *tests : {R"(["assert True", "assert 1"])", R"(["assert False, 'no'"])", "[]", R"(["raise KeyError"])"})
    rows += text(R"({"text": "Write it.", "code": "x = 1", "task_id": )", rows.size(), R"(, "test_list": )", tests, "}\n");
  write_file_atomic(path, rows);
  const auto model = test::tiny_model();
  EvalOptions options;
  options.scoring = "generation";
  options.max_new_tokens = 4;
  const auto evaluated = [&] {
    return evaluate(*model, {{"base", "base", "", nullptr, nullptr, {}}}, {{"code", path, "", 0}}, options, nullptr, nullptr);
  };
  EXPECT_EQ(evaluated().at(0).evaluation_type, "exact_match") << "nothing is run unless it is allowed";
  options.allow_code_execution = true;
  const std::vector<EvalResult> results = evaluated();
  ASSERT_EQ(results.size(), 1u);
  const EvalResult &result = results[0];
  EXPECT_EQ(result.evaluation_type, "code_tests");
  EXPECT_EQ(result.total_samples, 3);
  EXPECT_EQ(result.skipped.reasons().at("no tests").first_row, 3);
  EXPECT_EQ(result.correct, 1);
  EXPECT_NEAR(result.accuracy, 1.0 / 3, 1e-12);
  EXPECT_EQ(result.code_outcomes, (std::array<int64_t, 5>{1, 1, 1, 0, 0}));
  EXPECT_TRUE(result.has_loss);
  const Json json = Json::parse(evaluation_json(results, options, Json::object({})).dump(), "results");
  const Json &row = json.at("results", "").items().at(0);
  EXPECT_EQ(row.at("outcomes", "").dump(), R"({"passed": 1, "failed": 1, "error": 1, "timeout": 0, "killed": 0})");
  EXPECT_NEAR(row.at("accuracy_interval", "").items().at(1).number(), wilson(1, 3).high, 1e-12);
  EXPECT_NE(evaluation_samples(results).find(R"("outcome": "failed", "detail": "no")"), std::string::npos);
  const std::string table = evaluation_table(results, options);
  EXPECT_NE(table.find("(pass@1)"), std::string::npos) << table;
  EXPECT_NE(table.find("code    base   1       1       1      0        0"), std::string::npos) << table;
  options.scoring = "likelihood";
  EXPECT_FAILS(evaluated(), Code::invalid, "allow_code_execution");
}

TEST_F(CodeExecution, WithoutPythonIsAnError) {
  const std::string path = getenv("PATH");
  const test::TemporaryFolder folder;
  setenv("PATH", folder.path().c_str(), 1);
  EXPECT_FAILS(CodeRunner(), Code::unsupported, "allow_code_execution needs python3: it is not on PATH");
  setenv("PATH", path.c_str(), 1);
}

}  // namespace
}  // namespace moe
