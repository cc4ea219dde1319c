// A training run whose system calls fail, one after another: killed at each, refused at each, a disk that fills up, half-done
// writes, kills at random times. What was acknowledged stays whole, and going on gives the bytes of the run that nothing
// disturbed. (The program under test: save_program.cpp; what makes its calls fail: shim.c.)
#include <fcntl.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <set>
#include <sstream>
#include <thread>

#include "base/error.h"
#include "base/file.h"
#include "support/golden.h"
#include "support/reference.h"
#include "support/temporary_folder.h"
#include "train/checkpoint.h"

namespace moe {
namespace {

constexpr int kSteps = 3;  // two checkpoints, of which the second displaces the first, then the adapter

struct Fault {
  std::string kind;
  int64_t call = 0;
};

struct Call {
  int64_t number = 0;
  std::string name, path;
};

struct Ended {
  int status = 0;
  std::string errors;
  int64_t acknowledged = -1;  // the newest checkpoint that the program was told is safe
  bool finished = false;
  bool killed() const { return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL; }
  bool succeeded() const { return WIFEXITED(status) && WEXITSTATUS(status) == 0; }
  bool failed() const { return WIFEXITED(status) && WEXITSTATUS(status) == 1; }
};

std::vector<Call> read_calls(const std::string &log) {
  std::istringstream lines(read_file(log));
  std::vector<Call> calls;
  for (Call call; lines >> call.number >> call.name && std::getline(lines >> std::ws, call.path);) calls.push_back(call);
  return calls;
}

class Training {
 public:
  const std::string folder() const { return files_ / "run"; }
  const std::string checkpoints() const { return folder() + "/checkpoints"; }
  std::string log() const { return files_ / "calls"; }

  pid_t start(const std::string &how, const Fault &fault = {}) const {
    std::filesystem::remove(log());
    const std::string model = test::golden_path("models/llama"),
                      data = test::golden_path("lora/llama_qv_rslora/expected.safetensors");
    const std::string steps = std::to_string(kSteps), program = MOE_FAULT_PROGRAM, output = folder();
    const char *arguments[] = {program.c_str(), model.c_str(), data.c_str(), output.c_str(), steps.c_str(), how.c_str(), nullptr};
    std::vector<std::string> environment = {"LD_PRELOAD=" MOE_FAULT_SHIM, "MOE_FAULT_FOLDER=" + output, "MOE_FAULT_LOG=" + log(),
                                            "MOE_FAULT_KIND=" + fault.kind, "MOE_FAULT_CALL=" + std::to_string(fault.call)};
    std::vector<char *> variables;
    for (std::string &variable : environment) variables.push_back(variable.data());
    variables.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, (files_ / "said").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, (files_ / "errors").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    pid_t child = 0;
    const int error = posix_spawn(&child, program.c_str(), &actions, nullptr, const_cast<char **>(arguments), variables.data());
    posix_spawn_file_actions_destroy(&actions);
    if (error != 0) throw std::runtime_error("cannot start " + program);
    return child;
  }

  Ended wait(pid_t child) const {
    Ended ended;
    waitpid(child, &ended.status, 0);
    ended.errors = read_file(files_ / "errors");
    std::istringstream said(read_file(files_ / "said"));
    for (std::string word; said >> word;) {
      if (word == "saved") said >> ended.acknowledged;
      ended.finished |= word == "finished";
    }
    return ended;
  }

  Ended run(const std::string &how, const Fault &fault = {}) const { return wait(start(how, fault)); }
  std::vector<Call> calls() const { return read_calls(log()); }

  // Both files of the trained adapter.
  std::string adapter() const {
    return read_file(folder() + "/final_adapter/adapter_model.safetensors") +
           read_file(folder() + "/final_adapter/adapter_config.json");
  }

  // What a run that was stopped in any way leaves: the newest checkpoint of all is whole, and it is the one that was last told to
  // be safe or a newer one; a finished run has its adapter.
  void expect_whole(const Ended &ended) const {
    const std::vector<int64_t> steps = list_checkpoints(checkpoints());
    if (!steps.empty()) {
      EXPECT_NO_THROW(verify_checkpoint(checkpoint_path(checkpoints(), steps.back())));
    }
    if (ended.acknowledged >= 0) {
      ASSERT_FALSE(steps.empty()) << "checkpoint " << ended.acknowledged << " is gone";
      EXPECT_GE(steps.back(), ended.acknowledged);
    }
    if (ended.finished) {
      EXPECT_NO_THROW(adapter());
    }
  }

