// Thrift's compact protocol, as Parquet uses it for its footer and page headers (thrift-compact-protocol.md of Apache Thrift):
//
//   structure   fields, each one byte (id difference << 4 | type), after difference 0 the id as zigzag varint, then the value;
//               a byte 0 ends it. A boolean field has its value in the type
//   list, set   one byte (count << 4 | type of the elements), count 15 is followed by the count as varint; elements
//   map         count as varint, when not 0 one byte (type of keys << 4 | type of values); pairs
//   binary      length as varint, bytes
//   integers    zigzag varint; i8 one byte; double eight bytes
//
// Every length and count is checked against the bytes that remain, the depth is limited. Fields that a reader does not know are
// skipped, so that files of later versions stay readable.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace moe {

enum class ThriftType : uint8_t { stop, yes, no, i8, i16, i32, i64, f64, binary, list, set, map, structure };

class ThriftReader {
 public:
  // `where` opens every error message: "<path>: footer".
  ThriftReader(std::string_view bytes, std::string_view where) : bytes_(bytes), where_(where) {}

  size_t position() const { return at_; }

  // Calls visit(id, type) for each field, which must read or skip its value.
  template <class Visit>
  void structure(Visit visit) {
    enter();
    int16_t id = 0;
    for (ThriftType type; (type = field(id)) != ThriftType::stop;) visit(id, type);
    --depth_;
  }
  // A value that has to be a structure.
  template <class Visit>
  void structure(ThriftType type, Visit visit) {
    expect(type, ThriftType::structure);
    structure(visit);
  }
  // Calls item(type) for each element, which must read or skip it.
  template <class Item>
  void list(ThriftType type, Item item) {
    ThriftType items;
    for (uint64_t left = list_head(type, items); left > 0; --left) item(items);
  }

  bool boolean(ThriftType type);
  int64_t integer(ThriftType type);  // of any width
  int32_t integer_32(ThriftType type);
  std::string_view binary(ThriftType type);
  void skip(ThriftType type);

 private:
  static constexpr int kMaxDepth = 32;

  [[noreturn]] void refuse(const char *what) const;
  void enter();
  void expect(ThriftType found, ThriftType expected) const;
  ThriftType field(int16_t &id);
  uint64_t list_head(ThriftType type, ThriftType &items);
  ThriftType type_of(unsigned nibble) const;
  size_t remaining() const { return bytes_.size() - at_; }
  uint8_t byte();
  uint64_t varint();
  int64_t zigzag();
  void skip_item(ThriftType type);  // an element of a list or map, where a boolean has a byte

  std::string_view bytes_, where_;
  size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace moe
