#include "tensor/host_arrays.h"

#include <cstring>

namespace moe {

void HostArrays::bring(Backend &ops, void *memory) {
  if (ops.host_memory()) return;
  std::vector<Word> all(words_);
  for (Part &part : parts_) {
    if (part.count > 0) std::memcpy(all.data() + part.first, part.data, part.count * sizeof(Word));
    part.data = static_cast<Word *>(memory) + part.first;
  }
  ops.upload(memory, all.data(), all.size() * sizeof(Word));
}

}  // namespace moe
