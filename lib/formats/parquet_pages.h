// The pages of one column chunk, in order, decompressed. One page is in memory at a time.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "base/file.h"
#include "formats/parquet_metadata.h"

namespace moe {

// The memory that the columns of one row group may use together.
class ParquetBudget {
 public:
  explicit ParquetBudget(uint64_t limit) : left_(limit), limit_(limit) {}
  void take(uint64_t bytes, std::string_view where);  // Code::no_memory beyond the limit
  void give_back(uint64_t bytes) { left_ += bytes; }

 private:
  uint64_t left_, limit_;
};

class ParquetPages {
 public:
  // `end`: where the column chunks end in the file. The file, chunk, budget and `where` must outlive the reader.
  ParquetPages(const File &file, const ParquetChunk &chunk, uint64_t end, ParquetBudget &budget, std::string_view where);
  ~ParquetPages();
  ParquetPages(const ParquetPages &) = delete;

  bool next();  // to the next data or dictionary page; false after the last
  const ParquetPageHeader &header() const { return header_; }
  // The page as its encodings define it, until next(); of a data_v2 page the repetition levels, definition levels and values.
  std::string_view body() const { return {reinterpret_cast<const char *>(page_.data()), header_.uncompressed_size}; }
  Buffer take_page();  // owns what body() has shown

 private:
  std::string_view view(uint64_t bytes);  // the next bytes of the file, not consumed
  void read_header();
  void check_sizes() const;
  void decompress_page(std::string_view stored);
  void resize(Buffer &buffer, uint64_t bytes);

  const File &file_;
  const ParquetChunk &chunk_;
  ParquetBudget &budget_;
  std::string_view where_;
  uint64_t at_ = 0, end_ = 0;  // in the file
  Buffer window_, page_;
  uint64_t window_start_ = 0, window_size_ = 0;
  uint64_t budgeted_ = 0;
  ParquetPageHeader header_;
};

}  // namespace moe
