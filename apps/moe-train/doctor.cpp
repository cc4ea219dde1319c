// moe-train doctor: this machine and this build.
#include "moe-train/verbs.h"

namespace moe::cli {
namespace {

// One line a value; objects one level down are indented by their name.
void print_table(Console &console, const Json &json, const std::string &prefix) {
  for (const auto &[key, value] : json.members()) {
    const std::string name = prefix + key;
    if (value.is_object()) {
      print_table(console, value, name + ".");
      continue;
    }
    std::string shown = value.is_string() ? value.string() : value.dump();
    if (key.ends_with("_bytes")) shown = bytes_text(value.number());
    else if (key.ends_with("flops_per_s")) shown = format("%.1f GFLOP/s", value.number() / 1e9);
    else if (key.ends_with("bytes_per_s")) shown = format("%.1f GB/s", value.number() / 1e9);
    else if (value.kind() == Json::Kind::boolean) shown = value.boolean() ? "yes" : "no";
    console.print(format("%-32s %s\n", name.c_str(), shown.c_str()));
  }
}

}  // namespace

int run_doctor(Context &context) {
  const Json json = Json::parse(text_of(moe_doctor, context.options().get()), "doctor");
  if (context.command.json) context.console.print(json.dump(2) + "\n");
  else print_table(context.console, json, "");
  return kDone;
}

}  // namespace moe::cli
