#include "base/error.h"
#include "text/tokenizer_json.h"

namespace moe {
namespace {

constexpr std::string_view kBlock = "\xE2\x96\x81";  // U+2581, SentencePiece's spelling of a space

[[noreturn]] void refuse(const TokenizerParts &parts, std::string_view part, std::string_view what) {
  fail(Code::unsupported, parts.source, ": ", part, " ", quoted(what), " is not supported");
}

// The elements of a Sequence, or the value itself; nothing for null.
std::vector<const Json *> sequence(const Json &json, std::string_view list, const std::string &source) {
  if (json.is_null()) return {};
  if (json.string_at("type", source) != "Sequence") return {&json};
  std::vector<const Json *> out;
  for (const Json &item : json.at(list, source).items()) {
    for (const Json *inner : sequence(item, list, source)) out.push_back(inner);
  }
  return out;
}

std::string literal_of(const Json &pattern, const TokenizerParts &parts, std::string_view part) {
  if (const Json *text = pattern.find("String")) return text->string();
  refuse(parts, part, "Regex pattern");
}

PreSplitter::Keep behavior_of(const Json &json, const TokenizerParts &parts) {
  const std::string name = json.string_or("behavior", "Isolated", parts.source);
  if (name == "Isolated") return PreSplitter::Keep::isolated;
  if (name == "Removed") return PreSplitter::Keep::removed;
  if (name == "MergedWithPrevious") return PreSplitter::Keep::with_previous;
  if (name == "MergedWithNext") return PreSplitter::Keep::with_next;
  if (name == "Contiguous") return PreSplitter::Keep::contiguous;
  refuse(parts, "pre_tokenizer behavior", name);
}

struct KnownPattern {
  std::string_view text;
  Split split;
};
constexpr KnownPattern kKnownPatterns[] = {
    {R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)", Split::gpt2},
    {R"('(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)", Split::gpt2},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     Split::llama3},
    {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     Split::qwen2},
    {R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
     R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
     R"(\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     Split::o200k},
};

void add_split_step(const Json &json, TokenizerParts &parts) {
  const PreSplitter::Keep keep = behavior_of(json, parts);
  const bool invert = json.bool_or("invert", false, parts.source);
  const Json &pattern = json.at("pattern", parts.source);
  const Json *regex = pattern.find("Regex");
  if (!regex) {
    parts.splitter.add_literal(literal_of(pattern, parts, "pre_tokenizer Split"), keep, invert);
    return;
  }
  // These patterns cover every text, so "keep the matches, remove the rest" is the same as isolating the matches.
  const bool all_pieces = (keep == PreSplitter::Keep::isolated && !invert) || (keep == PreSplitter::Keep::removed && invert);
  for (const KnownPattern &known : kKnownPatterns) {
    if (all_pieces && regex->string() == known.text) return parts.splitter.add_split(known.split);
  }
  parts.splitter.add_pattern(regex->string(), keep, invert, parts.source);
}

void add_byte_level_step(const Json &json, TokenizerParts &parts) {
  if (json.bool_or("add_prefix_space", true, parts.source)) {
    if (!parts.splitter.empty()) refuse(parts, "pre_tokenizer", "ByteLevel with add_prefix_space after another step");
    parts.normalizer.set_prefix(PrefixSpace::unless_space, false);
  }
  if (json.bool_or("use_regex", true, parts.source)) parts.splitter.add_split(Split::gpt2);
}

void read_metaspace(const Json &json, TokenizerParts &parts) {
  if (json.string_or("replacement", std::string(kBlock), parts.source) != kBlock) {
    refuse(parts, "pre_tokenizer Metaspace replacement", json.string_or("replacement", "", parts.source));
  }
  const std::string old_form = json.bool_or("add_prefix_space", true, parts.source) ? "always" : "never";
  const std::string scheme = json.string_or("prepend_scheme", old_form, parts.source);
  if (scheme != "always" && scheme != "first" && scheme != "never")
    refuse(parts, "pre_tokenizer Metaspace prepend_scheme", scheme);
  if (scheme != "never") parts.normalizer.set_prefix(PrefixSpace::unless_space, scheme == "first");
  parts.normalizer.set_block_is_space();
  parts.split_at_spaces = json.bool_or("split", true, parts.source);
}

// A SentencePiece-style pre-tokenizer: none, Metaspace, or Gemma's split at spaces, of which the normalizer has left none.
void read_sentence_piece_step(const Json &json, const std::string &type, TokenizerParts &parts) {
  if (type == "Metaspace") return read_metaspace(json, parts);
  if (type == "Split") {
    const Json *text = json.at("pattern", parts.source).find("String");
    if (text && text->string() == " ") return;
  }
  refuse(parts, "pre_tokenizer", type);
}

}  // namespace

std::string quoted(std::string_view text) { return Json(text).dump(); }

void append_with_spaces(std::string_view text, std::string &out) {
  for (size_t at = 0; at < text.size(); ++at) {
    const bool block = text[at] == kBlock[0] && text.substr(at, kBlock.size()) == kBlock;
    out += block ? ' ' : text[at];
    if (block) at += kBlock.size() - 1;
  }
}

std::string with_spaces(std::string_view text) {
  std::string out;
  append_with_spaces(text, out);
  return out;
}

bool uses_byte_level(const Json &pre_tokenizer) {
  if (pre_tokenizer.is_null()) return false;
  for (const Json *step : sequence(pre_tokenizer, "pretokenizers", "pre_tokenizer")) {
    if (step->string_at("type", "pre_tokenizer") == "ByteLevel") return true;
  }
  return false;
}

void read_normalizer(const Json &json, TokenizerParts &parts) {
  for (const Json *step : sequence(json, "normalizers", parts.source)) {
    const std::string type = step->string_at("type", parts.source);
    if (type == "NFC") parts.normalizer.add_form(NormalForm::nfc, parts.source);
    else if (type == "NFD") parts.normalizer.add_form(NormalForm::nfd, parts.source);
    else if (type == "NFKC") parts.normalizer.add_form(NormalForm::nfkc, parts.source);
    else if (type == "NFKD") parts.normalizer.add_form(NormalForm::nfkd, parts.source);
    else if (type == "Prepend" && !parts.byte_level && step->string_at("prepend", parts.source) == kBlock) {
      parts.normalizer.set_prefix(PrefixSpace::always, false);
    } else if (type == "Replace") {
      const std::string from = literal_of(step->at("pattern", parts.source), parts, "normalizer Replace");
      const std::string to = step->string_at("content", parts.source);
      if (from == " " && to == kBlock && !parts.byte_level) parts.normalizer.set_block_is_space();
      else parts.normalizer.add_replacement(from, parts.byte_level ? to : with_spaces(to));
    } else {
      refuse(parts, "normalizer", type);
    }
  }
}

void read_pre_tokenizer(const Json &json, TokenizerParts &parts) {
  for (const Json *step : sequence(json, "pretokenizers", parts.source)) {
    const std::string type = step->string_at("type", parts.source);
    if (!parts.byte_level) {
      read_sentence_piece_step(*step, type, parts);
    } else if (type == "ByteLevel") {
      add_byte_level_step(*step, parts);
    } else if (type == "Split") {
      add_split_step(*step, parts);
    } else if (type == "Digits") {
      const bool each = step->bool_or("individual_digits", false, parts.source);
      parts.splitter.add_charset(PreSplitter::Charset::number,
                                 each ? PreSplitter::Keep::isolated : PreSplitter::Keep::contiguous);
    } else if (type == "Punctuation") {
      parts.splitter.add_charset(PreSplitter::Charset::punctuation, behavior_of(*step, parts));
    } else {
      refuse(parts, "pre_tokenizer", type);
    }
  }
}

void read_post_processor(const Json &json, TokenizerParts &parts) {
  for (const Json *step : sequence(json, "processors", parts.source)) {
    const std::string type = step->string_at("type", parts.source);
    if (type == "ByteLevel") continue;  // concerns offsets only
    if (type != "TemplateProcessing") refuse(parts, "post_processor", type);
    std::vector<int32_t> *around = &parts.before;
    for (const Json &item : step->at("single", parts.source).items()) {
      const Json *special = item.find("SpecialToken");
      if (!special) {
        around = &parts.after;
        continue;
      }
      const Json &token = step->at("special_tokens", parts.source).at(special->string_at("id", parts.source), parts.source);
      for (const Json &id : token.at("ids", parts.source).items()) {
        if (!parts.vocabulary.has(id.integer()))
          fail(Code::format, parts.source, ": post_processor: no token has the id ", id.integer());
        around->push_back(static_cast<int32_t>(id.integer()));
      }
    }
  }
}

void read_decoder(const Json &json, TokenizerParts &parts) {
  for (const Json *step : sequence(json, "decoders", parts.source)) {
    const std::string type = step->string_at("type", parts.source);
    if (type == "Strip") parts.strips_leading_space |= step->integer_or("start", 0, parts.source) > 0;
    if (type == "Metaspace") {
      const std::string old_form = step->bool_or("add_prefix_space", true, parts.source) ? "always" : "never";
      parts.strips_leading_space |= step->string_or("prepend_scheme", old_form, parts.source) != "never";
    }
  }
}

}  // namespace moe
