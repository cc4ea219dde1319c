#include "formats/rows.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/error.h"
#include "support/expect_error.h"
#include "support/parquet_builder.h"
#include "support/temporary_folder.h"

namespace moe {
namespace {

class Rows : public testing::Test {
 protected:
  std::string put(const std::string &name, const std::string &content) {
    std::ofstream(folder_ / name, std::ios::binary) << content;
    return folder_ / name;
  }
  // The rows of a file with this content, one after another as JSON without spaces.
  std::string rows(const std::string &content, const std::string &name = "x.json") {
    std::string out;
    for (const Json &row : read_rows(put(name, content))) out += row.dump();
    std::erase(out, ' ');
    return out;
  }
  test::TemporaryFolder folder_;
};

TEST_F(Rows, LinesAreReadWhateverTheFileIsCalled) {
  for (const char *name : {"x.jsonl", "x.json", "x"}) {
    EXPECT_EQ(rows("{\"a\":1}\n{\"a\":2}\n", name), R"({"a":1}{"a":2})");
    EXPECT_EQ(rows("{\"a\":1}\r\n\r\n  \n{\"a\":2}", name), R"({"a":1}{"a":2})");
    EXPECT_EQ(rows("\xEF\xBB\xBF{\"a\":1}\n{\"a\":2}\n", name), R"({"a":1}{"a":2})");
    EXPECT_EQ(rows("\n\n{\"a\":1}\n", name), R"({"a":1})");
    EXPECT_EQ(rows("", name), "");
    EXPECT_EQ(rows(" \n\n", name), "");
  }
}

TEST_F(Rows, DocumentsAreLists) {
  EXPECT_EQ(rows(R"([{"a":1},{"a":2}])"), R"({"a":1}{"a":2})");
  EXPECT_EQ(rows("\xEF\xBB\xBF\n[\n{\"a\":1},\n{\"a\":2}\n]\n"), R"({"a":1}{"a":2})");
  EXPECT_EQ(rows("[]"), "");
  EXPECT_EQ(rows(R"({"questions":[{"a":1},{"a":2}]})"), R"({"a":1}{"a":2})");
  EXPECT_EQ(rows("{\n\"version\": 1,\n\"data\": [{\"a\":1}]\n}"), R"({"a":1})");
}

TEST_F(Rows, ListsAreReadObjectByObject) {
  std::string list = "[", expected;
  for (int i = 0; i < 5000; i++) {
    const std::string object = "{\"n\":" + std::to_string(i) + R"(,"text":"]}{[\",\\","list":[{"a":"}"}]})";
    list += (i ? " ,\n" : "") + object;
    expected += object;
  }
  EXPECT_EQ(rows(list + "\n]\n"), expected);
  RowReader reader(put("x.json", list + ",{]"));
  Json row;
  for (int i = 0; i < 5000; i++) ASSERT_TRUE(reader.next(row));  // the damage is behind them
  EXPECT_FAILS(reader.next(row), Code::format, "the list does not end (after row 5001); the file may be truncated");
  EXPECT_FAILS(rows("[{\"a\":1} {\"a\":2}]"), Code::format, "expected ',' or ']' after row 1");
  EXPECT_FAILS(rows("[{\"a\":1},]"), Code::format, "row 2: expected an object");
  EXPECT_FAILS(rows("[{\"a\":1}]]"), Code::format, "text after the end of the list");
  EXPECT_FAILS(rows("[{\"a\":}]"), Code::format, "row 1: line 1, column 6");
}

TEST_F(Rows, ObjectsKeyedByIdBecomeRowsWithTheirId) {
  EXPECT_EQ(rows(R"({"7":{"a":1},"8":{"a":2,"id":"x"}})"), R"({"a":1,"id":"7"}{"a":2,"id":"x"})");
  EXPECT_EQ(rows("{\n\"7\": {\"a\":1}\n}\n"), R"({"a":1,"id":"7"})");
}

TEST_F(Rows, OneLineIsARowUnlessItLooksLikeADocument) {
  EXPECT_EQ(rows(R"({"a":1})"), R"({"a":1})");
  EXPECT_EQ(rows(R"({"data":[1,2]})"), R"({"data":[1,2]})");
  EXPECT_EQ(rows(R"({"data":[{"a":1}]})", "x.jsonl"), R"({"data":[{"a":1}]})");
  EXPECT_EQ(rows("{\"data\":[{\"a\":1}]}\n{\"data\":[]}\n"), R"({"data":[{"a":1}]}{"data":[]})");
  EXPECT_EQ(rows("{\"messages\":{\"a\":1}}\n{\"messages\":{\"a\":2}}\n"), R"({"messages":{"a":1}}{"messages":{"a":2}})");
}

