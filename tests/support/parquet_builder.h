// Writes small Parquet files, well-formed ones and others: what the reader has to meet and no writer at hand makes.
#pragma once
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "formats/parquet_metadata.h"

namespace moe::test {

// Thrift's compact protocol.
class ThriftWriter {
 public:
  using Body = std::function<void(ThriftWriter &)>;

  ThriftWriter &i32(int id, int64_t value) { return field(id, 5), zigzag(value); }
  ThriftWriter &i64(int id, int64_t value) { return field(id, 6), zigzag(value); }
  ThriftWriter &flag(int id, bool value) { return field(id, value ? 1 : 2), *this; }
  ThriftWriter &binary(int id, std::string_view value) { return field(id, 8), varint(value.size()), bytes += value, *this; }
  ThriftWriter &structure(int id, const Body &body) { return field(id, 12), nested(body); }
  ThriftWriter &structures(int id, const std::vector<Body> &bodies) {
    list_head(id, bodies.size(), 12);
    for (const Body &body : bodies) nested(body);
    return *this;
  }
  ThriftWriter &numbers(int id, const std::vector<int64_t> &values) {
    list_head(id, values.size(), 5);
    for (const int64_t value : values) zigzag(value);
    return *this;
  }
  ThriftWriter &nested(const Body &body) {
    const int outer = std::exchange(last_, 0);
    body(*this);
    bytes += '\0';
    last_ = outer;
    return *this;
  }
  ThriftWriter &varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
    bytes += static_cast<char>(value);
    return *this;
  }
  ThriftWriter &zigzag(int64_t value) { return varint(static_cast<uint64_t>(value) << 1 ^ static_cast<uint64_t>(value >> 63)); }

  std::string bytes;

 private:
  void field(int id, int type) {
    bytes += static_cast<char>((id - last_) << 4 | type);
    last_ = id;
  }
  void list_head(int id, size_t count, int type) {
    field(id, 9);
    bytes += static_cast<char>(0xF0 | type);
    varint(count);
  }
  int last_ = 0;
};

template <class T>
std::string raw(T value) {
  return {reinterpret_cast<const char *>(&value), sizeof value};
}

// PLAIN byte arrays.
inline std::string plain_texts(const std::vector<std::string> &texts) {
  std::string out;
  for (const std::string &text : texts) out += raw(static_cast<uint32_t>(text.size())) + text;
  return out;
}
template <class T>
std::string plain(const std::vector<T> &values) {
  std::string out;
  for (const T &value : values) out += raw(value);
  return out;
}

// Levels of a v1 page: each value a run of one, behind the length.
inline std::string levels(const std::vector<uint8_t> &values) {
  std::string runs;
  for (const uint8_t value : values) runs += {'\x02', static_cast<char>(value)};
  return raw(static_cast<uint32_t>(runs.size())) + runs;
}

class ParquetBuilder {
 public:
  using Encoding = ParquetEncoding;
  enum Repetition { required, optional, repeated };
  struct Chunk {
    int values = 0;
    std::string pages;
    int codec = 0;
    int64_t uncompressed = -1;  // what the metadata says; -1: the size of the pages
    int64_t dictionary = -1;    // offset of the dictionary page within the chunk
    bool encrypted = false;
  };

  // Fields in depth-first order. `logical` is a structure of LogicalType, `converted` a ConvertedType.
  ParquetBuilder &value(const std::string &name, ParquetPhysical physical, Repetition repetition = required, int converted = -1,
                        int length = 0, ThriftWriter::Body logical = nullptr, int scale = 0, int precision = 0) {
    physicals_.push_back(physical);
    schema_.push_back([=](ThriftWriter &w) {
      w.i32(1, static_cast<int>(physical));
      if (length > 0) w.i32(2, length);
      w.i32(3, repetition).binary(4, name);
      if (converted >= 0) w.i32(6, converted);
      if (precision > 0) w.i32(7, scale).i32(8, precision);
      if (logical) w.structure(10, logical);
    });
    return *this;
  }
  ParquetBuilder &text(const std::string &name, Repetition repetition = required) {
    return value(name, ParquetPhysical::byte_array, repetition, 0);
  }
  ParquetBuilder &group(const std::string &name, int children, Repetition repetition = required, int converted = -1) {
    schema_.push_back([=](ThriftWriter &w) {
      w.i32(3, repetition).binary(4, name).i32(5, children);
      if (converted >= 0) w.i32(6, converted);
    });
    return *this;
  }
  ParquetBuilder &children_of_root(int count) { return root_children_ = count, *this; }

