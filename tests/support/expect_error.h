// EXPECT_FAILS(statement, Code::format, "part of the message"): the statement throws moe::Error with that code, and the
// one-line message names what it should.
#pragma once
#include <gtest/gtest.h>

#include <string>

#include "base/error.h"

namespace moe::test {

template <class Statement>
void expect_fails(const char *file, int line, Statement statement, Code code, const std::string &part) {
  try {
    statement();
  } catch (const Error &error) {
    if (error.code() != code || error.message().find(part) == std::string::npos || error.message().find('\n') != std::string::npos) {
      ADD_FAILURE_AT(file, line) << "expected code " << static_cast<int>(code) << " and one line with \"" << part << "\", found code "
                                 << static_cast<int>(error.code()) << ": " << error.message();
    }
    return;
  }
  ADD_FAILURE_AT(file, line) << "expected an error with \"" << part << "\", nothing was thrown";
}

}  // namespace moe::test

#define EXPECT_FAILS(statement, code, part) ::moe::test::expect_fails(__FILE__, __LINE__, [&] { (void)(statement); }, code, part)
