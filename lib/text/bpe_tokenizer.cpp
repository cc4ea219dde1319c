#include "text/bpe_tokenizer.h"

#include <algorithm>

#include "base/error.h"
#include "base/utf8.h"
#include "text/unicode.h"

namespace moe {
namespace {
constexpr size_t kMaxText = size_t{1} << 31;  // bytes of one text; positions inside a piece have 32 bits
constexpr size_t kMaxAddedToken = 1024;       // bytes; looking for one costs up to its length at every place of a text
}  // namespace

// Buffers of one encode call. They are kept and lent to one call at a time, so the word cache stays warm.
struct BpeTokenizer::Scratch {
  WordCache cache;
  Merges::Scratch merges;
  std::vector<Merges::Symbol> symbols;
  NormalizedText normalized;
};

class BpeTokenizer::Borrowed {
 public:
  explicit Borrowed(const BpeTokenizer &tokenizer) : tokenizer_(tokenizer) {
    {
      const std::lock_guard lock(tokenizer.scratch_mutex_);
      if (!tokenizer.free_scratch_.empty()) {
        scratch_ = std::move(tokenizer.free_scratch_.back());
        tokenizer.free_scratch_.pop_back();
      }
    }
    if (!scratch_) scratch_ = std::make_unique<Scratch>();
  }
  ~Borrowed() {
    const std::lock_guard lock(tokenizer_.scratch_mutex_);
    // Room was reserved, so that nothing is allocated here; what does not fit is freed.
    auto &free = tokenizer_.free_scratch_;
    if (free.size() < free.capacity()) free.push_back(std::move(scratch_));
  }
  Borrowed(const Borrowed &) = delete;
  Scratch &operator*() { return *scratch_; }

 private:
  const BpeTokenizer &tokenizer_;
  std::unique_ptr<Scratch> scratch_;
};

// One encode call.
class BpeTokenizer::Run {
 public:
  Run(const BpeTokenizer &tokenizer, Scratch &scratch, EncodeOptions options, std::vector<int32_t> &ids,
      std::vector<ByteSpan> *spans)
      : tokenizer_(tokenizer), parts_(tokenizer.parts_), scratch_(scratch), options_(options), ids_(ids), spans_(spans) {}

  void encode(std::string_view text) {
    if (text.size() > kMaxText)
      fail(Code::invalid, "a text of ", text.size(), " bytes, at most ", kMaxText, " can be encoded at once");
    if (options_.add_special) {
      for (const int32_t id : parts_.before) emit(id, {0, 0});
    }
    const auto plain = [&](size_t begin, size_t end) { encode_segment(text, begin, end); };
    const auto same = [](size_t begin, size_t end) { return ByteSpan{begin, end}; };
    cut(text, tokenizer_.raw_, same, plain);
    if (options_.add_special) {
      for (const int32_t id : parts_.after) emit(id, {text.size(), text.size()});
    }
  }
  int64_t unencodable_bytes() const { return unencodable_bytes_; }

 private:
  void emit(int32_t id, ByteSpan span) {
    ids_.push_back(id);
    if (spans_) spans_->push_back(span);
  }

  bool is_literal(ByteSpan span) const {
    const auto after = std::partition_point(options_.literal.begin(), options_.literal.end(),
                                            [&](const ByteSpan &literal) { return literal.end <= span.begin; });
    return after != options_.literal.end() && after->begin < span.end;
  }

  // Emits the added tokens of `text` and gives the parts between them to `plain`. source(begin, end) is where a part of
  // `text` stands in the text of the call.
  template <class Source, class Plain>
  void cut(std::string_view text, const AddedTokens &added, Source &&source, Plain &&plain) {
    size_t done = 0, at = 0;
    AddedTokens::Match match;
    while (!added.empty() && added.find(text, at, match)) {
      at = match.end;
      const AddedToken &token = *match.token;
      if (token.control && (!options_.parse_special || is_literal(source(match.begin, match.end)))) continue;
      if (token.single_word && !AddedTokens::stands_alone(text, match)) continue;
      const char *begin = text.data(), *end = begin + text.size();
      if (token.strip_left) {
        for (unicode::Unit u;
             match.begin > done && ((u = unicode::unit_before(begin, begin + match.begin)).classes & unicode::kSpace);) {
          match.begin -= u.length;
        }
      }
      if (token.strip_right) {
        for (unicode::Unit u = unicode::unit(begin + match.end, end); u.classes & unicode::kSpace;
             u = unicode::unit(begin + match.end, end)) {
          match.end += u.length;
        }
      }
      if (match.begin > done) plain(done, match.begin);
      emit(token.id, source(match.begin, match.end));
      done = at = match.end;
    }
    if (done < text.size()) plain(done, text.size());
  }

