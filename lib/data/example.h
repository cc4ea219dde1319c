// A row of a data set as what the model reads and what it must answer. The prompt ends exactly where the answer begins;
// the completion is the text that follows it (the tokenizer's end token is added later, it is no text).
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "data/schema.h"
#include "text/chat.h"

namespace moe {

struct Choice {
  std::string text;          // the option as it stands in the row, without its label
  std::string continuation;  // what is scored after the prompt, for example ' ' + text
};

// What tests a generated answer: it stands between the two. The tests are not empty, or else both are.
struct CodeProgram {
  std::string before, after;
};

struct Example {
  SchemaKind kind = SchemaKind::completion;
  std::string prompt;                 // "" for kind text and messages
  std::string completion;             // training text: for multiple choice the right continuation, for text all of it
  std::vector<Choice> choices;        // multiple choice
  int32_t gold = -1;                  // index of the right choice
  std::string reference;              // the answer to compare a generated one with
  CodeProgram program;                // where the schema has one
  std::vector<ChatMessage> messages;  // kind messages
  int64_t row = 0;                    // from 1, in its file
};

// Rows (and examples) that were not used: how many for each reason, and the first of them.
struct Skipped {
  int64_t count = 0, first_row = 0;
};
class SkipReport {
 public:
  void add(const std::string &reason, int64_t row, int64_t count = 1);
  void add(const SkipReport &other);
  const std::map<std::string, Skipped> &reasons() const { return reasons_; }
  int64_t total() const;
  // "12 rows: field 'cop' is absent (first row 3); ...", "" when nothing was skipped.
  std::string summary() const;
  Json to_json() const;  // {reason: {"count", "first_row"}}

 private:
  std::map<std::string, Skipped> reasons_;
};

// How the index answers of a file count, as far as its rows tell: 0 proves "from 0", the number of options "from 1".
struct AnswerBase {
  int64_t zero_row = 0, top_row = 0;  // first row with answer 0 and with answer = number of options; 0 = none
  void see(const Schema &schema, const Json &row, int64_t row_number);
};

// Appends the examples of one row (several with Schema::each). A row that cannot be used is counted in `skipped` and gives none.
void append_examples(const Schema &schema, const Json &row, int64_t row_number, std::vector<Example> &examples,
                     SkipReport &skipped);

// The whole training text with its supervised bytes.
struct Rendered {
  std::string text;
  std::vector<ByteSpan> supervised;
  std::vector<ByteSpan> literal;  // where control-token text is plain text: all of it, in chats the contents of the messages
  bool is_chat = false;           // no end token is added: the template has its own
};

// Code::unsupported for messages when `chat` is null.
Rendered render(const Example &example, const ChatRenderer *chat);

}  // namespace moe
