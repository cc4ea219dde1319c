// moe-eval data: rows as training sees them. For people the supervised part of a text stands between ⟦ and ⟧; with --json, and
// with
// --raw, the lines of the library as they are.
#include "cli/models.h"
#include "moe-eval/verbs.h"

namespace moe::cli {
namespace {

// Spans are code points.
std::string marked(const std::string &text, const Json &spans) {
  std::string out;
  int64_t point = 0;
  const auto mark = [&](size_t which, const char *sign) {
    for (const Json &span : spans.items()) {
      if (span.items().size() == 2 && span.items()[which].integer() == point) out += sign;
    }
  };
  for (char byte : text) {
    if ((static_cast<unsigned char>(byte) & 0xC0) != 0x80) {
      mark(1, "⟧"), mark(0, "⟦");
      point++;
    }
    out += byte;
  }
  mark(1, "⟧");
  return out;
}

void print_row(Console &console, const Json &row) {
  std::string head = "-- row " + row.at("row").string();
  if (row.find("kind")) head += ", " + row.at("kind").string();
  if (row.find("tokens"))
    head += ", " + row.at("tokens").string() + " tokens, " + row.at("supervised_tokens").string() + " supervised";
  if (row.find("skipped")) head += ", skipped: " + row.at("skipped").string();
  console.print(head + "\n");
  for (const auto &[column, value] : row.at("columns").members()) console.print(column + ": " + value.string() + "\n");
  for (const Json &message : row.at("messages").items()) {
    console.print(message.at("role").string() + ": " + message.at("content").string() + "\n");
  }
  if (row.find("text")) console.print(marked(row.at("text").string(), row.at("supervised")) + "\n");
  for (size_t i = 0; i < row.at("choices").size(); i++) {
    const bool gold = row.at("gold").integer() == static_cast<int64_t>(i);
    console.print(std::string(gold ? "  * " : "  - ") + row.at("choices").items()[i].string() + "\n");
  }
}

void print_summary(Console &console, const Json &file) {
  if (file.at("empty").boolean()) return console.print("== " + file.at("file").string() + ": empty\n");
  const bool whole = file.at("whole_file").boolean();
  console.print("== " + file.at("file").string() + ": schema " + file.at("schema").string() + ", " + (whole ? "" : "first ") +
                file.at("rows").string() + " rows, " + file.at("examples").string() + " examples\n");
  for (const auto &[reason, rows] : file.at("skipped").members()) {
    console.print("-- skipped " + rows.at("count").string() + ": " + reason + " (first row " + rows.at("first_row").string() +
                  ")\n");
  }
  if (file.at("repeated_ids").integer() > 0)
    console.print("-- " + file.at("repeated_ids").string() + " rows have an id that occurred before\n");
}

}  // namespace

int run_data(Context &context) {
  const Options &options = context.options();
  required(options, "data");
  if (flag(options, "types") && !flag(options, "raw")) throw Failure(kUsage, "option --types needs --raw");
  Model model;
  if (has(options, "model") && !flag(options, "raw")) model = load_base(context);
  const std::string lines = text_of(moe_dataset_preview, model.get(), options.get());
  if (context.command.json || flag(options, "raw")) return context.console.print(lines), kDone;
  for (size_t begin = 0; begin < lines.size();) {
    const size_t end = lines.find('\n', begin);
    const Json row = Json::parse(std::string_view(lines).substr(begin, end - begin), "row");
    if (row.find("file")) print_summary(context.console, row);
    else print_row(context.console, row);
    begin = end + 1;
  }
  return kDone;
}

}  // namespace moe::cli
