#include "eval/exact_match.h"

#include <algorithm>
#include <cctype>
#include <map>

#include "base/error.h"
#include "data/row_view.h"
#include "eval/scorer.h"
#include "generate/stop_text.h"

namespace moe {
namespace {

constexpr size_t kTogether = 8;  // sessions in one pass

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// An optional minus, then digits, commas and points (and "$" where `dollar`); "" when there is no digit.
std::string_view number_at(std::string_view text, size_t begin, bool dollar) {
  size_t end = begin;
  bool digit = false;
  if (end < text.size() && text[end] == '-') end++;
  for (; end < text.size(); end++) {
    const char c = text[end];
    if (!is_digit(c) && c != '.' && c != ',' && !(dollar && c == '$')) break;
    digit |= is_digit(c);
  }
  return digit ? text.substr(begin, end - begin) : std::string_view();
}

std::string_view last_number(std::string_view text) {
  std::string_view last;
  for (size_t i = 0; i < text.size();) {
    const std::string_view number = number_at(text, i, true);
    if (!number.empty()) last = number;
    i += std::max<size_t>(1, number.size());
  }
  return last;
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const size_t begin = text.find_first_not_of(kSpace);
  return begin == std::string_view::npos ? std::string_view() : text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

bool same_ignoring_case(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [&](char x, char y) { return lower(x) == lower(y); });
}

// How often each word stands in a text. Punctuation is ASCII's and is taken out, so that "don't" is one word.
std::map<std::string, int64_t> words_of(std::string_view text) {
  std::map<std::string, int64_t> words;
  std::string word;
  for (size_t i = 0; i <= text.size(); i++) {
    const char c = i < text.size() ? text[i] : ' ';
    const bool space = c == ' ' || (c >= '\t' && c <= '\r');
    if (space && !word.empty() && word != "a" && word != "an" && word != "the") words[word]++;
    if (space) word.clear();
    else if (static_cast<unsigned char>(c) >= 0x80 || std::isalnum(static_cast<unsigned char>(c)))
      word += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  }
  return words;
}

std::span<const int32_t> common_beginning(const std::vector<std::vector<int32_t>> &prompts) {
  if (prompts.size() < 2) return {};
  std::span<const int32_t> common = prompts.front();
  for (const std::vector<int32_t> &prompt : prompts) {
    const auto end = prompt.end() - (prompt.empty() ? 0 : 1);
    common = common.first(
        static_cast<size_t>(std::mismatch(common.begin(), common.end(), prompt.begin(), end).first - common.begin()));
  }
  return common;
}

// How many are written in one pass. A cache that grows is there twice for a moment, with twice the room it needs.
size_t together(const BaseModel &model, const Overlay &overlay, const std::vector<std::vector<int32_t>> &prompts,
                const AnswerOptions &options) {
  if (options.memory == 0 || prompts.empty()) return kTogether;
  const auto shorter = [](const auto &a, const auto &b) { return a.size() < b.size(); };
  const std::vector<int32_t> &longest = *std::max_element(prompts.begin(), prompts.end(), shorter);
  std::vector<float> logits(static_cast<size_t>(model.config().vocabulary));
  Segment segment;
  segment.tokens = longest;
  segment.logits = logits.data();
  const uint64_t pass = inference_pass_bytes(model, overlay, {&segment, 1});
  const uint64_t one = 3 * KvCache::bytes(model, static_cast<int64_t>(longest.size()) + options.max_new_tokens) +
                       logits.size() * sizeof(float);
  if (pass + one > options.memory) {
    fail(Code::no_memory, "memory_limit: ", options.memory, " bytes are left for generation, but one answer needs ", pass + one,
         "; use a smaller max_new_tokens or max_length");
  }
  return std::min<size_t>(kTogether, (options.memory - pass) / one);
}

// One answer being written.
class Writing {
 public:
  Writing(size_t index, std::unique_ptr<Session> session) : index(index), session(std::move(session)), stop_({"Question:"}) {}

  // False when the answer has ended.
  bool take(const Piece &piece, const AnswerOptions &options) {
    tokens_++;
    answer.routing.resize(piece.routing.size());
    for (size_t i = 0; i < piece.routing.size(); i++) answer.routing[i] += piece.routing[i];
    answer.text += stop_.push(piece.text);
    return !piece.end && !stop_.stopped() && tokens_ < options.max_new_tokens && !line_ended(options);
  }
  void finish() {
    answer.text += stop_.finish();
    for (float &share : answer.routing) share /= static_cast<float>(std::max<int64_t>(1, tokens_));
    answer.tokens = static_cast<int64_t>(session->tokens().size());
  }

