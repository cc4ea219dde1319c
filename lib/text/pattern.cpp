#include "text/pattern.h"

#include "base/error.h"

#if MOE_HAVE_PCRE2
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#endif

namespace moe {

#if MOE_HAVE_PCRE2

namespace {
constexpr size_t kMaxPattern = 1 << 16;
constexpr uint32_t kMatchLimit = 10'000'000, kDepthLimit = 10'000;

struct Release {
  void operator()(pcre2_code *code) const { pcre2_code_free(code); }
  void operator()(pcre2_match_context *context) const { pcre2_match_context_free(context); }
  void operator()(pcre2_match_data *data) const { pcre2_match_data_free(data); }
};

std::string message_of(int code) {
  PCRE2_UCHAR buffer[256];
  pcre2_get_error_message(code, buffer, sizeof buffer);
  return reinterpret_cast<const char *>(buffer);
}
}  // namespace

struct Pattern::Compiled {
  std::string source;
  std::unique_ptr<pcre2_code, Release> code;
  std::unique_ptr<pcre2_match_context, Release> limits;
};

Pattern::Pattern(const std::string &expression, std::string_view source) : compiled_(std::make_unique<Compiled>()) {
  if (expression.size() > kMaxPattern)
    fail(Code::format, source, ": a pattern of ", expression.size(), " bytes, at most ", kMaxPattern);
  int problem = 0;
  PCRE2_SIZE offset = 0;
  compiled_->source = source;
  compiled_->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expression.data()), expression.size(),
                                      PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &problem, &offset, nullptr));
  if (!compiled_->code) fail(Code::format, source, ": pattern '", expression, "': ", message_of(problem), " at byte ", offset);
  pcre2_jit_compile(compiled_->code.get(), PCRE2_JIT_COMPLETE);  // without JIT the interpreter runs it
  compiled_->limits.reset(pcre2_match_context_create(nullptr));
  if (!compiled_->limits) fail(Code::no_memory, source, ": no memory for a pattern");
  pcre2_set_match_limit(compiled_->limits.get(), kMatchLimit);
  pcre2_set_depth_limit(compiled_->limits.get(), kDepthLimit);
}

void Pattern::find_all(std::string_view text, std::vector<ByteSpan> &matches) const {
  const std::unique_ptr<pcre2_match_data, Release> data(pcre2_match_data_create_from_pattern(compiled_->code.get(), nullptr));
  if (!data) fail(Code::no_memory, compiled_->source, ": no memory for a match");
  const auto match = [&](size_t from, uint32_t options) {
    return pcre2_match(compiled_->code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                       PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY | options, data.get(), compiled_->limits.get());
  };
  for (size_t from = 0; from < text.size();) {
    int found = match(from, 0);
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) found = match(from, PCRE2_NO_JIT);  // the interpreter has a larger stack
    if (found == PCRE2_ERROR_NOMATCH) return;
    if (found < 0)
      fail(Code::format, compiled_->source, ": a pattern failed on a text of ", text.size(), " bytes: ", message_of(found));
    const PCRE2_SIZE *offsets = pcre2_get_ovector_pointer(data.get());
    if (offsets[0] < from || offsets[1] <= offsets[0])
      fail(Code::format, compiled_->source, ": a pattern moves the start of its match");
    matches.push_back({offsets[0], offsets[1]});
    from = offsets[1];
  }
}

#else

struct Pattern::Compiled {};

Pattern::Pattern(const std::string &expression, std::string_view source) {
  fail(Code::unsupported, source, ": pattern '", expression, "' needs PCRE2; this build has no PCRE2");
}
void Pattern::find_all(std::string_view, std::vector<ByteSpan> &) const {}

#endif

Pattern::~Pattern() = default;

}  // namespace moe
