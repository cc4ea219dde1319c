// A regular expression of a tokenizer.json, run by PCRE2 with limits. In a build without PCRE2 the constructor throws.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/byte_span.h"

namespace moe {

class Pattern {
 public:
  Pattern(const std::string &expression, std::string_view source);
  ~Pattern();
  Pattern(const Pattern &) = delete;

  // Appends the matches in `text` (valid UTF-8) from left to right, none empty. Code::format when a match takes more steps
  // than allowed.
  void find_all(std::string_view text, std::vector<ByteSpan> &matches) const;

 private:
  struct Compiled;
  std::unique_ptr<Compiled> compiled_;
};

}  // namespace moe
