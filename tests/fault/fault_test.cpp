// Training runs, of an adapter and of a bundle's router, alone and with its experts, whose system calls fail, one after another:
// killed at each, refused at each, a disk that fills up, half-done writes, kills at random times. What was acknowledged stays whole, a
// bundle is at every moment the old one or the new one, and going on gives the bytes of the run that nothing disturbed. (The program under test: save_program.cpp; what
// makes its calls fail: shim.c.)
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
#include "model/bundle.h"
#include "support/golden.h"
#include "support/reference.h"
#include "support/temporary_folder.h"
#include "train/checkpoint.h"

namespace moe {
namespace {

constexpr int kSteps = 3;  // two checkpoints, of which the second displaces the first, then the result

enum class Trains { adapter, router, joint };

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

// The run that nothing disturbs: what it calls, the bytes it gives, and with a bundle all its weights.
struct Undisturbed {
  std::vector<Call> all, counted;  // counted: those that a fault can be put on, calls[n - 1].number == n
  std::string result;
  std::vector<float> weights;
};

const BaseModel &base_model() {
  static const auto model = test::golden_model("models/llama");
  return *model;
}

constexpr const char *kExperts[] = {"expert1", "expert2", "expert3"};

// All weights that a bundle has for who opens it.
std::vector<float> weights_of(const std::string &bundle) {
  const Mixture mixture = load_bundle(base_model(), bundle);
  std::vector<float> all(mixture.router->parameters().begin(), mixture.router->parameters().end());
  for (const auto &expert : mixture.experts) all.insert(all.end(), expert->parameters().begin(), expert->parameters().end());
  return all;
}

class Training {
 public:
  explicit Training(Trains what) : what_(what) {
    if (what == Trains::adapter) return;
    BundleBuild build;
    for (const char *expert : kExperts)
      build.adapters.emplace_back(expert, test::golden_path(std::string("mixture/llama/") + expert));
    build_bundle(base_model(), build, bundle());
    untrained_ = weights_of(bundle());
  }

  const std::string folder() const { return files_ / "run"; }
  const std::string bundle() const { return folder() + "_bundle"; }  // faults are put on both, by what their names begin with
  const std::string checkpoints() const { return folder() + "/checkpoints"; }
  std::string log() const { return files_ / "calls"; }

  pid_t start(const std::string &how, const Fault &fault = {}) const {
    std::filesystem::remove(log());
    const std::string model = test::golden_path("models/llama"),
                      data = test::golden_path(what_ == Trains::adapter ? "lora/llama_qv_rslora/expected.safetensors"
                                                                        : "mixture/llama/train_batch.safetensors");
    const std::string steps = std::to_string(kSteps), program = MOE_FAULT_PROGRAM, output = folder(), mixture = bundle();
    const char *arguments[] = {program.c_str(), model.c_str(), data.c_str(), output.c_str(), steps.c_str(), how.c_str(),
                               what_ == Trains::adapter ? nullptr : mixture.c_str(), what_ == Trains::joint ? "experts" : nullptr,
                               nullptr};
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

  // Both files of the trained adapter, or the weights of the router and of experts that trained with it.
  std::string result() const {
    if (what_ != Trains::adapter) {
      std::string files = read_file(bundle() + "/router.safetensors");
      for (const char *expert : kExperts) {
        if (what_ == Trains::joint) files += read_file(bundle() + "/adapters/" + expert + "/adapter_model.safetensors");
      }
      return files;
    }
    return read_file(folder() + "/final_adapter/adapter_model.safetensors") +
           read_file(folder() + "/final_adapter/adapter_config.json");
  }

  // What a run that was stopped in any way leaves: the newest checkpoint of all is whole, and it is the one that was last told to
  // be safe or a newer one; a finished run has its adapter; a bundle is good, with all the weights it had or all the trained ones.
  void expect_whole(const Ended &ended, const std::vector<float> &trained) const {
    const std::vector<int64_t> steps = list_checkpoints(checkpoints());
    if (!steps.empty()) {
      EXPECT_NO_THROW(verify_checkpoint(checkpoint_path(checkpoints(), steps.back())));
    }
    if (ended.acknowledged >= 0) {
      ASSERT_FALSE(steps.empty()) << "checkpoint " << ended.acknowledged << " is gone";
      EXPECT_GE(steps.back(), ended.acknowledged);
    }
    if (ended.finished) {
      EXPECT_NO_THROW(result());
    }
    if (what_ == Trains::adapter) return;
    std::string findings;
    const auto note = [&](bool good, const std::string &line) { findings += good ? "" : line + "\n"; };
    EXPECT_TRUE(validate_bundle(base_model(), bundle(), note)) << findings;
    const std::vector<float> weights = weights_of(bundle());
    EXPECT_TRUE((weights == untrained_ && !ended.finished) || weights == trained) << "neither the old bundle nor the new one";
  }

  // Goes on to the end; nothing of the disturbance remains.
  void expect_goes_on(const Undisturbed &expected) const {
    const Ended ended = run("resume");
    ASSERT_TRUE(ended.succeeded()) << ended.errors;
    EXPECT_TRUE(result() == expected.result) << "other bytes than the undisturbed run";
    EXPECT_LE(list_checkpoints(checkpoints()).size(), 1u);
    expect_whole(ended, expected.weights);
    for (const auto &entry : std::filesystem::recursive_directory_iterator(files_.path())) {
      const std::string name = entry.path().filename().string();
      EXPECT_TRUE(name[0] != '.' || name == ".lock") << entry.path() << " was left behind";
    }
  }

 private:
  Trains what_;
  std::vector<float> untrained_;
  test::TemporaryFolder files_;
};

Undisturbed run_undisturbed(Trains what) {
  const Training training(what);
  const Ended ended = training.run("new");
  if (!ended.succeeded()) throw std::runtime_error(ended.errors);
  Undisturbed u{training.calls(), {}, training.result(), {}};
  if (what != Trains::adapter) u.weights = weights_of(training.bundle());
  for (const Call &call : u.all) {
    if (call.number > 0) u.counted.push_back(call);
  }
  return u;
}

class Faults : public testing::TestWithParam<Trains> {
 protected:
  static const Undisturbed &undisturbed() {
    static const Undisturbed adapter = run_undisturbed(Trains::adapter), router = run_undisturbed(Trains::router),
                             joint = run_undisturbed(Trains::joint);
    return GetParam() == Trains::adapter ? adapter : GetParam() == Trains::router ? router : joint;
  }