  // `stored` is what the file holds, `size` its length before compression.
  static std::string page(int values, Encoding encoding, const std::string &stored, int64_t size = -1) {
    return header(0, stored, size,
                  [&](ThriftWriter &w) {
                    w.structure(
                        5, [&](ThriftWriter &d) { d.i32(1, values).i32(2, static_cast<int>(encoding)).i32(3, 3).i32(4, 3); });
                  }) +
           stored;
  }
  static std::string dictionary(int values, const std::string &stored) {
    return header(2, stored, -1, [&](ThriftWriter &w) { w.structure(7, [&](ThriftWriter &d) { d.i32(1, values).i32(2, 0); }); }) +
           stored;
  }
  static std::string header(int kind, const std::string &stored, int64_t size, const ThriftWriter::Body &details) {
    ThriftWriter w;
    w.nested([&](ThriftWriter &h) {
      h.i32(1, kind).i32(2, size < 0 ? static_cast<int64_t>(stored.size()) : size).i32(3, static_cast<int64_t>(stored.size()));
      details(h);
    });
    return w.bytes;
  }

  ParquetBuilder &row_group(int64_t rows, const std::vector<Chunk> &chunks) {
    std::vector<ThriftWriter::Body> columns;
    for (size_t i = 0; i < chunks.size(); ++i) {
      const Chunk chunk = chunks[i];
      const auto offset = static_cast<int64_t>(file_.size()), size = static_cast<int64_t>(chunk.pages.size());
      const ParquetPhysical physical = physicals_.at(i);
      file_ += chunk.pages;
      columns.push_back([=](ThriftWriter &c) {
        c.i64(2, offset).structure(3, [=](ThriftWriter &m) {
          m.i32(1, static_cast<int>(physical)).numbers(2, {0}).i32(4, chunk.codec).i64(5, chunk.values);
          m.i64(6, chunk.uncompressed < 0 ? size : chunk.uncompressed).i64(7, size).i64(9, offset);
          if (chunk.dictionary >= 0) m.i64(11, offset + chunk.dictionary);
        });
        if (chunk.encrypted) c.structure(8, [](ThriftWriter &e) { e.structure(1, [](ThriftWriter &) {}); });
      });
    }
    rows_ += rows;
    groups_.push_back([=](ThriftWriter &g) { g.structures(1, columns).i64(2, 0).i64(3, rows); });
    return *this;
  }

  std::string file() const {
    std::vector<ThriftWriter::Body> schema = schema_;
    const int children = root_children_ < 0 ? static_cast<int>(schema_.size()) : root_children_;
    schema.insert(schema.begin(), [=](ThriftWriter &w) { w.binary(4, "schema").i32(5, children); });
    ThriftWriter footer;
    footer.nested([&](ThriftWriter &w) { w.i32(1, 1).structures(2, schema).i64(3, rows_).structures(4, groups_); });
    return file_ + footer.bytes + raw(static_cast<uint32_t>(footer.bytes.size())) + "PAR1";
  }

 private:
  std::string file_ = "PAR1";
  std::vector<ParquetPhysical> physicals_;
  std::vector<ThriftWriter::Body> schema_, groups_;
  int root_children_ = -1;
  int64_t rows_ = 0;
};

}  // namespace moe::test
