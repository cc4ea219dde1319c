#include "data/leak.h"

#include <algorithm>
#include <string_view>
#include <unordered_map>

#include "base/error.h"

namespace moe {
namespace {

constexpr size_t kReported = 5, kShown = 60;

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

// Punctuation at the end of a word; a word of one sign ("-", "=") is kept, it may be an operator.
void trim_word(std::string &out, size_t begin) {
  while (out.size() > begin + 1 && std::string_view(".,:;!?-").find(out.back()) != std::string_view::npos) out.pop_back();
  if (out.size() == begin + 1 && std::string_view(".,:;!?").find(out.back()) != std::string_view::npos) out.pop_back();
}

std::string folded(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    if (is_space(text[at])) {
      ++at;
      continue;
    }
    const size_t before = out.size();
    if (!out.empty()) out += ' ';
    const size_t begin = out.size();
    for (; at < text.size() && !is_space(text[at]); ++at) {
      const char c = text[at];
      out += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    }
    trim_word(out, begin);
    if (out.size() == begin) out.resize(before);
  }
  return out;
}

// Whole characters only.
std::string opening(const std::string &key) {
  size_t end = std::min(kShown, key.size());
  while (end > 0 && end < key.size() && (static_cast<unsigned char>(key[end]) & 0xC0) == 0x80) --end;
  return key.substr(0, end);
}

}  // namespace

std::string prompt_key(const Example &example) {
  if (example.kind == SchemaKind::text) return folded(example.completion);
  if (example.kind != SchemaKind::messages) return folded(example.prompt);
  std::string all;
  for (const ChatMessage &message : example.messages)
    if (message.role != "assistant") all += message.role + " " + message.content + "\n";
  return folded(all);
}

LeakReport find_leaks(const std::vector<Example> &training, const std::vector<Example> &evaluation) {
  std::unordered_map<std::string, int64_t> seen;
  for (const Example &example : training) seen.try_emplace(prompt_key(example), example.row);
  LeakReport report;
  for (const Example &example : evaluation) {
    const std::string key = prompt_key(example);
    const auto found = seen.find(key);
    if (found == seen.end()) continue;
    report.count++;
    if (report.first.size() < kReported)
      report.first.push_back(text("row ", example.row, " (training row ", found->second, "): ", opening(key)));
  }
  return report;
}

}  // namespace moe
