// moe-eval tokenize and render: JSON lines in, JSON lines out.
#include <iostream>
#include <sstream>

#include "cli/models.h"
#include "moe-eval/verbs.h"

namespace moe::cli {
namespace {

// Calls work(line, "file:number") for every line of `input` (standard input by default) that is not empty.
template <class Work>
void for_each_line(const Context &context, Work work) {
  const std::string path = get(context.options(), "input");
  std::istringstream file(path.empty() ? "" : read_file(path));
  std::istream &in = path.empty() ? std::cin : static_cast<std::istream &>(file);
  std::string line;
  for (long long number = 1; std::getline(in, line); number++) {
    if (moe_cancel_token_fired(context.cancel)) throw Failure(kCancelled, "cancelled");
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    work(line, (path.empty() ? "standard input" : path) + ":" + std::to_string(number));
  }
}

std::vector<int32_t> tokenize(const Model &model, const std::string &text, int32_t flags) {
  const auto *handle = model.get();
  std::vector<int32_t> ids(text.size() + 8);
  size_t needed = 0;
  moe_error error = MOE_ERROR_INIT;
  int32_t status = moe_model_tokenize(handle, text.data(), text.size(), flags, ids.data(), ids.size(), &needed, &error);
  if (status == MOE_ERR_BUFFER) {
    ids.resize(needed);
    status = moe_model_tokenize(handle, text.data(), text.size(), flags, ids.data(), ids.size(), &needed, &error);
  }
  check(status, error);
  ids.resize(needed);
  return ids;
}

std::string detokenize(const Model &model, const std::vector<int32_t> &ids) {
  size_t needed = 0;
  const auto *handle = model.get();
  call(moe_model_detokenize, handle, ids.data(), ids.size(), 0, nullptr, size_t{0}, &needed);
  std::string text(needed, '\0');
  call(moe_model_detokenize, handle, ids.data(), ids.size(), 0, text.data(), text.size(), &needed);
  return text;
}

bool truth(const Json &line, const char *key, const std::string &where) {
  const Json &value = line.at(key);
  if (!value.is_null() && value.kind() != Json::Kind::boolean)
    throw Failure(kFailed, where + ": '" + key + "': expected true or false");
  return value.boolean();
}

}  // namespace

int run_tokenize(Context &context) {
  const Model model = load_base(context);
  for_each_line(context, [&](const std::string &text, const std::string &where) {
    const Json line = Json::parse(text, where);
    if (!line.at("text").is_string()) throw Failure(kFailed, where + ": expected an object with a string 'text'");
    const int32_t flags = (truth(line, "add_special_tokens", where) ? MOE_TEXT_ADD_SPECIAL : 0) |
                          (truth(line, "parse_special", where) ? MOE_TEXT_PARSE_SPECIAL : 0);
    const std::vector<int32_t> ids = tokenize(model, line.at("text").string(), flags);
    Json list = Json::array();
    for (int32_t id : ids) list.push(id);
    context.console.print(Json::object({{"ids", std::move(list)}, {"decoded", detokenize(model, ids)}}).dump() + "\n");
  });
  return kDone;
}

int run_render(Context &context) {
  Model model;
  if (!has(context.options(), "template_file") || has(context.options(), "model")) model = load_base(context);
  for_each_line(context, [&](const std::string &line, const std::string &) {
    Text rendered;
    moe_error error = MOE_ERROR_INIT;
    const int32_t status =
        moe_chat_render(model.get(), line.data(), line.size(), context.options().get(), rendered.out(), &error);
    const bool refused = status == MOE_ERR_UNSUPPORTED || status == MOE_ERR_INVALID || status == MOE_ERR_FORMAT;
    if (refused) return context.console.print(Json::object({{"error", error.message}}).dump() + "\n");
    check(status, error);
    context.console.print(std::string(view(rendered)) + "\n");
  });
  return kDone;
}

}  // namespace moe::cli
