// The library's one error type. Inside libmoe failures are thrown as moe::Error; the C API catches
// them in one fence (lib/api) and nothing ever leaves the library as an exception.
#pragma once
#include <cstdint>
#include <exception>
#include <sstream>
#include <string>
#include <utility>

namespace moe {

// Same values as MOE_ERR_* of moe.h (asserted in lib/api).
enum class Code : int32_t {
  no_memory = -1,    // an allocation failed or a memory limit would be exceeded
  invalid = -2,      // an argument or option is out of its range
  state = -3,        // the call does not fit the state of the handle
  io = -4,           // the operating system refused: open, read, write, fsync, rename
  format = -5,       // a file is not what its format says
  unsupported = -6,  // well-formed, but not something this build can do
  numeric = -7,      // NaN or infinity where a number is needed
  cancelled = -8,    // the caller asked to stop
  buffer = -9,       // the caller's buffer is too small; the needed size is returned
  busy = -10,        // another writer holds the lock
  device = -11,      // the compute device failed
  internal = -12,    // a defect of the library
};

class Error : public std::exception {
 public:
  Error(Code code, std::string message) : code_(code), message_(std::move(message)) {}
  Code code() const { return code_; }
  const char *what() const noexcept override { return message_.c_str(); }
  const std::string &message() const { return message_; }

 private:
  Code code_;
  std::string message_;
};

// Joins its arguments into one string: text("rows ", 3, " of ", 4).
template <class... Parts>
std::string text(const Parts &...parts) {
  std::ostringstream out;
  out.exceptions(std::ios::badbit);  // a failed allocation is thrown, not swallowed with half a text left
  (out << ... << parts);
  return out.str();
}

// Throws. The message is one line: file, key or tensor, what was expected, what was found.
template <class... Parts>
[[noreturn]] void fail(Code code, const Parts &...parts) {
  throw Error(code, text(parts...));
}

}  // namespace moe
