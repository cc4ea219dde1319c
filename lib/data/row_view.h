// One row (with its entry where Schema::each splits rows) seen through the roles of a schema. Nothing here throws for what a
// row holds: a missing or unusable value is a reason, one of few texts, by which skipped rows are counted.
#pragma once
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/schema.h"

namespace moe {

struct Option {
  std::string label;  // "A", or the key or label of the row
  std::string text;
};

class RowView {
 public:
  RowView(const Schema &schema, const Json &row, const Json *entry = nullptr) : schema_(schema), row_(row), entry_(entry) {}

  // The value of a role's first field that is present (in the entry, then in the row), nullptr when there is none.
  const Json *value(std::string_view role) const;
  // The text of a role: a text, a number as written, or a list of texts joined by newlines. False with the reason when it is
  // absent, empty (nothing but white space) or of another type.
  bool text(std::string_view role, std::string &result, std::string &reason) const;
  bool options(std::vector<Option> &result, std::string &reason) const;
  // Index of the right option.
  bool answer(const std::vector<Option> &options, int32_t &result, std::string &reason) const;
  // An index answer as written; false when the answer is something else.
  bool index_answer(int64_t &result) const;

 private:
  using LabelledValue = std::pair<std::string, const Json *>;
  bool option_values(std::vector<LabelledValue> &found, std::string &reason) const;
  const Json *field(const std::string &name) const;
  std::string field_name(std::string_view role) const;

  const Schema &schema_;
  const Json &row_;
  const Json *entry_;
};

// Removes "A. ", "A) ", "A ) " or "A: " from every option when all of them carry their own letter.
void strip_labels(std::vector<Option> &options);
// "a ) 38 , b ) 27.675 , c ) none" or "['a ) 38', 'b ) 27.675', 'c ) none']" to its options; false when the letters are not in order from a.
bool split_options(std::string_view text, std::vector<Option> &result);
// "A", "B", ...; beyond 26 the number from 1.
std::string option_letter(size_t index);

}  // namespace moe
