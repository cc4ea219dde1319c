// Decompression of one block whose length before compression is known, by the system's libraries. Each library is optional when
// libmoe is built; without it the codec is refused by its name when it is needed.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace moe {

enum class Codec : uint8_t { none, gzip, zstd, snappy, lz4, lz4_parquet, brotli };

const char *codec_name(Codec codec);
bool codec_available(Codec codec);
// Code::unsupported "<where>: this build of libmoe has no zstd (libzstd)" when it is not.
void require_codec(Codec codec, std::string_view where);

// Fills `out` with exactly `size` bytes; a damaged block, or one of another length, is Code::format and opens with `where`.
// Nothing is written beyond `out`, whatever the block says of itself.
//   gzip         RFC 1952 or 1950, also several members one after the other
//   zstd         RFC 8878, one or more frames
//   snappy       the raw format without framing
//   lz4          one block without framing
//   lz4_parquet  what writers have called LZ4 in Parquet: Hadoop's framing (big-endian u32 sizes before each block), an LZ4
//   frame, or
//                a block without framing; told apart by their content
//   brotli       RFC 7932
void decompress(Codec codec, std::string_view block, char *out, size_t size, std::string_view where);

}  // namespace moe
