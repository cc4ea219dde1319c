// A schema says how the rows of a data set become prompts and answers: fields to roles, templates, metrics. It is data: a JSON
// file of format "libmoe.schema" (docs/schemas.md); those of the known data sets are built in (data/schemas holds the same).
#pragma once
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "formats/rows.h"

namespace moe {

enum class SchemaKind { text, completion, multiple_choice, messages };
enum class AnswerForm { index_from_0, index_from_1, letter, text };

// "Question: {question}\n" as pieces: literal text and names of roles. "{{" and "}}" stand for a brace.
struct Template {
  struct Piece {
    bool role = false;
    std::string text;  // the literal, or the name of the role
  };
  std::vector<Piece> pieces;

  static Template parse(std::string_view text, std::string_view source);
  bool uses(std::string_view role) const;
};

// A field of a row by its name; or inside of a field: "answers.text.0" is item 0 of the list "text" in the object "answers".
// nullptr when there is none.
const Json *find_field(const Json &row, std::string_view name);

struct Schema {
  struct Field {
    std::string role;
    std::vector<std::string> names;  // the first that is present is read
  };
  std::string name, description;
  std::string group;  // schemas of one group read the same fields and differ in how the answer counts
  SchemaKind kind = SchemaKind::completion;
  std::vector<Field> fields;                  // all roles but "options" of separate fields
  std::vector<std::string> option_fields;     // options in separate fields (opa, opb, ...)
  std::vector<std::string> choices;           // the same options in every row
  std::vector<AnswerForm> answer;             // multiple choice: forms tried in this order
  PlainText plain_text = PlainText::document;  // what one row of a plain text file is
  std::string each;                           // field with a list of entries: one example per entry
  bool strip_labels = false;                  // options carry their letter ("A. Half life"): take it off
  bool split_options = false;                 // options are one string: "a ) 38 , b ) 27 , ..."
  std::vector<Template> prompt;               // the first whose roles are all present is used
  Template option;                            // one line of {options}: {letter}, {option}
  Template completion;                        // multiple choice: {choice}, {letter}; otherwise roles
  Template program;                           // code: what is run to test an answer, with {generated} in the place of the answer
  std::string reference_after;                // the reference answer is what follows this mark in the completion
  std::vector<std::string> metrics;           // multiple_choice, mutual_information, macro_f1, exact_match, code_tests, f1, perplexity,
                                              // loss
  bool by_name_only = false;                  // never recognised from rows
  std::string detect_field, detect_contains;  // a further field for recognising rows, and text it must contain
  std::vector<std::string> detect_one_of;     // or texts of which it must be one

  const Field *find(std::string_view role) const;
  // The roles a row must have: those that every prompt uses, the completion, options, answer, text, messages.
  std::vector<std::string> required_roles() const;
  // Names of the columns that hold its fields, of which a file may have some: the fields, of "a.b" also "a", and "id".
  std::vector<std::string> columns() const;
  // True when an object row has every field that is required, and the mark of detection.
  bool fits(const Json &row) const;
  // How specific fits() is: the number of conditions.
  size_t conditions() const;
};

// Code::format with source and key when the file is not a schema.
Schema parse_schema(const Json &json, std::string_view source);

// The built-in schemas, in the order of their names.
const std::vector<Schema> &builtin_schemas();
// Their JSON texts, same order: what data/schemas/<name>.json holds.
const std::vector<std::pair<std::string, std::string>> &builtin_schema_texts();

// Schemas of a --schema value: one by name or by the path of a .json file, or all of a group ("medmcqa").
// Code::invalid with the known names when there is none.
std::vector<Schema> find_schemas(const std::string &name_or_path);

}  // namespace moe
