#include "text/unicode.h"

#include "base/utf8.h"

#if MOE_HAVE_UTF8PROC
#include <utf8proc.h>
#endif

namespace moe::unicode {
namespace {

// Bytes of the maximal prefix that could begin a valid sequence (Unicode 15, section 3.9, table 3-7), at least 1.
size_t invalid_length(std::string_view text) {
  const auto at = [&](size_t i) { return i < text.size() ? static_cast<uint8_t>(text[i]) : uint8_t{0}; };
  const uint8_t first = at(0);
  const size_t wanted = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : first >= 0xC2 ? 2 : 1;
  if (wanted == 1 || first > 0xF4) return 1;
  uint8_t low = 0x80, high = 0xBF;
  if (first == 0xE0) low = 0xA0;
  if (first == 0xED) high = 0x9F;
  if (first == 0xF0) low = 0x90;
  if (first == 0xF4) high = 0x8F;
  size_t length = 1;
  for (; length < wanted; ++length, low = 0x80, high = 0xBF) {
    if (at(length) < low || at(length) > high) break;
  }
  return length;
}

}  // namespace

bool has_unicode_classes() {
#if MOE_HAVE_UTF8PROC
  return true;
#else
  return false;
#endif
}

uint32_t decode(const char *at, size_t length) {
  const auto byte = [&](size_t i) { return static_cast<uint32_t>(static_cast<uint8_t>(at[i])); };
  switch (length) {
    case 1: return byte(0);
    case 2: return (byte(0) & 0x1F) << 6 | (byte(1) & 0x3F);
    case 3: return (byte(0) & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
    default: return (byte(0) & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F);
  }
}

bool is_space(uint32_t c) {
  if (c < 128) return kAsciiClasses[c] & kSpace;
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

uint8_t classes_of(uint32_t code_point) {
  if (is_space(code_point)) return kSpace;
#if MOE_HAVE_UTF8PROC
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(code_point))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LT: return kLetter | kUpper;
    case UTF8PROC_CATEGORY_LL: return kLetter | kLower;
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO: return kLetter | kUpper | kLower;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME: return kUpper | kLower;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO: return kNumber;
    case UTF8PROC_CATEGORY_PC:
    case UTF8PROC_CATEGORY_PD:
    case UTF8PROC_CATEGORY_PS:
    case UTF8PROC_CATEGORY_PE:
    case UTF8PROC_CATEGORY_PI:
    case UTF8PROC_CATEGORY_PF:
    case UTF8PROC_CATEGORY_PO: return kPunctuation;
    default: return 0;
  }
#else
  return 0;
#endif
}

Unit unit_beyond_ascii(const char *at, const char *end) {
  const size_t length = utf8_length(std::string_view(at, static_cast<size_t>(end - at)));
  if (length == 0) return {kInvalid, 1};
  return {classes_of(decode(at, length)), static_cast<uint8_t>(length)};
}

Unit unit_before(const char *begin, const char *at) {
  const size_t most = static_cast<size_t>(at - begin) < 4 ? static_cast<size_t>(at - begin) : 4;
  for (size_t length = 1; length <= most; ++length) {
    if (utf8_length(std::string_view(at - length, length)) == length) return unit(at - length, at);
  }
  return {kInvalid, 1};
}

std::string replace_invalid(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const size_t length = utf8_length(text);
    if (length == 0) out += "\xEF\xBF\xBD";
    else out.append(text, 0, length);
    text.remove_prefix(length == 0 ? invalid_length(text) : length);
  }
  return out;
}

}  // namespace moe::unicode
