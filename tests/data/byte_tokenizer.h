// A tokenizer whose ids can be read off a text: one token a byte, but "\n " is one token, and two control tokens.
#pragma once
#include <string>

#include "base/error.h"
#include "text/tokenizer.h"

namespace moe::test {

class ByteTokenizer : public Tokenizer {
 public:
  static constexpr int32_t kEos = 256, kBos = 257, kNewlineSpace = 258, kStart = 259, kEnd = 260;

  explicit ByteTokenizer(bool with_bos = false) {
    bos_ = kBos;
    eos_ = kEos;
    adds_bos_ = with_bos;
    for (int i = 0; i < 256; i++) texts_.push_back(std::string(1, static_cast<char>(i)));
    for (const char *text : {"<eos>", "<bos>", "\n ", "<|im_start|>", "<|im_end|>"}) texts_.push_back(text);
  }
  std::vector<int32_t> encode(std::string_view text, EncodeOptions options) const override {
    return encode_with_spans(text, options).ids;
  }
  Encoding encode_with_spans(std::string_view text, EncodeOptions options) const override {
    Encoding result;
    if (options.add_special && adds_bos_) put(result, kBos, {0, 0});
    for (size_t at = 0; at < text.size();) {
      int32_t id = static_cast<unsigned char>(text[at]);
      if (text.substr(at, 2) == "\n ") id = kNewlineSpace;
      for (const int32_t control : {kEos, kBos, kStart, kEnd})
        if (options.parse_special && text.substr(at).starts_with(bytes(control)) && !is_literal(at, options)) id = control;
      put(result, id, {at, at + bytes(id).size()});
      at += bytes(id).size();
    }
    return result;
  }
  std::string_view bytes(int32_t id) const override { return texts_.at(static_cast<size_t>(id)); }
  bool is_control(int32_t id) const override { return id >= kEos && id != kNewlineSpace; }
  int64_t size() const override { return static_cast<int64_t>(texts_.size()); }
  std::string decode(const std::vector<int32_t> &ids, bool skip_control) const override {
    std::string result;
    for (const int32_t id : ids)
      if (!skip_control || !is_control(id)) result += bytes(id);
    return result;
  }
  int32_t find(std::string_view text) const override {
    for (size_t i = 0; i < texts_.size(); i++)
      if (texts_[i] == text) return static_cast<int32_t>(i);
    return -1;
  }

 private:
  static bool is_literal(size_t at, const EncodeOptions &options) {
    for (const ByteSpan &span : options.literal)
      if (at >= span.begin && at < span.end) return true;
    return false;
  }
  static void put(Encoding &result, int32_t id, ByteSpan span) {
    result.ids.push_back(id);
    result.spans.push_back(span);
  }
  std::vector<std::string> texts_;
};

}  // namespace moe::test