  // Goes on to the end; nothing of the disturbance remains.
  void expect_goes_on(const std::string &expected_adapter) const {
    const Ended ended = run("resume");
    ASSERT_TRUE(ended.succeeded()) << ended.errors;
    EXPECT_TRUE(adapter() == expected_adapter) << "other bytes than the undisturbed run";
    EXPECT_LE(list_checkpoints(checkpoints()).size(), 1u);
    for (const auto &entry : std::filesystem::recursive_directory_iterator(folder())) {
      const std::string name = entry.path().filename().string();
      EXPECT_TRUE(name[0] != '.' || name == ".lock") << entry.path() << " was left behind";
    }
  }

 private:
  test::TemporaryFolder files_;
};

// The run that nothing disturbs: what it calls, and the bytes it gives.
struct Undisturbed {
  std::vector<Call> all, counted;  // counted: those that a fault can be put on, calls[n - 1].number == n
  std::string adapter;
};

const Undisturbed &undisturbed() {
  static const Undisturbed result = [] {
    const Training training;
    const Ended ended = training.run("new");
    if (!ended.succeeded()) throw std::runtime_error(ended.errors);
    Undisturbed u{training.calls(), {}, training.adapter()};
    for (const Call &call : u.all) {
      if (call.number > 0) u.counted.push_back(call);
    }
    return u;
  }();
  return result;
}

// The first checkpoint is saved by the same calls as the second.
bool once(const Call &call) { return call.path.find("checkpoint-1") == std::string::npos || call.name == "unlinkat"; }
bool changes_something(const Call &call) { return call.name != "open" && !call.name.starts_with("pread"); }
bool writes(const Call &call) { return call.name == "write"; }
bool takes_space(const Call &call) { return writes(call) || call.name == "create" || call.name == "mkdir"; }

// use(call) for every wanted call, several at a time: the programs mostly wait for the disk.
template <class Use>
void for_calls(bool (*wanted)(const Call &), Use use) {
  const std::vector<Call> &calls = undisturbed().counted;
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t i; (i = next++) < calls.size();) {
      if (!wanted(calls[i])) continue;
      SCOPED_TRACE(text("call ", calls[i].number, " ", calls[i].name, " ", calls[i].path));
      use(calls[i]);
    }
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; i++) threads.emplace_back(work);
  for (std::thread &thread : threads) thread.join();
}

TEST(Fault, KilledAtAnyCallTheRunGoesOn) {
  for_calls(changes_something, [](const Call &call) {
    const Training training;
    const Ended ended = training.run("new", {"kill", call.number});
    ASSERT_TRUE(ended.killed()) << ended.errors;
    training.expect_whole(ended);
    training.expect_goes_on(undisturbed().adapter);
  });
}

TEST(Fault, KilledInTheMiddleOfAWriteTheRunGoesOn) {
  for_calls(writes, [](const Call &call) {
    const Training training;
    const Ended ended = training.run("new", {"torn", call.number});
    ASSERT_TRUE(ended.killed()) << ended.errors;
    training.expect_whole(ended);
    training.expect_goes_on(undisturbed().adapter);
  });
}

TEST(Fault, AWriteThatTakesHalfIsContinued) {
  for_calls(writes, [](const Call &call) {
    const Training training;
    const Ended ended = training.run("new", {"short", call.number});
    ASSERT_TRUE(ended.succeeded()) << ended.errors;
    EXPECT_EQ(ended.errors, "");
    EXPECT_TRUE(training.adapter() == undisturbed().adapter);
    training.expect_whole(ended);
  });
}

// A checkpoint or a line of the metrics is not worth the run; the end and the beginning of a run are.
TEST(Fault, ACallThatFailsIsLoggedOrIsAnErrorThatNamesTheFile) {
  for_calls(once, [](const Call &call) {
    const Training training;
    const Ended ended = training.run("new", {"error", call.number});
    const bool checkpoint = call.path.find("/checkpoints") != std::string::npos,
               metrics = call.path.ends_with("metrics.jsonl") && call.name == "write";
    training.expect_whole(ended);
    if (checkpoint || metrics) {
      EXPECT_TRUE(ended.succeeded()) << ended.errors;
      EXPECT_NE(ended.errors, "") << "nothing was logged";
      EXPECT_TRUE(training.adapter() == undisturbed().adapter);
    } else if (!ended.succeeded()) {
      EXPECT_TRUE(ended.failed() && ended.errors.find("error -4: ") != std::string::npos) << ended.errors;
      EXPECT_NE(ended.errors.find("/run"), std::string::npos) << ended.errors;
      EXPECT_FALSE(ended.finished);
      training.expect_goes_on(undisturbed().adapter);
    }
  });
}