  size_t index;
  std::unique_ptr<Session> session;
  GeneratedAnswer answer;

 private:
  bool line_ended(const AnswerOptions &options) const {
    if (options.first_line) {
      const size_t begin = answer.text.find_first_not_of(" \t\r\n");
      return begin != std::string::npos && answer.text.find('\n', begin) != std::string::npos;
    }
    const size_t mark = options.mark.empty() ? std::string::npos : answer.text.find(options.mark);
    return mark != std::string::npos && answer.text.find('\n', mark) != std::string::npos;
  }

  StopText stop_;
  int64_t tokens_ = 0;
};

}  // namespace

std::string trimmed_answer(std::string_view text) { return std::string(trimmed(text)); }

std::string normalised_number(std::string_view number) {
  std::string result;
  for (const char c : number)
    if (c != ',' && c != '$') result += c;
  if (!result.empty() && result.back() == '.') result.pop_back();
  return result;
}

ParsedAnswer parse_marked_answer(std::string_view generated, std::string_view mark) {
  ParsedAnswer result;
  result.flexible = normalised_number(last_number(generated));
  const size_t found = mark.empty() ? std::string_view::npos : generated.find(mark);
  if (found == std::string_view::npos) return result;
  const size_t begin = std::min(generated.size(), generated.find_first_not_of(" $", found + mark.size()));
  result.strict = normalised_number(number_at(generated, begin, true));
  return result;
}

double token_f1(std::string_view answer, std::string_view reference) {
  const std::map<std::string, int64_t> own = words_of(answer), other = words_of(reference);
  int64_t common = 0, all = 0;
  for (const auto &[word, count] : own) {
    all += count;
    if (const auto found = other.find(word); found != other.end()) common += std::min(count, found->second);
  }
  for (const auto &[word, count] : other) all += count;
  return all == 0 ? 1 : 2 * static_cast<double>(common) / static_cast<double>(all);
}

int32_t parse_choice(std::string_view generated, const std::vector<Choice> &choices) {
  std::string_view line = trimmed(generated);
  line = trimmed(line.substr(0, line.find('\n')));
  for (size_t i = 0; i < choices.size(); i++)
    if (same_ignoring_case(line, trimmed(choices[i].text))) return static_cast<int32_t>(i);
  if (!line.empty() && line.front() == '(') line.remove_prefix(1);
  const std::string_view letter = line.substr(0, line.find_first_of(".):, "));
  for (size_t i = 0; i < choices.size(); i++)
    if (same_ignoring_case(letter, option_letter(i))) return static_cast<int32_t>(i);
  return -1;
}

void generate_answers(std::shared_ptr<const BaseModel> model, std::shared_ptr<Adapter> adapter, std::shared_ptr<Mixture> mixture,
                      const std::vector<std::vector<int32_t>> &prompts, const AnswerOptions &options,
                      const std::function<bool(size_t, const GeneratedAnswer &)> &done, const Cancel *cancel) {
  model->require_tokenizer();
  const SamplerOptions greedy;
  // What all prompts begin with is read once; at least the last token of each stays its own.
  Session front(model, adapter, mixture);
  if (const auto common = common_beginning(prompts); common.size() >= kWorthSharing) front.append(common, cancel);
  const size_t most = together(*model, {adapter.get(), mixture.get()}, prompts, options);
  const size_t shared = front.tokens().size();
  std::vector<std::unique_ptr<Writing>> writing;
  size_t next = 0;
  while (next < prompts.size() || !writing.empty()) {
    while (writing.size() < most && next < prompts.size()) {
      writing.push_back(std::make_unique<Writing>(next, front.fork()));
      writing.back()->session->append(std::span(prompts[next++]).subspan(shared), cancel);
    }
    std::vector<Session *> sessions;
    for (const auto &one : writing) sessions.push_back(one->session.get());
    const std::vector<Piece> pieces = Session::next_of_all(sessions, greedy, cancel);
    for (size_t i = 0; i < pieces.size(); i++) {
      if (writing[i]->take(pieces[i], options)) continue;
      writing[i]->finish();
      if (!done(writing[i]->index, writing[i]->answer)) fail(Code::cancelled, "cancelled by the caller");
      writing[i] = nullptr;
    }
    std::erase(writing, nullptr);
  }
}

}  // namespace moe