  // A part of the text between added tokens.
  void encode_segment(std::string_view text, size_t begin, size_t end) {
    NormalizedText &normalized = scratch_.normalized;
    parts_.normalizer.apply(text.substr(begin, end - begin), begin == 0, spans_ || !options_.literal.empty(), normalized);
    base_ = begin;
    last_was_unknown_ = false;
    const auto plain = [&](size_t from, size_t to) { encode_plain(from, to); };
    const auto source = [&](size_t from, size_t to) { return source_span(from, to); };
    cut(normalized.text, tokenizer_.normalized_, source, plain);
  }

  // Where a range of the normalized segment stands in the text.
  ByteSpan source_span(size_t begin, size_t end) const {
    const ByteSpan span = scratch_.normalized.source(begin, end);
    return {base_ + span.begin, base_ + span.end};
  }

  void encode_plain(size_t begin, size_t end) {
    const std::string_view text = scratch_.normalized.text.substr(begin, end - begin);
    if (parts_.byte_level) {
      parts_.splitter.split(text, [&](size_t from, size_t to) { encode_piece(text.substr(from, to - from), begin + from); });
      return;
    }
    size_t from = 0;
    for (size_t at = 1; at <= text.size(); ++at) {
      if (at < text.size() && !tokenizer_.may_cut(text[at - 1], text[at])) continue;
      encode_piece(text.substr(from, at - from), begin + from);
      from = at;
    }
  }

  // `position`: where the piece begins in the normalized segment.
  void encode_piece(std::string_view piece, size_t position) {
    if (piece.size() > WordCache::kMaxBytes) {
      merge_piece(piece, position);
      return;
    }
    const WordCache::Key key = WordCache::key_of(piece);
    WordCache::Slot &slot = scratch_.cache.slot_of(key);
    if (slot.key == key) {
      last_was_unknown_ = false;
      ids_.insert(ids_.end(), slot.ids.begin(), slot.ids.begin() + slot.count);
      if (spans_) add_spans(std::span(slot.ids).first(slot.count), position);
      return;
    }
    const size_t first = ids_.size();
    const bool regular = merge_piece(piece, position);
    const size_t count = ids_.size() - first;
    if (!regular || count > WordCache::kMaxTokens) return;
    slot.key = key;
    slot.count = static_cast<uint32_t>(count);
    std::copy(ids_.begin() + static_cast<ptrdiff_t>(first), ids_.end(), slot.ids.begin());
  }

  // The spans of tokens that together are exactly the bytes from `position` on.
  void add_spans(std::span<const int32_t> ids, size_t position) {
    for (const int32_t id : ids) {
      const size_t end = position + parts_.vocabulary.bytes(id).size();
      spans_->push_back(source_span(position, end));
      position = end;
    }
  }

  // Merges and emits. True when the tokens are exactly the bytes of the piece: no byte left out, nothing unknown.
  bool merge_piece(std::string_view piece, size_t position) {
    auto &symbols = scratch_.symbols;
    symbols.clear();
    const int32_t whole = parts_.whole_pieces ? parts_.vocabulary.find(piece) : -1;
    if (whole >= 0 && parts_.vocabulary.kind(whole) != TokenKind::control) {
      symbols.push_back({0, static_cast<uint32_t>(piece.size()), whole});
    } else {
      if (parts_.byte_level) add_bytes(piece);
      else add_characters(piece);
      parts_.merges.merge(parts_.vocabulary, piece, symbols, scratch_.merges);
    }
    size_t covered = 0;
    bool regular = true;
    for (const Merges::Symbol &symbol : symbols) {
      covered += symbol.end - symbol.begin;
      if (symbol.id >= 0) {
        last_was_unknown_ = false;
        emit(symbol.id, spans_ ? source_span(position + symbol.begin, position + symbol.end) : ByteSpan{});
      } else {
        regular &= emit_without_token(piece.substr(symbol.begin, symbol.end - symbol.begin), position + symbol.begin);
      }
    }
    return regular && covered == piece.size();
  }

