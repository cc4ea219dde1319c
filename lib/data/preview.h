// The first rows of a data file as JSON lines, for people who look at their data before they train on it.
#pragma once
#include <string>

#include "data/tokenize.h"
#include "text/chat.h"

namespace moe {

// The file's own columns; with `types` the first line says which kinds of values each column has in these rows, or
// of which types a Parquet file says they are.
std::string preview_rows(const std::string &path, int64_t head, bool types);

struct PreviewOptions {
  std::string schema;        // "" = found from the rows
  int64_t head = 10;         // examples to show
  int64_t show_skipped = 0;  // rows that give no example to show as well; then the whole file is read
  int64_t max_length = 1024;
};

// The rows as examples: {"row", "kind", "text", "supervised": [[begin, end]] in code points, "tokens", "supervised_tokens"} and
// for multiple choice "choices" and "gold". Without a tokenizer there are no counts. A row that gives none, where it is shown, is
// {"row", "skipped": reason, "columns"}. The last line says what became of the rows that were read: {"file", "schema", "rows",
// "whole_file", "examples", "skipped": {reason: {"count", "first_row"}}, "repeated_ids"}; of a file without rows it has "empty".
std::string preview_examples(const std::string &path, const PreviewOptions &options, const Tokenizer *tokenizer,
                             const ChatRenderer *chat);

}  // namespace moe
