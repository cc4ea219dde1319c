#include "formats/codec.h"

#include <cstring>
#include <limits>

#include "base/error.h"

#if MOE_HAVE_ZLIB
#include <zlib.h>
#endif
#if MOE_HAVE_ZSTD
#include <zstd.h>
#endif
#if MOE_HAVE_SNAPPY
#include <snappy.h>
#endif
#if MOE_HAVE_LZ4
#include <lz4.h>
#include <lz4frame.h>
#endif
#if MOE_HAVE_BROTLI
#include <brotli/decode.h>
#endif

namespace moe {
namespace {

struct Library {
  const char *codec, *library;
  bool available;
};
constexpr Library kLibraries[] = {{"uncompressed", "", true},
                                  {"gzip", "zlib", MOE_HAVE_ZLIB != 0},
                                  {"zstd", "libzstd", MOE_HAVE_ZSTD != 0},
                                  {"snappy", "libsnappy", MOE_HAVE_SNAPPY != 0},
                                  {"lz4_raw", "liblz4", MOE_HAVE_LZ4 != 0},
                                  {"lz4", "liblz4", MOE_HAVE_LZ4 != 0},
                                  {"brotli", "libbrotlidec", MOE_HAVE_BROTLI != 0}};

const Library &library_of(Codec codec) { return kLibraries[static_cast<size_t>(codec)]; }

// Each of these tells whether the block gave exactly `size` bytes.

bool copy_block(std::string_view block, char *out, size_t size) {
  if (block.size() != size) return false;
  if (size > 0) std::memcpy(out, block.data(), size);
  return true;
}

#if MOE_HAVE_ZLIB
bool decompress_gzip(std::string_view block, char *out, size_t size) {
  constexpr size_t kLargest = std::numeric_limits<uInt>::max();  // in one call
  z_stream stream{};
  if (inflateInit2(&stream, 15 + 32) != Z_OK) fail(Code::no_memory, "zlib: no memory for its state");
  stream.next_in = reinterpret_cast<Bytef *>(const_cast<char *>(block.data()));
  stream.next_out = reinterpret_cast<Bytef *>(out);
  size_t in_left = block.size(), out_left = size;
  int status = Z_OK;
  while (status == Z_OK) {
    if (stream.avail_in == 0) in_left -= stream.avail_in = static_cast<uInt>(in_left < kLargest ? in_left : kLargest);
    if (stream.avail_out == 0) out_left -= stream.avail_out = static_cast<uInt>(out_left < kLargest ? out_left : kLargest);
    status = inflate(&stream, Z_NO_FLUSH);
    const bool another_member = status == Z_STREAM_END && (stream.avail_in > 0 || in_left > 0);
    if (another_member) status = inflateReset(&stream);
  }
  const bool exact = status == Z_STREAM_END && stream.avail_out == 0 && out_left == 0;
  inflateEnd(&stream);
  if (status == Z_MEM_ERROR) fail(Code::no_memory, "zlib: no memory for its window");
  return exact;
}
#endif

#if MOE_HAVE_LZ4
bool decompress_lz4(std::string_view block, char *out, size_t size) {
  constexpr size_t kLargest = std::numeric_limits<int>::max();
  if (block.size() > kLargest || size > kLargest) return false;
  return LZ4_decompress_safe(block.data(), out, static_cast<int>(block.size()), static_cast<int>(size)) == static_cast<int>(size);
}

uint32_t big_endian(const char *at) {
  const auto byte = [&](int i) { return static_cast<uint32_t>(static_cast<uint8_t>(at[i])); };
  return byte(0) << 24 | byte(1) << 16 | byte(2) << 8 | byte(3);
}

// Frames of u32 size, then blocks of u32 compressed size and the block itself until the frame's size is reached.
bool decompress_hadoop(std::string_view block, char *out, size_t size) {
  while (!block.empty()) {
    if (block.size() < 4) return false;
    size_t frame = big_endian(block.data());
    block.remove_prefix(4);
    if (frame > size) return false;
    size -= frame;
    while (frame > 0) {
      if (block.size() < 4) return false;
      const size_t length = big_endian(block.data());
      block.remove_prefix(4);
      if (length > block.size() || frame > std::numeric_limits<int>::max() || length > std::numeric_limits<int>::max())
        return false;
      const int got = LZ4_decompress_safe(block.data(), out, static_cast<int>(length), static_cast<int>(frame));
      if (got <= 0) return false;
      block.remove_prefix(length);
      out += got;
      frame -= static_cast<size_t>(got);
    }
  }
  return size == 0;
}

bool decompress_lz4_frame(std::string_view block, char *out, size_t size) {
  LZ4F_dctx *context = nullptr;
  if (LZ4F_isError(LZ4F_createDecompressionContext(&context, LZ4F_VERSION)))
    fail(Code::no_memory, "liblz4: no memory for its state");
  size_t want = 1;
  while (want != 0 && !block.empty()) {
    size_t in = block.size(), written = size;
    want = LZ4F_decompress(context, out, &written, block.data(), &in, nullptr);
    if (LZ4F_isError(want) || (in == 0 && written == 0)) break;
    block.remove_prefix(in);
    out += written;
    size -= written;
  }
  LZ4F_freeDecompressionContext(context);
  return want == 0 && size == 0 && block.empty();
}

bool decompress_lz4_parquet(std::string_view block, char *out, size_t size) {
  if (block.starts_with("\x04\x22\x4D\x18")) return decompress_lz4_frame(block, out, size);
  return decompress_hadoop(block, out, size) || decompress_lz4(block, out, size);
}
#endif

bool decompressed(Codec codec, std::string_view block, char *out, size_t size) {
  switch (codec) {
    case Codec::none: return copy_block(block, out, size);
#if MOE_HAVE_ZLIB
    case Codec::gzip: return decompress_gzip(block, out, size);
#endif
#if MOE_HAVE_ZSTD
    case Codec::zstd: return ZSTD_decompress(out, size, block.data(), block.size()) == size;
#endif
#if MOE_HAVE_SNAPPY
    case Codec::snappy: {
      size_t length = 0;
      return snappy::GetUncompressedLength(block.data(), block.size(), &length) && length == size &&
             snappy::RawUncompress(block.data(), block.size(), out);
    }
#endif
#if MOE_HAVE_LZ4
    case Codec::lz4: return decompress_lz4(block, out, size);
    case Codec::lz4_parquet: return decompress_lz4_parquet(block, out, size);
#endif
#if MOE_HAVE_BROTLI
    case Codec::brotli: {
      size_t length = size;
      return BrotliDecoderDecompress(block.size(), reinterpret_cast<const uint8_t *>(block.data()), &length,
                                     reinterpret_cast<uint8_t *>(out)) == BROTLI_DECODER_RESULT_SUCCESS &&
             length == size;
    }
#endif
    default: return false;
  }
}

}  // namespace

const char *codec_name(Codec codec) { return library_of(codec).codec; }
bool codec_available(Codec codec) { return library_of(codec).available; }

void require_codec(Codec codec, std::string_view where) {
  const Library &library = library_of(codec);
  if (!library.available) {
    fail(Code::unsupported, where, ": compressed with ", library.codec, ", and this build of libmoe has no ", library.library);
  }
}

void decompress(Codec codec, std::string_view block, char *out, size_t size, std::string_view where) {
  require_codec(codec, where);
  if (block.empty() && size == 0) return;  // writers leave out the empty block
  char nothing;
  if (size == 0) out = &nothing;
  if (!decompressed(codec, block, out, size)) {
    fail(Code::format, where, ": ", block.size(), " bytes of ", codec_name(codec), " do not give the ", size,
         " that are expected");
  }
}

}  // namespace moe
