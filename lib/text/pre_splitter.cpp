#include "text/pre_splitter.h"

#include <algorithm>

#include "text/unicode.h"

namespace moe {
namespace {

// Bytes of the match of a character set at `at`, 0 when there is none.
size_t charset_match(PreSplitter::Charset charset, const char *at, const char *end) {
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  const unicode::Unit u = unicode::unit(at, end);
  const bool symbol = static_cast<uint8_t>(*at) < 0x80 && std::string_view("$+<=>^~|`").find(*at) != std::string_view::npos;
  bool match = false;
  switch (charset) {
    case PreSplitter::Charset::number: match = u.classes & unicode::kNumber; break;
    case PreSplitter::Charset::digit_triple:
      return end - at >= 3 && is_digit(at[0]) && is_digit(at[1]) && is_digit(at[2]) ? 3 : 0;
    case PreSplitter::Charset::punctuation: match = (u.classes & unicode::kPunctuation) || symbol; break;
    case PreSplitter::Charset::default_punctuation: match = (u.classes & unicode::kPunctuation) || (symbol && *at != '`'); break;
  }
  return match ? u.length : 0;
}

}  // namespace

void PreSplitter::add_split(Split split) {
  const bool after_single_numbers = steps_.size() == 1 && steps_[0].kind == Step::Kind::charset &&
                                    steps_[0].charset == Charset::number && steps_[0].keep == Keep::isolated;
  if (split == Split::gpt2 && after_single_numbers) {  // the two steps of smollm in one pass
    steps_.clear();
    split = Split::smollm;
  }
  Step step;
  step.scan = scanner_of(split);
  steps_.push_back(std::move(step));
}

void PreSplitter::add_pattern(const std::string &expression, Keep keep, bool invert, std::string_view source) {
  Step step;
  step.kind = Step::Kind::pattern;
  step.pattern = std::make_shared<Pattern>(expression, source);
  step.keep = keep;
  step.invert = invert;
  steps_.push_back(std::move(step));
}

void PreSplitter::add_literal(std::string text, Keep keep, bool invert) {
  if (text.empty()) return;
  Step step;
  step.kind = Step::Kind::literal;
  step.literal = std::move(text);
  step.keep = keep;
  step.invert = invert;
  steps_.push_back(std::move(step));
}

void PreSplitter::add_charset(Charset charset, Keep keep) {
  Step step;
  step.kind = Step::Kind::charset;
  step.charset = charset;
  step.keep = keep;
  steps_.push_back(std::move(step));
}

// Covers `text` with parts: matches and what lies between them.
void PreSplitter::find_parts(const Step &step, std::string_view text, std::vector<Part> &parts) {
  const char *begin = text.data(), *end = begin + text.size();
  size_t done = 0;
  const auto add = [&](ByteSpan match) {
    if (match.begin > done) parts.push_back({{done, match.begin}, step.invert});
    parts.push_back({match, !step.invert});
    done = match.end;
  };
  if (step.kind == Step::Kind::scanner) {
    while (done < text.size()) add({done, done + step.scan(begin + done, end)});
  } else if (step.kind == Step::Kind::pattern) {
    std::vector<ByteSpan> matches;
    step.pattern->find_all(text, matches);
    for (const ByteSpan &match : matches) add(match);
  } else if (step.kind == Step::Kind::literal) {
    for (size_t at = 0; (at = text.find(step.literal, done)) != std::string_view::npos;) add({at, at + step.literal.size()});
  } else {
    for (size_t at = 0; at < text.size();) {
      const size_t length = charset_match(step.charset, begin + at, end);
      if (length) add({at, at + length});
      at += length ? length : unicode::unit(begin + at, end).length;
    }
  }
  if (done < text.size()) parts.push_back({{done, text.size()}, step.invert});
}

void PreSplitter::keep_parts(Keep keep, size_t base, const std::vector<Part> &parts, std::vector<ByteSpan> &out) {
  for (size_t i = 0; i < parts.size(); ++i) {
    const Part &part = parts[i];
    const ByteSpan span = {base + part.span.begin, base + part.span.end};
    const bool before_differs = i > 0 && parts[i - 1].match != part.match;
    bool joins = false;  // with the part before
    switch (keep) {
      case Keep::isolated: break;
      case Keep::removed:
        if (part.match) continue;
        break;
      case Keep::with_previous: joins = part.match && before_differs; break;
      case Keep::with_next: joins = !part.match && before_differs; break;
      case Keep::contiguous: joins = i > 0 && !before_differs; break;
    }
    if (joins) out.back().end = span.end;
    else out.push_back(span);
  }
}

std::vector<ByteSpan> PreSplitter::split_by_steps(std::string_view text) const {
  // Bytes that are not UTF-8 stand apart, so that patterns see valid text only.
  std::vector<ByteSpan> pieces;
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const unicode::Unit u = unicode::unit(text.data() + at, text.data() + text.size());
    if (u.classes & unicode::kInvalid) {
      if (at > begin) pieces.push_back({begin, at});
      pieces.push_back({at, at + 1});
      begin = at + 1;
    }
    at += u.length;
  }
  if (begin < text.size()) pieces.push_back({begin, text.size()});

  std::vector<ByteSpan> next;
  std::vector<Part> parts;
  for (const Step &step : steps_) {
    next.clear();
    for (const ByteSpan &piece : pieces) {
      const std::string_view part = text.substr(piece.begin, piece.end - piece.begin);
      parts.clear();
      if (part.size() == 1 && static_cast<uint8_t>(part[0]) >= 0x80) parts.push_back({{0, 1}, false});
      else find_parts(step, part, parts);
      keep_parts(step.keep, piece.begin, parts, next);
    }
    pieces.swap(next);
  }
  return pieces;
}

}  // namespace moe
