// moe-eval inspect: a file or folder that the library reads.
#include "moe-eval/verbs.h"

namespace moe::cli {
namespace {

std::string shape_text(const Json &shape) {
  std::string text = "[";
  for (const Json &size : shape.items()) text += (text.size() > 1 ? ", " : "") + size.string();
  return text + "]";
}

void print_tensors(Console &console, const Json &tensors) {
  for (const Json &tensor : tensors.items()) {
    console.print(format("  %-64s %-5s %-20s %s\n", tensor.at("name").string().c_str(), tensor.at("dtype").string().c_str(),
                         shape_text(tensor.at("shape")).c_str(), bytes_text(tensor.at("bytes").number()).c_str()));
  }
}

// The columns of each row group of a Parquet file.
void print_row_groups(Console &console, const Json &groups) {
  for (size_t i = 0; i < groups.size(); i++) {
    const Json &group = groups.items()[i];
    console.print(format("row group %zu, %s rows:\n", i, group.at("rows").string().c_str()));
    for (const Json &column : group.at("columns").items()) {
      const auto part = [&](const char *key) { return column.at(key).string(); };
      const auto bytes = [&](const char *key) { return bytes_text(column.at(key).number()); };
      const std::string line = format("  %-32s %-24s ", part("name").c_str(), part("type").c_str());
      console.print(line +
                    (column.find("encrypted") ? "encrypted"
                                              : format("%-12s %10s of %10s  ", part("codec").c_str(),
                                                       bytes("compressed_bytes").c_str(), bytes("uncompressed_bytes").c_str()) +
                                                    part("encodings")) +
                    "\n");
    }
  }
}

// A value on its line; an object as an indented block.
void print_value(Console &console, const std::string &indent, const std::string &key, const Json &value) {
  if (value.is_object() && value.size() > 0) {
    console.print(indent + key + ":\n");
    for (const auto &[name, member] : value.members()) print_value(console, indent + "  ", name, member);
    return;
  }
  const bool bytes = key.ends_with("_bytes") && value.is_number();
  std::string text = value.is_string() ? value.string() : bytes ? bytes_text(value.number()) : value.dump();
  if (text.size() > 160) text = text.substr(0, 160) + "...";
  for (char &c : text) c = c == '\n' || c == '\r' ? ' ' : c;
  console.print(indent + format("%-28s ", key.c_str()) + text + "\n");
}

}  // namespace

int run_inspect(Context &context) {
  const std::string path = context.command.operands.empty() ? required(context.options(), "model") : context.command.operands[0];
  const Json json = Json::parse(text_of(moe_inspect, path.c_str()), path);
  if (context.command.json) return context.console.print(json.dump(2) + "\n"), kDone;
  for (const auto &[key, value] : json.members()) {
    if (key == "tensors") context.console.print("tensors:\n"), print_tensors(context.console, value);
    else if (key == "row_groups") print_row_groups(context.console, value);
    else print_value(context.console, "", key, value);
  }
  return kDone;
}

}  // namespace moe::cli
