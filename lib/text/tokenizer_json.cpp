// A Hugging Face tokenizer folder. tokenizer.json holds megabytes of vocabulary and merges: they are read as a stream
// into the tables, everything else as a tree. tokenizer_config.json adds tokens, names BOS and EOS and has the chat template.
#include "text/tokenizer_json.h"

#include <algorithm>
#include <map>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "text/json_scanner.h"
#include "text/unicode.h"

namespace moe {
namespace {

constexpr uint64_t kMaxFile = uint64_t{1} << 28;

class FolderReader {
 public:
  explicit FolderReader(const std::string &folder) : folder_(folder) {}

  TokenizerParts read() {
    config_path_ = join_path(folder_, "tokenizer_config.json");
    config_ = file_exists(config_path_) ? Json::parse(read_file(config_path_, kMaxFile), config_path_) : Json::object();
    const std::string path = join_path(folder_, "tokenizer.json");
    if (file_exists(path)) read_tokenizer_json(path);
    else if (file_exists(join_path(folder_, "vocab.json"))) read_vocab_and_merges();
    else fail(Code::io, folder_, ": neither tokenizer.json nor vocab.json and merges.txt");
    read_config();
    read_generation_config();
    return std::move(parts_);
  }

 private:
  void read_tokenizer_json(const std::string &path) {
    parts_.source = path;
    const std::string content = read_file(path, kMaxFile);
    std::map<std::string, std::string_view> sections;
    JsonScanner scanner(content, path);
    std::string key;
    scanner.begin_object();
    while (scanner.next_key(key)) {
      const std::string_view section = key == "model" ? scanner.skip_unread() : scanner.skip();
      if (!sections.emplace(key, section).second) scanner.refuse(text("key ", quoted(key), " a second time"));
    }
    scanner.finish();
    const auto section = [&](const char *name) {
      const auto found = sections.find(name);
      return found == sections.end() ? Json() : Json::parse(found->second, text(path, ": ", name));
    };
    const Json pre_tokenizer = section("pre_tokenizer"), normalizer = section("normalizer");
    parts_.byte_level = uses_byte_level(pre_tokenizer);
    if (!sections.contains("model")) fail(Code::format, path, ": key 'model' is missing");
    check_model_type(sections["model"]);
    read_normalizer(normalizer, parts_);
    read_pre_tokenizer(pre_tokenizer, parts_);
    read_decoder(section("decoder"), parts_);
    read_model(sections["model"]);
    const Json added = section("added_tokens");
    if (!added.is_null()) {
      for (const Json &token : added.items()) add_token(token.integer_at("id", path), token, path);
    }
    read_post_processor(section("post_processor"), parts_);
  }

  void check_model_type(std::string_view model) {
    JsonScanner scanner(model, parts_.source);
    std::string key, storage, type = "BPE";
    scanner.begin_object();
    while (scanner.next_key(key)) {
      if (key == "type") {
        type = scanner.string(storage);
        break;
      }
      if (key == "vocab" || key == "merges") break;  // files of old versions have no type, those written today begin with it
      scanner.skip();
    }
    if (type != "BPE") fail(Code::unsupported, parts_.source, ": model type ", quoted(type), " is not supported, only BPE is");
    if (parts_.byte_level && !unicode::has_unicode_classes()) {
      fail(Code::unsupported, parts_.source,
           ": a byte-level vocabulary needs Unicode classes from utf8proc; this build has no utf8proc");
    }
  }

