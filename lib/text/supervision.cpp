#include "text/supervision.h"

namespace moe {

SupervisedTokens encode_supervised(const Tokenizer &tokenizer, std::string_view text, const std::vector<ByteSpan> &supervised,
                                   const std::vector<ByteSpan> &literal) {
  Encoding encoding = tokenizer.encode_with_spans(text, {.add_special = false, .parse_special = true, .literal = literal});
  SupervisedTokens out;
  out.mask.resize(encoding.ids.size());
  size_t first = 0;  // ranges before this one have ended
  for (size_t i = 0; i < encoding.ids.size(); ++i) {
    const ByteSpan token = encoding.spans[i];
    while (first < supervised.size() && supervised[first].end <= token.begin) ++first;
    bool straddles = false;
    for (size_t r = first; r < supervised.size() && supervised[r].begin < token.end; ++r) {
      const ByteSpan range = supervised[r];
      if (token.end <= range.begin || token.begin >= range.end) continue;
      out.mask[i] = 1;
      straddles |= token.begin < range.begin || token.end > range.end;
    }
    if (straddles) out.straddling.push_back(static_cast<int32_t>(i));
  }
  out.ids = std::move(encoding.ids);
  out.unencodable_bytes = encoding.unencodable_bytes;
  return out;
}

}  // namespace moe
