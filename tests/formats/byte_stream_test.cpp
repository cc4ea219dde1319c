// Compressed files, plain text, and the encodings that are not read. lines.jsonl.gz and .zst: tests/golden/rows/make.py.
#include "formats/byte_stream.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/error.h"
#include "base/file.h"
#include "formats/codec.h"
#include "formats/rows.h"
#include "support/expect_error.h"
#include "support/temporary_folder.h"

namespace moe {
namespace {

const std::string kGolden = std::string(MOE_TESTS_DIR) + "/golden/rows/";

class Streams : public testing::Test {
 protected:
  std::string put(const std::string &name, const std::string &content) {
    std::ofstream(folder_ / name, std::ios::binary) << content;
    return folder_ / name;
  }
  std::string rows(const std::string &path, PlainText plain_text = PlainText::document) {
    RowReader reader(path, plain_text);
    std::string out;
    for (Json row; reader.next(row);)
      out += reader.defect().empty() ? row.dump() : text("[", reader.where().substr(folder_.path().size() + 1), ": ", reader.defect(), "]");
    return out;
  }
  test::TemporaryFolder folder_;
};

struct Compressed {
  std::string name;
  Codec codec;
};
const Compressed kCompressed[] = {{"lines.jsonl.gz", Codec::gzip}, {"lines.jsonl.zst", Codec::zstd}};

TEST_F(Streams, CompressedRowsAreThoseOfThePlainFile) {
  const std::string plain = rows(kGolden + "lines.jsonl");
  for (const auto &[name, codec] : kCompressed) {
    if (!codec_available(codec)) {
      EXPECT_FAILS(rows(kGolden + name), Code::unsupported, name);
      continue;
    }
    EXPECT_EQ(rows(kGolden + name), plain);
    EXPECT_EQ(rows(put("named.jsonl", read_file(kGolden + name))), plain) << "its bytes tell, not its name";
    EXPECT_EQ(rows(put("x.jsonl.gz", read_file(kGolden + "lines.jsonl"))), plain) << "and a name alone does not compress";
  }
}

TEST_F(Streams, ACompressedFileThatEndsEarlyIsAnErrorWithTheOffset) {
  for (const auto &[name, codec] : kCompressed) {
    if (!codec_available(codec)) continue;
    const std::string whole = read_file(kGolden + name), plain = rows(kGolden + "lines.jsonl");
    int refused = 0, first_half = 0;
    for (size_t length = 4; length < whole.size(); length++) {
      const std::string path = put("x.jsonl", whole.substr(0, length));
      try {
        const std::string found = rows(path);
        EXPECT_TRUE(plain.starts_with(found)) << length;  // cut between the members: what is there is whole
        first_half++;
      } catch (const Error &error) {
        EXPECT_EQ(error.code(), Code::format);
        EXPECT_NE(error.message().find(text(path, ": the ")), std::string::npos) << error.message();
        EXPECT_NE(error.message().find(text("ends early, at offset ", length, " of the file")), std::string::npos) << error.message();
        refused++;
      }
    }
    EXPECT_EQ(first_half, 1) << name;
    EXPECT_EQ(refused, static_cast<int>(whole.size()) - 5);
  }
}

TEST_F(Streams, DamagedCompressedDataIsNeverReadAsRows) {
  for (const auto &[name, codec] : kCompressed) {
    if (!codec_available(codec)) continue;
    const std::string whole = read_file(kGolden + name), plain = rows(kGolden + "lines.jsonl");
    int refused = 0;
    for (size_t bit = 32; bit < whole.size() * 8; bit += 7) {
      std::string damaged = whole;
      damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
      try {
        EXPECT_EQ(rows(put("x.jsonl", damaged)), plain) << name << " bit " << bit;  // a bit without meaning: a time, a name
      } catch (const Error &error) {
        EXPECT_EQ(error.code(), Code::format) << error.message();
        refused++;
      }
    }
    EXPECT_GT(refused, static_cast<int>(whole.size()));
  }
  if (codec_available(Codec::gzip)) {
    EXPECT_FAILS(rows(put("x.jsonl", read_file(kGolden + "lines.jsonl.gz") + "tail")), Code::format, "damaged gzip data");
    EXPECT_FAILS(rows(put("y.jsonl", "\x1F\x8B")), Code::format, "ends early");
  }
}

TEST_F(Streams, OtherEncodingsAreRefusedOrCounted) {
  using std::string_literals::operator""s;
  EXPECT_FAILS(rows(put("x.csv", "\xFF\xFE"s + "a\0,\0b\0\n\0"s)), Code::format, "x.csv: the text is UTF-16");
  EXPECT_FAILS(rows(put("x.jsonl", "\xFE\xFF\0{\0}"s)), Code::format, "UTF-16");
  EXPECT_FAILS(rows(put("x.jsonl", "{\0\"\0a\0"s)), Code::format, "x.jsonl: a NUL byte at offset 1");
  EXPECT_EQ(rows(put("x.jsonl", "{\"a\": \"\xE9\"}\n{\"a\": \"b\"}\n")), "[x.jsonl:1: not valid UTF-8]{\"a\": \"b\"}");
  EXPECT_FAILS(rows(put("x.json", "[{\"a\": \"\xE9\"}]")), Code::format, "x.json: row 1: ");
  EXPECT_EQ(rows(put("x.txt", "caf\xE9")), "[x.txt: row 1: not valid UTF-8]");
  EXPECT_FAILS(read_rows(put("x.jsonl", "{\"a\": \"\xE9\"}\n")), Code::format, "x.jsonl:1: not valid UTF-8");
}

TEST_F(Streams, APlainTextFileIsOneDocument) {
  for (const char *name : {"x.txt", "x.text", "x.raw"}) {
    EXPECT_EQ(rows(put(name, "\xEF\xBB\xBFone\r\n\r\n{two}\n")), R"({"text": "one\u000d\n\u000d\n{two}\n"})");
    EXPECT_EQ(rows(put(name, "")), "");
    EXPECT_EQ(rows(put(name, "\n \n")), "");
  }
}

TEST_F(Streams, ParagraphsAreWhatStandsBetweenBlankLines) {
  const auto paragraphs = [&](const std::string &content) { return rows(put("x.txt", content), PlainText::paragraphs); };
  EXPECT_EQ(paragraphs("\n\none\ntwo\n\n \t\n  three  \r\n\r\nfour"), R"({"text": "one\ntwo"}{"text": "  three  "}{"text": "four"})");
  EXPECT_EQ(paragraphs("a\r\nb\r\n"), R"({"text": "a\u000d\nb"})");
  EXPECT_EQ(paragraphs("a\n\nb\xFF\n\nc"), R"({"text": "a"}[x.txt:3: not valid UTF-8]{"text": "c"})");
  EXPECT_EQ(paragraphs(" \n\n"), "");
  std::string many, expected;
  for (int i = 0; i < 20'000; i++) {
    const std::string line(static_cast<size_t>(i % 97) + 1, static_cast<char>('a' + i % 26));
    many += line + "\n" + line + (i % 3 ? "\n\n" : "\n\n\n\n");
    expected += "{\"text\": \"" + line + "\\n" + line + "\"}";
  }
  EXPECT_EQ(paragraphs(many), expected);
  RowReader reader(put("x.txt", "\na\n\n\nb\n"), PlainText::paragraphs);
  Json row;
  ASSERT_TRUE(reader.next(row) && reader.next(row));
  EXPECT_EQ(reader.number(), 5u);
}

}  // namespace
}  // namespace moe
