// What every call of the operating system needs: repeat when a signal came in between, and one form of message.
#pragma once
#include <errno.h>

#include <string>
#include <system_error>

#include "base/error.h"

namespace moe {

template <class Call>
auto retry(Call call) {
  decltype(call()) result;
  do {
    result = call();
  } while (result == -1 && errno == EINTR);
  return result;
}

// Throws Code::io from errno: "<path>: cannot <verb>: <reason>".
[[noreturn]] inline void fail_io(const std::string &path, const char *verb) {
  const int error = errno;
  fail(Code::io, path, ": cannot ", verb, ": ", std::generic_category().message(error));
}

// Makes the names in a folder durable (atomic_write.cpp).
void sync_folder(const std::string &path);

}  // namespace moe
