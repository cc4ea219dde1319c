// Patterns over module paths ("model.layers.0.self_attn.q_proj") as PEFT writes them: Python regular expressions, most often
// a plain name. A plain pattern (letters, digits, '_', '-', and '.', which stands for any character) is matched here; any
// other needs PCRE2, with limits on its steps, depth and memory, and is Code::unsupported in a build without it.
#pragma once
#include <string_view>

namespace moe {

enum class PatternPlace {
  whole,      // ^(pattern)$            re.fullmatch
  end,        // ^(.*\.)?(pattern)$     a suffix that begins after a dot, or everything
  after_dot,  // ^.*\.(pattern)$        a suffix that begins after a dot
};

// `source` (file and key) opens the message when the pattern is malformed, too costly or not supported.
bool pattern_matches(std::string_view pattern, PatternPlace place, std::string_view path, std::string_view source);

}  // namespace moe
