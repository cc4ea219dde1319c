// The splits of GPT-2, SmolLM, Llama 3, Qwen2 and o200k (GPT-4o), each the exact meaning of its published pattern:
//
//   gpt2    's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//   smollm  every \p{N} alone, gpt2 on the parts between
//   llama3  (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
//   qwen2   as llama3 with \p{N}
//   o200k   words in two forms with an optional contraction, \p{N}{1,3}, [\r\n/]* after punctuation, the rest as llama3:
//           [^\r\n\p{L}\p{N}]?U*L+(?i:contraction)? | [^\r\n\p{L}\p{N}]?U+L*(?i:contraction)?
//           U = [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}], L = [\p{Ll}\p{Lm}\p{Lo}\p{M}]
//
// \s+(?!\S) takes a run of white space but for its last character when something follows the run.
#include "text/pre_splitter.h"
#include "text/unicode.h"

namespace moe {
namespace {

using unicode::Unit;
using unicode::unit;

bool is_letter(Unit u) { return u.classes & unicode::kLetter; }
bool is_number(Unit u) { return u.classes & unicode::kNumber; }
bool is_space(Unit u) { return u.classes & unicode::kSpace; }
bool is_newline(Unit u) { return u.classes & unicode::kNewline; }
bool is_upper(Unit u) { return u.classes & unicode::kUpper; }
bool is_lower(Unit u) { return u.classes & unicode::kLower; }
// [^\s\p{L}\p{N}]
bool is_other(Unit u) {
  return u.length && !(u.classes & (unicode::kSpace | unicode::kLetter | unicode::kNumber | unicode::kInvalid));
}
// [^\r\n\p{L}\p{N}]
bool may_lead_word(Unit u) {
  return u.length && !(u.classes & (unicode::kNewline | unicode::kLetter | unicode::kNumber | unicode::kInvalid));
}

template <class Is>
const char *skip(const char *at, const char *end, Is is) {
  for (Unit u = unit(at, end); u.length && is(u); u = unit(at, end)) at += u.length;
  return at;
}

// Bytes of the contraction that begins at the apostrophe `at`, 0 when there is none.
template <bool any_case>
size_t contraction(const char *at, const char *end) {
  const auto letter = [&](int i) -> char {
    if (end - at <= i) return '\0';
    const char c = at[i];
    return any_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  };
  if (letter(0) != '\'') return 0;
  const char first = letter(1), second = letter(2);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
  if ((first == 'r' || first == 'v') && second == 'e') return 3;
  if (first == 'l' && second == 'l') return 3;
  if (any_case && end - at > 2 && at[1] == '\xC5' && at[2] == '\xBF') return 3;  // U+017F, long s, is an s without case
  return 0;
}

// \s+(?!\S)|\s+ at white space. A run that ends the text is one piece; where digits stand apart, so is one before a digit.
template <bool digits_apart>
size_t space_run(const char *begin, const char *end) {
  const char *at = begin, *last = begin;
  Unit u = unit(at, end);
  for (; is_space(u); u = unit(at, end)) {
    last = at;
    at += u.length;
  }
  const bool ends = u.length == 0 || (digits_apart && is_number(u));
  return static_cast<size_t>((ends || last == begin ? at : last) - begin);
}

// \s*[\r\n]+ and then as space_run: the run up to its last line break, when it has one.
size_t space_run_by_lines(const char *begin, const char *end) {
  const char *at = begin, *after_break = nullptr;
  for (Unit u = unit(at, end); is_space(u); u = unit(at, end)) {
    at += u.length;
    if (is_newline(u)) after_break = at;
  }
  return after_break ? static_cast<size_t>(after_break - begin) : space_run<false>(begin, end);
}

// gpt2; with digits_apart smollm.
template <bool digits_apart>
size_t scan_gpt2(const char *begin, const char *end) {
  if (const size_t length = contraction<false>(begin, end)) return length;
  const char *at = begin;
  Unit first = unit(at, end);
  if (*at == ' ') {
    const Unit second = unit(at + 1, end);
    if (is_letter(second) || is_other(second) || (!digits_apart && is_number(second))) ++at, first = second;
  }
  if (is_letter(first)) return static_cast<size_t>(skip(at, end, is_letter) - begin);
  if (is_number(first)) return digits_apart ? first.length : static_cast<size_t>(skip(at, end, is_number) - begin);
  if (is_other(first)) return static_cast<size_t>(skip(at, end, is_other) - begin);
  return is_space(first) ? space_run<digits_apart>(begin, end) : first.length;
}

template <int most_digits>
size_t scan_llama3(const char *begin, const char *end) {
  if (const size_t length = contraction<true>(begin, end)) return length;
  const Unit first = unit(begin, end);
  if (is_letter(first)) return static_cast<size_t>(skip(begin, end, is_letter) - begin);
  const Unit second = unit(begin + first.length, end);
  if (may_lead_word(first) && is_letter(second)) {
    return static_cast<size_t>(skip(begin + first.length, end, is_letter) - begin);
  }
  if (is_number(first)) {
    const char *at = begin;
    int digits = 0;
    for (Unit u = first; is_number(u) && digits < most_digits; ++digits, u = unit(at, end)) at += u.length;
    return static_cast<size_t>(at - begin);
  }
  if (is_other(first) || (*begin == ' ' && is_other(second))) {
    const char *after = skip(begin + (is_other(first) ? 0 : 1), end, is_other);
    return static_cast<size_t>(skip(after, end, is_newline) - begin);
  }
  return is_space(first) ? space_run_by_lines(begin, end) : first.length;
}

// U*L+ at `at`, else nullptr. U* takes all it can and gives back until an L is left for L+.
const char *lower_word(const char *at, const char *end) {
  const char *after_lower = nullptr, *upper_end = at;
  for (Unit u = unit(upper_end, end); u.length && is_upper(u); u = unit(upper_end, end)) {
    upper_end += u.length;
    if (is_lower(u)) after_lower = upper_end;
  }
  if (is_lower(unit(upper_end, end))) return skip(upper_end, end, is_lower);
  return after_lower;
}

// U+L* at `at`, else nullptr.
const char *upper_word(const char *at, const char *end) {
  const char *upper_end = skip(at, end, is_upper);
  return upper_end == at ? nullptr : skip(upper_end, end, is_lower);
}

size_t scan_o200k(const char *begin, const char *end) {
  const Unit first = unit(begin, end);
  const char *behind_lead = may_lead_word(first) ? begin + first.length : nullptr;
  const char *word = behind_lead ? lower_word(behind_lead, end) : nullptr;
  if (!word) word = lower_word(begin, end);
  if (!word && behind_lead) word = upper_word(behind_lead, end);
  if (!word) word = upper_word(begin, end);
  if (word) return static_cast<size_t>(word - begin) + contraction<true>(word, end);
  if (is_number(first)) return scan_llama3<3>(begin, end);
  const bool other = is_other(first);
  if (other || (*begin == ' ' && is_other(unit(begin + 1, end)))) {
    const char *after = skip(begin + (other ? 0 : 1), end, is_other);
    while (after != end && (*after == '\r' || *after == '\n' || *after == '/')) ++after;
    return static_cast<size_t>(after - begin);
  }
  return is_space(first) ? space_run_by_lines(begin, end) : first.length;
}

}  // namespace

SplitScanner scanner_of(Split split) {
  switch (split) {
    case Split::gpt2: return scan_gpt2<false>;
    case Split::smollm: return scan_gpt2<true>;
    case Split::llama3: return scan_llama3<3>;
    case Split::qwen2: return scan_llama3<1>;
    case Split::o200k: return scan_o200k;
  }
  return scan_gpt2<false>;
}

}  // namespace moe
