#include "cli/console.h"

#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "cli/failure.h"

namespace moe::cli {

Console::Console(std::string program, const ConsoleOptions &options) : program_(std::move(program)), options_(options) {
  terminal_ = isatty(STDERR_FILENO) == 1;
  const char *no_color = std::getenv("NO_COLOR");
  if (!terminal_ || (no_color && *no_color)) options_.color = false;
}

void Console::print(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size())
    throw Failure(kFailed, std::string("standard output: ") + std::strerror(errno));
}

void Console::flush() {
  if (std::fflush(stdout) != 0) throw Failure(kFailed, std::string("standard output: ") + std::strerror(errno));
}

void Console::write_line(const char *color, const std::string &prefix, std::string_view line) {
  end_progress();
  const bool colored = options_.color && *color;
  std::string text = colored ? color + prefix + "\033[0m" : prefix;
  text.append(line) += '\n';
  std::fwrite(text.data(), 1, text.size(), stderr);
}

void Console::log(int32_t level, std::string_view line) {
  if (options_.quiet || (level >= MOE_LOG_DEBUG && !options_.verbose)) return;
  if (level == MOE_LOG_ERROR) write_line("\033[31m", "error: ", line);
  else if (level == MOE_LOG_WARNING) write_line("\033[33m", "warning: ", line);
  else write_line("", "", line);
}

void Console::error(std::string_view line) { write_line("\033[31m", program_ + ": ", line); }

void Console::progress(const std::string &line, bool always) {
  if (options_.quiet) return;
  if (!terminal_) return write_line("", "", line);
  const double now = seconds_now();
  if (!always && progress_shown_ && now - shown_at_ < 0.1) return;
  const std::string text = "\r" + line + "\033[K";
  std::fwrite(text.data(), 1, text.size(), stderr);
  progress_shown_ = true;
  shown_at_ = now;
}

void Console::end_progress() {
  if (progress_shown_) std::fputc('\n', stderr);
  progress_shown_ = false;
}

void log_to_console(int32_t level, const char *line, void *user) { static_cast<Console *>(user)->log(level, line); }

double seconds_now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

}  // namespace moe::cli