  void read_model(std::string_view model) {
    JsonScanner scanner(model, parts_.source);
    std::string key, unknown;
    std::string_view merges;
    bool byte_fallback = false, has_vocabulary = false;
    scanner.begin_object();
    while (scanner.next_key(key)) {
      if (key == "vocab") {
        if (std::exchange(has_vocabulary, true)) scanner.refuse("key 'vocab' a second time");
        read_vocabulary(scanner, model.size());
      } else if (key == "merges") {
        if (has_vocabulary) read_merges(scanner, model.size());
        else merges = scanner.skip();
      } else if (key == "type") {
        scanner.skip();
      } else {
        const Json value = Json::parse(scanner.skip(), text(parts_.source, ": model.", key));
        const bool set = !value.is_null() && !(value.is_bool() && !value.boolean()) &&
                         !(value.is_string() && value.string().empty()) && !(value.is_number() && value.number() == 0);
        if (key == "byte_fallback") byte_fallback = set;
        else if (key == "fuse_unk") parts_.fuse_unknown = set;
        else if (key == "ignore_merges") parts_.whole_pieces = set;
        else if (key == "unk_token" && set) unknown = value.string();
        else if (set && (key == "dropout" || key == "continuing_subword_prefix" || key == "end_of_word_suffix")) {
          fail(Code::unsupported, parts_.source, ": model.", key, " is not supported");
        }
      }
    }
    scanner.finish();
    if (!has_vocabulary) fail(Code::format, parts_.source, ": key 'model.vocab' is missing");
    if (!merges.empty()) {
      JsonScanner late(merges, parts_.source);
      read_merges(late, merges.size());
    }
    if (!parts_.byte_level && !byte_fallback) parts_.byte_tokens.fill(-1);
    if (!unknown.empty()) {
      parts_.unknown = parts_.vocabulary.find(parts_.byte_level ? unknown : with_spaces(unknown));
      if (parts_.unknown < 0)
        fail(Code::format, parts_.source, ": model.unk_token ", quoted(unknown), " is not in the vocabulary");
    }
  }

  void read_vocabulary(JsonScanner &scanner, size_t bytes) {
    parts_.vocabulary.reserve(std::min<size_t>(bytes / 128, static_cast<size_t>(kMaxTokens)), bytes / 8);
    std::string key;
    scanner.begin_object();
    while (scanner.next_key(key)) add_vocabulary_entry(key, scanner.integer());
  }

  void add_vocabulary_entry(std::string_view spelling, int64_t id) {
    if (parts_.byte_level) {
      const bool reachable = bytes_of_spelling(spelling, bytes_);
      parts_.vocabulary.add(id, reachable ? bytes_ : spelling, reachable ? TokenKind::text : TokenKind::unreachable,
                            parts_.source);
      if (reachable && bytes_.size() == 1) parts_.byte_tokens[static_cast<uint8_t>(bytes_[0])] = static_cast<int32_t>(id);
      return;
    }
    const int byte = byte_of_spelling(spelling);
    if (byte >= 0) {
      bytes_.assign(1, static_cast<char>(byte));
      parts_.vocabulary.add(id, bytes_, TokenKind::byte, parts_.source);
      parts_.byte_tokens[static_cast<size_t>(byte)] = static_cast<int32_t>(id);
      return;
    }
    const bool reachable = spelling.find(' ') == std::string_view::npos;
    bytes_.clear();
    append_with_spaces(spelling, bytes_);
    parts_.vocabulary.add(id, reachable ? bytes_ : spelling, reachable ? TokenKind::text : TokenKind::unreachable, parts_.source);
  }

  void read_merges(JsonScanner &scanner, size_t bytes) {
    parts_.merges.reserve(std::min<size_t>(bytes / 128, size_t{1} << 24));
    std::string first, second;
    uint32_t rank = 0;
    scanner.begin_array();
    while (scanner.next_item()) {
      if (scanner.peek() != '[') {
        add_merge(scanner.string(first), rank++);
        continue;
      }
      scanner.begin_array();
      if (!scanner.next_item()) scanner.refuse("expected two strings");
      const std::string_view left = scanner.string(first);
      if (!scanner.next_item()) scanner.refuse("expected two strings");
      const std::string_view right = scanner.string(second);
      if (scanner.next_item()) scanner.refuse("expected two strings");
      add_merge(left, right, rank++);
    }
  }

  void add_merge(std::string_view pair, uint32_t rank) {
    const size_t space = pair.find(' ');
    if (space == std::string_view::npos || pair.find(' ', space + 1) != std::string_view::npos) {
      fail(Code::format, parts_.source, ": merge ", rank, ": expected two parts with a space between");
    }
    add_merge(pair.substr(0, space), pair.substr(space + 1), rank);
  }

