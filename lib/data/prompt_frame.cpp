#include "data/prompt_frame.h"

#include <algorithm>

namespace moe {
namespace {

struct Frame {
  const char *name, *before, *after;
};
constexpr Frame kFrames[] = {{"common", "Input: ", "\nOutput:"}, {"unseen", "Please read this.\n\n", "\n\nMy response:"}};

const Frame *find_frame(std::string_view name) {
  const auto found = std::find_if(std::begin(kFrames), std::end(kFrames), [&](const Frame &frame) { return frame.name == name; });
  return found == std::end(kFrames) ? nullptr : found;
}

bool begins_with_space(const Template &completion) {
  return !completion.pieces.empty() && !completion.pieces.front().role && completion.pieces.front().text.starts_with(' ');
}

// A completion without a space in front begins on a line of its own.
Template in_frame(const Template &prompt, const Frame &frame, bool spaced) {
  Template result;
  result.pieces.push_back({false, frame.before});
  for (const Template::Piece &piece : prompt.pieces) {
    if (!piece.role) continue;
    if (result.pieces.size() > 1) result.pieces.push_back({false, "\n"});
    result.pieces.push_back(piece);
  }
  result.pieces.push_back({false, std::string(frame.after) + (spaced ? "" : "\n")});
  return result;
}

}  // namespace

std::string take_frame(std::string &schema) {
  const size_t at = schema.rfind('@');
  if (at == std::string::npos || !find_frame(std::string_view(schema).substr(at + 1))) return "";
  std::string frame = schema.substr(at + 1);
  schema.resize(at);
  return frame;
}

Schema framed(Schema schema, const std::string &frame_name) {
  const Frame *frame = find_frame(frame_name);
  if (!frame || schema.prompt.empty()) return schema;
  const bool spaced = begins_with_space(schema.completion);
  for (Template &prompt : schema.prompt) prompt = in_frame(prompt, *frame, spaced);
  schema.name += "@" + frame_name;
  return schema;
}

}  // namespace moe
