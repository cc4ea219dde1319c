// Builds GGUF files byte by byte, right or wrong.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "formats/gguf.h"

namespace moe::test {

class GgufBuilder {
 public:
  template <class T>
  GgufBuilder &number(T value) {
    bytes.append(reinterpret_cast<const char *>(&value), sizeof value);
    return *this;
  }
  GgufBuilder &string(const std::string &value) {
    number<uint64_t>(value.size());
    bytes += value;
    return *this;
  }
  GgufBuilder &head(uint64_t tensors, uint64_t keys, uint32_t version = 3) {
    bytes += "GGUF";
    return number(version).number(tensors).number(keys);
  }
  GgufBuilder &key(const std::string &name, GgufType type) { return string(name).number(static_cast<uint32_t>(type)); }
  GgufBuilder &list(const std::string &name, GgufType type, uint64_t count) {
    return key(name, GgufType::array).number(static_cast<uint32_t>(type)).number(count);
  }
  GgufBuilder &tensor(const std::string &name, const std::vector<uint64_t> &dimensions, uint32_t type, uint64_t offset) {
    string(name).number(static_cast<uint32_t>(dimensions.size()));
    for (uint64_t dimension : dimensions) number(dimension);
    return number(type).number(offset);
  }
  GgufBuilder &pad(size_t alignment) {
    bytes.resize((bytes.size() + alignment - 1) / alignment * alignment);
    return *this;
  }
  GgufBuilder &data(size_t count) {
    bytes.append(count, '\0');
    return *this;
  }
  std::string bytes;
};

}  // namespace moe::test
