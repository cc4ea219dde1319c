#include "formats/parquet_pages.h"

#include <algorithm>
#include <cstring>

#include "base/checked.h"
#include "base/crc32.h"
#include "base/error.h"

namespace moe {
namespace {

constexpr uint64_t kWindow = 1 << 18;       // read at once
constexpr uint64_t kFirstHeader = 1 << 12;  // of a page; statistics can make it longer
constexpr uint64_t kMaxHeader = 16 << 20;
constexpr uint64_t kMaxPage = uint64_t{1} << 30;
constexpr uint64_t kForgotten = 100;  // some writers leave the header of the dictionary page out of the size of the chunk
constexpr uint64_t kSmallPage = 1 << 16, kUsualRatio = 100;

// How many bytes at most a codec can make of one. 0: without such a limit.
uint64_t largest_ratio(Codec codec) {
  switch (codec) {
    case Codec::none: return 1;
    case Codec::snappy: return 22;  // 64 bytes by a copy of three
    case Codec::lz4:
    case Codec::lz4_parquet: return 255;  // a byte of a length
    case Codec::gzip: return 1032;        // 258 bytes by two bits
    default: return 0;
  }
}

}  // namespace

void ParquetBudget::take(uint64_t bytes, std::string_view where) {
  if (bytes > left_) {
    fail(Code::no_memory, where, ": ", bytes, " more bytes are needed; the columns of a row group may use ", limit_, " together");
  }
  left_ -= bytes;
}

ParquetPages::ParquetPages(const File &file, const ParquetChunk &chunk, uint64_t end, ParquetBudget &budget,
                           std::string_view where)
    : file_(file), chunk_(chunk), budget_(budget), where_(where), at_(chunk.offset) {
  if (chunk.unsupported_codec) fail(Code::unsupported, where, ": compressed with ", chunk.unsupported_codec);
  require_codec(chunk.codec, where);
  end_ = checked_add(chunk.offset, chunk.compressed_bytes, where);
  if (end_ > end) fail(Code::format, where, ": expected pages before byte ", end, ", found them from ", at_, " to ", end_);
  end_ = std::min(end, end_ + kForgotten);
}

ParquetPages::~ParquetPages() { budget_.give_back(budgeted_); }

void ParquetPages::resize(Buffer &buffer, uint64_t bytes) {
  if (buffer.size() >= bytes) return;
  budget_.take(bytes - buffer.size(), where_);
  budgeted_ += bytes - buffer.size();
  buffer = Buffer();
  buffer = Buffer(bytes);
}

Buffer ParquetPages::take_page() {
  Buffer page = std::move(page_);
  page_ = Buffer();
  return page;
}

std::string_view ParquetPages::view(uint64_t bytes) {
  bytes = std::min(bytes, end_ - at_);
  const bool inside =
      at_ >= window_start_ && at_ - window_start_ <= window_size_ && bytes <= window_size_ - (at_ - window_start_);
  if (!inside) {
    const uint64_t wanted = std::min(std::max(bytes, kWindow), end_ - at_);
    window_size_ = 0;
    resize(window_, wanted);
    file_.read(at_, window_.data(), wanted);
    window_start_ = at_;
    window_size_ = wanted;
  }
  return {reinterpret_cast<const char *>(window_.data()) + (at_ - window_start_), bytes};
}

void ParquetPages::read_header() {
  for (uint64_t size = kFirstHeader;; size *= 8) {
    const std::string_view bytes = view(size);
    size_t length = 0;
    try {
      header_ = parse_parquet_page_header(bytes, where_, length);
    } catch (const Error &) {
      if (bytes.size() == end_ - at_ || size > kMaxHeader) throw;
      continue;  // perhaps it is only longer
    }
    at_ += length;
    return;
  }
}

void ParquetPages::check_sizes() const {
  const uint64_t stored = header_.compressed_size, size = header_.uncompressed_size;
  if (stored > end_ - at_) fail(Code::format, where_, ": a page of ", stored, " bytes, ", end_ - at_, " remain in the chunk");
  const uint64_t levels =
      header_.kind == ParquetPageKind::data_v2 ? uint64_t{header_.definition_bytes} + header_.repetition_bytes : 0;
  if (levels > std::min(stored, size))
    fail(Code::format, where_, ": levels of ", levels, " bytes in a page of ", std::min(stored, size));
  const uint64_t ratio = largest_ratio(chunk_.codec);
  const bool too_large = size > kMaxPage || (ratio > 0 && (size + ratio - 1) / ratio > stored + 8);
  const bool unusual = size > kSmallPage && size / kUsualRatio > stored;
  if (too_large || (unusual && size > chunk_.uncompressed_bytes)) {
    fail(Code::format, where_, ": ", stored, " bytes of ", codec_name(chunk_.codec), " that claim to be ", size);
  }
}

void ParquetPages::decompress_page(std::string_view stored) {
  resize(page_, std::max<uint64_t>(header_.uncompressed_size, 1));
  char *out = reinterpret_cast<char *>(page_.data());
  size_t levels = 0;
  Codec codec = chunk_.codec;
  if (header_.kind == ParquetPageKind::data_v2) {
    levels = size_t{header_.definition_bytes} + header_.repetition_bytes;
    if (!header_.is_compressed) codec = Codec::none;
    std::memcpy(out, stored.data(), levels);
  }
  decompress(codec, stored.substr(levels), out + levels, header_.uncompressed_size - levels, where_);
}

bool ParquetPages::next() {
  while (at_ < end_) {
    read_header();
    if (header_.kind == ParquetPageKind::index) {
      if (header_.compressed_size > end_ - at_) fail(Code::format, where_, ": an index page beyond the end of the chunk");
      at_ += header_.compressed_size;
      continue;
    }
    check_sizes();
    const std::string_view stored = view(header_.compressed_size);
    if (header_.crc && crc32(stored) != *header_.crc) {
      fail(Code::format, where_, ": the page at byte ", at_, " is damaged: its checksum is wrong");
    }
    decompress_page(stored);
    at_ += stored.size();
    return true;
  }
  return false;
}

}  // namespace moe
