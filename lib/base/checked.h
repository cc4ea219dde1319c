// Checked size arithmetic. Every size or offset that comes from a file goes through these.
#pragma once
#include <cstdint>
#include <string_view>

#include "base/error.h"

namespace moe {

inline uint64_t checked_add(uint64_t a, uint64_t b, std::string_view what) {
  uint64_t sum;
  if (__builtin_add_overflow(a, b, &sum)) fail(Code::format, what, ": the sum ", a, " + ", b, " overflows");
  return sum;
}

inline uint64_t checked_multiply(uint64_t a, uint64_t b, std::string_view what) {
  uint64_t product;
  if (__builtin_mul_overflow(a, b, &product)) fail(Code::format, what, ": the product ", a, " x ", b, " overflows");
  return product;
}

}  // namespace moe
