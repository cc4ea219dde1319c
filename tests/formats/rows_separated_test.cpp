// Tables of separated cells. The rows to be found are those that Python's csv module reads: tests/golden/rows/make.py.
#include <gtest/gtest.h>

#include <fstream>

#include "base/error.h"
#include "base/file.h"
#include "formats/rows.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace moe {
namespace {

const std::string kGolden = std::string(MOE_TESTS_DIR) + "/golden/rows/";

class SeparatedRows : public testing::Test {
 protected:
  std::string put(const std::string &name, const std::string &content) {
    std::ofstream(folder_ / name, std::ios::binary) << content;
    return folder_ / name;
  }
  std::string rows(const std::string &content, const std::string &name = "x.csv") {
    std::string out;
    for (const Json &row : read_rows(put(name, content))) out += row.dump();
    return out;
  }
  // Each row as it is, or as the line and reason of its defect.
  std::string outcome(const std::string &content) {
    RowReader reader(put("x.csv", content));
    std::string out;
    for (Json row; reader.next(row);)
      out += reader.defect().empty() ? row.dump() : text("[", reader.number(), ": ", reader.defect(), "]");
    return out;
  }
  test::TemporaryFolder folder_;
};

TEST_F(SeparatedRows, AreThoseOfPythonsCsvModule) {
  for (const char *name : {"comma.csv", "unix.csv", "mac.csv", "mark.csv", "semicolon.csv", "tab.tsv", "pipe.csv", "unnamed"}) {
    const std::vector<Json> found = read_rows(kGolden + name);
    const Json expected = read_json(kGolden + name + ".json");
    ASSERT_EQ(found.size(), 40u) << name;
    ASSERT_EQ(expected.size(), 40u);
    for (size_t i = 0; i < found.size(); i++) EXPECT_EQ(found[i].dump(), expected.items()[i].dump()) << name << " row " << i;
  }
}

TEST_F(SeparatedRows, DoNotDependOnWhereTheFileIsCutForReading) {
  const std::string record = "r,\"" + std::string(300, 'x') + "\r\n\"\"" + std::string(200, 'y') + "\"\r\n";
  std::string content = "id,text\r\n";
  for (int i = 0; i < 3000; i++) content += record;  // 1.5 MB: a record lies over the end of every piece that is read
  const std::vector<Json> found = read_rows(put("x.csv", content));
  ASSERT_EQ(found.size(), 3000u);
  const std::string cell = std::string(300, 'x') + "\r\n\"" + std::string(200, 'y');
  for (const Json &row : found) ASSERT_EQ(row.at("text", "").string(), cell);
}

TEST_F(SeparatedRows, KnowTheLineTheyBeginIn) {
  RowReader reader(put("x.csv", "a,b\n1,\"two\nlines\"\n\n\n3,4\n"));
  Json row;
  ASSERT_TRUE(reader.next(row));
  EXPECT_EQ(reader.where(), folder_ / "x.csv" + ":2");
  ASSERT_TRUE(reader.next(row));
  EXPECT_EQ(reader.where(), folder_ / "x.csv" + ":6");
  EXPECT_FALSE(reader.next(row));
  EXPECT_FALSE(reader.next(row));
}

TEST_F(SeparatedRows, WithAnotherNumberOfCellsAreDefects) {
  EXPECT_EQ(outcome("a,b\n1,2\n3\n4,5,6\n7,8\n"),
            R"({"a": "1", "b": "2"}[3: fewer cells than the header][4: more cells than the header]{"a": "7", "b": "8"})");
  EXPECT_EQ(outcome("a,b\n\"1\"x,2\n3,4\n"), R"([2: text after the closing quote of a cell]{"a": "3", "b": "4"})");
  EXPECT_EQ(outcome("a,b\n\"\"x,2\n"), "[2: text after the closing quote of a cell]");
  EXPECT_EQ(outcome("a,b\n1,\xE9\n3,4\n"), R"([2: not valid UTF-8]{"a": "3", "b": "4"})");
  EXPECT_FAILS(rows("a,b\n1,2\n3\n"), Code::format, "x.csv:3: fewer cells than the header");
}

TEST_F(SeparatedRows, KeepQuotesInsideOfACell) { EXPECT_EQ(rows("a,b\n5\" pipe,x\"y\"\n"), R"({"a": "5\" pipe", "b": "x\"y\""})"); }

TEST_F(SeparatedRows, HaveTheDelimiterTheirRecordsAgreeOn) {
  EXPECT_EQ(rows("a\tb\n1, 2, 3\t4\n"), R"({"a": "1, 2, 3", "b": "4"})");          // named .csv
  EXPECT_EQ(rows("a,b\n1,x\n", "x.tsv"), R"({"a": "1", "b": "x"})");               // named .tsv
  EXPECT_EQ(rows("a;b\n1,5;2,5\n3,5;4,5\n"), R"({"a": "1,5", "b": "2,5"}{"a": "3,5", "b": "4,5"})");
  EXPECT_EQ(rows("a,x\tb\n1,2\t3\n", "x.tsv"), R"({"a,x": "1,2", "b": "3"})");     // both would do: the name decides
  EXPECT_EQ(rows("a,x\tb\n1,2\t3\n", "x.csv"), R"({"a": "1", "x\u0009b": "2\u00093"})");
  EXPECT_EQ(rows("text\nno delimiter\nat all\n"), R"({"text": "no delimiter"}{"text": "at all"})");
  EXPECT_EQ(rows("a|b\n1|2\n3|4\n", "part-0001"), R"({"a": "1", "b": "2"}{"a": "3", "b": "4"})");  // no name tells
  EXPECT_EQ(rows("a|b\n1|2", "part-0002"), R"({"a": "1", "b": "2"})");
  EXPECT_FAILS(rows("a,b\n1,2\n3\n", "part-0001"), Code::format, "part-0001");                     // and the records do not agree
  EXPECT_FAILS(rows("a,b\n", "part-0001"), Code::format, "part-0001");
}

TEST_F(SeparatedRows, MayBeNone) {
  EXPECT_EQ(rows(""), "");
  EXPECT_EQ(rows("\xEF\xBB\xBF"), "");
  EXPECT_EQ(rows("a,b"), "");
  EXPECT_EQ(rows("\n\na,b\r\n\r\n"), "");
}

TEST_F(SeparatedRows, NeedAHeaderOfDifferentNames) {
  EXPECT_FAILS(rows("a,b,a\n1,2,3\n"), Code::format, "x.csv:1: the column 'a' occurs twice");
  EXPECT_FAILS(rows("a,\xFF\n1,2\n"), Code::format, "x.csv:1: the header is not valid UTF-8");
  EXPECT_EQ(rows(",b\n0,1\n"), R"({"": "0", "b": "1"})");  // an index without a name
}

TEST_F(SeparatedRows, ThatDoNotEndAreAnErrorThatNamesTheLine) {
  EXPECT_FAILS(rows("a,b\n1,2\n3,\"4\n5,6\n"), Code::format, "x.csv:3: a quote in this record does not end");
  EXPECT_FAILS(rows("a,b\n1,2\n3,\"" + std::string(17 << 20, 'x') + "\"\n"), Code::format, "x.csv:3: a record longer than");
}

}  // namespace
}  // namespace moe
