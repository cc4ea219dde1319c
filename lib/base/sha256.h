// SHA-256 (FIPS 180-4).
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace moe {

class Sha256 {
 public:
  explicit Sha256(bool plain = false);  // plain: without the SHA instructions of the processor, so that tests compare both
  Sha256 &update(const void *data, size_t bytes);
  std::array<uint8_t, 32> digest();  // ends the hash
  std::string hex();                 // the digest as 64 lower-case digits; ends the hash

 private:
  void (*blocks_)(uint32_t *state, const uint8_t *data, size_t count);
  std::array<uint32_t, 8> state_;
  std::array<uint8_t, 64> pending_;
  uint64_t bytes_ = 0;
};

std::string sha256_hex(const void *data, size_t bytes);
std::string sha256_file(const std::string &path);

}  // namespace moe
