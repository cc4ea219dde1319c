// How a program ends: exit status 0 done, 1 failed, 2 wrong usage, 130 cancelled. A failure is thrown and becomes one line on
// stderr.
#pragma once
#include <moe.h>

#include <stdexcept>
#include <string>

namespace moe::cli {

constexpr int kDone = 0, kFailed = 1, kUsage = 2, kCancelled = 130;

class Failure : public std::runtime_error {
 public:
  Failure(int status, const std::string &message) : std::runtime_error(message), status_(status) {}
  int status() const { return status_; }

 private:
  int status_;
};

// The error of a call of the library.
inline void check(int32_t status, const moe_error &error) {
  if (status == MOE_OK) return;
  throw Failure(status == MOE_ERR_CANCELLED ? kCancelled : kFailed, error.message);
}

// The same where a bad value is wrong usage: options that were given on the command line.
inline void check_usage(int32_t status, const moe_error &error) {
  if (status == MOE_OK) return;
  throw Failure(status == MOE_ERR_INVALID || status == MOE_ERR_FORMAT ? kUsage : kFailed, error.message);
}

}  // namespace moe::cli