  // What the paths of the result have in common.
  static const char *result_name() { return GetParam() == Trains::adapter ? "final_adapter" : "run_bundle"; }

  // use(call) for every wanted call, several at a time: the programs mostly wait for the disk.
  template <class Use>
  static void for_calls(bool (*wanted)(const Call &), Use use) {
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
};

// The first checkpoint is saved by the same calls as the second.
bool once(const Call &call) { return call.path.find("checkpoint-1") == std::string::npos || call.name == "unlinkat"; }
bool changes_something(const Call &call) { return call.name != "open" && !call.name.starts_with("pread"); }
bool writes(const Call &call) { return call.name == "write"; }
bool takes_space(const Call &call) { return writes(call) || call.name == "create" || call.name == "mkdir"; }

TEST_P(Faults, KilledAtAnyCallTheRunGoesOn) {
  for_calls(changes_something, [](const Call &call) {
    const Training training(GetParam());
    const Ended ended = training.run("new", {"kill", call.number});
    ASSERT_TRUE(ended.killed()) << ended.errors;
    training.expect_whole(ended, undisturbed().weights);
    training.expect_goes_on(undisturbed());
  });
}

TEST_P(Faults, KilledInTheMiddleOfAWriteTheRunGoesOn) {
  for_calls(writes, [](const Call &call) {
    const Training training(GetParam());
    const Ended ended = training.run("new", {"torn", call.number});
    ASSERT_TRUE(ended.killed()) << ended.errors;
    training.expect_whole(ended, undisturbed().weights);
    training.expect_goes_on(undisturbed());
  });
}

TEST_P(Faults, AWriteThatTakesHalfIsContinued) {
  for_calls(writes, [](const Call &call) {
    const Training training(GetParam());
    const Ended ended = training.run("new", {"short", call.number});
    ASSERT_TRUE(ended.succeeded()) << ended.errors;
    EXPECT_EQ(ended.errors, "");
    EXPECT_TRUE(training.result() == undisturbed().result);
    training.expect_whole(ended, undisturbed().weights);
  });
}

// A checkpoint or a line of the metrics is not worth the run; the end and the beginning of a run are.
TEST_P(Faults, ACallThatFailsIsLoggedOrIsAnErrorThatNamesTheFile) {
  for_calls(once, [](const Call &call) {
    const Training training(GetParam());
    const Ended ended = training.run("new", {"error", call.number});
    const bool checkpoint = call.path.find("/checkpoints") != std::string::npos,
               metrics = call.path.ends_with("metrics.jsonl") && call.name == "write";
    training.expect_whole(ended, undisturbed().weights);
    if (checkpoint || metrics) {
      EXPECT_TRUE(ended.succeeded()) << ended.errors;
      EXPECT_NE(ended.errors, "") << "nothing was logged";
      EXPECT_TRUE(training.result() == undisturbed().result);
    } else if (!ended.succeeded()) {
      EXPECT_TRUE(ended.failed() && ended.errors.find("error -4: ") != std::string::npos) << ended.errors;
      EXPECT_NE(ended.errors.find("/run"), std::string::npos) << ended.errors;
      EXPECT_FALSE(ended.finished);
      training.expect_goes_on(undisturbed());
    }
  });
}

TEST_P(Faults, OnADiskThatFillsUpTrainingGoesOnUntilTheResultHasNoPlace) {
  int64_t second_checkpoint = 0, result = 0;
  for (const Call &call : undisturbed().counted) {
    if (second_checkpoint == 0 && call.path.find(".checkpoint-2.") != std::string::npos) second_checkpoint = call.number;
    if (result == 0 && call.path.find(result_name()) != std::string::npos && call.name != "open" && call.name != "pread")
      result = call.number;
  }
  ASSERT_GT(second_checkpoint, 0);
  ASSERT_GT(result, second_checkpoint);
  for_calls(takes_space, [&](const Call &call) {
    const Training training(GetParam());
    const Ended ended = training.run("new", {"full", call.number});
    ASSERT_TRUE(ended.failed()) << ended.errors;
    training.expect_whole(ended, undisturbed().weights);
    const bool began = call.path.find("/run/") != std::string::npos && !call.path.ends_with(".lock") && call.name != "create";
    if (began && call.number <= second_checkpoint) {
      EXPECT_NE(ended.errors.find("checkpoint at step 2 was not saved: "), std::string::npos) << ended.errors;
    }
    if (began && call.number <= result) {
      const std::string last_line = ended.errors.substr(ended.errors.rfind("error -4"));
      EXPECT_NE(last_line.find(result_name()), std::string::npos) << ended.errors;
      EXPECT_NE(last_line.find("No space left"), std::string::npos) << ended.errors;
    }
    training.expect_goes_on(undisturbed());
  });
}

// What a loss of power would show: whatever gets its name is on the disk before, and the name before it is acknowledged.
TEST_P(Faults, EverythingIsOnTheDiskBeforeItIsNamedAndTheNameBeforeItIsAcknowledged) {
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
        EXPECT_TRUE(path.ends_with("metrics.jsonl") || path.find("/events.out.tfevents.") != std::string::npos || path.ends_with(".lock")) << path << " may be lost";
      acknowledged++;
    }
  }
  // Two files and the folder of each checkpoint, which a router has at its end too; one file and the folder of the adapter, or of the
  // bundle the folder with what was trained (for each expert the config), moe_config.json twice, router_config.json, and what was
  // trained (for each expert both files); the summary.
  const int64_t bundle = GetParam() == Trains::joint ? 1 + 3 + 2 + 1 + 1 + 2 * 3 : 1 + 2 + 1 + 1;
  EXPECT_EQ(named, GetParam() == Trains::adapter ? 2 * 3 + 2 + 1 : 3 * 3 + bundle + 1);
  EXPECT_EQ(acknowledged, GetParam() == Trains::adapter ? 3 : 4);  // the checkpoints and the end
}

TEST_P(Faults, ASecondWriterIsRefusedAndTouchesNothing) {
  const Training training(GetParam());
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

TEST_P(Faults, KilledAgainAndAgainAtRandomTimesTheRunEndsTheSame) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  Training(GetParam()).run("new");
  const double whole = std::chrono::duration<double>(Clock::now() - start).count();
  for (uint64_t repetition = 0; repetition < 4; repetition++) {
    const Training training(GetParam());
    int64_t acknowledged = -1;
    for (uint64_t attempt = 0; attempt < 6; attempt++) {
      const pid_t child = training.start(attempt == 0 ? "new" : "resume");
      std::this_thread::sleep_for(std::chrono::duration<double>(whole * test::random_uniform(repetition, attempt)));
      kill(child, SIGKILL);
      Ended ended = training.wait(child);
      ended.acknowledged = acknowledged = std::max(acknowledged, ended.acknowledged);
      training.expect_whole(ended, undisturbed().weights);
    }
    training.expect_goes_on(undisturbed());
  }
}

INSTANTIATE_TEST_SUITE_P(, Faults, testing::Values(Trains::adapter, Trains::router, Trains::joint), [](const auto &trains) {
  return trains.param == Trains::adapter ? "Adapter" : trains.param == Trains::router ? "Router" : "RouterAndExperts";
});

}  // namespace
}  // namespace moe
