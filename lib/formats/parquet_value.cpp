#include "formats/parquet_value.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "tensor/dequantize.h"

namespace moe {
namespace {

constexpr size_t kMaxDecimalBytes = 32;  // 76 digits

Json real(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
  return value;
}

Json counted(int64_t value, std::string type) { return Json::object({{"int", value}, {"arrow", std::move(type)}}); }

Json hex(std::string_view bytes) {
  std::string digits;
  digits.reserve(2 * bytes.size());
  for (const char c : bytes) {
    digits += "0123456789abcdef"[static_cast<uint8_t>(c) >> 4];
    digits += "0123456789abcdef"[c & 15];
  }
  return Json::object({{"hex", std::move(digits)}});
}

// A two's complement number, its most significant byte first, with `scale` digits behind the point.
Json decimal(std::string_view bytes, int32_t scale) {
  uint8_t magnitude[kMaxDecimalBytes] = {};
  const size_t size = bytes.size();
  std::copy_n(bytes.data(), size, magnitude);
  const bool negative = size > 0 && magnitude[0] >= 0x80;
  for (size_t i = size, carry = 1; negative && i-- > 0;) {
    carry += static_cast<uint8_t>(~magnitude[i]);
    magnitude[i] = static_cast<uint8_t>(carry);
    carry >>= 8;
  }
  std::string digits;  // the last first
  while (std::any_of(magnitude, magnitude + size, [](uint8_t byte) { return byte != 0; })) {
    unsigned rest = 0;
    for (size_t i = 0; i < size; ++i) {
      rest = rest << 8 | magnitude[i];
      magnitude[i] = static_cast<uint8_t>(rest / 10);
      rest %= 10;
    }
    digits += static_cast<char>('0' + rest);
  }
  const auto behind_point = static_cast<size_t>(scale);
  while (digits.size() <= behind_point) digits += '0';
  if (scale > 0) digits.insert(behind_point, ".");
  if (negative) digits += '-';
  std::reverse(digits.begin(), digits.end());
  return Json::object({{"decimal", std::move(digits)}});
}

Json decimal(uint64_t word, int32_t scale) {
  char bytes[sizeof word];
  for (size_t i = 0; i < sizeof word; ++i) bytes[i] = static_cast<char>(word >> 8 * (7 - i));
  return decimal({bytes, sizeof bytes}, scale);
}

// INT96: nanoseconds of the day, then the Julian day. Beyond the years 1677 to 2262 microseconds.
Json timestamp_96(std::string_view bytes) {
  constexpr int64_t kDayOf1970 = 2'440'588, kNanosecondsOfDay = int64_t{86'400} * 1'000'000'000;
  int64_t nanoseconds;
  uint32_t day;
  std::memcpy(&nanoseconds, bytes.data(), sizeof nanoseconds);
  std::memcpy(&day, bytes.data() + sizeof nanoseconds, sizeof day);
  int64_t whole;
  if (!__builtin_mul_overflow(day - kDayOf1970, kNanosecondsOfDay, &whole) &&
      !__builtin_add_overflow(whole, nanoseconds, &whole)) {
    return counted(whole, "timestamp[ns]");
  }
  return counted((day - kDayOf1970) * (kNanosecondsOfDay / 1000) + nanoseconds / 1000, "timestamp[us]");
}

}  // namespace

Json parquet_number(const ParquetField &field, uint64_t word) {
  switch (field.physical) {
    case ParquetPhysical::boolean: return word != 0;
    case ParquetPhysical::float32: return real(std::bit_cast<float>(static_cast<uint32_t>(word)));
    case ParquetPhysical::float64: return real(std::bit_cast<double>(word));
    default: break;
  }
  switch (field.annotation.logical) {
    case ParquetLogical::decimal: return decimal(word, field.annotation.scale);
    case ParquetLogical::date:
    case ParquetLogical::time:
    case ParquetLogical::timestamp: return counted(static_cast<int64_t>(word), field.type_text());
    case ParquetLogical::integer:
      if (field.annotation.is_signed) break;
      return field.physical == ParquetPhysical::int32 ? uint64_t{static_cast<uint32_t>(word)} : word;
    default: break;
  }
  return static_cast<int64_t>(word);
}

Json parquet_bytes(const ParquetField &field, std::string_view bytes, std::string_view where) {
  if (field.physical == ParquetPhysical::int96) return timestamp_96(bytes);
  if (field.annotation.logical == ParquetLogical::decimal) {
    if (bytes.size() > kMaxDecimalBytes) fail(Code::unsupported, where, ": a decimal number of ", bytes.size(), " bytes");
    return decimal(bytes, field.annotation.scale);
  }
  if (field.annotation.logical == ParquetLogical::float16) {
    uint16_t half;
    std::memcpy(&half, bytes.data(), sizeof half);
    return real(f16_to_float(half));
  }
  return hex(bytes);
}

}  // namespace moe