TEST_F(Rows, TheReaderKnowsTheLineOfARow) {
  RowReader reader(put("x.jsonl", "{\"a\":1}\n\n{\"a\":2}\n"));
  Json row;
  ASSERT_TRUE(reader.next(row));
  EXPECT_EQ(reader.where(), folder_ / "x.jsonl" + ":1");
  ASSERT_TRUE(reader.next(row));
  EXPECT_EQ(reader.number(), 3u);
  EXPECT_FALSE(reader.next(row));
  EXPECT_FALSE(reader.next(row));
  RowReader document(put("y.json", R"([{"a":1},{"a":2}])"));
  ASSERT_TRUE(document.next(row) && document.next(row));
  EXPECT_EQ(document.where(), folder_ / "y.json" + ": row 2");
  EXPECT_FALSE(document.next(row));
}

TEST_F(Rows, LinesLongerThanTheWindowAreWhole) {
  const std::string text(700'000, 'x');
  const std::string line = "{\"t\":\"" + text + "\"}";
  const std::vector<Json> found = read_rows(put("x.jsonl", line + "\n" + line + "\n" + line));
  ASSERT_EQ(found.size(), 3u);
  for (const Json &row : found) EXPECT_EQ(row.at("t", "").string(), text);
}

TEST_F(Rows, ErrorsNameFileAndLine) {
  EXPECT_FAILS(rows("{\"a\":1}\n{\"a\":}\n{\"a\":1}\n"), Code::format, "x.json:2:");
  EXPECT_FAILS(rows("{\"a\":1}\n[1]\n"), Code::format, "x.json:2: expected an object");
  EXPECT_FAILS(rows("{\"a\":1}\n{\"a\":1} {\"a\":2}\n"), Code::format, "x.json:2:");
  EXPECT_FAILS(rows("{\"a\":1}\n{\"a\":1,\"a\":2}\n"), Code::format, "x.json:2:");
  EXPECT_FAILS(rows("{\"a\":\n", "x.jsonl"), Code::format, "x.jsonl:1:");
  EXPECT_FAILS(rows("[1,2]"), Code::format, "row 1: expected an object");
  EXPECT_FAILS(rows("[{\"a\":1}"), Code::format, "x.json");
  EXPECT_FAILS(rows("3"), Code::format, "neither a list nor an object");
  EXPECT_FAILS(rows("{\n\"a\":1}"), Code::format, "member 1");
}

TEST_F(Rows, ATruncatedLastLineIsAnErrorThatNamesIt) {
  EXPECT_FAILS(rows("{\"a\":1}\n{\"a\":2}\n{\"a\""), Code::format, "x.json:3:");
  EXPECT_FAILS(rows("{\"a\":1}\n{\"a\":2}\n{\"a\""), Code::format, "truncated");
}

TEST_F(Rows, ALineHasALimit) {
  const std::string line = "{\"t\":\"" + std::string(17 << 20, 'x') + "\"}";
  EXPECT_FAILS(rows("{\"a\":1}\n" + line + "\n"), Code::format, "x.json:2: a line longer than 16777216 bytes");
  EXPECT_EQ(read_rows(put("y.json", "[" + line + "]")).size(), 1u);
}

TEST_F(Rows, OfAParquetFileWhateverItsName) {
  const std::string texts = test::plain_texts({"one", "\xff", "three"});
  const std::string content =
      test::ParquetBuilder().text("a").row_group(3, {{3, test::ParquetBuilder::page(3, ParquetEncoding::plain, texts)}}).file();
  RowReader reader(put("x.json", content));
  Json row;
  ASSERT_TRUE(reader.next(row));
  EXPECT_EQ(row.dump(), R"({"a": "one"})");
  ASSERT_TRUE(reader.next(row));
  EXPECT_EQ(reader.defect(), "column 'a' is not valid UTF-8");
  ASSERT_TRUE(reader.next(row));
  EXPECT_EQ(row.dump() + reader.defect(), R"({"a": "three"})");
  EXPECT_EQ(reader.where(), folder_ / "x.json" + ": row 3");
  EXPECT_FALSE(reader.next(row));
  EXPECT_FAILS(read_rows(put("x.parquet", content)), Code::format, "x.parquet: row 2: column 'a' is not valid UTF-8");
  EXPECT_FAILS(read_rows(put("x.parquet", "{}")), Code::format, "expected a Parquet file");
  EXPECT_TRUE(is_row_file_name("train-00000-of-00001.parquet"));
}

}  // namespace
}  // namespace moe