  // The bytes of the part of a merge are appended to `out`; false when no text can become it.
  bool append_part(std::string_view part, std::string &out) {
    if (!parts_.byte_level) {
      append_with_spaces(part, out);
      return true;
    }
    if (!bytes_of_spelling(part, bytes_)) return false;
    out += bytes_;
    return true;
  }

  void add_merge(std::string_view left, std::string_view right, uint32_t rank) {
    joined_.clear();
    bool known = append_part(left, joined_);
    const size_t middle = joined_.size();
    known = known && append_part(right, joined_);
    const std::string_view joined = joined_;
    const Vocabulary &vocabulary = parts_.vocabulary;
    const int32_t left_id = known ? vocabulary.find(joined.substr(0, middle)) : -1;
    const int32_t right_id = known ? vocabulary.find(joined.substr(middle)) : -1;
    const int32_t id = known ? vocabulary.find(joined) : -1;
    if (left_id < 0 || right_id < 0 || id < 0) {
      fail(Code::format, parts_.source, ": merge ", rank, ": ", quoted(left), " and ", quoted(right),
           " or what they make is not in the vocabulary");
    }
    parts_.merges.add_pair(left_id, right_id, {rank, id});
  }

  // `<0x0A>`: 10; -1 for other spellings.
  static int byte_of_spelling(std::string_view spelling) {
    if (spelling.size() != 6 || !spelling.starts_with("<0x") || spelling[5] != '>') return -1;
    const auto digit = [](char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1; };
    const int high = digit(spelling[3]), low = digit(spelling[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
  }

  void add_token(int64_t id, const Json &json, const std::string &source) {
    AddedToken token;
    token.text = json.string_at("content", source);
    token.control = json.bool_or("special", false, source);
    token.normalized = json.bool_or("normalized", !token.control, source);
    token.strip_left = json.bool_or("lstrip", false, source);
    token.strip_right = json.bool_or("rstrip", false, source);
    token.single_word = json.bool_or("single_word", false, source);
    if (token.single_word && !unicode::has_unicode_classes()) {
      fail(Code::unsupported, source, ": added token ", id, " is single_word, which needs utf8proc; this build has no utf8proc");
    }
    const TokenKind kind = token.control ? TokenKind::control : TokenKind::user_defined;
    Vocabulary &vocabulary = parts_.vocabulary;
    if (!vocabulary.has(id)) {
      vocabulary.add(id, token.text, kind, source);
    } else {
      const auto known = static_cast<int32_t>(id);
      const std::string_view bytes = vocabulary.bytes(known);
      const bool spelled =
          parts_.byte_level ? bytes_of_spelling(token.text, bytes_) && bytes_ == bytes : with_spaces(token.text) == bytes;
      if (bytes != token.text && !spelled) {
        fail(Code::format, source, ": added token ", id, " ", quoted(token.text), " is another token in the vocabulary");
      }
      if (parts_.byte_level && bytes != token.text) vocabulary.set_bytes(known, token.text);
      vocabulary.set_kind(known, kind);
    }
    token.id = static_cast<int32_t>(id);
    parts_.added.push_back(std::move(token));
  }

  void read_vocab_and_merges() {
    const std::string type = config_.string_or("tokenizer_class", "", config_path_);
    const std::string vocab_path = join_path(folder_, "vocab.json"), merges_path = join_path(folder_, "merges.txt");
    parts_.source = vocab_path;
    parts_.byte_level = true;
    if (!unicode::has_unicode_classes())
      fail(Code::unsupported, vocab_path, ": a byte-level vocabulary needs utf8proc; this build has no utf8proc");
    if (type.starts_with("Qwen2Tokenizer")) {
      parts_.normalizer.add_form(NormalForm::nfc, vocab_path);
      parts_.splitter.add_split(Split::qwen2);
    } else if (type.starts_with("GPT2Tokenizer")) {
      parts_.splitter.add_split(Split::gpt2);
    } else {
      fail(Code::unsupported, config_path_, ": tokenizer_class ", quoted(type), " without tokenizer.json is not supported");
    }
    const std::string vocabulary = read_file(vocab_path, kMaxFile), merges = read_file(merges_path, kMaxFile);
    JsonScanner scanner(vocabulary, vocab_path);
    read_vocabulary(scanner, vocabulary.size() * 2);
    scanner.finish();
    parts_.source = merges_path;
    parts_.merges.reserve(merges.size() / 8);
    uint32_t rank = 0;
    for (size_t at = 0; at < merges.size();) {
      const size_t end = std::min(merges.find('\n', at), merges.size());
      const std::string_view line(merges.data() + at, end - at);
      if (!line.empty() && !(at == 0 && line.starts_with("#version"))) add_merge(line, rank++);
      at = end + 1;
    }
    parts_.source = vocab_path;
  }

  // A token given by its text, or by an object with its text: -1 when the key is absent or null.
  int32_t token_at(const Json &json, const char *key, const std::string &source) const {
    const Json *value = json.find(key);
    if (!value || value->is_null()) return -1;
    const std::string text = value->is_object() ? value->string_at("content", source) : value->string();
    for (const AddedToken &token : parts_.added) {
      if (token.text == text) return token.id;
    }
    const int32_t id = parts_.vocabulary.find(text);
    if (id < 0) fail(Code::format, source, ": ", key, " ", quoted(text), " is not in the vocabulary");
    return id;
  }

  void read_config() {
    if (const Json *added = config_.find("added_tokens_decoder"); added && !added->is_null()) {
      std::map<std::string, int32_t, std::less<>> present;
      for (const AddedToken &token : parts_.added) present.emplace(token.text, token.id);
      for (const auto &[number, token] : added->members()) {
        if (present.contains(token.string_at("content", config_path_))) continue;
        add_token(Json::parse(number, config_path_).integer(), token, config_path_);
      }
    }
    parts_.bos = token_at(config_, "bos_token", config_path_);
    parts_.eos = token_at(config_, "eos_token", config_path_);
    const std::string map_path = join_path(folder_, "special_tokens_map.json");
    if (file_exists(map_path)) {
      const Json map = read_json(map_path);
      if (!config_.find("bos_token")) parts_.bos = token_at(map, "bos_token", map_path);
      if (!config_.find("eos_token")) parts_.eos = token_at(map, "eos_token", map_path);
    }
    set_around("add_bos_token", parts_.bos, parts_.before);
    set_around("add_eos_token", parts_.eos, parts_.after);
    read_chat_template();
  }

  // tokenizer_config.json has the last word where it says anything.
  void set_around(const char *key, int32_t id, std::vector<int32_t> &around) const {
    const Json *value = config_.find(key);
    if (!value || value->is_null()) return;
    if (!value->boolean()) around.clear();
    else if (around.empty() && id >= 0) around.push_back(id);
  }

  void read_chat_template() {
    const std::string path = join_path(folder_, "chat_template.jinja");
    if (file_exists(path)) {
      parts_.chat_template = read_file(path, kMaxFile);
      return;
    }
    const Json *value = config_.find("chat_template");
    if (!value || value->is_null()) return;
    if (value->is_string()) {
      parts_.chat_template = value->string();
      return;
    }
    for (const Json &named : value->items()) {
      if (named.string_at("name", config_path_) == "default") parts_.chat_template = named.string_at("template", config_path_);
    }
  }

  void read_generation_config() {
    const std::string path = join_path(folder_, "generation_config.json");
    if (!file_exists(path)) return;
    const Json config = read_json(path);
    const Json *eos = config.find("eos_token_id");
    if (!eos || eos->is_null()) return;
    const auto add = [&](int64_t id) {
      if (!parts_.vocabulary.has(id)) fail(Code::format, path, ": eos_token_id ", id, " is not in the vocabulary");
      parts_.end_tokens.push_back(static_cast<int32_t>(id));
    };
    if (eos->is_number()) return add(eos->integer());
    for (const Json &id : eos->items()) add(id.integer());
  }

  std::string folder_, config_path_;
  Json config_;
  TokenizerParts parts_;
  std::string bytes_, joined_;
};

}  // namespace

std::shared_ptr<const Tokenizer> load_tokenizer(const std::string &folder) {
  return std::make_shared<BpeTokenizer>(FolderReader(folder).read());
}

}  // namespace moe
