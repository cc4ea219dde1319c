// SHA-256: the plain form of FIPS 180-4, section 6.2.2, and the same rounds by the SHA instructions of x86 processors
// where the machine has them (about five times as fast: checkpoints and models are hashed whole).
#include "base/sha256.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/file.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace moe {
namespace {

constexpr std::array<uint32_t, 8> kInitial = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                              0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

alignas(64) constexpr uint32_t kRound[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01,
    0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc,
    0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
    0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08,
    0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
    0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

uint32_t big_endian(const uint8_t *bytes) {
  return uint32_t{bytes[0]} << 24 | uint32_t{bytes[1]} << 16 | uint32_t{bytes[2]} << 8 | uint32_t{bytes[3]};
}

void plain_blocks(uint32_t *state, const uint8_t *data, size_t count) {
  for (; count > 0; --count, data += 64) {
    uint32_t w[64];
    for (int i = 0; i < 16; ++i) w[i] = big_endian(data + 4 * i);
    for (int i = 16; i < 64; ++i) {
      const uint32_t s0 = std::rotr(w[i - 15], 7) ^ std::rotr(w[i - 15], 18) ^ w[i - 15] >> 3;
      const uint32_t s1 = std::rotr(w[i - 2], 17) ^ std::rotr(w[i - 2], 19) ^ w[i - 2] >> 10;
      w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4], f = state[5], g = state[6], h = state[7];
    for (int i = 0; i < 64; ++i) {
      const uint32_t s1 = std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25);
      const uint32_t t1 = h + s1 + ((e & f) ^ (~e & g)) + kRound[i] + w[i];
      const uint32_t s0 = std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22);
      const uint32_t t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
      h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d, state[4] += e, state[5] += f, state[6] += g, state[7] += h;
  }
}

#if defined(__x86_64__)
// The instructions keep the state as the words (a b e f) and (c d g h), most significant first; one instruction does two
// rounds, and the message schedule runs on vectors of four words.
__attribute__((target("sha,sse4.1"))) void sha_blocks(uint32_t *state, const uint8_t *data, size_t count) {
  const __m128i swap = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
  const auto word = [state](int i) { return static_cast<int>(state[i]); };
  __m128i abef = _mm_set_epi32(word(0), word(1), word(4), word(5));
  __m128i cdgh = _mm_set_epi32(word(2), word(3), word(6), word(7));
  for (; count > 0; --count, data += 64) {
    const __m128i abef_before = abef, cdgh_before = cdgh;
    __m128i w[4];  // a ring: the 16 newest words of the schedule
    for (int i = 0; i < 4; ++i) w[i] = _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i *>(data) + i), swap);
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {
      if (i >= 4) {
        const __m128i seven_back = _mm_alignr_epi8(w[(i + 3) % 4], w[(i + 2) % 4], 4);
        const __m128i partial = _mm_add_epi32(_mm_sha256msg1_epu32(w[i % 4], w[(i + 1) % 4]), seven_back);
        w[i % 4] = _mm_sha256msg2_epu32(partial, w[(i + 3) % 4]);
      }
      const __m128i sum = _mm_add_epi32(w[i % 4], _mm_load_si128(reinterpret_cast<const __m128i *>(kRound) + i));
      cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
      abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0E));
    }
    abef = _mm_add_epi32(abef, abef_before);
    cdgh = _mm_add_epi32(cdgh, cdgh_before);
  }
  alignas(16) uint32_t out[8];
  _mm_store_si128(reinterpret_cast<__m128i *>(out), abef);
  _mm_store_si128(reinterpret_cast<__m128i *>(out + 4), cdgh);
  const uint32_t ordered[8] = {out[3], out[2], out[7], out[6], out[1], out[0], out[5], out[4]};
  std::memcpy(state, ordered, sizeof ordered);
}

bool has_sha_instructions() {
  uint32_t a = 7, b = 0, c = 0, d = 0;  // leaf 7, subleaf 0: bit 29 of EBX
  asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  return (b >> 29 & 1) != 0 && __builtin_cpu_supports("sse4.1") != 0;
}
#endif

using BlocksFunction = void (*)(uint32_t *state, const uint8_t *data, size_t count);

BlocksFunction best_blocks() {
#if defined(__x86_64__)
  if (has_sha_instructions()) return sha_blocks;
#endif
  return plain_blocks;
}

}  // namespace

Sha256::Sha256(bool plain) : state_(kInitial), pending_{} {
  static const BlocksFunction best = best_blocks();
  blocks_ = plain ? plain_blocks : best;
}

Sha256 &Sha256::update(const void *data, size_t bytes) {
  if (bytes == 0) return *this;
  const auto *next = static_cast<const uint8_t *>(data);
  const size_t held = bytes_ % 64;
  bytes_ += bytes;
  if (held > 0) {
    const size_t taken = std::min(64 - held, bytes);
    std::memcpy(pending_.data() + held, next, taken);
    next += taken, bytes -= taken;
    if (held + taken < 64) return *this;
    blocks_(state_.data(), pending_.data(), 1);
  }
  blocks_(state_.data(), next, bytes / 64);
  if (bytes % 64 > 0) std::memcpy(pending_.data(), next + bytes / 64 * 64, bytes % 64);
  return *this;
}

std::array<uint8_t, 32> Sha256::digest() {
  const uint64_t bits = bytes_ * 8;
  const size_t held = bytes_ % 64;
  std::array<uint8_t, 72> padding{0x80};
  const size_t zeros = (held < 56 ? 56 : 120) - held;
  for (int i = 0; i < 8; ++i) padding[zeros + static_cast<size_t>(i)] = static_cast<uint8_t>(bits >> (56 - 8 * i));
  update(padding.data(), zeros + 8);
  std::array<uint8_t, 32> out;
  for (size_t i = 0; i < 32; ++i) out[i] = static_cast<uint8_t>(state_[i / 4] >> (24 - 8 * (i % 4)));
  return out;
}

std::string Sha256::hex() {
  std::string out;
  for (const uint8_t byte : digest()) {
    out += "0123456789abcdef"[byte >> 4];
    out += "0123456789abcdef"[byte & 15];
  }
  return out;
}

std::string sha256_hex(const void *data, size_t bytes) { return Sha256().update(data, bytes).hex(); }

std::string sha256_file(const std::string &path) {
  const File file(path);
  Buffer chunk(size_t{1} << 20);
  Sha256 hash;
  for (uint64_t offset = 0; offset < file.size(); offset += chunk.size()) {
    const auto bytes = static_cast<size_t>(std::min<uint64_t>(chunk.size(), file.size() - offset));
    file.read(offset, chunk.data(), bytes);
    hash.update(chunk.data(), bytes);
  }
  return hash.hex();
}

}  // namespace moe
