#include "data/leak.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <span>
#include <string_view>
#include <unordered_map>

#include "base/error.h"
#include "base/sha256.h"
#include "base/utf8.h"

namespace moe {
namespace {

constexpr size_t kReported = 5;
constexpr size_t kRun = 4;         // words
constexpr size_t kFewest = 8;      // words of a sequence that have to count
constexpr size_t kOften = 20;      // a run in more than 1 / kOften of a training file's sequences, and in more than two, does not count
constexpr double kSimilar = 0.75;

using Words = std::vector<int32_t>;

bool is_letter_or_digit(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

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

// The runs of a sequence, hashed: use(place, hash) for each place where one begins.
template <class Use>
void each_run(std::span<const int32_t> words, Use use) {
  constexpr uint64_t kFactor = 0x9E3779B97F4A7C15;
  for (size_t begin = 0; begin + kRun <= words.size(); begin++) {
    uint64_t hash = 0;
    for (const int32_t word : words.subspan(begin, kRun)) hash = (hash ^ static_cast<uint32_t>(word)) * kFactor, hash ^= hash >> 29;
    use(begin, hash);
  }
}

// Length of the longest common subsequence, 64 places at once (Hyyro 2004, "Bit-parallel LCS-length computation revisited"): a zero
// bit of `row` is a place of `a` where the length grows.
size_t common_length(std::span<const int32_t> a, std::span<const int32_t> b) {
  const size_t blocks = (a.size() + 63) / 64;
  std::unordered_map<int32_t, std::vector<uint64_t>> places;
  for (size_t i = 0; i < a.size(); i++) {
    std::vector<uint64_t> &mask = places.try_emplace(a[i], blocks).first->second;
    mask[i / 64] |= uint64_t{1} << i % 64;
  }
  std::vector<uint64_t> row(blocks, ~uint64_t{0});
  for (const int32_t word : b) {
    const auto found = places.find(word);
    if (found == places.end()) continue;
    uint64_t carry = 0;
    for (size_t k = 0; k < blocks; k++) {
      const uint64_t matched = row[k] & found->second[k], sum = row[k] + matched, whole = sum + carry;
      carry = (sum < matched) | (whole < sum);
      row[k] = whole | (row[k] & ~found->second[k]);
    }
  }
  size_t length = 0;
  for (size_t i = 0; i < a.size(); i++) length += (row[i / 64] >> i % 64 & 1) == 0;
  return length;
}

// A held-out sequence that may stand in training sequence `number`.
struct Suspect {
  size_t held_out = 0, number = 0;
  size_t file = 0, training_file = 0;
  Words words;
  std::vector<bool> counts;  // of each word
  Leak leak;
};

// Calls back for every sequence, in order.
using Sequences = std::function<void(const std::function<void(const Dataset::Sequence &)> &)>;

// Where in the training data the prompts and runs of the held-out data stand. Its size depends on the held-out data alone.
class LeakIndex {
 public:
  // tokens: they are compared in the place of words. own: the first held-out sequence is this one of the training sequences, the
  // others follow it, and none stands in itself.
  LeakIndex(Sequences training, Sequences held_out, bool tokens, std::optional<size_t> own, const Cancel *cancel)
      : training_(std::move(training)), held_out_(std::move(held_out)), tokens_(tokens), own_(own), cancel_(cancel) {
    each(held_out_, [&](size_t, const Dataset::Sequence &sequence) {
      if (sequence.prompt != 0) prompts_.try_emplace(sequence.prompt);
      each_run(words_of(sequence), [&](size_t, uint64_t run) { runs_.try_emplace(run); });
    });
    each(training_, [&](size_t number, const Dataset::Sequence &sequence) {
      if (sequence.file >= trained_.size()) trained_.resize(sequence.file + 1);
      trained_[sequence.file]++;
      if (const auto found = prompts_.find(sequence.prompt); found != prompts_.end()) found->second.add(number, sequence.file, trained_);
      each_run(words_of(sequence), [&](size_t, uint64_t hash) {
        if (const auto found = runs_.find(hash); found != runs_.end()) found->second.add(number, sequence.file, trained_);
      });
    });
  }

  // Those that stand in the training data.
  std::vector<Suspect> leaks() {
    std::vector<Suspect> suspects;
    each(held_out_, [&](size_t number, const Dataset::Sequence &sequence) {
      sequences_ = number + 1;
      Suspect suspect = suspect_of(number, sequence);
      if (suspect.number == kNone) return;
      suspect.held_out = number;
      suspect.file = sequence.file;
      suspect.leak.row = sequence.row;
      suspects.push_back(std::move(suspect));
    });
    compare(suspects);
    std::erase_if(suspects, [](const Suspect &suspect) { return !suspect.leak.same_prompt && suspect.leak.share < kSimilar; });
    return suspects;
  }
  size_t sequences() const { return sequences_; }  // held-out ones

 private:
  static constexpr size_t kNone = SIZE_MAX;
  // Training sequences that have a prompt or a run. `trained`: how many each file has; the files come one after another.
  struct Places {
    size_t first = kNone, last = kNone;
    size_t file = 0, in_file = 0;  // the newest, and how many of it
    bool often_in_another = false;
    void add(size_t number, size_t its_file, const std::vector<size_t> &trained) {
      if (last == number) return;
      if (file != its_file) {
        often_in_another |= in_file > often(trained[file]);
        file = its_file, in_file = 0;
      }
      in_file++;
      if (first == kNone) first = number;
      last = number;
    }
    // Without the sequence itself.
    bool is_template(size_t self, const std::vector<size_t> &trained) const {
      const size_t others = in_file - (self != kNone && in_file > 0);
      return often_in_another || (in_file > 0 && others > often(trained[file]));
    }
    size_t other(size_t self) const { return first != self ? first : last != self ? last : kNone; }
    static size_t often(size_t sequences) { return std::max<size_t>(2, sequences / kOften); }
  };

  template <class Use>
  void each(const Sequences &data, Use use) const {
    size_t number = 0;
    data([&](const Dataset::Sequence &sequence) {
      check_cancel(cancel_);
      use(number++, sequence);
    });
  }

  std::span<const int32_t> words_of(const Dataset::Sequence &sequence) const { return tokens_ ? sequence.tokens : sequence.words; }

  // Its prompt is a training prompt; or the training sequence that has most of its runs. Otherwise the number is kNone.
  Suspect suspect_of(size_t number, const Dataset::Sequence &sequence) const {
    Suspect suspect;
    const size_t self = own_ ? *own_ + number : kNone;
    const auto prompt = prompts_.find(sequence.prompt);
    suspect.number = prompt == prompts_.end() ? kNone : prompt->second.other(self);
    suspect.leak.same_prompt = suspect.number != kNone;
    if (suspect.leak.same_prompt) return suspect;
    const std::span<const int32_t> words = words_of(sequence);
    suspect.counts.resize(words.size());
    std::vector<size_t> where;
    each_run(words, [&](size_t begin, uint64_t hash) {
      const Places &run = runs_.at(hash);
      if (run.is_template(self, trained_)) return;
      std::fill_n(suspect.counts.begin() + static_cast<ptrdiff_t>(begin), kRun, true);
      if (const size_t other = run.other(self); other != kNone) where.push_back(other);
    });
    const auto counted = static_cast<size_t>(std::count(suspect.counts.begin(), suspect.counts.end(), true));
    if (counted < kFewest || where.empty()) return suspect;
    suspect.number = most_frequent(where);
    suspect.words.assign(words.begin(), words.end());
    return suspect;
  }

  static size_t most_frequent(std::vector<size_t> &numbers) {
    std::sort(numbers.begin(), numbers.end());
    size_t best = numbers.front(), most = 0;
    for (size_t i = 0, n; i < numbers.size(); i += n) {
      n = static_cast<size_t>(std::upper_bound(numbers.begin(), numbers.end(), numbers[i]) - numbers.begin()) - i;
      if (n > most) most = n, best = numbers[i];
    }
    return best;
  }

  // Fills in the training sequences, with a second look at them for those that are only similar. The sequences before and after one
  // belong to it where they are windows of the same text.
  void compare(std::vector<Suspect> &suspects) const {
    std::unordered_map<size_t, std::vector<Suspect *>> wanted;
    for (Suspect &suspect : suspects) wanted[suspect.number].push_back(&suspect);
    struct Window {
      size_t file = 0;
      int64_t row = 0;
      Words words;
    };
    Window before, now;
    const auto look = [&](size_t number, const Window &after) {  // at `now`, which has this number
      const auto found = wanted.find(number);
      if (found == wanted.end()) return;
      Words words;
      const auto add = [&](const Window &window) {
        if (window.file == now.file && window.row == now.row) words.insert(words.end(), window.words.begin(), window.words.end());
      };
      add(before), add(now), add(after);
      for (Suspect *suspect : found->second) {
        suspect->training_file = now.file;
        suspect->leak.training_row = now.row;
        if (!suspect->leak.same_prompt) suspect->leak.share = share_in(*suspect, words);
      }
    };
    size_t numbers = 0;
    each(training_, [&](size_t number, const Dataset::Sequence &sequence) {
      const std::span<const int32_t> words = words_of(sequence);
      Window next{sequence.file, sequence.row, Words(words.begin(), words.end())};
      if (number > 0) look(number - 1, next);
      before = std::move(now);
      now = std::move(next);
      numbers = number + 1;
    });
    if (numbers > 0) look(numbers - 1, Window());
  }

  // The share of the suspect's words that stand in `words`, in their order, near the place where its runs stand.
  static double share_in(const Suspect &suspect, const Words &words) {
    std::unordered_map<uint64_t, size_t> places;
    each_run(words, [&](size_t begin, uint64_t hash) { places.try_emplace(hash, begin); });
    std::vector<ptrdiff_t> shifts;
    each_run(suspect.words, [&](size_t begin, uint64_t hash) {
      if (const auto found = places.find(hash); found != places.end())
        shifts.push_back(static_cast<ptrdiff_t>(found->second) - static_cast<ptrdiff_t>(begin));
    });
    if (shifts.empty()) return 0;
    std::nth_element(shifts.begin(), shifts.begin() + static_cast<ptrdiff_t>(shifts.size() / 2), shifts.end());
    const auto length = static_cast<ptrdiff_t>(suspect.words.size()), slack = length / 4 + static_cast<ptrdiff_t>(kRun);
    const ptrdiff_t shift = shifts[shifts.size() / 2], size = static_cast<ptrdiff_t>(words.size());
    const ptrdiff_t first = std::clamp<ptrdiff_t>(shift - slack, 0, size), end = std::clamp<ptrdiff_t>(shift + length + slack, first, size);
    Words counted;
    for (size_t i = 0; i < suspect.words.size(); i++)
      if (suspect.counts[i]) counted.push_back(suspect.words[i]);
    const std::span<const int32_t> near(words.data() + first, static_cast<size_t>(end - first));
    return static_cast<double>(common_length(counted, near)) / static_cast<double>(counted.size());
  }

  const Sequences training_, held_out_;
  const bool tokens_;
  const std::optional<size_t> own_;
  const Cancel *cancel_;
  std::vector<size_t> trained_;  // training sequences by file
  size_t sequences_ = 0;
  std::unordered_map<uint64_t, Places> prompts_, runs_;
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

uint64_t prompt_hash(const std::string &key) {
  if (key.empty()) return 0;
  const auto digest = Sha256().update(key.data(), key.size()).digest();
  uint64_t number;
  std::memcpy(&number, digest.data(), sizeof number);
  return number;
}

std::vector<int32_t> word_hashes(std::string_view folded) {
  std::vector<int32_t> words;
  constexpr uint32_t kOffset = 2166136261, kPrime = 16777619;  // FNV-1a
  uint32_t hash = kOffset;
  size_t length = 0;
  const auto end_word = [&] {
    if (length > 1) words.push_back(static_cast<int32_t>(hash));
    hash = kOffset;
    length = 0;
  };
  for (size_t at = 0, bytes; at < folded.size(); at += bytes) {
    const std::string_view rest = folded.substr(at);
    bytes = std::max<size_t>(1, utf8_length(rest));
    const auto lead = static_cast<uint8_t>(rest.front());
    const bool own_word = bytes >= 3 && lead >= 0xE3;  // from U+3000: written without spaces
    if (own_word) end_word();
    const bool punctuation = rest.starts_with("\xE2\x80") || rest.starts_with("\xE3\x80");  // U+2000 to U+203F, U+3000 to U+303F
    if (rest.front() == '\'' || rest.starts_with("\xE2\x80\x99")) continue;                    // it's, its
    if (punctuation || (lead < 0x80 && !is_letter_or_digit(rest.front()))) {
      end_word();
      continue;
    }
    for (const char c : rest.substr(0, bytes)) hash = (hash ^ static_cast<uint8_t>(c)) * kPrime;
    length += bytes;
    if (own_word) end_word();
  }
  end_word();
  return words;
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
  const auto sequences = [](const Dataset &data) {
    return [&data](const std::function<void(const Dataset::Sequence &)> &use) { data.each_sequence(use); };
  };
  const bool tokens = training.is_packed() || held_out.is_packed();
  LeakIndex index(sequences(training), sequences(held_out), tokens, std::nullopt, cancel);
  LeakReport report;
  for (Suspect &suspect : index.leaks()) {
    (suspect.leak.same_prompt ? report.same_prompt : report.similar)++;
    if (report.first.size() == kReported) continue;
    suspect.leak.path = held_out.path_of(suspect.file);
    suspect.leak.training_path = training.path_of(suspect.training_file);
    report.first.push_back(std::move(suspect.leak));
  }
  report.sequences = static_cast<int64_t>(index.sequences());
  return report;
}

std::vector<bool> find_repeated(std::span<const Example> examples, std::span<const Example> others, std::optional<size_t> own) {
  const auto sequences = [](std::span<const Example> list) {
    return [list](const std::function<void(const Dataset::Sequence &)> &use) {
      int64_t row = 0;
      for (const Example &example : list) {
        const std::string key = prompt_key(example);
        const Words words = word_hashes(key);
        use({{}, words, prompt_hash(key), 0, ++row});
      }
    };
  };
  std::vector<bool> repeated(examples.size());
  LeakIndex index(sequences(others), sequences(examples), false, own, nullptr);
  for (const Suspect &suspect : index.leaks()) repeated[suspect.held_out] = true;
  return repeated;
}

}  // namespace moe
