#include "text/vocabulary.h"

#include <bit>
#include <cstring>

#include "base/error.h"

namespace moe {
namespace {

uint64_t mix(uint64_t a, uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a) * b;
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

}  // namespace

uint64_t hash_bytes(const char *data, size_t length) {
  constexpr uint64_t kFirst = 0x9E3779B97F4A7C15, kSecond = 0xD6E8FEB86659FD93;
  uint64_t hash = kFirst ^ length, word = 0;
  for (; length >= 8; data += 8, length -= 8) {
    std::memcpy(&word, data, 8);
    hash = mix(hash ^ word, kSecond);
  }
  word = 0;
  std::memcpy(&word, data, length);
  return mix(hash ^ word, kSecond ^ kFirst);
}

void Vocabulary::reserve(size_t tokens, size_t bytes) {
  tokens_.reserve(tokens);
  bytes_.reserve(bytes);
  grow(std::bit_ceil(tokens * 2 + 16));
}

void Vocabulary::grow(size_t slots) {
  std::vector<Slot> old(slots);
  old.swap(slots_);
  for (const Slot &slot : old) {
    if (slot.id < 0) continue;
    size_t at = hash_bytes(bytes(slot.id).data(), bytes(slot.id).size()) & (slots_.size() - 1);
    while (slots_[at].id >= 0) at = (at + 1) & (slots_.size() - 1);
    slots_[at] = slot;
  }
}

void Vocabulary::add(int64_t id, std::string_view bytes, TokenKind kind, std::string_view source) {
  if (id < 0 || id >= kMaxTokens) fail(Code::format, source, ": token id ", id, ", expected 0 to ", kMaxTokens - 1);
  if (has(id)) fail(Code::format, source, ": two tokens have the id ", id);
  if (id >= size()) tokens_.resize(static_cast<size_t>(id) + 1);
  if (bytes.size() > (1u << 20)) fail(Code::format, source, ": token ", id, " has ", bytes.size(), " bytes, at most 1048576");
  tokens_[static_cast<size_t>(id)] = {bytes_.size(), static_cast<uint32_t>(bytes.size()), kind};
  bytes_.append(bytes);
  if (kind == TokenKind::text) index(static_cast<int32_t>(id), source);
}

void Vocabulary::set_bytes(int32_t id, std::string_view bytes) {
  Token &token = tokens_[static_cast<size_t>(id)];
  token.begin = bytes_.size();
  token.length = static_cast<uint32_t>(bytes.size());
  bytes_.append(bytes);
}

void Vocabulary::index(int32_t id, std::string_view source) {
  if (slots_.size() < 2 * (indexed_ + 1)) grow(std::bit_ceil(2 * (indexed_ + 1) + 16));
  const std::string_view text = bytes(id);
  const uint64_t hash = hash_bytes(text.data(), text.size());
  const auto tag = static_cast<uint32_t>(hash >> 32);
  size_t at = hash & (slots_.size() - 1);
  for (; slots_[at].id >= 0; at = (at + 1) & (slots_.size() - 1)) {
    if (slots_[at].tag == tag && bytes(slots_[at].id) == text) {
      fail(Code::format, source, ": the tokens ", slots_[at].id, " and ", id, " are the same text of ", text.size(), " bytes");
    }
  }
  slots_[at] = {tag, id};
  ++indexed_;
  if (text.size() > longest_) longest_ = text.size();
}

int32_t Vocabulary::find(std::string_view text) const {
  if (text.size() > longest_ || slots_.empty()) return -1;
  const uint64_t hash = hash_bytes(text.data(), text.size());
  const auto tag = static_cast<uint32_t>(hash >> 32);
  for (size_t at = hash & (slots_.size() - 1); slots_[at].id >= 0; at = (at + 1) & (slots_.size() - 1)) {
    if (slots_[at].tag == tag && bytes(slots_[at].id) == text) return slots_[at].id;
  }
  return -1;
}

}  // namespace moe
