// How fast the texts of a Parquet file become ready strings, on one thread:
//
//   parquet_rate FILE ROUNDS
//
// Two records of tests/bench/measure.sh, medians over rounds that open the file anew: parquet_columns, all texts of all columns
// in memory at once, as one block of bytes and the end of each (what Arrow makes of a column); parquet_objects, row after row as
// JSON objects.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/error.h"
#include "formats/parquet.h"

namespace moe {
namespace {

struct Texts {
  std::string bytes;
  std::vector<uint64_t> ends;
};

Texts read_column(const ParquetFile &file, const ParquetField &field) {
  Texts column;
  uint64_t bytes = 0;
  for (const ParquetRowGroupInfo &group : file.metadata().row_groups)
    bytes += group.chunks[field.first_column].uncompressed_bytes;
  column.bytes.reserve(bytes);
  column.ends.reserve(file.rows());
  for (size_t group = 0; group < file.row_groups(); ++group) {
    ParquetTexts texts(file, group, field.name);
    for (auto part = texts.next(); !part.empty(); part = texts.next()) {
      for (const std::string_view text : part) {
        column.bytes += text;
        column.ends.push_back(column.bytes.size());
      }
    }
  }
  return column;
}

uint64_t read_columns(const std::string &path) {
  const ParquetFile file(path);
  std::vector<Texts> columns;
  uint64_t bytes = 0;
  for (const ParquetField &field : file.fields()) {
    if (field.is_text()) bytes += columns.emplace_back(read_column(file, field)).bytes.size();
  }
  return bytes;
}

uint64_t read_objects(const std::string &path) {
  ParquetRows rows(path);
  uint64_t bytes = 0;
  for (Json row; rows.next(row);) {
    for (const auto &[name, value] : row.members()) bytes += value.is_string() ? value.string().size() : 0;
  }
  return bytes;
}

double median_seconds(size_t rounds, uint64_t (*read)(const std::string &), const std::string &path) {
  std::vector<double> seconds;
  while (seconds.size() < rounds) {
    const auto start = std::chrono::steady_clock::now();
    if (read(path) == 0) fail(Code::invalid, path, ": no text");
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::nth_element(seconds.begin(), seconds.begin() + static_cast<std::ptrdiff_t>(rounds / 2), seconds.end());
  return seconds[rounds / 2];
}

}  // namespace
}  // namespace moe

int main(int count, char **arguments) {
  using namespace moe;
  if (count != 3) return fprintf(stderr, "usage: parquet_rate FILE ROUNDS\n"), 2;
  const std::string path = arguments[1];
  const auto rounds = static_cast<size_t>(std::max(1, atoi(arguments[2])));
  try {
    const auto rows = static_cast<double>(ParquetFile(path).rows());
    const struct {
      const char *work;
      uint64_t (*read)(const std::string &);
    } works[] = {{"parquet_columns", read_columns}, {"parquet_objects", read_objects}};
    for (const auto &[work, read] : works) {
      printf("{\"model\": \"gsm8k\", \"work\": \"%s\", \"value\": %.0f, \"unit\": \"rows/s\", \"details\": {\"rows\": %.0f}}\n",
             work, rows / median_seconds(rounds, read, path), rows);
    }
  } catch (const std::exception &error) {
    return fprintf(stderr, "parquet_rate: %s\n", error.what()), 1;
  }
}
