// The bytes of a file from its beginning to its end, decompressed: a gzip (RFC 1952) or Zstandard (RFC 8878) file is told by its
// first bytes, whatever it is called. Members and frames that follow one another are one stream.
#pragma once
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "base/file.h"

namespace moe {

class ByteStream {
 public:
  explicit ByteStream(const std::string &path);  // Code::unsupported when this build cannot decompress the file
  ~ByteStream();
  ByteStream(const ByteStream &) = delete;

  // The next bytes, 0 only at the end. Code::format with the offset in the file where compressed data is damaged or ends early.
  size_t read(char *to, size_t bytes);
  const std::string &path() const { return file_.path(); }

 private:
  class Decoder;
  class Gzip;
  class Zstd;
  struct Input;

  File file_;
  std::unique_ptr<Input> input_;
  std::unique_ptr<Decoder> decoder_;  // null: the file's own bytes
};

// The name of a file without the ending of its compression (.gz .gzip .zst .zstd): what the name says about its content.
std::string_view uncompressed_name(std::string_view path);

// A window on a ByteStream of UTF-8 text. A byte order mark is skipped; UTF-16 is refused.
class TextWindow {
 public:
  explicit TextWindow(const std::string &path);

  const std::string &path() const { return stream_->path(); }
  std::string_view rest() const { return std::string_view(buffer_).substr(begin_, end_ - begin_); }  // until more() is called
  bool more();                                                                                      // false at the end of the file
  bool at_end() const { return at_end_; }  // rest() is all that is left
  void skip(size_t bytes) { begin_ += bytes; }
  // Skips white space; false when nothing else is left.
  bool skip_blanks();

 private:
  std::unique_ptr<ByteStream> stream_;
  std::string buffer_;
  size_t begin_ = 0, end_ = 0;
  bool at_end_ = false;
};

}  // namespace moe
