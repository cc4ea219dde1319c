#include "formats/parquet_thrift.h"

#include <limits>

#include "base/error.h"

namespace moe {

void ThriftReader::refuse(const char *what) const { fail(Code::format, where_, ": ", what, " at its byte ", at_); }

void ThriftReader::enter() {
  if (++depth_ > kMaxDepth) refuse("structures are nested too deep");
}

void ThriftReader::expect(ThriftType found, ThriftType expected) const {
  if (found != expected) refuse("a field of another type than expected");
}

uint8_t ThriftReader::byte() {
  if (at_ == bytes_.size()) refuse("it ends inside a value");
  return static_cast<uint8_t>(bytes_[at_++]);
}

uint64_t ThriftReader::varint() {
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    const uint8_t part = byte();
    if (shift == 63 && part > 1) break;
    value |= static_cast<uint64_t>(part & 0x7F) << shift;
    if (part < 0x80) return value;
  }
  refuse("an integer of more than 64 bits");
}

int64_t ThriftReader::zigzag() {
  const uint64_t value = varint();
  return static_cast<int64_t>(value >> 1 ^ (0 - (value & 1)));
}

ThriftType ThriftReader::type_of(unsigned nibble) const {
  if (nibble > static_cast<unsigned>(ThriftType::structure)) refuse("an unknown type");
  return static_cast<ThriftType>(nibble);
}

ThriftType ThriftReader::field(int16_t &id) {
  const uint8_t head = byte();
  const ThriftType type = type_of(head & 15);
  if (type == ThriftType::stop) return type;
  const int64_t next = head >> 4 ? id + (head >> 4) : zigzag();
  if (next < 0 || next > std::numeric_limits<int16_t>::max()) refuse("a field id out of range");
  id = static_cast<int16_t>(next);
  return type;
}

uint64_t ThriftReader::list_head(ThriftType type, ThriftType &items) {
  if (type != ThriftType::set) expect(type, ThriftType::list);
  const uint8_t head = byte();
  items = type_of(head & 15);
  const uint64_t count = head >> 4 == 15 ? varint() : head >> 4;
  if (count > remaining()) refuse("a list longer than what remains");  // an element has a byte at least
  return count;
}

bool ThriftReader::boolean(ThriftType type) {
  if (type != ThriftType::no) expect(type, ThriftType::yes);
  return type == ThriftType::yes;
}

int64_t ThriftReader::integer(ThriftType type) {
  if (type == ThriftType::i8) return static_cast<int8_t>(byte());
  if (type != ThriftType::i16 && type != ThriftType::i32) expect(type, ThriftType::i64);
  return zigzag();
}

int32_t ThriftReader::integer_32(ThriftType type) {
  const int64_t value = integer(type);
  if (value != static_cast<int32_t>(value)) refuse("an integer of more than 32 bits");
  return static_cast<int32_t>(value);
}

std::string_view ThriftReader::binary(ThriftType type) {
  expect(type, ThriftType::binary);
  const uint64_t length = varint();
  if (length > remaining()) refuse("a text longer than what remains");
  const std::string_view value = bytes_.substr(at_, length);
  at_ += length;
  return value;
}

void ThriftReader::skip_item(ThriftType type) {
  if (type == ThriftType::yes || type == ThriftType::no) byte();
  else skip(type);
}

void ThriftReader::skip(ThriftType type) {
  switch (type) {
    case ThriftType::stop: refuse("an element without a type");
    case ThriftType::yes:
    case ThriftType::no: return;
    case ThriftType::i8:
    case ThriftType::i16:
    case ThriftType::i32:
    case ThriftType::i64: integer(type); return;
    case ThriftType::f64:
      for (int i = 0; i < 8; ++i) byte();
      return;
    case ThriftType::binary: binary(type); return;
    case ThriftType::list:
    case ThriftType::set:
      enter();
      list(type, [&](ThriftType item) { skip_item(item); });
      --depth_;
      return;
    case ThriftType::map: {
      enter();
      const uint64_t count = varint();
      if (count > remaining()) refuse("a map longer than what remains");
      const uint8_t types = count > 0 ? byte() : 0;
      for (uint64_t i = 0; i < count; ++i) skip_item(type_of(types >> 4)), skip_item(type_of(types & 15));
      --depth_;
      return;
    }
    case ThriftType::structure: structure([&](int16_t, ThriftType field) { skip(field); }); return;
  }
}

}  // namespace moe
