// A range of bytes of a text.
#pragma once
#include <cstddef>

namespace moe {

struct ByteSpan {
  size_t begin = 0, end = 0;  // [begin, end)
  bool operator==(const ByteSpan &) const = default;
};

}  // namespace moe
