// Tokenizers in GGUF metadata (github.com/ggml-org/ggml/blob/master/docs/gguf.md, keys `tokenizer.ggml.*`):
//
//   model        "gpt2": byte-level BPE, `merges` as "left right", `pre` names the split
//                "llama": SentencePiece BPE, `scores` rank the merges
//   tokens       spellings;  token_type  1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte
//   add_bos_token, add_eos_token, add_space_prefix, *_token_id;  tokenizer.chat_template
//
// The aim is the tokens the model was trained with, where a GGUF says less than the model's own files:
// - Without `pre` (files from before that key) the split is GPT-2's, and models of the NeoX family normalize to NFC.
// - qwen2 and olmo normalize to NFC, as their tokenizer.json says.
// - Control tokens of Phi-3 take the white space after them, as its tokenizer_config.json says.
// - User-defined tokens are cut out of every text, also those that look like the end of a turn ("</s>").
#include <algorithm>
#include <cstring>
#include <numeric>

#include "base/error.h"
#include "formats/gguf.h"
#include "text/bpe_tokenizer.h"
#include "text/tokenizer_json.h"
#include "text/unicode.h"

namespace moe {
namespace {

enum class GgufTokenType : int64_t { normal = 1, unknown, control, user_defined, unused, byte };

struct PreName {
  std::string_view name;
  Split split;
  bool nfc;
  bool whole_pieces, adds_bos;  // where the file does not say
};
constexpr PreName kPreNames[] = {
    {"gpt-2", Split::gpt2, false, false, false},     {"phi-2", Split::gpt2, false, false, false},
    {"mpt", Split::gpt2, true, false, false},        {"olmo", Split::gpt2, true, false, false},
    {"smollm", Split::smollm, false, false, false},  {"starcoder", Split::smollm, false, false, false},
    {"refact", Split::smollm, false, false, false},  {"command-r", Split::smollm, true, false, false},
    {"llama-bpe", Split::llama3, false, true, true}, {"llama3", Split::llama3, false, true, true},
    {"llama-v3", Split::llama3, false, true, true},  {"qwen2", Split::qwen2, true, false, false},
    {"gpt-4o", Split::o200k, false, false, false},
};

// llama.cpp's split of this name: punctuation and some symbols apart, then GPT-2, then digits apart and in threes.
void add_default_split(PreSplitter &splitter) {
  splitter.add_charset(PreSplitter::Charset::default_punctuation, PreSplitter::Keep::contiguous);
  splitter.add_split(Split::gpt2);
  splitter.add_charset(PreSplitter::Charset::number, PreSplitter::Keep::contiguous);
  splitter.add_charset(PreSplitter::Charset::digit_triple, PreSplitter::Keep::isolated);
}

class GgufReader {
 public:
  explicit GgufReader(const Gguf &file) : file_(file) { parts_.source = file.path(); }

  TokenizerParts read() {
    const std::string_view model = file_.string_at("tokenizer.ggml.model");
    if (model != "gpt2" && model != "llama") {
      fail(Code::unsupported, parts_.source, ": tokenizer.ggml.model ", quoted(model),
           " is not supported, only gpt2 and llama are");
    }
    parts_.byte_level = model == "gpt2";
    read_types();
    if (parts_.byte_level) read_split();
    read_tokens();
    if (parts_.byte_level) read_merges();
    else read_scores();
    read_ends();
    parts_.chat_template = file_.string_or("tokenizer.chat_template", "");
    return std::move(parts_);
  }

 private:
  void read_types() {
    const uint64_t tokens = file_.strings_at("tokenizer.ggml.tokens").count;
    if (tokens == 0 || tokens > static_cast<uint64_t>(kMaxTokens)) {
      fail(Code::format, parts_.source, ": tokenizer.ggml.tokens has ", tokens, " elements, expected 1 to ", kMaxTokens);
    }
    if (file_.find_key("tokenizer.ggml.token_type")) types_ = file_.integers_at("tokenizer.ggml.token_type");
    else types_.assign(tokens, static_cast<int64_t>(GgufTokenType::normal));
    if (types_.size() != tokens) {
      fail(Code::format, parts_.source, ": tokenizer.ggml.token_type has ", types_.size(), " elements, expected ", tokens);
    }
  }

  GgufTokenType type(uint64_t id) const { return static_cast<GgufTokenType>(types_[id]); }

