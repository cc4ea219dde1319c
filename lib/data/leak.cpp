#include "data/leak.h"

#include <algorithm>
#include <span>
#include <string_view>
#include <unordered_map>

#include "base/error.h"

namespace moe {
namespace {

constexpr size_t kReported = 5;
constexpr size_t kRun = 8;         // tokens
constexpr size_t kFewest = 8;      // runs of a sequence that have to count
constexpr size_t kOften = 20;      // a run in more than 1 / kOften of the training sequences does not count
constexpr double kSimilar = 0.7;

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

// The runs of a sequence, hashed: use(hash) for each place where one begins.
template <class Use>
void each_run(std::span<const int32_t> tokens, Use use) {
  constexpr uint64_t kFactor = 0x9E3779B97F4A7C15;
  for (size_t end = kRun; end <= tokens.size(); end++) {
    uint64_t hash = 0;
    for (size_t t = end - kRun; t < end; t++) hash = (hash ^ static_cast<uint32_t>(tokens[t])) * kFactor, hash ^= hash >> 29;
    use(hash);
  }
}

// Where in the training data the prompts and runs of the held-out data stand. Its size depends on the held-out data alone.
class LeakIndex {
 public:
  explicit LeakIndex(const Dataset &held_out, const Cancel *cancel) : cancel_(cancel) {
    held_out.each_sequence([&](const Dataset::Sequence &sequence) {
      check_cancel(cancel_);
      if (sequence.prompt != 0) prompts_.try_emplace(sequence.prompt, kNone);
      each_run(sequence.tokens, [&](uint64_t run) { runs_.try_emplace(run); });
    });
  }

  void look_at(const Dataset &training) {
    training.each_sequence([&](const Dataset::Sequence &sequence) {
      check_cancel(cancel_);
      const size_t number = origins_.size();
      origins_.push_back({sequence.file, sequence.row});
      if (const auto found = prompts_.find(sequence.prompt); found != prompts_.end() && found->second == kNone)
        found->second = number;
      each_run(sequence.tokens, [&](uint64_t run) {
        const auto found = runs_.find(run);
        if (found == runs_.end() || found->second.last == number) return;
        if (found->second.sequences++ == 0) found->second.first = number;
        found->second.last = number;
      });
    });
  }

  // Whether the sequence stands in the training data; then the result is filled in and `number` is the training sequence.
  bool has(const Dataset::Sequence &sequence, Leak &leak, size_t &number) const {
    const auto prompt = prompts_.find(sequence.prompt);
    leak.same_prompt = prompt != prompts_.end() && prompt->second != kNone;
    if (leak.same_prompt) number = prompt->second;
    const size_t often = std::max<size_t>(1, origins_.size() / kOften);
    size_t counted = 0;
    std::vector<size_t> where;
    each_run(sequence.tokens, [&](uint64_t hash) {
      const Run &run = runs_.at(hash);
      if (run.sequences > often) return;
      counted++;
      if (run.sequences > 0) where.push_back(run.first);
    });
    leak.share = counted < kFewest ? 0.0 : static_cast<double>(where.size()) / static_cast<double>(counted);
    if (leak.same_prompt) return true;
    if (leak.share < kSimilar) return false;
    number = most_frequent(where);
    return true;
  }

  size_t file_of(size_t number) const { return origins_[number].file; }
  int64_t row_of(size_t number) const { return origins_[number].row; }

 private:
  static constexpr size_t kNone = SIZE_MAX;
  struct Run {
    size_t sequences = 0, first = kNone, last = kNone;  // training sequences that have it
  };
  struct Origin {
    size_t file;
    int64_t row;
  };

  static size_t most_frequent(std::vector<size_t> &numbers) {
    std::sort(numbers.begin(), numbers.end());
    size_t best = numbers.front(), most = 0;
    for (size_t i = 0, n; i < numbers.size(); i += n) {
      n = static_cast<size_t>(std::upper_bound(numbers.begin(), numbers.end(), numbers[i]) - numbers.begin()) - i;
      if (n > most) most = n, best = numbers[i];
    }
    return best;
  }

  const Cancel *cancel_;
  std::unordered_map<uint64_t, size_t> prompts_;  // -> the first training sequence, or none
  std::unordered_map<uint64_t, Run> runs_;
  std::vector<Origin> origins_;  // of the training sequences
};

}  // namespace

std::string prompt_key(const Example &example) {
  if (example.kind == SchemaKind::text) return folded(example.completion);
  if (example.kind != SchemaKind::messages) return folded(example.prompt);
  std::string all;
  for (const ChatMessage &message : example.messages)
    if (message.role != "assistant") all += message.role + " " + message.content + "\n";
  return folded(all);
}

void LeakReport::add(const LeakReport &other) {
  sequences += other.sequences;
  same_prompt += other.same_prompt;
  similar += other.similar;
  for (size_t i = 0; i < other.first.size() && first.size() < kReported; i++) first.push_back(other.first[i]);
}

std::string LeakReport::line() const {
  std::string out = text(count(), " of ", sequences, " held-out sequences stand in the training data (", same_prompt,
                              " with the same prompt, ", similar, " similar): ");
  for (const Leak &leak : first) {
    if (&leak != &first.front()) out += ", ";
    out += text(leak.path, " row ", leak.row, " is ", leak.same_prompt ? "" : "like ", leak.training_path, " row ",
                     leak.training_row);
  }
  return out + (count() > static_cast<int64_t>(first.size()) ? ", ..." : "");
}

Json LeakReport::to_json() const {
  Json rows = Json::array();
  for (const Leak &leak : first) {
    rows.push(Json::object({{"path", leak.path},
                            {"row", leak.row},
                            {"training_path", leak.training_path},
                            {"training_row", leak.training_row},
                            {"same_prompt", leak.same_prompt},
                            {"shared", leak.share}}));
  }
  return Json::object({{"sequences", sequences}, {"same_prompt", same_prompt}, {"similar", similar}, {"first", std::move(rows)}});
}

LeakReport find_leaks(const Dataset &training, const Dataset &held_out, const Cancel *cancel) {
  LeakIndex index(held_out, cancel);
  index.look_at(training);
  LeakReport report;
  held_out.each_sequence([&](const Dataset::Sequence &sequence) {
    check_cancel(cancel);
    report.sequences++;
    Leak leak;
    size_t number = 0;
    if (!index.has(sequence, leak, number)) return;
    (leak.same_prompt ? report.same_prompt : report.similar)++;
    if (report.first.size() == kReported) return;
    leak.path = held_out.path_of(sequence.file);
    leak.row = sequence.row;
    leak.training_path = training.path_of(index.file_of(number));
    leak.training_row = index.row_of(number);
    report.first.push_back(std::move(leak));
  });
  return report;
}

}  // namespace moe
