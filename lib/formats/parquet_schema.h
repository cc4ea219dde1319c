// The schema of a Parquet file as a tree of fields, with the levels by which values are put back into rows (the Dremel paper,
// Melnik et al. 2010; LogicalTypes.md of Apache Parquet for lists and maps).
//
// Every entry of a column has a definition level, how many of the optional and repeated nodes on its path are there, and a
// repetition level, at which repeated node a new element begins (0: a new row).
//
// Lists are recognized in all the forms that have been written: LIST with three levels (group, repeated group, element), with two
// (group, repeated element), and a repeated field without annotation. A MAP whose entries have no value is a list of its keys.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "formats/parquet_metadata.h"

namespace moe {

struct ParquetField {
  enum class Kind : uint8_t { value, group, list, map };

  Kind kind = Kind::value;
  std::string name;
  bool optional = false;
  uint8_t definition = 0;                  // an entry with a lower definition level means that this field is null
  uint8_t repetition = 0;                  // level of the innermost list or map around it
  uint8_t entry_definition = 0;            // list, map: a lower definition level means that it is empty
  uint8_t entry_repetition = 0;            // list, map: an entry with this repetition level begins the next element
  std::vector<ParquetField> children;      // of a group; a list has one, the element; a map two, key and value
  uint32_t first_column = 0, columns = 0;  // the columns of the file that hold its values

  ParquetPhysical physical = ParquetPhysical::boolean;  // of a value
  uint32_t fixed_length = 0;
  ParquetAnnotation annotation;

  // As Arrow writes types: "int64", "timestamp[us, tz=UTC]", "list<element: string>", "struct<a: bool not null>".
  std::string type_text() const;
  // The names from the row down to `child`, joined by dots; `path` is that of this field. Cut off where it is long. The element
  // of a list without annotation is the list itself in the file.
  std::string path_of(const ParquetField &child, const std::string &path) const;
  std::string quoted_name() const;  // for messages, on one line
  bool is_text() const;             // a byte array whose values are UTF-8
};

// The fields of a row. `where` opens the errors.
std::vector<ParquetField> parquet_fields(const std::vector<ParquetSchemaElement> &elements, std::string_view where);

}  // namespace moe
