#include "eval/code_execution.h"

#include <stdlib.h>

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/scratch_file.h"
#include "base/utf8.h"

namespace moe {
namespace {

// Reads the parts of the program and writes its verdict to descriptor 3. It leaves at once then: threads of the program do not hold it.
constexpr const char *kDriver = R"python(
import json, os, sys
def report(word, detail=''):
    os.write(3, (word + '\n' + ' '.join(detail.split()))[:400].encode('utf-8', 'replace'))
    os._exit(0)
def compiles(source):
    try:
        compile(source, 'program.py', 'exec')
    except Exception:
        return False
    return True
part = json.load(sys.stdin)
lines = part['answer'].split('\n')
while lines and not compiles(part['before'] + '\n'.join(lines) + '\n'):
    lines.pop()
source = part['before'] + '\n'.join(lines) + '\n' + part['after'] + '\n'
try:
    exec(compile(source, 'program.py', 'exec'), {'__name__': '__main__'})
except AssertionError as error:
    report('failed', str(error))
except BaseException as error:
    report('error', type(error).__name__ + ': ' + str(error))
report('passed')
)python";

constexpr const char *kNoNetwork = R"python(
import socket
try:
    socket.socket()
except OSError:
    pass
else:
    raise SystemExit('a socket can be opened')
)python";

std::vector<std::string> candidates() {
  const char *path = getenv("PATH");
  std::string_view rest = path ? path : "";
  std::vector<std::string> found;
  while (!rest.empty()) {
    const size_t end = std::min(rest.find(':'), rest.size());
    const std::string file = join_path(rest.substr(0, end), "python3");
    if (end > 0 && file.front() == '/' && file_exists(file)) found.push_back(file);
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return found;
}

std::string variable(const char *name) {
  const char *value = getenv(name);
  return text(name, "=", value ? value : "");
}

// What stands on PATH may be a script that picks an interpreter: the interpreter itself tells.
std::string interpreter(const std::string &candidate, const Cancel *cancel) {
  LimitedProcess process;
  process.command = {candidate, "-c", "import os, sys; os.write(3, sys.executable.encode())"};
  process.environment = {variable("PATH"), variable("HOME")};
  process.folder = "/";
  process.confined = false;
  return run_limited(process, cancel).report;
}

CodeResult verdict(const ProcessResult &ended) {
  if (ended.end == ProcessResult::End::timed_out) return {CodeOutcome::timeout, ""};
  if (ended.end == ProcessResult::End::signalled) return {CodeOutcome::killed, text("signal ", ended.number)};
  const size_t line = std::min(ended.report.find('\n'), ended.report.size());
  const std::string word = ended.report.substr(0, line), detail = ended.report.substr(std::min(line + 1, ended.report.size()));
  if (word == "passed") return {CodeOutcome::passed, ""};
  if (word == "failed" && is_utf8(detail)) return {CodeOutcome::failed, detail};
  if (word == "error" && is_utf8(detail)) return {CodeOutcome::error, detail};
  return {CodeOutcome::error, text("ended by itself with status ", ended.number)};
}

}  // namespace

std::string code_of_answer(std::string_view answer) {
  constexpr std::string_view kFence = "```", kDone = "[DONE]";
  for (size_t at = answer.find(kDone); at != std::string_view::npos; at = answer.find(kDone, at + 1)) {
    if (at == 0 || answer[at - 1] == '\n') answer = answer.substr(0, at);
  }
  const size_t fence = answer.find(kFence);
  if (fence == std::string_view::npos) return std::string(answer);
  const size_t line = answer.find('\n', fence);
  if (line == std::string_view::npos) return "";
  answer.remove_prefix(line + 1);
  return std::string(answer.substr(0, answer.find(kFence)));
}

CodeRunner::CodeRunner(const ProcessLimits &limits, const Cancel *cancel) : limits_(limits) {
  std::string why = "it is not on PATH";
  for (const std::string &candidate : candidates()) {
    python_ = interpreter(candidate, cancel);
    if (python_.empty()) {
      why = candidate + " does not start";
      continue;
    }
    const CodeResult tried = run({"", kNoNetwork}, "", cancel);
    if (tried.outcome == CodeOutcome::passed) return;
    why = text(python_, " under the limits: ", kCodeOutcomes[static_cast<size_t>(tried.outcome)], " ", tried.detail);
  }
  fail(Code::unsupported, "allow_code_execution needs python3: ", why);
}

CodeResult CodeRunner::run(const CodeProgram &program, std::string_view answer, const Cancel *cancel) const {
  const ScratchFolder folder;
  const Json parts = Json::object({{"before", program.before}, {"answer", code_of_answer(answer)}, {"after", program.after}});
  LimitedProcess process;
  process.command = {python_, "-s", "-B", "-W", "ignore", "-c", kDriver};
  process.environment = {"PATH=/usr/bin:/bin", "HOME=" + folder.path(), "LC_ALL=C.UTF-8", "PYTHONHASHSEED=0"};
  process.folder = folder.path();
  process.input = parts.dump();
  process.limits = limits_;
  return verdict(run_limited(process, cancel));
}

}  // namespace moe
