#include "text/normalizer.h"

#include <algorithm>

#include "base/error.h"
#include "base/utf8.h"
#include "text/unicode.h"

#if MOE_HAVE_UTF8PROC
#include <utf8proc.h>
#endif

namespace moe {
namespace {

constexpr std::string_view kBlock = "\xE2\x96\x81";  // U+2581

// Collects the output of one step and where each byte of it came from.
class Rewriter {
 public:
  Rewriter(std::string_view input, bool keep_origin) : input_(input), keep_(keep_origin) {}

  void copy(size_t begin, size_t end) {
    out_.append(input_, begin, end - begin);
    if (keep_) {
      for (size_t i = begin; i < end; ++i) origin_.push_back({i, i + 1});
    }
  }
  void put(std::string_view text, size_t begin, size_t end) {
    out_.append(text);
    if (keep_) origin_.insert(origin_.end(), text.size(), {begin, end});
  }

  // `out` held the input of this step; now it holds its output.
  void store(NormalizedText &out) {
    if (keep_) {
      if (!out.origin.empty()) {
        for (ByteSpan &span : origin_) span = out.source(span.begin, span.end);
      }
      out.origin = std::move(origin_);
    }
    out.storage = std::move(out_);
    out.text = out.storage;
  }

 private:
  std::string_view input_;
  bool keep_;
  std::string out_;
  std::vector<ByteSpan> origin_;
};

void replace(std::string_view from, std::string_view to, bool keep_origin, NormalizedText &text) {
  size_t found = text.text.find(from);
  if (found == std::string_view::npos) return;
  Rewriter rewriter(text.text, keep_origin);
  size_t done = 0;
  for (; found != std::string_view::npos; found = text.text.find(from, done)) {
    rewriter.copy(done, found);
    done = found + from.size();
    rewriter.put(to, found, done);
  }
  rewriter.copy(done, text.text.size());
  rewriter.store(text);
}

#if MOE_HAVE_UTF8PROC

using CodePoints = std::vector<utf8proc_int32_t>;

void decompose(std::string_view text, bool compatibly, CodePoints &out) {
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (compatibly ? UTF8PROC_COMPAT : 0));
  for (size_t at = 0; at < text.size();) {
    const size_t length = utf8_length(text.substr(at));
    utf8proc_int32_t parts[32];  // the longest decomposition has 18
    int last_boundclass = 0;
    const auto code_point = static_cast<utf8proc_int32_t>(unicode::decode(text.data() + at, length));
    const auto count = utf8proc_decompose_char(code_point, parts, 32, options, &last_boundclass);
    if (count < 0 || count > 32) fail(Code::internal, "normalization of U+", code_point, " failed");
    out.insert(out.end(), parts, parts + count);
    at += length;
  }
}

// Marks on one character are ordered by combining class. utf8proc would do it by insertion, which a text of nothing but
// marks makes quadratic.
void order_marks(CodePoints &text) {
  const auto combining_class = [](utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; };
  const auto lower = [&](utf8proc_int32_t a, utf8proc_int32_t b) { return combining_class(a) < combining_class(b); };
  for (auto at = text.begin(); at != text.end();) {
    const auto end = std::find_if(at, text.end(), [&](utf8proc_int32_t c) { return combining_class(c) == 0; });
    if (end - at > 1) std::stable_sort(at, end, lower);
    at = std::find_if(end, text.end(), [&](utf8proc_int32_t c) { return combining_class(c) != 0; });
  }
}

// utf8proc up to 2.8 composes a Hangul syllable with U+11A7, which composes with nothing: keep it out of its sight.
void compose(CodePoints &text) {
  constexpr utf8proc_int32_t inert = 0x11A7;
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
  CodePoints out;
  for (auto at = text.begin(); at != text.end();) {
    const auto end = std::find(at, text.end(), inert);
    const auto length = utf8proc_normalize_utf32(&*at, end - at, options);
    if (length < 0) fail(Code::internal, "normalization: ", utf8proc_errmsg(length));
    out.insert(out.end(), at, at + length);
    at = end;
    if (at != text.end()) out.push_back(*at++);
  }
  text.swap(out);
}

// The normal form of valid UTF-8 text.
std::string normal_form(std::string_view text, NormalForm form) {
  CodePoints code_points;
  decompose(text, form == NormalForm::nfkc || form == NormalForm::nfkd, code_points);
  order_marks(code_points);
  if (form == NormalForm::nfc || form == NormalForm::nfkc) compose(code_points);
  std::string out;
  for (const utf8proc_int32_t c : code_points) append_utf8(out, static_cast<uint32_t>(c));
  return out;
}

// Nothing composes with a following ASCII character, so a text is normalized in chunks: a run of other characters and the
// one ASCII character before it (which may be the base of a combining mark). Bytes that are not UTF-8 stay as they are.
void apply_form(NormalForm form, bool keep_origin, NormalizedText &text) {
  const std::string_view input = text.text;
  // Below U+0300 every character is its own NFC.
  const uint8_t quick_below = form == NormalForm::nfc ? 0xCC : 0x80;
  Rewriter rewriter(input, keep_origin);
  size_t copied = 0, at = 0;
  bool changed = false;
  while (at < input.size()) {
    if (static_cast<uint8_t>(input[at]) < 0x80) {
      ++at;
      continue;
    }
    const size_t begin = at > copied && static_cast<uint8_t>(input[at - 1]) < 0x80 ? at - 1 : at;
    bool quick = true;
    size_t length = 0;
    while (at < input.size() && static_cast<uint8_t>(input[at]) >= 0x80 && (length = utf8_length(input.substr(at))) != 0) {
      quick &= static_cast<uint8_t>(input[at]) < quick_below;
      at += length;
    }
    if (!quick) {
      const std::string_view chunk = input.substr(begin, at - begin);
      const std::string form_of_chunk = normal_form(chunk, form);
      if (form_of_chunk != chunk) {
        changed = true;
        rewriter.copy(copied, begin);
        rewriter.put(form_of_chunk, begin, at);
        copied = at;
      }
    }
    if (at < input.size() && static_cast<uint8_t>(input[at]) >= 0x80) ++at;  // not UTF-8
  }
  if (!changed) return;
  rewriter.copy(copied, input.size());
  rewriter.store(text);
}

#else
void apply_form(NormalForm, bool, NormalizedText &) {}
#endif

}  // namespace

void Normalizer::add_form(NormalForm form, std::string_view source) {
  if (!unicode::has_unicode_classes()) {
    fail(Code::unsupported, source, ": the tokenizer normalizes text, which needs utf8proc; this build has no utf8proc");
  }
  steps_.push_back({form, {}, {}});
}

void Normalizer::add_replacement(std::string from, std::string to) {
  if (!from.empty()) steps_.push_back({NormalForm::none, std::move(from), std::move(to)});
}

void Normalizer::apply(std::string_view input, bool first, bool keep_origin, NormalizedText &out) const {
  out.unchanged(input);
  for (const Step &step : steps_) {
    if (step.form != NormalForm::none) apply_form(step.form, keep_origin, out);
    else replace(step.from, step.to, keep_origin, out);
  }
  if (block_is_space_) replace(kBlock, " ", keep_origin, out);
  if (prefix_ == PrefixSpace::never || out.text.empty() || (first_only_ && !first)) return;
  if (prefix_ == PrefixSpace::unless_space && out.text.front() == ' ') return;
  Rewriter rewriter(out.text, keep_origin);
  rewriter.put(" ", 0, 0);
  rewriter.copy(0, out.text.size());
  rewriter.store(out);
}

}  // namespace moe
