// The checksum of gzip, PNG and Parquet pages: CRC-32 of ISO 3309 (reflected polynomial EDB88320).
#pragma once
#include <cstdint>
#include <string_view>

namespace moe {

uint32_t crc32(std::string_view bytes);

}  // namespace moe