  void add_bytes(std::string_view piece) {
    for (uint32_t i = 0; i < piece.size(); ++i) {
      const int32_t id = parts_.byte_tokens[static_cast<uint8_t>(piece[i])];
      if (id >= 0 || parts_.unknown >= 0) scratch_.symbols.push_back({i, i + 1, id});
      else ++unencodable_bytes_;
    }
  }

  void add_characters(std::string_view piece) {
    for (uint32_t i = 0; i < piece.size();) {
      const size_t valid = utf8_length(piece.substr(i));
      const auto length = static_cast<uint32_t>(valid == 0 ? 1 : valid);
      scratch_.symbols.push_back({i, i + length, parts_.vocabulary.find(piece.substr(i, length))});
      i += length;
    }
  }

  // A character or byte that is no token: its bytes as byte tokens, else the unknown token, else nothing. True for byte tokens.
  bool emit_without_token(std::string_view text, size_t position) {
    const auto has_token = [&](char byte) { return parts_.byte_tokens[static_cast<uint8_t>(byte)] >= 0; };
    if (!parts_.byte_level && std::all_of(text.begin(), text.end(), has_token)) {
      last_was_unknown_ = false;
      for (size_t i = 0; i < text.size(); ++i) {
        emit(parts_.byte_tokens[static_cast<uint8_t>(text[i])],
             spans_ ? source_span(position + i, position + i + 1) : ByteSpan{});
      }
      return true;
    }
    if (parts_.unknown < 0) {
      unencodable_bytes_ += static_cast<int64_t>(text.size());
      return false;
    }
    const ByteSpan span = source_span(position, position + text.size());
    if (!(parts_.fuse_unknown && last_was_unknown_)) emit(parts_.unknown, span);
    else if (spans_) spans_->back().end = span.end;
    last_was_unknown_ = true;
    return false;
  }

