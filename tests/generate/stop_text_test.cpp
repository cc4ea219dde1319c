#include "generate/stop_text.h"

#include <gtest/gtest.h>

#include "support/expect_error.h"

namespace moe {
namespace {

struct Result {
  std::string text;
  bool stopped = false;
};

// Pushes the text in pieces of `size` bytes until it stops.
Result run(const std::vector<std::string> &stop, const std::string &text, size_t size) {
  StopText stream(stop);
  Result result;
  for (size_t i = 0; i < text.size() && !stream.stopped(); i += size)
    result.text += stream.push(std::string_view(text).substr(i, size));
  result.stopped = stream.stopped();
  result.text += stream.finish();
  return result;
}

TEST(StopText, CutsAtTheFirstStopStringHoweverTheTextIsCut) {
  const std::string text = "one two\n\nthree END four";
  for (size_t size = 1; size <= text.size(); size++) {
    EXPECT_EQ(run({"END", "\n\n"}, text, size).text, "one two") << size;
    EXPECT_EQ(run({"END"}, text, size).text, "one two\n\nthree ") << size;
    EXPECT_TRUE(run({"END"}, text, size).stopped) << size;
  }
}

TEST(StopText, WithoutAStopStringNothingIsLost) {
  for (size_t size = 1; size <= 9; size++) {
    EXPECT_EQ(run({"abcd"}, "ababcabc", size).text, "ababcabc") << size;
    EXPECT_FALSE(run({"abcd"}, "ababcabc", size).stopped) << size;
    EXPECT_EQ(run({}, "any text", size).text, "any text") << size;
  }
}

TEST(StopText, HoldsBackOnlyWhatMayBecomeAStopString) {
  StopText stream({"stop"});
  EXPECT_EQ(stream.push("a st"), "a ");
  EXPECT_EQ(stream.push("ar"), "star");
  EXPECT_EQ(stream.push("s"), "");
  EXPECT_EQ(stream.push("s"), "s");
  EXPECT_EQ(stream.push("top"), "");
  EXPECT_TRUE(stream.stopped());
  EXPECT_EQ(stream.push("more"), "");
  EXPECT_EQ(stream.finish(), "");
}

TEST(StopText, TheStopStringThatEndsFirstWinsOfTwoThatEndTogetherTheLonger) {
  for (size_t size = 1; size <= 8; size++) {
    EXPECT_EQ(run({"bcde", "cd"}, "abcdefg", size).text, "ab") << size;
    EXPECT_EQ(run({"d", "bcd"}, "abcdefg", size).text, "a") << size;
  }
}

TEST(StopText, AnEmptyStopStringIsRefused) { EXPECT_FAILS(StopText({"a", ""}), Code::invalid, "stop string"); }

}  // namespace
}  // namespace moe
