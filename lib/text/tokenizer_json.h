// The parts of a Hugging Face tokenizer.json besides its model: normalizer, pre_tokenizer, post_processor, decoder.
// What is not supported is refused by its type name.
#pragma once
#include <string_view>

#include "base/json.h"
#include "text/bpe_tokenizer.h"

namespace moe {

// Whether the pre-tokenizer makes byte-level text.
bool uses_byte_level(const Json &pre_tokenizer);
void read_normalizer(const Json &json, TokenizerParts &parts);
void read_pre_tokenizer(const Json &json, TokenizerParts &parts);
void read_post_processor(const Json &json, TokenizerParts &parts);
void read_decoder(const Json &json, TokenizerParts &parts);

// The text as a JSON string: what comes from a file may hold line breaks, and messages have one line.
std::string quoted(std::string_view text);
// U+2581 to space.
void append_with_spaces(std::string_view text, std::string &out);
std::string with_spaces(std::string_view text);

}  // namespace moe
