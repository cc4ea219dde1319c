// What every reading of a config into DecoderConfig is checked against, whatever file it came from.
#pragma once
#include <string>
#include <string_view>

#include "model/config.h"

namespace moe {

inline constexpr int64_t kMaxLayers = 1024, kMaxVocabulary = int64_t{1} << 24, kMaxHidden = int64_t{1} << 18,
                         kMaxIntermediate = int64_t{1} << 21, kMaxHeads = 4096, kMaxHeadDimension = 4096,
                         kMaxPositions = (int64_t{1} << 31) - 1;

// Code::format "<source>: key 'k': expected 1 to high, found v". Returns the value.
int64_t checked_size(std::string_view source, std::string_view key, int64_t value, int64_t high);
// Relations between the sizes: an even head dimension, query heads a multiple of key heads, widths within their limits, a
// positive epsilon and finite scales.
void check_config(const DecoderConfig &config, const std::string &source);
[[noreturn]] void refuse_family(const std::string &source, std::string_view key, std::string_view name);

}  // namespace moe
