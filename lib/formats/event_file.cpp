#include "formats/event_file.h"

#include <array>
#include <bit>
#include <chrono>

#include "base/error.h"

namespace moe {
namespace {

template <class Number>
void put(std::string &out, Number value) {  // little-endian
  for (size_t i = 0; i < sizeof value; i++) out += static_cast<char>(value >> (8 * i) & 0xFF);
}

// ---- protocol buffers ----

void put_varint(std::string &out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>((value & 0x7F) | 0x80);
  out += static_cast<char>(value);
}
enum WireType : uint64_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };
void put_key(std::string &out, uint64_t field, WireType type) { put_varint(out, field << 3 | type); }
void put_bytes(std::string &out, uint64_t field, std::string_view bytes) {
  put_key(out, field, kBytes);
  put_varint(out, bytes.size());
  out += bytes;
}
void put_integer(std::string &out, uint64_t field, int64_t value) {
  put_key(out, field, kVarint);
  put_varint(out, static_cast<uint64_t>(value));
}

std::string event(int64_t step, uint64_t field, std::string_view what) {
  const std::chrono::duration<double> now = std::chrono::system_clock::now().time_since_epoch();
  std::string out;
  put_key(out, 1, kFixed64);
  put(out, std::bit_cast<uint64_t>(now.count()));
  if (step != 0) put_integer(out, 2, step);
  put_bytes(out, field, what);
  return out;
}

uint32_t masked_crc(std::string_view bytes) {
  const uint32_t crc = crc32c(bytes);
  return (crc >> 15 | crc << 17) + 0xA282EAD8u;
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  static const auto table = [] {
    std::array<uint32_t, 256> all{};
    for (uint32_t i = 0; i < 256; i++) {
      uint32_t value = i;
      for (int bit = 0; bit < 8; bit++) value = value >> 1 ^ (value & 1 ? 0x82F63B78u : 0);
      all[i] = value;
    }
    return all;
  }();
  uint32_t crc = ~0u;
  for (const char c : bytes) crc = table[(crc ^ static_cast<uint8_t>(c)) & 0xFF] ^ crc >> 8;
  return ~crc;
}

void EventFile::open() {
  const auto now = std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now()).time_since_epoch().count();
  std::string path = join_path(folder_, text("events.out.tfevents.", now, ".libmoe"));
  for (int n = 1; file_exists(path); n++) path = join_path(folder_, text("events.out.tfevents.", now, ".libmoe.", n));
  file_ = std::make_unique<AppendFile>(path);
  record(event(0, 3, "brain.Event:2"));
  std::string start;
  put_integer(start, 1, 1);  // START
  record(event(first_step_, 7, start));
}

void EventFile::record(const std::string &event) {
  std::string length, out;
  put(length, static_cast<uint64_t>(event.size()));
  out = length;
  put(out, masked_crc(length));
  out += event;
  put(out, masked_crc(event));
  file_->bytes(out);
}

void EventFile::scalars(int64_t step, const std::vector<std::pair<std::string, double>> &values) {
  std::string summary;
  for (const auto &[tag, value] : values) {
    std::string one;
    put_bytes(one, 1, tag);
    put_key(one, 2, kFixed32);
    put(one, std::bit_cast<uint32_t>(static_cast<float>(value)));
    put_bytes(summary, 1, one);
  }
  try {
    if (!file_) open();
    record(event(step, 5, summary));
    first_step_ = step + 1;
  } catch (const Error &) {
    file_ = nullptr;
    throw;
  }
}

}  // namespace moe