TEST(Fault, OnADiskThatFillsUpTrainingGoesOnUntilTheResultHasNoPlace) {
  int64_t second_checkpoint = 0, result = 0;
  for (const Call &call : undisturbed().counted) {
    if (second_checkpoint == 0 && call.path.find(".checkpoint-2.") != std::string::npos) second_checkpoint = call.number;
    if (result == 0 && call.path.find(".final_adapter.") != std::string::npos) result = call.number;
  }
  ASSERT_GT(second_checkpoint, 0);
  ASSERT_GT(result, second_checkpoint);
  for_calls(takes_space, [&](const Call &call) {
    const Training training;
    const Ended ended = training.run("new", {"full", call.number});
    ASSERT_TRUE(ended.failed()) << ended.errors;
    training.expect_whole(ended);
    const bool began = call.path.find("/run/") != std::string::npos && !call.path.ends_with(".lock") && call.name != "create";
    if (began && call.number <= second_checkpoint) {
      EXPECT_NE(ended.errors.find("checkpoint at step 2 was not saved: "), std::string::npos) << ended.errors;
    }
    if (began && call.number <= result) {
      const std::string last_line = ended.errors.substr(ended.errors.rfind("error -4"));
      EXPECT_NE(last_line.find("final_adapter"), std::string::npos) << ended.errors;
      EXPECT_NE(last_line.find("No space left"), std::string::npos) << ended.errors;
    }
    training.expect_goes_on(undisturbed().adapter);
  });
}

// What a loss of power would show: whatever gets its name is on the disk before, and the name before it is acknowledged.
TEST(Fault, EverythingIsOnTheDiskBeforeItIsNamedAndTheNameBeforeItIsAcknowledged) {
  std::set<std::string> unsynced;  // files with bytes and folders with names that are in memory only
  std::string old;
  int64_t named = 0, acknowledged = 0;
  for (const Call &call : undisturbed().all) {
    SCOPED_TRACE(text("call ", call.number, " ", call.name, " ", call.path));
    if (call.name == "write" || call.name == "create") unsynced.insert(call.path);
    if (call.name == "fsync") unsynced.erase(call.path);
    if (call.name == "from") old = call.path;
    if (call.name == "rename") {
      for (const std::string &path : unsynced) EXPECT_FALSE(path == old || path.starts_with(old + "/")) << path << " may be lost";
      named++;
    }
    if (call.name == "create" || call.name == "rename" || (call.name == "mkdir" && base_name(call.path) != "run"))
      unsynced.insert(parent_path(call.path));
    if (call.name == "said") {
      for (const std::string &path : unsynced)
        EXPECT_TRUE(path.ends_with("metrics.jsonl") || path.ends_with(".lock")) << path << " may be lost";
      acknowledged++;
    }
  }
  EXPECT_EQ(named, 9);         // two files and the folder of each checkpoint, one file and the folder of the adapter, the summary
  EXPECT_EQ(acknowledged, 3);  // two checkpoints and the end
}

TEST(Fault, ASecondWriterIsRefusedAndTouchesNothing) {
  const Training training;
  make_folders(training.folder());
  const FileLock first(training.folder() + "/.lock");
  for (const char *how : {"new", "resume"}) {
    const Ended ended = training.run(how);
    EXPECT_TRUE(ended.failed());
    EXPECT_NE(ended.errors.find(text("error ", static_cast<int>(Code::busy), ": ")), std::string::npos) << ended.errors;
    EXPECT_NE(ended.errors.find(".lock"), std::string::npos) << ended.errors;
    EXPECT_EQ(list_folder(training.folder()), std::vector<std::string>{".lock"});
  }
}

TEST(Fault, KilledAgainAndAgainAtRandomTimesTheRunEndsTheSame) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  Training().run("new");
  const double whole = std::chrono::duration<double>(Clock::now() - start).count();
  for (uint64_t repetition = 0; repetition < 4; repetition++) {
    const Training training;
    int64_t acknowledged = -1;
    for (uint64_t attempt = 0; attempt < 6; attempt++) {
      const pid_t child = training.start(attempt == 0 ? "new" : "resume");
      std::this_thread::sleep_for(std::chrono::duration<double>(whole * test::random_uniform(repetition, attempt)));
      kill(child, SIGKILL);
      Ended ended = training.wait(child);
      ended.acknowledged = acknowledged = std::max(acknowledged, ended.acknowledged);
      training.expect_whole(ended);
    }
    training.expect_goes_on(undisturbed().adapter);
  }
}

}  // namespace
}  // namespace moe
