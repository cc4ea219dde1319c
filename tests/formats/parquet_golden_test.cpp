// Files of other writers against the values of pyarrow: tests/golden/parquet.
#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <string>

#include "base/error.h"
#include "base/sha256.h"
#include "formats/parquet.h"
#include "formats/rows.h"
#include "support/expect_error.h"

namespace moe {
namespace {

std::string golden_folder() { return std::string(MOE_TESTS_DIR) + "/golden/parquet/"; }

// Numbers are equal by value, however they are written.
bool equal(const Json &a, const Json &b) {
  if (a.kind() != b.kind()) return false;
  if (a.is_number()) return a.dump() == b.dump() || a.number() == b.number();
  if (a.is_array()) return a.size() == b.size() && std::equal(a.items().begin(), a.items().end(), b.items().begin(), equal);
  if (!a.is_object()) return a.dump() == b.dump();
  return a.size() == b.size() &&
         std::equal(a.members().begin(), a.members().end(), b.members().begin(),
                    [](const auto &x, const auto &y) { return x.first == y.first && equal(x.second, y.second); });
}

// What the build cannot decompress is refused for that reason alone.
bool is_left_out(const std::string &path) {
  std::optional<ParquetFile> file;
  try {
    file.emplace(path);
  } catch (const Error &) {
    return false;  // it is refused for another
  }
  for (const ParquetRowGroupInfo &group : file->metadata().row_groups) {
    for (const ParquetChunk &chunk : group.chunks) {
      if (!codec_available(chunk.codec)) {
        EXPECT_FAILS(read_rows(path), Code::unsupported, "this build of libmoe has no");
        return true;
      }
    }
  }
  return false;
}

void expect_column(const Json &expected, const std::vector<Json> &rows, const std::string &name) {
  const std::vector<Json> &values = expected.at("values", name).items();
  ASSERT_LE(values.size(), rows.size());
  for (size_t i = 0; i < values.size(); ++i) {
    const Json &found = rows[i].at(name, name);
    ASSERT_TRUE(equal(found, values[i])) << name << ", row " << i + 1 << ": expected " << values[i].dump() << ", found "
                                         << found.dump();
  }
  if (const Json *sum = expected.find("sum")) {
    __int128 total = 0;
    for (const Json &row : rows) total += row.at(name, name).integer();
    EXPECT_EQ(static_cast<double>(total), sum->number()) << name;
  }
  if (const Json *digest = expected.find("digest")) {
    std::string all;
    for (const Json &row : rows) {
      if (const Json &text = row.at(name, name); !text.is_null()) all += text.string() + "\n";
    }
    EXPECT_EQ(sha256_hex(all.data(), all.size() - 1), digest->string()) << name;
  }
}

TEST(ParquetGolden, EveryFileIsAsExpectedOrRefusedForItsReason) {
  const std::map<std::string, Code> codes{{"format", Code::format}, {"unsupported", Code::unsupported}};
  int read = 0, refused = 0, left_out = 0;
  for (const Json &expected : read_rows(golden_folder() + "expected.jsonl")) {
    const std::string name = expected.string_at("file", ""), path = golden_folder() + name;
    SCOPED_TRACE(name);
    if (is_left_out(path)) {
      ++left_out;
      continue;
    }
    if (const Json *code = expected.find("refused")) {
      Json row;
      EXPECT_FAILS(
          [&] {
            ParquetRows rows(path);
            while (rows.next(row)) {
            }
          }(),
          codes.at(code->string()), expected.string_at("message", name));
      ++refused;
      continue;
    }
    ParquetRows reader(path);
    std::vector<Json> rows;
    for (Json row; reader.next(row);) rows.push_back(std::move(row));
    ASSERT_EQ(rows.size(), expected.at("rows", name).natural());
    EXPECT_TRUE(equal(parquet_types(reader.file()), expected.at("fields", name))) << parquet_types(reader.file()).dump();
    for (const auto &[column, values] : expected.at("values", name).members()) expect_column(values, rows, column);
    describe_parquet(reader.file()).dump();
    ++read;
  }
  EXPECT_EQ(read + refused + left_out, 60);
  EXPECT_GE(refused, 7);
  EXPECT_GE(read, 20);  // without any codec
}

}  // namespace
}  // namespace moe
