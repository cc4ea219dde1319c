// Runs moe-train and moe-eval as a user does, in a folder of their own.
#pragma once
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "base/json.h"
#include "support/temporary_folder.h"

namespace moe::test {

inline std::string file_text(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream content;
  content << file.rdbuf();
  return content.str();
}

inline void write_text(const std::string &path, const std::string &content) { std::ofstream(path, std::ios::binary) << content; }

inline size_t count_of(const std::string &text, const std::string &part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) count++;
  return count;
}

struct Ended {
  int status = -1;  // of exit, or 128 + the signal
  std::string out, err;
  Json json() const { return Json::parse(out, "stdout"); }
};

// The folder where programs run, and what they say there.
class Programs : public ::testing::Test {
 protected:
  using Words = std::vector<std::string>;

  const std::string tiny = std::string(MOE_TESTS_DIR) + "/golden/gguf/qwen3-F32.gguf";
  TemporaryFolder folder;

  std::string path(const std::string &name) const { return folder / name; }

  // Starts a program without waiting for it.
  pid_t start(const std::string &program, const Words &words, const std::string &input = "") const {
    write_text(path("stdin"), input);
    const std::string file = std::string(MOE_APPS_DIR) + "/" + program;
    const std::string in = path("stdin"), out = path("stdout"), err = path("stderr"), cwd = folder.path();
    std::vector<char *> arguments{const_cast<char *>(program.c_str())};
    for (const std::string &word : words) arguments.push_back(const_cast<char *>(word.c_str()));
    arguments.push_back(nullptr);
    const pid_t child = fork();
    if (child != 0) return child;
    const bool ready = dup2(open(in.c_str(), O_RDONLY), 0) == 0 &&
                       dup2(open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), 1) == 1 &&
                       dup2(open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), 2) == 2 && chdir(cwd.c_str()) == 0;
    if (ready) execv(file.c_str(), arguments.data());
    _exit(127);
  }

  Ended wait_for(pid_t child) const {
    int status = 0;
    waitpid(child, &status, 0);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), file_text(path("stdout")),
            file_text(path("stderr"))};
  }

  Ended run(const std::string &program, const Words &words, const std::string &input = "") const {
    return wait_for(start(program, words, input));
  }
  Ended train(const Words &words, const std::string &input = "") const { return run("moe-train", words, input); }
  Ended eval(const Words &words, const std::string &input = "") const { return run("moe-eval", words, input); }

  // Rows of a domain: prompts that differ, answers that can be learned.
  std::string make_data(const std::string &domain, int rows = 24) const {
    const char *const words[] = {"alpha", "beta", "gamma", "delta", "omega"};
    std::string lines;
    for (int i = 0; i < rows; i++) {
      const std::string prompt = domain + " " + std::to_string(i) + " " + words[i % 5] + " " + words[i / 5 % 5] + ":";
      lines += "{\"prompt\": \"" + prompt + "\", \"completion\": \" " + words[(i * 3) % 5] + "\"}\n";
    }
    const std::string file = path(domain + ".jsonl");
    write_text(file, lines);
    return file;
  }
};

// One error line, and nothing of a crash.
inline void expect_one_error_line(const Ended &ended, const std::string &program) {
  EXPECT_EQ(count_of(ended.err, program + ": "), 1u) << ended.err;
  EXPECT_TRUE(ended.err.starts_with(program + ": ")) << ended.err;
  EXPECT_EQ(count_of(ended.err, "\n"), 1u) << ended.err;
}

}  // namespace moe::test
