// What a Parquet file says of itself (parquet.thrift of Apache Parquet): the footer and the headers of pages.
//
//   file    "PAR1", column chunks, footer (a Thrift structure), u32 length of the footer, "PAR1"
//   chunk   the values of one column in one group of rows: a dictionary page perhaps, then data pages
//   page    header (a Thrift structure), then compressed_size bytes
//
// Numbers are checked where they are read: enumerations, signs, required fields; sizes and counts against the file or the chunk
// where they are used.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "formats/codec.h"

namespace moe {

enum class ParquetPhysical : uint8_t { boolean, int32, int64, int96, float32, float64, byte_array, fixed_length };
enum class ParquetEncoding : uint8_t {
  plain = 0,
  plain_dictionary = 2,
  rle = 3,
  bit_packed = 4,
  delta_binary_packed = 5,
  delta_length_byte_array = 6,
  delta_byte_array = 7,
  rle_dictionary = 8,
  byte_stream_split = 9
};
enum class ParquetLogical : uint8_t {
  none,
  string,
  enumeration,
  decimal,
  date,
  time,
  timestamp,
  integer,
  null,
  json,
  bson,
  uuid,
  float16,
  interval,
  list,
  map,
  other
};
enum class ParquetUnit : uint8_t { milliseconds, microseconds, nanoseconds };

const char *parquet_name(ParquetPhysical physical);
const char *parquet_name(ParquetEncoding encoding);

// The annotation of a column or group: the logical type, or the older converted type where that is all there is.
struct ParquetAnnotation {
  ParquetLogical logical = ParquetLogical::none;
  int32_t scale = 0, precision = 0;              // decimal
  ParquetUnit unit = ParquetUnit::milliseconds;  // time, timestamp
  bool utc = false;                              // time, timestamp
  int32_t bit_width = 0;                         // integer
  bool is_signed = true;
};

// A node of the schema in depth-first order.
struct ParquetSchemaElement {
  std::string name;
  std::optional<ParquetPhysical> physical;  // of a column; a group has none
  uint32_t fixed_length = 0;
  bool optional = false, repeated = false;
  uint32_t children = 0;
  ParquetAnnotation annotation;
};

struct ParquetChunk {
  ParquetPhysical physical = ParquetPhysical::boolean;
  Codec codec = Codec::none;
  const char *unsupported_codec = nullptr;                // its name, when it is none of ours
  uint32_t encodings = 0;                                 // a bit for each
  uint64_t values = 0;                                    // with nulls and empty lists
  uint64_t compressed_bytes = 0, uncompressed_bytes = 0;  // of all pages with their headers
  uint64_t offset = 0;                                    // of the first page
  bool encrypted = false, elsewhere = false;              // elsewhere: in another file
};

struct ParquetRowGroupInfo {
  uint64_t rows = 0;
  std::vector<ParquetChunk> chunks;  // one for each column of the schema, in its order
};

struct ParquetMetadata {
  int32_t version = 0;
  uint64_t rows = 0;
  std::string created_by;
  std::vector<ParquetSchemaElement> schema;
  std::vector<ParquetRowGroupInfo> row_groups;
  std::vector<std::pair<std::string, std::string>> key_values;
};

// `where` is "<path>: footer".
ParquetMetadata parse_parquet_metadata(std::string_view footer, std::string_view where);

enum class ParquetPageKind : uint8_t { data, index, dictionary, data_v2 };

struct ParquetPageHeader {
  ParquetPageKind kind = ParquetPageKind::data;
  uint32_t compressed_size = 0, uncompressed_size = 0;
  std::optional<uint32_t> crc;
  uint32_t values = 0;
  ParquetEncoding encoding = ParquetEncoding::plain;
  ParquetEncoding definition_encoding = ParquetEncoding::rle, repetition_encoding = ParquetEncoding::rle;  // kind data
  uint32_t definition_bytes = 0, repetition_bytes = 0;                                                     // kind data_v2
  bool is_compressed = true;                                                                               // kind data_v2
};

// Parses the header at the beginning of `bytes`; `length` becomes its length.
ParquetPageHeader parse_parquet_page_header(std::string_view bytes, std::string_view where, size_t &length);

}  // namespace moe