  const BpeTokenizer &tokenizer_;
  const TokenizerParts &parts_;
  Scratch &scratch_;
  EncodeOptions options_;
  std::vector<int32_t> &ids_;
  std::vector<ByteSpan> *spans_;
  size_t base_ = 0;  // where the segment begins in the text
  bool last_was_unknown_ = false;
  int64_t unencodable_bytes_ = 0;
};

BpeTokenizer::BpeTokenizer(TokenizerParts parts) : parts_(std::move(parts)) {
  for (const AddedToken &token : parts_.added) {
    if (token.text.size() > kMaxAddedToken) {
      fail(Code::format, parts_.source, ": added token ", token.id, " has ", token.text.size(), " bytes, at most ",
           kMaxAddedToken);
    }
    added_ids_.emplace(token.text, token.id);
    if (!token.normalized) {
      raw_.add(token);
      continue;
    }
    NormalizedText normalized;
    parts_.normalizer.apply(token.text, true, false, normalized);
    AddedToken matched = token;
    matched.text = normalized.text;
    normalized_.add(std::move(matched));
  }
  raw_.build();
  normalized_.build();
  bos_ = parts_.bos;
  eos_ = parts_.eos;
  adds_bos_ = !parts_.before.empty();
  adds_eos_ = !parts_.after.empty();
  strips_leading_space_ = parts_.strips_leading_space;
  chat_template_ = std::move(parts_.chat_template);
  collect_end_tokens();
  if (!parts_.byte_level) collect_adjacent_bytes();
  free_scratch_.reserve(64);
}

BpeTokenizer::~BpeTokenizer() = default;

void BpeTokenizer::collect_end_tokens() {
  end_tokens_ = parts_.end_tokens;
  if (eos_ >= 0) end_tokens_.push_back(eos_);
  for (const AddedToken &token : parts_.added) {
    if (token.control && is_end_token_text(token.text)) end_tokens_.push_back(token.id);
  }
  std::sort(end_tokens_.begin(), end_tokens_.end());
  end_tokens_.erase(std::unique(end_tokens_.begin(), end_tokens_.end()), end_tokens_.end());
}

void BpeTokenizer::collect_adjacent_bytes() {
  std::vector<bool> made(static_cast<size_t>(parts_.vocabulary.size()));
  parts_.merges.each_result([&](int32_t id) { made[static_cast<size_t>(id)] = true; });
  for (int32_t id = 0; id < parts_.vocabulary.size(); ++id) {
    if (!made[static_cast<size_t>(id)]) continue;
    const std::string_view text = parts_.vocabulary.bytes(id);
    for (size_t i = 1; i < text.size(); ++i)
      adjacent_.set(static_cast<size_t>(static_cast<uint8_t>(text[i - 1]) << 8 | static_cast<uint8_t>(text[i])));
  }
}

bool BpeTokenizer::may_cut(char before, char after) const {
  if ((after & 0xC0) == 0x80) return false;  // inside a character
  if (after == ' ' && parts_.split_at_spaces) return true;
  return !adjacent_.test(static_cast<uint8_t>(before) << 8 | static_cast<uint8_t>(after));
}

std::vector<int32_t> BpeTokenizer::encode(std::string_view text, EncodeOptions options) const {
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 3 + 8);
  Borrowed scratch(*this);
  Run(*this, *scratch, options, ids, nullptr).encode(text);
  return ids;
}

Encoding BpeTokenizer::encode_with_spans(std::string_view text, EncodeOptions options) const {
  Encoding encoding;
  Borrowed scratch(*this);
  Run run(*this, *scratch, options, encoding.ids, &encoding.spans);
  run.encode(text);
  encoding.unencodable_bytes = run.unencodable_bytes();
  return encoding;
}

std::string_view BpeTokenizer::bytes(int32_t id) const {
  if (id < 0 || id >= size()) fail(Code::invalid, "token id ", id, " is outside of the vocabulary of ", size());
  return parts_.vocabulary.bytes(id);
}

bool BpeTokenizer::is_control(int32_t id) const {
  return id >= 0 && id < size() && parts_.vocabulary.kind(id) == TokenKind::control;
}

std::string BpeTokenizer::decode(const std::vector<int32_t> &ids, bool skip_control) const {
  std::string out;
  for (const int32_t id : ids) {
    if (!(skip_control && is_control(id))) out += bytes(id);
  }
  if (strips_leading_space_ && !out.empty() && out.front() == ' ') out.erase(0, 1);
  return out;
}

int32_t BpeTokenizer::find(std::string_view text) const {
  const auto added = added_ids_.find(text);
  return added != added_ids_.end() ? added->second : parts_.vocabulary.find(text);
}

bool bytes_of_spelling(std::string_view spelling, std::string &bytes) {
  static const auto table = [] {
    std::array<int16_t, 0x144> byte_of{};
    byte_of.fill(-1);
    int16_t next = 0x100;
    for (int16_t b = 0; b < 256; ++b) {
      const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      byte_of[static_cast<size_t>(printable ? b : next++)] = b;
    }
    return byte_of;
  }();
  bytes.clear();
  for (size_t i = 0; i < spelling.size();) {
    const size_t length = utf8_length(spelling.substr(i));
    const uint32_t c = length == 0 ? 0x144 : unicode::decode(spelling.data() + i, length);
    if (c >= table.size() || table[c] < 0) return false;
    bytes += static_cast<char>(table[c]);
    i += length;
  }
  return true;
}

bool is_end_token_text(std::string_view text) {
  for (const std::string_view end :
       {"<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<|end_of_text|>", "<end_of_turn>", "<|return|>"}) {
    if (text == end) return true;
  }
  return false;
}

}  // namespace moe
