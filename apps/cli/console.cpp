#include "cli/console.h"

#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

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

void Console::copy_to(const std::string &path) {
  copy_.reset(std::fopen(path.c_str(), "we"));
  if (!copy_) throw Failure(kFailed, path + ": " + std::strerror(errno));
}

void Console::record(std::string_view line) {
  if (!copy_) return;
  std::string text = local_time("%F %T ");
  text.append(line) += '\n';
  std::fwrite(text.data(), 1, text.size(), copy_.get());
  std::fflush(copy_.get());
}

void Console::log(int32_t level, std::string_view line) {
  const std::string prefix = level == MOE_LOG_ERROR ? "error: " : level == MOE_LOG_WARNING ? "warning: " : "";
  record(prefix + std::string(line));
  if (options_.quiet || (level >= MOE_LOG_DEBUG && !options_.verbose)) return;
  write_line(level == MOE_LOG_ERROR ? "\033[31m" : level == MOE_LOG_WARNING ? "\033[33m" : "", prefix, line);
}

void Console::error(std::string_view line) {
  record(program_ + ": " + std::string(line));
  write_line("\033[31m", program_ + ": ", line);
}

void Console::progress(const std::string &line, bool keep) {
  if (keep) record(line);
  if (options_.quiet) return;
  if (!terminal_) return keep ? write_line("", "", line) : void();
  const double now = seconds_now();
  if (!keep && progress_shown_ && now - shown_at_ < 0.1) return;
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

std::string local_time(const char *format) {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  char text[64];
  return {text, std::strftime(text, sizeof text, format, &local)};
}

double seconds_now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

}  // namespace moe::cli
