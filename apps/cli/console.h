// What a program says. Results go to stdout, everything else to stderr: log lines, and while something runs a progress line,
// which is one line that changes on a terminal and plain lines elsewhere.
#pragma once
#include <moe.h>

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>

namespace moe::cli {

struct ConsoleOptions {
  bool quiet = false;    // errors only
  bool verbose = false;  // also what is only of interest when something is looked for
  bool color = true;     // where stderr is a terminal and NO_COLOR is not set
};

class Console {
 public:
  Console(std::string program, const ConsoleOptions &options);

  // Results. Failure when stdout cannot be written (a full disk, a closed pipe).
  void print(std::string_view text);
  void flush();

  void log(int32_t level, std::string_view line);  // MOE_LOG_*
  void note(std::string_view line) { log(MOE_LOG_INFO, line); }
  void warn(std::string_view line) { log(MOE_LOG_WARNING, line); }
  void error(std::string_view line);  // "moe-train: <line>"

  bool quiet() const { return options_.quiet; }
  bool terminal() const { return terminal_; }

  // From here on the file gets every line as well, with the time, also those that options leave out. Failure when it cannot be
  // opened.
  void copy_to(const std::string &path);
  void record(std::string_view line);  // only to that file

  // The progress line. On a terminal it replaces the one before, at most ten times a second unless `keep`; elsewhere those to keep
  // are printed.
  void progress(const std::string &line, bool keep);
  void end_progress();  // what comes next begins a new line

 private:
  struct Close {
    void operator()(std::FILE *file) const { std::fclose(file); }
  };

  void write_line(const char *color, const std::string &prefix, std::string_view line);

  std::string program_;
  ConsoleOptions options_;
  bool terminal_ = false, progress_shown_ = false;
  double shown_at_ = 0;
  std::unique_ptr<std::FILE, Close> copy_;
};

// The moe_log_callback of a console, which is `user`.
void log_to_console(int32_t level, const char *line, void *user);

// Now by the clock of this place, as strftime writes it.
std::string local_time(const char *format);

// Seconds of a clock that never goes back.
double seconds_now();

}  // namespace moe::cli
