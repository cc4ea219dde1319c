// TensorBoard event files, read by a decoder of its own: bits of CRC-32C one by one, protocol buffers by their wire format.
#include "formats/event_file.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <map>

#include "support/temporary_folder.h"

namespace moe {
namespace {

uint64_t little_endian(const std::string &bytes, size_t at, size_t size) {
  uint64_t value = 0;
  for (size_t i = 0; i < size; i++) value |= uint64_t{static_cast<uint8_t>(bytes.at(at + i))} << (8 * i);
  return value;
}

// CRC-32C as a remainder of polynomials, bit by bit.
uint32_t slow_crc32c(const std::string &bytes) {
  uint32_t crc = 0xFFFFFFFF;
  for (const char byte : bytes) {
    for (int bit = 0; bit < 8; bit++) {
      const uint32_t top = (crc ^ (static_cast<uint8_t>(byte) >> bit)) & 1;
      crc = (crc >> 1) ^ (top ? 0x82F63B78 : 0);
    }
  }
  return crc ^ 0xFFFFFFFF;
}
uint32_t unmasked(uint32_t masked) {
  const uint32_t rotated = masked - 0xA282EAD8;
  return rotated << 15 | rotated >> 17;
}

using Fields = std::multimap<uint64_t, std::string>;  // number -> the bytes of a fixed or delimited field, a varint as decimals

Fields fields_of(const std::string &message) {
  Fields fields;
  size_t at = 0;
  const auto varint = [&] {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<uint8_t>(message.at(at++));
      value |= uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return value;
    }
  };
  while (at < message.size()) {
    const uint64_t key = varint(), type = key & 7;
    if (type == 0) {
      fields.emplace(key >> 3, std::to_string(varint()));
      continue;
    }
    const size_t size = type == 1 ? 8 : type == 5 ? 4 : varint();
    if (at + size > message.size()) throw std::runtime_error("a field reaches beyond its message");
    fields.emplace(key >> 3, message.substr(at, size));
    at += size;
  }
  return fields;
}
std::string one(const Fields &fields, uint64_t number) {
  const auto found = fields.find(number);
  return found == fields.end() ? "" : found->second;
}

std::vector<Fields> events_of(const std::string &path) {
  const std::string bytes = read_file(path);
  std::vector<Fields> events;
  for (size_t at = 0; at < bytes.size();) {
    const size_t size = little_endian(bytes, at, 8);
    EXPECT_EQ(unmasked(static_cast<uint32_t>(little_endian(bytes, at + 8, 4))), slow_crc32c(bytes.substr(at, 8)));
    const std::string event = bytes.substr(at + 12, size);
    EXPECT_EQ(unmasked(static_cast<uint32_t>(little_endian(bytes, at + 12 + size, 4))), slow_crc32c(event));
    events.push_back(fields_of(event));
    at += 16 + size;
  }
  return events;
}

std::vector<std::string> event_files(const std::string &folder) {
  std::vector<std::string> files;
  for (const std::string &name : list_folder(folder))
    if (name.starts_with("events.out.tfevents.")) files.push_back(join_path(folder, name));
  return files;
}

TEST(EventFile, Crc32cIsThatOfTheStandard) {
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);            // the check value of the algorithm
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAu);  // RFC 3720, B.4
  EXPECT_EQ(crc32c(std::string(32, '\xFF')), 0x62A8AB43u);
}

TEST(EventFile, HoldsTheScalarsOfEveryStep) {
  const test::TemporaryFolder folder;
  EventFile events(folder / "", 1);
  EXPECT_TRUE(event_files(folder / "").empty());
  const double long_ago = static_cast<double>(time(nullptr)) - 5;
  events.scalars(1, {{"train/loss", 2.5}, {"train/learning_rate", 1e-4}});
  events.scalars(300, {{"eval/loss", NAN}});
  const auto files = event_files(folder / "");
  ASSERT_EQ(files.size(), 1u);
  const auto read = events_of(files[0]);
  ASSERT_EQ(read.size(), 4u);
  EXPECT_EQ(one(read[0], 3), "brain.Event:2");
  EXPECT_EQ(one(fields_of(one(read[1], 7)), 1), "1");  // a session starts ...
  EXPECT_EQ(one(read[1], 2), "1");                     // ... with step 1
  EXPECT_EQ(one(read[2], 2), "1");
  EXPECT_GT(std::bit_cast<double>(little_endian(one(read[2], 1), 0, 8)), long_ago);
  const Fields summary = fields_of(one(read[2], 5));
  ASSERT_EQ(summary.count(1), 2u);
  std::map<std::string, float> values;
  for (const auto &[number, value] : summary) {
    const Fields scalar = fields_of(value);
    values[one(scalar, 1)] = std::bit_cast<float>(static_cast<uint32_t>(little_endian(one(scalar, 2), 0, 4)));
  }
  EXPECT_EQ(values, (std::map<std::string, float>{{"train/loss", 2.5f}, {"train/learning_rate", 1e-4f}}));
  EXPECT_EQ(one(read[3], 2), "300");
  const Fields last = fields_of(one(fields_of(one(read[3], 5)), 1));
  EXPECT_TRUE(std::isnan(std::bit_cast<float>(static_cast<uint32_t>(little_endian(one(last, 2), 0, 4)))));
}

TEST(EventFile, EveryStartHasAFileOfItsOwn) {
  const test::TemporaryFolder folder;
  EventFile(folder / "", 1).scalars(1, {{"a", 1}});
  EventFile(folder / "", 2).scalars(2, {{"a", 2}});
  const auto files = event_files(folder / "");
  ASSERT_EQ(files.size(), 2u);
  EXPECT_EQ(one(events_of(files[0]).at(1), 2), "1");
  EXPECT_EQ(one(events_of(files[1]).at(1), 2), "2");  // what the first file holds from step 2 on is forgotten
}

}  // namespace
}  // namespace moe
