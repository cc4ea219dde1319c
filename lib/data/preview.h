// The first rows of a data file as JSON lines, for people who look at their data before they train on it.
#pragma once
#include <string>

#include "data/tokenize.h"
#include "text/chat.h"

namespace moe {

// The file's own columns; with `types` the first line says which kinds of values each column has in these rows.
std::string preview_rows(const std::string &path, int64_t head, bool types);

// The rows as examples: {"row", "kind", "text", "supervised": [[begin, end]] in code points, "tokens", "supervised_tokens"} and
// for multiple choice "choices" and "gold". Without a tokenizer there are no counts. A last line tells what was skipped and why.
std::string preview_examples(const std::string &path, const std::string &schema, int64_t head, const Tokenizer *tokenizer,
                             const ChatRenderer *chat, int64_t max_length);

}  // namespace moe