  void read_split() {
    if (!unicode::has_unicode_classes()) {
      fail(Code::unsupported, parts_.source,
           ": a byte-level vocabulary needs Unicode classes from utf8proc; this build has no utf8proc");
    }
    const std::string_view pre = file_.string_or("tokenizer.ggml.pre", "");
    if (pre.empty()) {
      parts_.splitter.add_split(Split::gpt2);
      if (file_.string_or("general.architecture", "") == "gptneox") parts_.normalizer.add_form(NormalForm::nfc, parts_.source);
      return;
    }
    if (pre == "default") return add_default_split(parts_.splitter);
    for (const PreName &known : kPreNames) {
      if (pre != known.name) continue;
      parts_.splitter.add_split(known.split);
      if (known.nfc) parts_.normalizer.add_form(NormalForm::nfc, parts_.source);
      parts_.whole_pieces = known.whole_pieces;
      adds_bos_ = known.adds_bos;
      return;
    }
    fail(Code::unsupported, parts_.source, ": tokenizer.ggml.pre ", quoted(pre), " is not supported");
  }

  void read_tokens() {
    const GgufValue &tokens = file_.strings_at("tokenizer.ggml.tokens");
    parts_.vocabulary.reserve(tokens.count, tokens.bytes.size());
    for (uint64_t id = 0; id < tokens.count; ++id) {
      const std::string_view spelling = tokens.string(id);
      switch (type(id)) {
        case GgufTokenType::control:
        case GgufTokenType::unknown: add_special(id, spelling, TokenKind::control); break;
        case GgufTokenType::user_defined: add_special(id, spelling, TokenKind::user_defined); break;
        case GgufTokenType::byte: add_byte(id, spelling); break;
        case GgufTokenType::normal:
        case GgufTokenType::unused: add_text(id, spelling); break;
        default:
          fail(Code::format, parts_.source, ": tokenizer.ggml.token_type of token ", id, " is ", types_[id], ", expected 1 to 6");
      }
    }
  }

  void add_text(uint64_t id, std::string_view spelling) {
    if (!parts_.byte_level) {
      if (spelling.find(' ') != std::string_view::npos)
        parts_.vocabulary.add(static_cast<int64_t>(id), spelling, TokenKind::unreachable, parts_.source);
      else parts_.vocabulary.add(static_cast<int64_t>(id), with_spaces(spelling), TokenKind::text, parts_.source);
      return;
    }
    const bool reachable = bytes_of_spelling(spelling, bytes_);
    parts_.vocabulary.add(static_cast<int64_t>(id), reachable ? bytes_ : spelling,
                          reachable ? TokenKind::text : TokenKind::unreachable, parts_.source);
    if (reachable && bytes_.size() == 1) parts_.byte_tokens[static_cast<uint8_t>(bytes_[0])] = static_cast<int32_t>(id);
  }

  void add_byte(uint64_t id, std::string_view spelling) {
    const auto digit = [](char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1; };
    const bool formed = spelling.size() == 6 && spelling.starts_with("<0x") && spelling[5] == '>';
    const int high = formed ? digit(spelling[3]) : -1, low = formed ? digit(spelling[4]) : -1;
    if (high < 0 || low < 0)
      fail(Code::format, parts_.source, ": byte token ", id, " is spelled ", quoted(spelling), ", expected <0x00> to <0xFF>");
    const char byte = static_cast<char>(high * 16 + low);
    parts_.vocabulary.add(static_cast<int64_t>(id), {&byte, 1}, TokenKind::byte, parts_.source);
    parts_.byte_tokens[static_cast<uint8_t>(byte)] = static_cast<int32_t>(id);
  }

  void add_special(uint64_t id, std::string_view spelling, TokenKind kind) {
    AddedToken token;
    token.text = kind == TokenKind::user_defined && !parts_.byte_level ? with_spaces(spelling) : std::string(spelling);
    token.id = static_cast<int32_t>(id);
    token.control = kind == TokenKind::control;
    const bool phi3 = !parts_.byte_level && file_.string_or("general.architecture", "") == "phi3";
    token.strip_right =
        phi3 && spelling != "<unk>" && spelling != "<s>" && spelling != "<|endoftext|>" && !spelling.starts_with("[PAD");
    parts_.vocabulary.add(static_cast<int64_t>(id), token.text, kind, parts_.source);
    parts_.added.push_back(std::move(token));
  }

