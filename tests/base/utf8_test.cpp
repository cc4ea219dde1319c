#include "base/utf8.h"

#include <gtest/gtest.h>

namespace moe {
namespace {

TEST(Utf8, WholeTextsAreChecked) {
  const std::string ascii(40, 'a');
  EXPECT_TRUE(is_utf8(""));
  for (const char *good : {"\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80", "\xEF\xBF\xBD", "\x7F"}) {
    for (size_t at = 0; at <= ascii.size(); ++at) EXPECT_TRUE(is_utf8(ascii.substr(0, at) + good + ascii.substr(at))) << good;
  }
  // A byte alone, overlong forms, a surrogate, beyond U+10FFFF, a sequence cut short.
  for (const char *bad : {"\x80", "\xFF", "\xC0\xAF", "\xE0\x80\xAF", "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xE2\x82", "\xF0\x9F\x98"}) {
    for (size_t at = 0; at <= ascii.size(); ++at) EXPECT_FALSE(is_utf8(ascii.substr(0, at) + bad + ascii.substr(at))) << bad;
  }
}

}  // namespace
}  // namespace moe
