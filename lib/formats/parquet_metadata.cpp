#include "formats/parquet_metadata.h"

#include <algorithm>

#include "base/error.h"
#include "base/utf8.h"
#include "formats/parquet_thrift.h"

namespace moe {
namespace {

constexpr size_t kMaxSchemaElements = 1 << 16, kMaxRowGroups = 1 << 20;

// The parser of one file or page: the reader, and the words that open its errors.
struct Parser {
  ThriftReader thrift;
  std::string_view where;

  // A number that must not be negative.
  uint64_t natural(ThriftType type, const char *what) {
    const int64_t value = thrift.integer(type);
    if (value < 0) fail(Code::format, where, ": ", what, " is negative: ", value);
    return static_cast<uint64_t>(value);
  }
  uint32_t natural_32(ThriftType type, const char *what) {
    const int32_t value = thrift.integer_32(type);
    if (value < 0) fail(Code::format, where, ": ", what, " is negative: ", value);
    return static_cast<uint32_t>(value);
  }
  uint32_t below(ThriftType type, uint32_t limit, const char *what) {
    const int32_t value = thrift.integer_32(type);
    if (value < 0 || static_cast<uint32_t>(value) >= limit) fail(Code::format, where, ": ", what, " ", value, " does not exist");
    return static_cast<uint32_t>(value);
  }
  ParquetPhysical physical(ThriftType type) { return static_cast<ParquetPhysical>(below(type, 8, "the physical type")); }
  ParquetEncoding encoding(ThriftType type) { return static_cast<ParquetEncoding>(below(type, 10, "the encoding")); }

  void unit(ThriftType type, ParquetAnnotation &annotation) {
    thrift.structure(type, [&](int16_t id, ThriftType field) {
      if (id < 1 || id > 3) fail(Code::format, where, ": the unit of time ", id, " does not exist");
      annotation.unit = static_cast<ParquetUnit>(id - 1);
      thrift.skip(field);
    });
  }

  // The parameters of one logical type; the structures of the others are empty or of no use here.
  void parameters(ThriftType type, ParquetAnnotation &annotation) {
    thrift.structure(type, [&](int16_t id, ThriftType field) {
      const bool is_time = annotation.logical == ParquetLogical::time || annotation.logical == ParquetLogical::timestamp;
      if (annotation.logical == ParquetLogical::decimal && id == 1) annotation.scale = thrift.integer_32(field);
      else if (annotation.logical == ParquetLogical::decimal && id == 2) annotation.precision = thrift.integer_32(field);
      else if (is_time && id == 1) annotation.utc = thrift.boolean(field);
      else if (is_time && id == 2) unit(field, annotation);
      else if (annotation.logical == ParquetLogical::integer && id == 1) annotation.bit_width = thrift.integer_32(field);
      else if (annotation.logical == ParquetLogical::integer && id == 2) annotation.is_signed = thrift.boolean(field);
      else thrift.skip(field);
    });
  }

  ParquetAnnotation logical_type(ThriftType type) {
    using L = ParquetLogical;
    constexpr L kTypes[] = {L::none,      L::string, L::map,     L::list, L::enumeration, L::decimal, L::date, L::time,
                            L::timestamp, L::other,  L::integer, L::null, L::json,        L::bson,    L::uuid, L::float16};
    ParquetAnnotation annotation;
    thrift.structure(type, [&](int16_t id, ThriftType field) {
      annotation = {};
      annotation.logical = id >= 1 && static_cast<size_t>(id) < std::size(kTypes) ? kTypes[id] : L::other;
      parameters(field, annotation);
    });
    return annotation;
  }

