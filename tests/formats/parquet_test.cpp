#include "formats/parquet.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/thread_pool.h"
#include "support/expect_error.h"
#include "support/parquet_builder.h"
#include "support/temporary_folder.h"

namespace moe {
namespace {

using test::levels;
using test::ParquetBuilder;
using test::plain;
using test::plain_texts;
using test::raw;
using test::TemporaryFolder;
using test::ThriftWriter;
using P = ParquetPhysical;
using Chunk = ParquetBuilder::Chunk;
constexpr auto kPlain = ParquetEncoding::plain;
constexpr auto kDictionary = ParquetEncoding::rle_dictionary;
constexpr auto kOptional = ParquetBuilder::optional;
constexpr auto kRepeated = ParquetBuilder::repeated;

// A file of the test's own.
class Written {
 public:
  explicit Written(const std::string &content) { std::ofstream(path(), std::ios::binary) << content; }
  std::string path() const { return folder_ / "x.parquet"; }

 private:
  TemporaryFolder folder_;
};

std::vector<std::string> rows_of(const std::string &content, const std::vector<std::string> &names = {}) {
  const Written file(content);
  ParquetRows reader(file.path(), names);
  std::vector<std::string> rows;
  for (Json row; reader.next(row);) rows.push_back(row.dump());
  return rows;
}

using Lines = std::vector<std::string>;

// One required column of one page.
std::string column_file(P physical, int values, const std::string &stored, int converted, int length = 0,
                        ThriftWriter::Body logical = nullptr, int scale = 0, int precision = 0) {
  return ParquetBuilder()
      .value("x", physical, ParquetBuilder::required, converted, length, logical, scale, precision)
      .row_group(values, {{values, ParquetBuilder::page(values, kPlain, stored)}})
      .file();
}

ThriftWriter::Body logical(
    int id, ThriftWriter::Body parameters = [](ThriftWriter &) {}) {
  return [=](ThriftWriter &w) { w.structure(id, parameters); };
}
ThriftWriter::Body time_type(int id, bool utc, int unit) {
  return logical(id, [=](ThriftWriter &w) {
    w.flag(1, utc).structure(2, [=](ThriftWriter &u) { u.structure(unit, [](ThriftWriter &) {}); });
  });
}

TEST(ParquetValue, NumbersKeepTheirSignAndWidth) {
  const std::string four = plain<int32_t>({-1, 7}), eight = plain<int64_t>({-1, 7});
  EXPECT_EQ(rows_of(column_file(P::int32, 2, four, -1)), (Lines{R"({"x": -1})", R"({"x": 7})"}));
  EXPECT_EQ(rows_of(column_file(P::int32, 2, four, 15))[0], R"({"x": -1})");                     // INT_8
  EXPECT_EQ(rows_of(column_file(P::int32, 2, four, 13))[0], R"({"x": 4294967295})");             // UINT_32
  EXPECT_EQ(rows_of(column_file(P::int64, 2, eight, 18))[0], R"({"x": -1})");                    // INT_64
  EXPECT_EQ(rows_of(column_file(P::int64, 2, eight, 14))[0], R"({"x": 18446744073709551615})");  // UINT_64
  EXPECT_EQ(rows_of(column_file(P::float32, 3, plain<float>({0.1f, INFINITY, NAN}), -1)),
            (Lines{R"({"x": 0.10000000149011612})", R"({"x": "Infinity"})", R"({"x": "NaN"})"}));
  EXPECT_EQ(rows_of(column_file(P::float64, 2, plain<double>({-1e300, -INFINITY}), -1)),
            (Lines{R"({"x": -1e+300})", R"({"x": "-Infinity"})"}));
  EXPECT_EQ(rows_of(column_file(P::boolean, 3, "\x05", -1)), (Lines{R"({"x": true})", R"({"x": false})", R"({"x": true})"}));
  EXPECT_EQ(rows_of(column_file(P::fixed_length, 3, plain<uint16_t>({0x3c00, 0x8001, 0x7c00}), -1, 2, logical(15))),
            (Lines{R"({"x": 1})", R"({"x": -5.960464477539063e-08})", R"({"x": "Infinity"})"}));
}

TEST(ParquetValue, DecimalsHaveTheirPoint) {
  EXPECT_EQ(rows_of(column_file(P::int32, 4, plain<int32_t>({-123, 5, 0, INT32_MIN}), 5, 0, nullptr, 2, 9)),
            (Lines{R"({"x": {"decimal": "-1.23"}})", R"({"x": {"decimal": "0.05"}})", R"({"x": {"decimal": "0.00"}})",
                   R"({"x": {"decimal": "-21474836.48"}})"}));
  EXPECT_EQ(rows_of(column_file(P::int64, 1, plain<int64_t>({INT64_MIN}), 5, 0, nullptr, 0, 18)),
            (Lines{R"({"x": {"decimal": "-9223372036854775808"}})"}));
  const std::string big = "\x01" + std::string(16, '\0');  // 2^128
  EXPECT_EQ(rows_of(column_file(P::fixed_length, 1, big, 5, 17, nullptr, 3, 40)),
            (Lines{R"({"x": {"decimal": "340282366920938463463374607431768211.456"}})"}));
  EXPECT_EQ(rows_of(column_file(P::byte_array, 3, plain_texts({"\xff", std::string("\x01\x00", 2), ""}), 5, 0, nullptr, 1, 4)),
            (Lines{R"({"x": {"decimal": "-0.1"}})", R"({"x": {"decimal": "25.6"}})", R"({"x": {"decimal": "0.0"}})"}));
  EXPECT_FAILS(rows_of(column_file(P::byte_array, 1, plain_texts({std::string(33, 'a')}), 5, 0, nullptr, 1, 4)),
               Code::unsupported, "33 bytes");
}

TEST(ParquetValue, TimesSayWhatTheyCount) {
  const std::string four = plain<int32_t>({5}), eight = plain<int64_t>({-6});
  EXPECT_EQ(rows_of(column_file(P::int32, 1, four, 6))[0], R"({"x": {"int": 5, "arrow": "date32[day]"}})");
  EXPECT_EQ(rows_of(column_file(P::int32, 1, four, 7))[0], R"({"x": {"int": 5, "arrow": "time32[ms]"}})");
  EXPECT_EQ(rows_of(column_file(P::int64, 1, eight, 8))[0], R"({"x": {"int": -6, "arrow": "time64[us]"}})");
  EXPECT_EQ(rows_of(column_file(P::int64, 1, eight, 9))[0], R"({"x": {"int": -6, "arrow": "timestamp[ms, tz=UTC]"}})");
  EXPECT_EQ(rows_of(column_file(P::int64, 1, eight, -1, 0, time_type(8, false, 3)))[0],
            R"({"x": {"int": -6, "arrow": "timestamp[ns]"}})");
  EXPECT_EQ(rows_of(column_file(P::int64, 1, eight, -1, 0, time_type(7, true, 3)))[0],
            R"({"x": {"int": -6, "arrow": "time64[ns]"}})");
  // 1970-01-02 and one nanosecond; the year 9999 does not fit nanoseconds.
  const std::string stamps = raw(int64_t{1}) + raw(uint32_t{2440589}) + raw(int64_t{1000}) + raw(uint32_t{2440588 + 2932896});
  EXPECT_EQ(rows_of(column_file(P::int96, 2, stamps, -1)),
            (Lines{R"({"x": {"int": 86400000000001, "arrow": "timestamp[ns]"}})",
                   R"({"x": {"int": 253402214400000001, "arrow": "timestamp[us]"}})"}));
}

TEST(ParquetValue, BytesAreTextOnlyWhereTheFileSaysSo) {
  const std::string bytes = plain_texts({"{\"a\"}"});
  for (const int converted : {0, 19})
    EXPECT_EQ(rows_of(column_file(P::byte_array, 1, bytes, converted))[0], R"({"x": "{\"a\"}"})");
  for (const int converted : {-1, 4, 20}) {
    EXPECT_EQ(rows_of(column_file(P::byte_array, 1, bytes, converted))[0], R"({"x": {"hex": "7b2261227d"}})");
  }
  EXPECT_EQ(rows_of(column_file(P::fixed_length, 1, std::string(12, '\1'), 21, 12))[0],
            R"({"x": {"hex": "010101010101010101010101"}})");  // INTERVAL
}

TEST(ParquetValue, TextThatIsNotUtf8IsADefectOfItsRow) {
  const Written written(column_file(P::byte_array, 3, plain_texts({"ok", "\xff", "fine"}), 0));
  ParquetRows rows(written.path());
  Json row;
  std::string defect;
  ASSERT_TRUE(rows.next(row, defect));
  ASSERT_TRUE(rows.next(row, defect));
  EXPECT_EQ(defect, "column 'x' is not valid UTF-8");
  EXPECT_TRUE(row.is_null());
  ASSERT_TRUE(rows.next(row, defect));
  EXPECT_EQ(defect, "");
  EXPECT_EQ(row.dump(), R"({"x": "fine"})");
  EXPECT_FALSE(rows.next(row, defect));
  ParquetRows strict(written.path());
  strict.next(row);
  EXPECT_FAILS(strict.next(row), Code::format, "x.parquet: row 2: column 'x' is not valid UTF-8");
  const ParquetFile file(written.path());
  EXPECT_FAILS(ParquetTexts(file, 0, "x").next(), Code::format, "row 2 of it: not valid UTF-8");
}

TEST(ParquetValue, AnAnnotationThatDoesNotFitIsRefused) {
  EXPECT_FAILS(rows_of(column_file(P::int32, 1, plain<int32_t>({1}), 0)), Code::format, "annotation of column 'x'");
  EXPECT_FAILS(rows_of(column_file(P::int64, 1, plain<int64_t>({1}), 6)), Code::format, "annotation of column 'x'");
  EXPECT_FAILS(rows_of(column_file(P::fixed_length, 1, std::string(15, 'x'), -1, 15, logical(14))), Code::format, "annotation");
  EXPECT_FAILS(rows_of(column_file(P::fixed_length, 1, "x", -1, 0)), Code::format, "has no length");
}

// DELTA_BINARY_PACKED of `count` numbers that are all the same.
std::string same_numbers(int count, int64_t value) {
  ThriftWriter w;
  w.varint(128).varint(4).varint(static_cast<uint64_t>(count)).zigzag(value);
  if (count > 1) w.bytes += std::string(5, '\0');  // smallest delta 0, four widths 0
  return w.bytes;
}

std::string encoded_file(P physical, ParquetEncoding encoding, int values, const std::string &stored, int converted = -1,
                         int length = 0) {
  return ParquetBuilder()
      .value("x", physical, ParquetBuilder::required, converted, length)
      .row_group(values, {{values, ParquetBuilder::page(values, encoding, stored)}})
      .file();
}

TEST(ParquetEncoding, ValuesSplitIntoStreamsOfBytes) {
  constexpr auto kSplit = ParquetEncoding::byte_stream_split;
  const std::string split("\x01\x02\x00\x10\x00\x00\xff\x00", 8);  // 0xff000001 and 0x00001002
  EXPECT_EQ(rows_of(encoded_file(P::int32, kSplit, 2, split)), (Lines{R"({"x": -16777215})", R"({"x": 4098})"}));
  EXPECT_EQ(rows_of(encoded_file(P::fixed_length, kSplit, 2, "adbecf", -1, 3)),
            (Lines{R"({"x": {"hex": "616263"}})", R"({"x": {"hex": "646566"}})"}));
  EXPECT_FAILS(rows_of(encoded_file(P::int32, kSplit, 2, split.substr(1))), Code::format, "are no number of values of 4 bytes");
  EXPECT_FAILS(rows_of(encoded_file(P::int32, kSplit, 3, split)), Code::format, "3 values are needed, 2 remain");
}

TEST(ParquetEncoding, DeltasAreSumsThatWrap) {
  constexpr auto kDelta = ParquetEncoding::delta_binary_packed;
  EXPECT_EQ(rows_of(encoded_file(P::int64, kDelta, 2, same_numbers(2, -5))), (Lines{R"({"x": -5})", R"({"x": -5})"}));
  ThriftWriter wraps;
  wraps.varint(128).varint(4).varint(2).zigzag(INT32_MAX).zigzag(1).bytes += std::string(4, '\0');
  EXPECT_EQ(rows_of(encoded_file(P::int32, kDelta, 2, wraps.bytes))[1], R"({"x": -2147483648})");
  EXPECT_EQ(rows_of(encoded_file(P::int64, kDelta, 2, wraps.bytes))[1], R"({"x": 2147483648})");
  EXPECT_FAILS(rows_of(encoded_file(P::int64, kDelta, 3, wraps.bytes)), Code::format, "more values are needed than the 2 deltas");
  EXPECT_FAILS(rows_of(encoded_file(P::int64, kDelta, 1, std::string("\x80\x01\x00\x01\x00", 5))), Code::format, "0 miniblocks");
  ThriftWriter wide;
  wide.varint(128).varint(4).varint(2).zigzag(0).zigzag(0).bytes += "AAAA";
  EXPECT_FAILS(rows_of(encoded_file(P::int64, kDelta, 2, wide.bytes)), Code::format, "deltas of 65 bits");
}

TEST(ParquetEncoding, LongTextsByDeltasComeInParts) {
  constexpr int kTexts = 5, kLong = 700'000;
  std::string lengths = same_numbers(kTexts, 0) + same_numbers(kTexts, kLong), all;
  for (int i = 0; i < kTexts; ++i) all += std::string(kLong, static_cast<char>('a' + i));
  const Written written(encoded_file(P::byte_array, ParquetEncoding::delta_byte_array, kTexts, lengths + all, 0));
  const ParquetFile file(written.path());
  ParquetTexts texts(file, 0, "x");
  std::string found;
  int parts = 0;
  for (auto part = texts.next(); !part.empty(); part = texts.next(), ++parts) {
    for (const std::string_view text : part) found += text;
  }
  EXPECT_TRUE(found == all);
  EXPECT_GT(parts, 1);
  EXPECT_EQ(rows_of(encoded_file(P::byte_array, ParquetEncoding::delta_length_byte_array, 2, same_numbers(2, 1) + "ab", 0)),
            (Lines{R"({"x": "a"})", R"({"x": "b"})"}));
  EXPECT_FAILS(rows_of(encoded_file(P::byte_array, ParquetEncoding::delta_length_byte_array, 2, same_numbers(2, -1) + "ab", 0)),
               Code::format, "a text of length -1");
  EXPECT_FAILS(rows_of(encoded_file(P::byte_array, ParquetEncoding::delta_byte_array, 2,
                                    same_numbers(2, 1) + same_numbers(2, 1) + "ab", 0)),
               Code::format, "shares 1 bytes with one of 0");
}

TEST(ParquetEncoding, LevelsOfOldFilesArePackedFromTheTop) {
  const std::string stored = std::string("\xA0", 1) + plain<int32_t>({7, 8});  // 1, 0, 1
  const std::string page = ParquetBuilder::header(
      0, stored, -1, [](ThriftWriter &w) { w.structure(5, [](ThriftWriter &d) { d.i32(1, 3).i32(2, 0).i32(3, 4).i32(4, 4); }); });
  EXPECT_EQ(rows_of(ParquetBuilder().value("x", P::int32, kOptional).row_group(3, {{3, page + stored}}).file()),
            (Lines{R"({"x": 7})", R"({"x": null})", R"({"x": 8})"}));
}

// The two documents of the Dremel paper (Melnik et al. 2010, figures 2 and 3), whose levels are printed there.
std::string dremel_file() {
  ParquetBuilder b;
  b.value("DocId", P::int64);
  b.group("Links", 2, kOptional).value("Backward", P::int64, kRepeated).value("Forward", P::int64, kRepeated);
  b.group("Name", 2, kRepeated).group("Language", 2, kRepeated).text("Code").text("Country", kOptional).text("Url", kOptional);
  b.children_of_root(3);
  const auto chunk = [](const std::vector<uint8_t> &repetitions, const std::vector<uint8_t> &definitions,
                        const std::string &values) {
    const int count = static_cast<int>(definitions.size());
    return Chunk{count, ParquetBuilder::page(count, kPlain, levels(repetitions) + levels(definitions) + values)};
  };
  return b
      .row_group(2, {{2, ParquetBuilder::page(2, kPlain, plain<int64_t>({10, 20}))},
                     chunk({0, 0, 1}, {1, 2, 2}, plain<int64_t>({10, 30})),
                     chunk({0, 1, 1, 0}, {2, 2, 2, 2}, plain<int64_t>({20, 40, 60, 80})),
                     chunk({0, 2, 1, 1, 0}, {2, 2, 1, 2, 1}, plain_texts({"en-us", "en", "en-gb"})),
                     chunk({0, 2, 1, 1, 0}, {3, 2, 1, 3, 1}, plain_texts({"us", "gb"})),
                     chunk({0, 1, 1, 0}, {2, 2, 1, 2}, plain_texts({"http://A", "http://B", "http://C"}))})
      .file();
}
const Lines kDremelRows{
    R"({"DocId": 10, "Links": {"Backward": [], "Forward": [20, 40, 60]}, "Name": [)"
    R"({"Language": [{"Code": "en-us", "Country": "us"}, {"Code": "en", "Country": null}], "Url": "http://A"}, )"
    R"({"Language": [], "Url": "http://B"}, {"Language": [{"Code": "en-gb", "Country": "gb"}], "Url": null}]})",
    R"({"DocId": 20, "Links": {"Backward": [10, 30], "Forward": [80]}, "Name": [{"Language": [], "Url": "http://C"}]})"};

TEST(ParquetRows, PutTheDocumentsOfTheDremelPaperTogether) { EXPECT_EQ(rows_of(dremel_file()), kDremelRows); }

TEST(ParquetRows, ListsAndMapsOfAllForms) {
  const auto file = [](ParquetBuilder &b, const std::vector<uint8_t> &repetitions, const std::vector<uint8_t> &definitions,
                       const std::string &values) {
    const int count = static_cast<int>(definitions.size());
    const std::string page = ParquetBuilder::page(count, kPlain, levels(repetitions) + levels(definitions) + values);
    int rows = 0;
    for (const uint8_t level : repetitions) rows += level == 0;
    return b.children_of_root(1).row_group(rows, {{count, page}}).file();
  };
  ParquetBuilder three;
  three.group("x", 1, kOptional, 3).group("list", 1, kRepeated).value("element", P::int32, kOptional);
  const std::string three_levels = file(three, {0, 0, 0, 0, 1}, {0, 1, 2, 3, 3}, plain<int32_t>({7, 8, 9}));
  EXPECT_EQ(rows_of(three_levels), (Lines{R"({"x": null})", R"({"x": []})", R"({"x": [null]})", R"({"x": [7, 8]})"}));
  ParquetBuilder two;
  two.group("x", 1, kOptional, 3).value("element", P::int32, kRepeated);
  EXPECT_EQ(rows_of(file(two, {0, 0, 0, 1}, {0, 1, 2, 2}, plain<int32_t>({7, 8}))),
            (Lines{R"({"x": null})", R"({"x": []})", R"({"x": [7, 8]})"}));
  ParquetBuilder tuple;
  tuple.group("x", 1, kOptional, 3).group("x_tuple", 1, kRepeated).value("a", P::int32);
  EXPECT_EQ(rows_of(file(tuple, {0, 1}, {2, 2}, plain<int32_t>({7, 8}))), (Lines{R"({"x": [{"a": 7}, {"a": 8}]})"}));
  ParquetBuilder bare;
  bare.value("x", P::int32, kRepeated);
  EXPECT_EQ(rows_of(file(bare, {0, 1, 0}, {1, 1, 0}, plain<int32_t>({7, 8}))), (Lines{R"({"x": [7, 8]})", R"({"x": []})"}));
}

TEST(ParquetRows, ColumnsOfARowMustAgree) {
  const auto file = [](const std::vector<uint8_t> &repetitions, const std::vector<uint8_t> &definitions) {
    ParquetBuilder b;
    b.group("x", 2, kRepeated).value("a", P::int32).value("b", P::int32).children_of_root(1);
    const auto chunk = [](const std::vector<uint8_t> &r, const std::vector<uint8_t> &d) {
      const int count = static_cast<int>(d.size());
      return Chunk{count, ParquetBuilder::page(count, kPlain, levels(r) + levels(d) + plain<int32_t>({1, 2, 3, 4}))};
    };
    return b.row_group(2, {chunk({0, 1, 0}, {1, 1, 0}), chunk(repetitions, definitions)}).file();
  };
  EXPECT_EQ(rows_of(file({0, 1, 0}, {1, 1, 0})), (Lines{R"({"x": [{"a": 1, "b": 1}, {"a": 2, "b": 2}]})", R"({"x": []})"}));
  EXPECT_FAILS(rows_of(file({0, 0, 0}, {1, 1, 0})), Code::format, "column 'x.b'");  // a shorter list
  EXPECT_FAILS(rows_of(file({0, 1, 0}, {1, 0, 0})), Code::format, "column 'x.b'");  // an element that is not there
  EXPECT_FAILS(rows_of(file({0, 1, 0}, {1, 1, 1})), Code::format, "column 'x.b'");  // an element where there is none
  EXPECT_FAILS(rows_of(file({0, 1, 0, 0}, {1, 1, 0, 0})), Code::format, "column 'x.b' of row group 0: more values");
  EXPECT_FAILS(rows_of(file({0, 1}, {1, 1})), Code::format, "column 'x.b' of row group 0: ends in row 2");
  EXPECT_FAILS(rows_of(file({1, 1, 0}, {1, 1, 0})), Code::format, "row 1 of it");  // a row that begins inside
}

// `groups` row groups of `rows` rows; the texts by a dictionary, then plainly.
std::string groups_file(int groups, int rows) {
  ParquetBuilder b;
  b.text("question", kOptional).value("id", P::int64);
  for (int g = 0; g < groups; ++g) {
    std::vector<int64_t> ids;
    std::vector<std::string> texts;
    std::vector<uint8_t> present;
    for (int i = 0; i < rows; ++i) {
      ids.push_back(g * 1000 + i);
      present.push_back(i % 5 != 3);
      if (i % 5 != 3) texts.push_back("question " + std::to_string(g * 1000 + i));
    }
    const std::string pages = ParquetBuilder::dictionary(2, plain_texts({"first", "second"})) +
                              ParquetBuilder::page(3, kDictionary, levels({1, 1, 1}) + std::string("\x01\x06\x01", 3)) +
                              ParquetBuilder::page(rows, kPlain, levels(present) + plain_texts(texts));
    std::vector<int64_t> more = {-1, -2, -3};
    more.insert(more.end(), ids.begin(), ids.end());
    b.row_group(rows + 3, {{rows + 3, pages, 0, -1, 0}, {rows + 3, ParquetBuilder::page(rows + 3, kPlain, plain(more))}});
  }
  return b.file();
}

TEST(ParquetRows, RowGroupsFollowEachOther) {
  const Lines rows = rows_of(groups_file(3, 2000));
  ASSERT_EQ(rows.size(), 3 * 2003u);
  EXPECT_EQ(rows[0], R"({"question": "second", "id": -1})");
  EXPECT_EQ(rows[3], R"({"question": "question 0", "id": 0})");
  EXPECT_EQ(rows[6], R"({"question": null, "id": 3})");
  EXPECT_EQ(rows[2003 + 3], R"({"question": "question 1000", "id": 1000})");
}

TEST(ParquetRows, ProjectionReadsOnlyTheNamedFields) {
  const std::string content = groups_file(1, 3);
  EXPECT_EQ(rows_of(content, {"id"})[0], R"({"id": -1})");
  EXPECT_EQ(rows_of(content, {"id", "question"})[0], R"({"question": "second", "id": -1})");  // in the order of the file
  EXPECT_FAILS(rows_of(content, {"answer"}), Code::invalid, "no column is called 'answer'; there are: 'question', 'id'");
  EXPECT_EQ(rows_of(dremel_file(), {"Links"})[1], R"({"Links": {"Backward": [10, 30], "Forward": [80]}})");
}

TEST(ParquetRows, RowGroupsReadAtOnceGiveWhatTheyGiveInTurn) {
  const Written written(groups_file(8, 700));
  const Lines expected = rows_of(groups_file(8, 700));
  const ParquetFile file(written.path());
  std::vector<Lines> found(file.row_groups());
  ThreadPool pool(4);
  pool.run(static_cast<int64_t>(file.row_groups()), [&](int64_t index, int) {
    ParquetRowGroup group(file, static_cast<size_t>(index));
    std::string defect;
    for (Json row; group.next(row, defect);) found[static_cast<size_t>(index)].push_back(row.dump());
  });
  Lines all;
  for (const Lines &lines : found) all.insert(all.end(), lines.begin(), lines.end());
  EXPECT_EQ(all, expected);
}

TEST(ParquetTexts, AreThoseOfTheRows) {
  const Written written(groups_file(2, 3000));
  const ParquetFile file(written.path());
  std::vector<std::optional<std::string>> expected, found;
  ParquetRows rows(written.path(), {"question"});
  for (Json row; rows.next(row);) {
    const Json &text = row.at("question", "");
    expected.push_back(text.is_null() ? std::nullopt : std::optional(text.string()));
  }
  for (size_t group = 0; group < file.row_groups(); ++group) {
    ParquetTexts texts(file, group, "question");
    for (auto part = texts.next(); !part.empty(); part = texts.next()) {
      for (const std::string_view text : part) found.push_back(text.data() ? std::optional(std::string(text)) : std::nullopt);
    }
  }
  EXPECT_EQ(found, expected);
  EXPECT_FAILS(ParquetTexts(file, 0, "id"), Code::invalid, "expected a column of texts, 'id' is int64");
  EXPECT_FAILS(ParquetTexts(file, 0, "x"), Code::invalid, "no column is called 'x'");
}

TEST(ParquetFile, SaysWhatItHolds) {
  const Written written(groups_file(2, 3));
  const ParquetFile file(written.path());
  EXPECT_EQ(parquet_types(file).dump(), R"({"question": "string", "id": "int64 not null"})");
  const Json json = describe_parquet(file);
  EXPECT_EQ(json.at("rows", "").integer(), 12);
  const Json &column = json.at("row_groups", "").items()[1].at("columns", "").items()[0];
  EXPECT_EQ(column.at("name", "").string(), "question");
  EXPECT_EQ(column.at("codec", "").string(), "uncompressed");
  EXPECT_EQ(column.at("values", "").integer(), 6);
}

TEST(ParquetFile, PathsOfColumnsDoNotGrowWithoutEnd) {
  const Written dremel(dremel_file());
  const Json json = describe_parquet(ParquetFile(dremel.path()));
  std::vector<std::string> names;
  for (const Json &column : json.at("row_groups", "").items()[0].at("columns", "").items())
    names.push_back(column.at("name", "").string());
  EXPECT_EQ(names,
            (Lines{"DocId", "Links.Backward", "Links.Forward", "Name.Language.Code", "Name.Language.Country", "Name.Url"}));
  ParquetBuilder b;
  b.group(std::string(1 << 20, 'g'), 1000).children_of_root(1);
  for (int i = 0; i < 1000; ++i) b.value(std::to_string(i), P::int32);
  const Written wide(b.row_group(0, std::vector<Chunk>(1000)).file());
  EXPECT_LT(describe_parquet(ParquetFile(wide.path())).dump().size(), 4u << 20);
}

TEST(ParquetFile, RefusesWhatIsNoParquetFile) {
  for (const std::string content : {"", "PAR1", "PAR1PAR1", "{\"a\": 1}\n{\"a\": 2}\n"}) {
    EXPECT_FAILS(rows_of(content), Code::format, "expected a Parquet file");
  }
  const std::string valid = groups_file(1, 3);
  EXPECT_FAILS(rows_of(valid.substr(0, valid.size() - 1)), Code::format, "the file may be truncated");
  EXPECT_FAILS(rows_of("PAR1" + raw(uint32_t{0}) + "PAR1"), Code::format, "footer");
  EXPECT_FAILS(rows_of("PAR1" + raw(uint32_t{100}) + "PAR1"), Code::format, "a footer of 100 bytes");
  EXPECT_FAILS(rows_of("PARExxxx" + raw(uint32_t{4}) + "PARE"), Code::unsupported, "encrypted");
}

TEST(ParquetFile, NumbersThatDoNotFitEachOtherAreRefused) {
  const auto one = [](int64_t rows, const Chunk &chunk) {
    return ParquetBuilder().value("x", P::int32).row_group(rows, {chunk}).file();
  };
  const std::string four = plain<int32_t>({1, 2, 3, 4});
  const std::string page = ParquetBuilder::page(4, kPlain, four);
  EXPECT_EQ(rows_of(one(4, {4, page})).size(), 4u);
  EXPECT_FAILS(rows_of(one(5, {4, page})), Code::format, "4 values for 5 rows");
  EXPECT_FAILS(rows_of(one(5, {5, page})), Code::format, "ends 1 values before the 5");
  EXPECT_FAILS(rows_of(one(3, {3, page})), Code::format, "a page of 4 values where 3 are left");
  EXPECT_FAILS(rows_of(one(4, {4, ParquetBuilder::page(4, kPlain, four.substr(1))})), Code::format,
               "16 bytes are needed, 15 remain");
  EXPECT_FAILS(rows_of(one(4, {4, ParquetBuilder::page(4, kPlain, four, 17)})), Code::format,
               "16 bytes of uncompressed do not give");
  EXPECT_FAILS(rows_of(one(4, {4, ParquetBuilder::page(4, ParquetEncoding::delta_byte_array, four)})), Code::unsupported,
               "INT32 values in encoding DELTA_BYTE_ARRAY");
  EXPECT_FAILS(rows_of(one(4, {4, page, 3})), Code::unsupported, "compressed with lzo");
  EXPECT_FAILS(rows_of(one(4, {4, page, 0, -1, -1, true})), Code::unsupported, "'x' of row group 0: it is encrypted");
}

TEST(ParquetFile, DictionariesAreChecked) {
  const auto one = [](const std::string &pages) {
    return ParquetBuilder().text("x").row_group(3, {{3, pages, 0, -1, 0}}).file();
  };
  const std::string dictionary = ParquetBuilder::dictionary(2, plain_texts({"a", "b"}));
  const auto indices = [](const std::string &stored) { return ParquetBuilder::page(3, kDictionary, stored); };
  EXPECT_EQ(rows_of(one(dictionary + indices(std::string("\x01\x03\x02", 3)))),
            (Lines{R"({"x": "a"})", R"({"x": "b"})", R"({"x": "a"})"}));
  EXPECT_FAILS(rows_of(one(dictionary + indices(std::string("\x02\x06\x02", 3)))), Code::format, "at most 1, found 2");
  EXPECT_FAILS(rows_of(one(dictionary + indices(std::string("\x02\x03\x24\x00", 4)))), Code::format, "at most 1, found 2");
  EXPECT_FAILS(rows_of(one(dictionary + indices(std::string("\x21\x06\x02", 3)))), Code::format, "indices of 33 bits");
  EXPECT_FAILS(rows_of(one(dictionary + indices(std::string("\x01\x00\x02", 3)))), Code::format, "a run without values");
  EXPECT_FAILS(rows_of(one(dictionary + indices(std::string("\x01\x02\x01", 3)))), Code::format, "remain in the page");
  EXPECT_FAILS(rows_of(one(indices(std::string("\x01\x06\x01", 3)))), Code::format, "the column has none");
  EXPECT_FAILS(rows_of(one(dictionary + dictionary + indices(std::string("\x01\x06\x01", 3)))), Code::format,
               "second dictionary");
  EXPECT_FAILS(rows_of(one(ParquetBuilder::dictionary(1 << 30, plain_texts({"a"})) + indices("\x01\x06\x01"))), Code::format,
               "a dictionary of 1073741824 values in 5 bytes");
}

TEST(ParquetFile, SchemasAreChecked) {
  ParquetBuilder twice;
  EXPECT_FAILS(rows_of(twice.text("a").text("a").row_group(0, {{}, {}}).file()), Code::unsupported,
               "two fields of one group are called 'a'");
  ParquetBuilder deep;
  for (int i = 0; i < 60; ++i) deep.group("g", 1);
  EXPECT_FAILS(rows_of(deep.text("a").children_of_root(1).row_group(0, {{}}).file()), Code::unsupported, "deeper than");
  ParquetBuilder empty;
  EXPECT_FAILS(rows_of(empty.group("g", 0).row_group(0, {}).file()), Code::format, "group 'g' of the schema has no fields");
  ParquetBuilder few;
  EXPECT_FAILS(rows_of(few.text("a").children_of_root(2).row_group(0, {{}}).file()), Code::format, "ends inside a group");
  ParquetBuilder many;
  EXPECT_FAILS(rows_of(many.text("a").text("b").children_of_root(1).row_group(0, {{}, {}}).file()), Code::format,
               "the schema has 3 fields, 2 of them");
  ParquetBuilder bad;
  EXPECT_FAILS(rows_of(bad.text("a\xff").row_group(0, {{}}).file()), Code::format, "not UTF-8");
}

TEST(ParquetFile, ThriftThatIsNestedWithoutEndIsRefused) {
  const std::string deep(100'000, '\x1c');  // field 1 is a structure, whose field 1 is a structure, ...
  EXPECT_FAILS(rows_of("PAR1" + deep + raw(static_cast<uint32_t>(deep.size())) + "PAR1"), Code::format, "");
  const std::string unknown = "\xec" + deep;  // in a field that is skipped
  EXPECT_FAILS(rows_of("PAR1" + unknown + raw(static_cast<uint32_t>(unknown.size())) + "PAR1"), Code::format, "nested too deep");
}

TEST(ParquetFile, BombsAreRefused) {
  // A page that claims what its codec cannot make of it, and one beyond what the column says.
  const auto one = [](int codec, int64_t size) {
    const std::string page = ParquetBuilder::page(1, kPlain, std::string(1000, 'x'), size);
    return ParquetBuilder().text("x").row_group(1, {{1, page, codec, 2000}}).file();
  };
  if (codec_available(Codec::snappy))
    EXPECT_FAILS(rows_of(one(1, 30'000)), Code::format, "1000 bytes of snappy that claim to be 30000");
  if (codec_available(Codec::zstd))
    EXPECT_FAILS(rows_of(one(6, 200'000)), Code::format, "1000 bytes of zstd that claim to be 200000");
  // A run of two thousand million nulls.
  const std::string nulls = raw(uint32_t{6}) + "\xfe\xff\xff\xff\x0f" + std::string(1, '\0');
  ParquetBuilder rows;
  EXPECT_FAILS(
      rows_of(
          rows.text("x", kOptional).row_group(INT32_MAX, {{INT32_MAX, ParquetBuilder::page(INT32_MAX, kPlain, nulls)}}).file()),
      Code::format, "2147483647 rows in a file of");
  // One row, a list of a million nulls.
  const std::string repetitions = raw(uint32_t{6}) + std::string("\x02\x00\xfe\xff\x7f\x01", 6);  // one 0, 2^20 - 1 times 1
  const std::string definitions = raw(uint32_t{5}) + "\x80\x80\x80\x01\x01";                      // 2^20 times 1
  ParquetBuilder list;
  list.group("x", 1, kRepeated).value("a", P::int32, kOptional).children_of_root(1);
  list.row_group(1, {{1 << 20, ParquetBuilder::page(1 << 20, kPlain, repetitions + definitions)}});
  EXPECT_FAILS(rows_of(list.file()), Code::format, "row 1 of row group 0 is larger than 67108864 bytes");
  // A long text of a dictionary, ever again.
  const std::string dictionary = ParquetBuilder::dictionary(1, plain_texts({std::string(1 << 16, 'x')}));
  ParquetBuilder output;
  const std::string page = ParquetBuilder::page(1 << 20, kDictionary, std::string("\x00\x80\x80\x80\x01", 5));
  const Written written(output.text("x").row_group(1 << 20, {{1 << 20, dictionary + page, 0, -1, 0}}).file());
  ParquetRows reader(written.path());
  Json row;
  EXPECT_FAILS(
      [&] {
        while (reader.next(row)) {
        }
      }(),
      Code::format, "gives more than 1024 bytes for each byte");
  EXPECT_GT(reader.number(), 1000u);
}

TEST(ParquetFile, TheColumnsOfARowGroupShareABudget) {
  ParquetBudget budget(100);
  budget.take(60, "x");
  EXPECT_FAILS(budget.take(41, "x.parquet: column 'a'"), Code::no_memory, "column 'a': 41 more bytes");
  budget.give_back(60);
  budget.take(100, "x");
}

}  // namespace
}  // namespace moe