  void read_merges() {
    const GgufValue &merges = file_.strings_at("tokenizer.ggml.merges");
    parts_.merges.reserve(std::min<uint64_t>(merges.count, uint64_t{1} << 24));
    std::string right, joined;
    for (uint64_t rank = 0; rank < merges.count; ++rank) {
      const std::string_view merge = merges.string(rank);
      const size_t space = merge.find(' ', 1);
      const bool known = space != std::string_view::npos && bytes_of_spelling(merge.substr(0, space), joined) &&
                         bytes_of_spelling(merge.substr(space + 1), right);
      const size_t middle = joined.size();
      joined += right;
      const std::string_view both = joined;
      const int32_t left_id = known ? parts_.vocabulary.find(both.substr(0, middle)) : -1;
      const int32_t right_id = known ? parts_.vocabulary.find(both.substr(middle)) : -1;
      const int32_t id = known ? parts_.vocabulary.find(both) : -1;
      if (left_id < 0 || right_id < 0 || id < 0) {
        fail(Code::format, parts_.source, ": tokenizer.ggml.merges[", rank, "] ", quoted(merge),
             ": its parts or what they make are no tokens");
      }
      parts_.merges.add_pair(left_id, right_id, {static_cast<uint32_t>(rank), id});
    }
  }

  // The rank of a token is the number of tokens with a higher score; equal scores have equal ranks.
  void read_scores() {
    const std::vector<float> scores = file_.floats_at("tokenizer.ggml.scores");
    if (scores.size() != types_.size()) {
      fail(Code::format, parts_.source, ": tokenizer.ggml.scores has ", scores.size(), " elements, expected ", types_.size());
    }
    std::vector<uint32_t> order, ranks(scores.size(), Merges::kNoRank);
    for (uint32_t id = 0; id < scores.size(); ++id) {
      if (parts_.vocabulary.kind(static_cast<int32_t>(id)) != TokenKind::text) continue;
      if (scores[id] != scores[id]) fail(Code::format, parts_.source, ": tokenizer.ggml.scores[", id, "] is not a number");
      order.push_back(id);
    }
    std::sort(order.begin(), order.end(),
              [&](uint32_t a, uint32_t b) { return scores[a] != scores[b] ? scores[a] > scores[b] : a < b; });
    for (uint32_t i = 0; i < order.size(); ++i) {
      ranks[order[i]] = i > 0 && scores[order[i]] == scores[order[i - 1]] ? ranks[order[i - 1]] : i;
    }
    parts_.merges.set_token_ranks(std::move(ranks));
    parts_.normalizer.set_block_is_space();
    if (file_.bool_or("tokenizer.ggml.add_space_prefix", true)) {
      parts_.normalizer.set_prefix(PrefixSpace::always, false);
      parts_.strips_leading_space = true;
    }
    adds_bos_ = true;
  }

  int32_t token_id(const std::string &key) const {
    const int64_t id = file_.integer_or(key, -1);
    if (id == -1) return -1;
    if (!parts_.vocabulary.has(id))
      fail(Code::format, parts_.source, ": ", key, " is ", id, ", the vocabulary has ", types_.size(), " tokens");
    return static_cast<int32_t>(id);
  }

  void read_ends() {
    parts_.bos = token_id("tokenizer.ggml.bos_token_id");
    parts_.eos = token_id("tokenizer.ggml.eos_token_id");
    for (const char *key : {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
      if (const int32_t id = token_id(key); id >= 0) parts_.end_tokens.push_back(id);
    }
    if (!parts_.byte_level) parts_.unknown = token_id("tokenizer.ggml.unknown_token_id");
    if (file_.bool_or("tokenizer.ggml.add_bos_token", adds_bos_) && parts_.bos >= 0) parts_.before = {parts_.bos};
    if (file_.bool_or("tokenizer.ggml.add_eos_token", false) && parts_.eos >= 0) parts_.after = {parts_.eos};
  }

  const Gguf &file_;
  TokenizerParts parts_;
  std::vector<int64_t> types_;
  bool adds_bos_ = false;
  std::string bytes_;
};

}  // namespace

std::shared_ptr<const Tokenizer> load_tokenizer(const Gguf &file) {
  return std::make_shared<BpeTokenizer>(GgufReader(file).read());
}

}  // namespace moe
