// moe-train doctor: this machine, this build, and what there is to work with.
#include "moe-train/found_models.h"
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

// "llama, 134.5 M parameters, 92.10 MiB", "math, medical", or why it cannot be used.
std::string about(const Json &found) {
  if (const Json *error = found.find("error")) return "CANNOT BE USED: " + error->string();
  std::string text;
  const auto add = [&](const std::string &part) { text += (text.empty() ? "" : ", ") + part; };
  if (found.find("family")) add(found.at("family").string());
  if (found.find("base_model")) add("on " + found.at("base_model").string());
  for (const Json &domain : found.at("domains").items()) add(domain.string());
  if (found.find("parameters")) add(format("%.1f M parameters", found.at("parameters").number() / 1e6));
  if (found.find("bytes")) add(bytes_text(found.at("bytes").number()));
  return text;
}

}  // namespace

int run_doctor(Context &context) {
  Console &console = context.console;
  Json json = Json::parse(text_of(moe_doctor, context.options().get()), "doctor");
  json.set("models_folder", models_folder());
  if (!context.command.json) print_table(console, json, "");
  const Json models = found_models();
  if (context.command.json) return console.print(json.set("models", models).dump(2) + "\n"), kDone;
  for (const Json &found : models.items())
    console.print(format("%-32s %s: %s\n", found.at("kind").string().c_str(), found.at("path").string().c_str(),
                         about(found).c_str()));
  if (models.size() == 0) console.print(format("%-32s none\n", "model"));
  return kDone;
}

}  // namespace moe::cli
