// Cuts a text into the pieces inside which a byte-level vocabulary merges. The patterns of the well-known models are
// written as scanners (a piece in one pass, no backtracking over the text); any other pattern runs through PCRE2.
// Bytes that are not UTF-8 are pieces of their own.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/byte_span.h"
#include "text/pattern.h"

namespace moe {

// The published splits, by the name that GGUF files use for them.
enum class Split { gpt2, smollm, llama3, qwen2, o200k };

// Bytes of the first piece of [begin, end), which is not empty.
using SplitScanner = size_t (*)(const char *begin, const char *end);
SplitScanner scanner_of(Split split);

class PreSplitter {
 public:
  enum class Keep { isolated, removed, with_previous, with_next, contiguous };  // what becomes of the matches of a step
  // What a step looks for when it is no pattern: single characters, or three ASCII digits in a row.
  //   punctuation          \p{P} and the ASCII symbols
  //   default_punctuation  [\p{P}$+<=>^~|], the set of llama.cpp's default split
  enum class Charset { number, digit_triple, punctuation, default_punctuation };

  // Steps are applied one after the other, each inside the pieces of the one before.
  void add_split(Split split);
  void add_pattern(const std::string &expression, Keep keep, bool invert, std::string_view source);
  void add_literal(std::string text, Keep keep, bool invert);
  void add_charset(Charset charset, Keep keep);
  bool empty() const { return steps_.empty(); }

  // Calls piece(begin, end) for each piece in order.
  template <class Piece>
  void split(std::string_view text, Piece &&piece) const {
    if (steps_.empty()) {
      if (!text.empty()) piece(size_t{0}, text.size());
      return;
    }
    if (steps_.size() == 1 && steps_[0].scan) {
      const char *begin = text.data(), *end = begin + text.size();
      for (const char *at = begin; at != end;) {
        const char *next = at + steps_[0].scan(at, end);
        piece(static_cast<size_t>(at - begin), static_cast<size_t>(next - begin));
        at = next;
      }
      return;
    }
    for (const ByteSpan &span : split_by_steps(text)) piece(span.begin, span.end);
  }

 private:
  struct Step {
    SplitScanner scan = nullptr;
    std::shared_ptr<const Pattern> pattern;
    std::string literal;
    Charset charset = Charset::number;
    enum class Kind { scanner, pattern, literal, charset } kind = Kind::scanner;  // which of the four above
    Keep keep = Keep::isolated;
    bool invert = false;
  };
  struct Part {
    ByteSpan span;
    bool match = false;
  };
  std::vector<ByteSpan> split_by_steps(std::string_view text) const;
  static void find_parts(const Step &step, std::string_view text, std::vector<Part> &parts);
  static void keep_parts(Keep keep, size_t base, const std::vector<Part> &parts, std::vector<ByteSpan> &out);

  std::vector<Step> steps_;
};

}  // namespace moe
