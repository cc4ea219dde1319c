#include "text/added_tokens.h"

#include <algorithm>

#include "text/unicode.h"

namespace moe {
namespace {

// \w: letters, marks, numbers and the underscore.
bool is_word(unicode::Unit unit, char first) {
  return first == '_' || (unit.classes & (unicode::kLetter | unicode::kNumber | unicode::kUpper | unicode::kLower));
}

}  // namespace

void AddedTokens::add(AddedToken token) {
  if (!token.text.empty()) tokens_.push_back(std::move(token));
}

void AddedTokens::build() {
  const auto by_text = [](const AddedToken &a, const AddedToken &b) { return a.text < b.text; };
  const auto same_text = [](const AddedToken &a, const AddedToken &b) { return a.text == b.text; };
  std::stable_sort(tokens_.begin(), tokens_.end(), by_text);
  tokens_.erase(std::unique(tokens_.begin(), tokens_.end(), same_text), tokens_.end());
  by_first_.fill({});
  for (uint32_t i = 0; i < tokens_.size(); ++i) {
    Range &range = by_first_[static_cast<uint8_t>(tokens_[i].text[0])];
    if (range.end == 0) range.begin = i;
    range.end = i + 1;
  }
}

const AddedToken *AddedTokens::longest_at(std::string_view text) const {
  Range range = by_first_[static_cast<uint8_t>(text[0])];
  const AddedToken *longest = nullptr;
  for (size_t depth = 1; range.begin < range.end; ++depth) {
    // A token that ends here is the first of its range, for it is the shortest.
    if (tokens_[range.begin].text.size() == depth) longest = &tokens_[range.begin++];
    if (depth == text.size()) break;
    const auto wanted = static_cast<uint8_t>(text[depth]);
    const auto begin = tokens_.begin() + range.begin, end = tokens_.begin() + range.end;
    const auto below = [&](const AddedToken &token) { return static_cast<uint8_t>(token.text[depth]) < wanted; };
    const auto not_above = [&](const AddedToken &token) { return static_cast<uint8_t>(token.text[depth]) <= wanted; };
    const auto first = std::partition_point(begin, end, below);
    range = {static_cast<uint32_t>(first - tokens_.begin()),
             static_cast<uint32_t>(std::partition_point(first, end, not_above) - tokens_.begin())};
  }
  return longest;
}

bool AddedTokens::find(std::string_view text, size_t from, Match &match) const {
  for (size_t at = from; at < text.size(); ++at) {
    if (by_first_[static_cast<uint8_t>(text[at])].end == 0) continue;
    if (const AddedToken *token = longest_at(text.substr(at))) {
      match = {token, at, at + token->text.size()};
      return true;
    }
  }
  return false;
}

bool AddedTokens::stands_alone(std::string_view text, const Match &match) {
  const char *begin = text.data(), *end = begin + text.size();
  if (match.begin > 0) {
    const unicode::Unit before = unicode::unit_before(begin, begin + match.begin);
    if (is_word(before, begin[match.begin - before.length])) return false;
  }
  return match.end == text.size() || !is_word(unicode::unit(begin + match.end, end), begin[match.end]);
}

}  // namespace moe
