// A test that cannot run in this build says so and is left out. The tiny models of tests/golden have byte-level BPE
// vocabularies, whose pre-splitters ask utf8proc for the categories of characters.
#pragma once
#include <gtest/gtest.h>

#define NEEDS_UTF8PROC() \
  if (!MOE_HAVE_UTF8PROC) GTEST_SKIP() << "this build has no utf8proc, which the tokenizer of the model needs"
#define NEEDS_PCRE2() \
  if (!MOE_HAVE_PCRE2) GTEST_SKIP() << "this build has no PCRE2, which the pattern in the file needs"
