// One value of a Parquet column as JSON, in the forms that formats/parquet.h lists.
#pragma once
#include <cstdint>
#include <string_view>

#include "base/json.h"
#include "formats/parquet_schema.h"

namespace moe {

Json parquet_number(const ParquetField &field, uint64_t word);
Json parquet_bytes(const ParquetField &field, std::string_view bytes, std::string_view where);  // not a text

}  // namespace moe
