// What happens to a text before it is split: Unicode normal forms, replacement of strings, and the space that
// SentencePiece puts in front. Spaces stay spaces: where a model spells them U+2581, that character becomes a space here
// (and in the vocabulary), so that one rule serves all vocabularies.
#pragma once
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/byte_span.h"

namespace moe {

struct NormalizedText {
  std::string_view text;  // the input itself, or `storage`
  std::string storage;
  std::vector<ByteSpan> origin;  // per byte of text: the bytes of the input it stands for; empty: the input is unchanged

  void unchanged(std::string_view input) {
    text = input;
    origin.clear();
  }
  // The bytes of the input that text[begin, end) stands for.
  ByteSpan source(size_t begin, size_t end) const {
    if (origin.empty()) return {begin, end};
    const size_t first = begin < origin.size() ? origin[begin].begin : origin.back().end;
    return {first, begin < end ? origin[end - 1].end : first};
  }
};

enum class NormalForm { none, nfc, nfd, nfkc, nfkd };
// When a space is put before a text: never, always, unless the text begins with white space ...
enum class PrefixSpace { never, always, unless_space };

class Normalizer {
 public:
  // Steps in the order they are applied.
  void add_form(NormalForm form, std::string_view source);  // Code::unsupported without utf8proc
  void add_replacement(std::string from, std::string to);
  void set_prefix(PrefixSpace prefix, bool first_only) { prefix_ = prefix, first_only_ = first_only; }
  void set_block_is_space() { block_is_space_ = true; }  // U+2581 stands for a space

  PrefixSpace prefix() const { return prefix_; }
  // `first`: the text begins the whole input. `keep_origin`: fill NormalizedText::origin.
  void apply(std::string_view input, bool first, bool keep_origin, NormalizedText &out) const;

 private:
  struct Step {
    NormalForm form = NormalForm::none;
    std::string from, to;
  };
  std::vector<Step> steps_;
  PrefixSpace prefix_ = PrefixSpace::never;
  bool first_only_ = false, block_is_space_ = false;
};

}  // namespace moe
