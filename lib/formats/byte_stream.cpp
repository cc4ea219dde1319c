#include "formats/byte_stream.h"

#include <algorithm>
#include <array>
#include <vector>

#include "base/error.h"
#include "formats/codec.h"

#if MOE_HAVE_ZLIB
#include <zlib.h>
#endif
#if MOE_HAVE_ZSTD
#include <zstd.h>
#endif

namespace moe {

namespace {

constexpr size_t kChunk = 1 << 18;
constexpr std::string_view kGzipMagic = "\x1F\x8B", kZstdMagic = "\x28\xB5\x2F\xFD";

}  // namespace

// The file's own bytes, one chunk after another.
struct ByteStream::Input {
  explicit Input(const File &source) : file(source) {}

  bool more() {  // only when all of the chunk has been used
    if (next == file.size()) return false;
    used = 0;
    size = static_cast<size_t>(std::min<uint64_t>(kChunk, file.size() - next));
    chunk.resize(std::max(chunk.size(), size));
    file.read(next, chunk.data(), size);
    next += size;
    return true;
  }
  uint64_t offset() const { return next - (size - used); }  // of the first byte that is not used
  template <class... Parts>
  [[noreturn]] void refuse(const Parts &...parts) const {
    fail(Code::format, file.path(), ": ", parts..., " at offset ", offset(), " of the file");
  }

  const File &file;
  std::vector<unsigned char> chunk;
  size_t used = 0, size = 0;
  uint64_t next = 0;
};

class ByteStream::Decoder {
 public:
  virtual ~Decoder() = default;
  virtual size_t read(char *to, size_t bytes) = 0;
};

#if MOE_HAVE_ZLIB
class ByteStream::Gzip : public Decoder {
 public:
  explicit Gzip(Input &input) : input_(input) {
    if (inflateInit2(&stream_, 15 + 16) != Z_OK) fail(Code::no_memory, "no memory to decompress gzip");
  }
  ~Gzip() override { inflateEnd(&stream_); }

  size_t read(char *to, size_t bytes) override {
    stream_.next_out = reinterpret_cast<Bytef *>(to);
    stream_.avail_out = static_cast<uInt>(std::min(bytes, kChunk));
    const uInt wanted = stream_.avail_out;
    while (stream_.avail_out == wanted) {
      if (input_.used == input_.size && !input_.more()) {
        if (!ended_) input_.refuse("the gzip data ends early,");
        break;
      }
      if (ended_ && inflateReset(&stream_) != Z_OK) fail(Code::internal, "inflateReset");
      ended_ = false;
      stream_.next_in = input_.chunk.data() + input_.used;
      stream_.avail_in = static_cast<uInt>(input_.size - input_.used);
      const int result = inflate(&stream_, Z_NO_FLUSH);
      input_.used = input_.size - stream_.avail_in;
      if (result == Z_MEM_ERROR) fail(Code::no_memory, "no memory to decompress gzip");
      if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR)
        input_.refuse("damaged gzip data (", stream_.msg ? stream_.msg : "it asks for a dictionary", ")");
      ended_ = result == Z_STREAM_END;
    }
    return wanted - stream_.avail_out;
  }

 private:
  Input &input_;
  z_stream stream_{};
  bool ended_ = true;  // between two members
};
#endif

#if MOE_HAVE_ZSTD
class ByteStream::Zstd : public Decoder {
 public:
  explicit Zstd(Input &input) : input_(input), context_(ZSTD_createDCtx()) {
    if (!context_) fail(Code::no_memory, "no memory to decompress Zstandard");
  }
  ~Zstd() override { ZSTD_freeDCtx(context_); }

  size_t read(char *to, size_t bytes) override {
    ZSTD_outBuffer out{to, bytes, 0};
    while (out.pos == 0) {
      const bool drained = input_.used == input_.size && !input_.more();
      ZSTD_inBuffer in{input_.chunk.data(), input_.size, input_.used};
      const size_t result = ZSTD_decompressStream(context_, &out, &in);
      const bool stuck = out.pos == 0 && in.pos == input_.used;
      input_.used = in.pos;
      if (ZSTD_isError(result)) input_.refuse("damaged Zstandard data (", ZSTD_getErrorName(result), ")");
      if (drained && stuck) {
        if (!ended_) input_.refuse("the Zstandard data ends early,");
        break;
      }
      ended_ = result == 0;
    }
    return out.pos;
  }

 private:
  Input &input_;
  ZSTD_DCtx *context_;
  bool ended_ = true;  // between two frames
};
#endif

ByteStream::ByteStream(const std::string &path) : file_(path), input_(std::make_unique<Input>(file_)) {
  std::array<char, 4> first{};
  file_.read(0, first.data(), std::min<size_t>(first.size(), file_.size()));
  const std::string_view magic(first.data(), std::min<size_t>(first.size(), file_.size()));
  if (magic.starts_with(kGzipMagic)) {
    require_codec(Codec::gzip, path);
#if MOE_HAVE_ZLIB
    decoder_ = std::make_unique<Gzip>(*input_);
#endif
  } else if (magic == kZstdMagic) {
    require_codec(Codec::zstd, path);
#if MOE_HAVE_ZSTD
    decoder_ = std::make_unique<Zstd>(*input_);
#endif
  }
}

ByteStream::~ByteStream() = default;

size_t ByteStream::read(char *to, size_t bytes) {
  if (decoder_) return decoder_->read(to, bytes);
  const auto count = static_cast<size_t>(std::min<uint64_t>(bytes, file_.size() - input_->next));
  file_.read(input_->next, to, count);
  input_->next += count;
  return count;
}

std::string_view uncompressed_name(std::string_view path) {
  for (const std::string_view ending : {".gz", ".gzip", ".zst", ".zstd"})
    if (path.size() > ending.size() && path.ends_with(ending)) return path.substr(0, path.size() - ending.size());
  return path;
}

TextWindow::TextWindow(const std::string &path) : stream_(std::make_unique<ByteStream>(path)) {
  while (rest().size() < 4 && more()) {
  }
  const std::string_view first = rest().substr(0, 4);
  if (first.starts_with("\xFF\xFE") || first.starts_with("\xFE\xFF"))
    fail(Code::format, path, ": the text is UTF-16 (it begins with its byte order mark), expected UTF-8");
  if (first.find('\0') != std::string_view::npos)
    fail(Code::format, path, ": a NUL byte at offset ", first.find('\0'), ": UTF-16 or no text at all, expected UTF-8");
  if (first.starts_with("\xEF\xBB\xBF")) skip(3);
}

bool TextWindow::more() {
  if (at_end_) return false;
  if (begin_ > 0) {
    std::copy(buffer_.begin() + static_cast<ptrdiff_t>(begin_), buffer_.begin() + static_cast<ptrdiff_t>(end_), buffer_.begin());
    end_ -= begin_;
    begin_ = 0;
  }
  if (buffer_.size() < end_ + kChunk) buffer_.resize(end_ + std::max(kChunk, end_));
  const size_t count = stream_->read(buffer_.data() + end_, buffer_.size() - end_);
  end_ += count;
  at_end_ = count == 0;
  return !at_end_;
}

bool TextWindow::skip_blanks() {
  do {
    const size_t first = rest().find_first_not_of(" \t\r\n\v\f");
    skip(std::min(first, rest().size()));
    if (first != std::string_view::npos) return true;
  } while (more());
  return false;
}

}  // namespace moe
