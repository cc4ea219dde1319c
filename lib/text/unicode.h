// Classes of characters for the pre-tokenizer scanners: the properties that \p{L}, \p{N}, \s and their relatives name.
// ASCII and white space are known to every build; the other classes come from utf8proc, and a build without it says so
// (has_unicode_classes). A byte that does not begin valid UTF-8 is a unit of its own with the class kInvalid.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace moe::unicode {

enum Class : uint8_t {
  kLetter = 1,    // \p{L}
  kNumber = 2,    // \p{N}
  kSpace = 4,     // \s = White_Space
  kUpper = 8,     // \p{Lu} \p{Lt} \p{Lm} \p{Lo} \p{M}
  kLower = 16,    // \p{Ll} \p{Lm} \p{Lo} \p{M}
  kNewline = 32,  // \r \n
  kInvalid = 64,
  kPunctuation = 128  // \p{P}
};

constexpr std::array<uint8_t, 128> make_ascii_classes() {
  std::array<uint8_t, 128> table{};
  for (int c = 0; c < 128; ++c) {
    if (c >= 'a' && c <= 'z') table[c] = kLetter | kLower;
    else if (c >= 'A' && c <= 'Z') table[c] = kLetter | kUpper;
    else if (c >= '0' && c <= '9') table[c] = kNumber;
    else if (c == ' ' || (c >= 9 && c <= 13)) table[c] = kSpace;
    else if (c > 32 && c < 127) table[c] = kPunctuation;
  }
  for (const char c : {'$', '+', '<', '=', '>', '^', '`', '|', '~'}) table[static_cast<uint8_t>(c)] = 0;  // symbols
  table['\n'] |= kNewline;
  table['\r'] |= kNewline;
  return table;
}
inline constexpr std::array<uint8_t, 128> kAsciiClasses = make_ascii_classes();

// A character, or a byte that is none.
struct Unit {
  uint8_t classes = 0;
  uint8_t length = 0;  // bytes; 0 at the end of the text
};

bool has_unicode_classes();
uint32_t decode(const char *at, size_t length);  // the code point of a valid sequence of that length
uint8_t classes_of(uint32_t code_point);         // of a code point >= 0x80
bool is_space(uint32_t code_point);
Unit unit_beyond_ascii(const char *at, const char *end);

inline Unit unit(const char *at, const char *end) {
  if (at == end) return {};
  const auto byte = static_cast<uint8_t>(*at);
  if (byte < 128) return {kAsciiClasses[byte], 1};
  return unit_beyond_ascii(at, end);
}

// The unit that ends at `at` (begin < at).
Unit unit_before(const char *begin, const char *at);

// Text with each maximal part that is not UTF-8 replaced by one U+FFFD.
std::string replace_invalid(std::string_view text);

}  // namespace moe::unicode
