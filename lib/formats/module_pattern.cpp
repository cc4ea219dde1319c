#include "formats/module_pattern.h"

#include <algorithm>
#include <string>

#include "base/error.h"

#if MOE_HAVE_PCRE2
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <memory>
#endif

namespace moe {

namespace {

constexpr size_t kMaxPattern = 4096;

bool is_plain(std::string_view pattern) {
  return std::all_of(pattern.begin(), pattern.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.';
  });
}

bool plain_matches(std::string_view pattern, PatternPlace place, std::string_view path) {
  if (pattern.size() > path.size()) return false;
  const size_t start = path.size() - pattern.size();
  if (start == 0 && place == PatternPlace::after_dot) return false;
  if (start > 0 && (place == PatternPlace::whole || path[start - 1] != '.')) return false;
  return std::equal(pattern.begin(), pattern.end(), path.begin() + static_cast<std::ptrdiff_t>(start),
                    [](char p, char c) { return p == '.' ? c != '\n' : p == c; });
}

#if MOE_HAVE_PCRE2

constexpr uint32_t kMatchLimit = 200'000, kDepthLimit = 2'000, kHeapLimitKib = 16'384;

struct Free {
  void operator()(pcre2_code *p) const { pcre2_code_free(p); }
  void operator()(pcre2_match_data *p) const { pcre2_match_data_free(p); }
  void operator()(pcre2_match_context *p) const { pcre2_match_context_free(p); }
};

std::string pcre2_message(int code) {
  PCRE2_UCHAR buffer[256] = {};
  pcre2_get_error_message(code, buffer, sizeof buffer);
  return reinterpret_cast<const char *>(buffer);
}

bool regex_matches(std::string_view pattern, PatternPlace place, std::string_view path, std::string_view source) {
  const char *prefix = place == PatternPlace::whole ? "" : place == PatternPlace::end ? "(?:.*\\.)?" : ".*\\.";
  const std::string full = text(prefix, "(?:", pattern, ")");
  int error = 0;
  PCRE2_SIZE at = 0;
  const std::unique_ptr<pcre2_code, Free> code(
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(full.data()), full.size(),
                    PCRE2_ANCHORED | PCRE2_ENDANCHORED | PCRE2_UTF | PCRE2_NEVER_BACKSLASH_C, &error, &at, nullptr));
  if (!code) fail(Code::format, source, ": the pattern '", pattern, "' is malformed: ", pcre2_message(error));
  const std::unique_ptr<pcre2_match_data, Free> data(pcre2_match_data_create(1, nullptr));
  const std::unique_ptr<pcre2_match_context, Free> context(pcre2_match_context_create(nullptr));
  if (!data || !context) fail(Code::no_memory, source, ": no memory to match '", pattern, "'");
  pcre2_set_match_limit(context.get(), kMatchLimit);
  pcre2_set_depth_limit(context.get(), kDepthLimit);
  pcre2_set_heap_limit(context.get(), kHeapLimitKib);
  const auto subject = reinterpret_cast<PCRE2_SPTR>(path.data());
  const int found = pcre2_match(code.get(), subject, path.size(), 0, 0, data.get(), context.get());
  if (found == PCRE2_ERROR_NOMATCH) return false;
  if (found < 0) fail(Code::format, source, ": the pattern '", pattern, "' cannot be matched: ", pcre2_message(found));
  return true;
}

#else

bool regex_matches(std::string_view pattern, PatternPlace, std::string_view, std::string_view source) {
  fail(Code::unsupported, source, ": '", pattern, "' is a regular expression and libmoe was built without PCRE2");
}

#endif

}  // namespace

bool pattern_matches(std::string_view pattern, PatternPlace place, std::string_view path, std::string_view source) {
  if (pattern.size() > kMaxPattern) {
    fail(Code::format, source, ": a pattern of ", pattern.size(), " bytes, at most ", kMaxPattern);
  }
  return is_plain(pattern) ? plain_matches(pattern, place, path) : regex_matches(pattern, place, path, source);
}

}  // namespace moe