  ParquetSchemaElement schema_element(ThriftType type);
  ParquetChunk chunk(ThriftType type);
  void chunk_metadata(ThriftType type, ParquetChunk &chunk);
  ParquetRowGroupInfo row_group(ThriftType type);
};

ParquetAnnotation converted_type(int32_t id, int32_t scale, int32_t precision) {
  using L = ParquetLogical;
  ParquetAnnotation annotation;
  switch (id) {
    case 0: annotation.logical = L::string; break;
    case 1:
    case 2: annotation.logical = L::map; break;
    case 3: annotation.logical = L::list; break;
    case 4: annotation.logical = L::enumeration; break;
    case 5: annotation = {L::decimal, scale, precision}; break;
    case 6: annotation.logical = L::date; break;
    case 7:
    case 8: annotation.logical = L::time, annotation.utc = true, annotation.unit = static_cast<ParquetUnit>(id - 7); break;
    case 9:
    case 10: annotation.logical = L::timestamp, annotation.utc = true, annotation.unit = static_cast<ParquetUnit>(id - 9); break;
    case 19: annotation.logical = L::json; break;
    case 20: annotation.logical = L::bson; break;
    case 21: annotation.logical = L::interval; break;
    default:
      annotation.logical = L::other;
      if (id >= 11 && id <= 18) {
        annotation.logical = L::integer, annotation.is_signed = id >= 15, annotation.bit_width = 8 << (id - 11) % 4;
      }
  }
  return annotation;
}

ParquetSchemaElement Parser::schema_element(ThriftType type) {
  ParquetSchemaElement element;
  std::optional<std::string_view> name;
  int32_t converted = -1, scale = 0, precision = 0;
  thrift.structure(type, [&](int16_t id, ThriftType field) {
    switch (id) {
      case 1: element.physical = physical(field); break;
      case 2: element.fixed_length = natural_32(field, "the length of a type"); break;
      case 3: {
        const uint32_t repetition = below(field, 3, "the repetition");
        element.optional = repetition == 1, element.repeated = repetition == 2;
        break;
      }
      case 4: name = thrift.binary(field); break;
      case 5: element.children = natural_32(field, "the number of children"); break;
      case 6: converted = thrift.integer_32(field); break;
      case 7: scale = thrift.integer_32(field); break;
      case 8: precision = thrift.integer_32(field); break;
      case 10: element.annotation = logical_type(field); break;
      default: thrift.skip(field);
    }
  });
  if (!name || !is_utf8(*name)) fail(Code::format, where, ": a field of the schema has no name, or one that is not UTF-8");
  element.name = *name;
  const bool is_unknown =
      element.annotation.logical == ParquetLogical::none || element.annotation.logical == ParquetLogical::other;
  if (is_unknown && converted >= 0) {
    element.annotation = converted_type(converted, scale, precision);
  }
  return element;
}

void Parser::chunk_metadata(ThriftType type, ParquetChunk &chunk) {
  uint64_t data_offset = 0, dictionary_offset = 0;
  unsigned seen = 0;
  thrift.structure(type, [&](int16_t id, ThriftType field) {
    if (id >= 1 && id <= 9) seen |= 1u << id;
    switch (id) {
      case 1: chunk.physical = physical(field); break;
      case 2: thrift.list(field, [&](ThriftType item) { chunk.encodings |= 1u << static_cast<unsigned>(encoding(item)); }); break;
      case 4: {
        constexpr Codec kCodecs[] = {Codec::none,   Codec::snappy,      Codec::gzip, Codec::none,
                                     Codec::brotli, Codec::lz4_parquet, Codec::zstd, Codec::lz4};
        const uint32_t codec = below(field, std::size(kCodecs), "the codec");
        chunk.codec = kCodecs[codec];
        chunk.unsupported_codec = codec == 3 ? "lzo" : nullptr;
        break;
      }
      case 5: chunk.values = natural(field, "the number of values"); break;
      case 6: chunk.uncompressed_bytes = natural(field, "the uncompressed size"); break;
      case 7: chunk.compressed_bytes = natural(field, "the compressed size"); break;
      case 9: data_offset = natural(field, "the offset of the first data page"); break;
      case 11: dictionary_offset = natural(field, "the offset of the dictionary page"); break;
      default: thrift.skip(field);
    }
  });
  constexpr unsigned kRequired = 1u << 1 | 1u << 4 | 1u << 5 | 1u << 7 | 1u << 9;
  if ((seen & kRequired) != kRequired) fail(Code::format, where, ": the description of a column chunk is not complete");
  chunk.offset = dictionary_offset > 0 ? std::min(dictionary_offset, data_offset) : data_offset;
}

ParquetChunk Parser::chunk(ThriftType type) {
  ParquetChunk chunk;
  bool described = false;
  thrift.structure(type, [&](int16_t id, ThriftType field) {
    switch (id) {
      case 1: chunk.elsewhere = !thrift.binary(field).empty(); break;
      case 3: chunk_metadata(field, chunk), described = true; break;
      case 8: chunk.encrypted = true, thrift.skip(field); break;
      default: thrift.skip(field);
    }
  });
  if (!described && !chunk.encrypted) fail(Code::format, where, ": a column chunk has no description");
  return chunk;
}

ParquetRowGroupInfo Parser::row_group(ThriftType type) {
  ParquetRowGroupInfo group;
  bool has_rows = false;
  thrift.structure(type, [&](int16_t id, ThriftType field) {
    switch (id) {
      case 1: thrift.list(field, [&](ThriftType item) { group.chunks.push_back(chunk(item)); }); break;
      case 3: group.rows = natural(field, "the number of rows of a row group"), has_rows = true; break;
      default: thrift.skip(field);
    }
  });
  if (!has_rows) fail(Code::format, where, ": a row group without its number of rows");
  return group;
}

void limit(size_t count, size_t most, const char *what, std::string_view where) {
  if (count > most) fail(Code::unsupported, where, ": more than ", most, " ", what);
}

}  // namespace

const char *parquet_name(ParquetPhysical physical) {
  constexpr const char *kNames[] = {"BOOLEAN", "INT32",  "INT64",      "INT96",
                                    "FLOAT",   "DOUBLE", "BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY"};
  return kNames[static_cast<size_t>(physical)];
}

const char *parquet_name(ParquetEncoding encoding) {
  constexpr const char *kNames[] = {"PLAIN",
                                    "1",
                                    "PLAIN_DICTIONARY",
                                    "RLE",
                                    "BIT_PACKED",
                                    "DELTA_BINARY_PACKED",
                                    "DELTA_LENGTH_BYTE_ARRAY",
                                    "DELTA_BYTE_ARRAY",
                                    "RLE_DICTIONARY",
                                    "BYTE_STREAM_SPLIT"};
  return kNames[static_cast<size_t>(encoding)];
}

ParquetMetadata parse_parquet_metadata(std::string_view footer, std::string_view where) {
  Parser parser{ThriftReader(footer, where), where};
  ThriftReader &thrift = parser.thrift;
  ParquetMetadata file;
  bool has_rows = false;
  thrift.structure([&](int16_t id, ThriftType field) {
    switch (id) {
      case 1: file.version = thrift.integer_32(field); break;
      case 2:
        thrift.list(field, [&](ThriftType item) {
          limit(file.schema.size() + 1, kMaxSchemaElements, "fields in the schema", where);
          file.schema.push_back(parser.schema_element(item));
        });
        break;
      case 3: file.rows = parser.natural(field, "the number of rows"), has_rows = true; break;
      case 4:
        thrift.list(field, [&](ThriftType item) {
          limit(file.row_groups.size() + 1, kMaxRowGroups, "row groups", where);
          file.row_groups.push_back(parser.row_group(item));
        });
        break;
      case 5:
        thrift.list(field, [&](ThriftType item) {
          auto &pair = file.key_values.emplace_back();
          thrift.structure(item, [&](int16_t part, ThriftType text) {
            if (part == 1) pair.first = thrift.binary(text);
            else if (part == 2) pair.second = thrift.binary(text);
            else thrift.skip(text);
          });
        });
        break;
      case 6: file.created_by = thrift.binary(field); break;
      default: thrift.skip(field);
    }
  });
  if (!has_rows || file.schema.empty()) fail(Code::format, where, ": has no schema or no number of rows");
  return file;
}

ParquetPageHeader parse_parquet_page_header(std::string_view bytes, std::string_view where, size_t &length) {
  Parser parser{ThriftReader(bytes, where), where};
  ThriftReader &thrift = parser.thrift;
  ParquetPageHeader page;
  unsigned seen = 0;
  int16_t details = 0;  // the field that describes this kind of page
  thrift.structure([&](int16_t id, ThriftType field) {
    if (id >= 1 && id <= 3) seen |= 1u << id;
    switch (id) {
      case 1: page.kind = static_cast<ParquetPageKind>(parser.below(field, 4, "the kind of page")); break;
      case 2: page.uncompressed_size = parser.natural_32(field, "the uncompressed size of a page"); break;
      case 3: page.compressed_size = parser.natural_32(field, "the compressed size of a page"); break;
      case 4: page.crc = static_cast<uint32_t>(thrift.integer_32(field)); break;
      case 5:
      case 7:
      case 8:
        details = id;
        thrift.structure(field, [&](int16_t part, ThriftType value) {
          const bool is_v2 = id == 8;
          if (part == 1) page.values = parser.natural_32(value, "the number of values of a page");
          else if (part == (is_v2 ? 4 : 2)) page.encoding = parser.encoding(value);
          else if (id == 5 && part == 3) page.definition_encoding = parser.encoding(value);
          else if (id == 5 && part == 4) page.repetition_encoding = parser.encoding(value);
          else if (is_v2 && part == 5) page.definition_bytes = parser.natural_32(value, "the size of the definition levels");
          else if (is_v2 && part == 6) page.repetition_bytes = parser.natural_32(value, "the size of the repetition levels");
          else if (is_v2 && part == 7) page.is_compressed = thrift.boolean(value);
          else thrift.skip(value);
        });
        break;
      default: thrift.skip(field);
    }
  });
  constexpr int16_t kDetails[] = {5, 0, 7, 8};
  const int16_t expected = kDetails[static_cast<size_t>(page.kind)];
  if (seen != 0xE || (expected != 0 && details != expected)) fail(Code::format, where, ": the header of a page is not complete");
  length = thrift.position();
  return page;
}

}  // namespace moe
