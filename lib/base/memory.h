// Large aligned memory: 64-byte aligned, on 2 MiB pages where the system gives them.
#pragma once
#include <cstddef>

namespace moe {

// `bytes` of uninitialized memory, never null. Code::no_memory when the system refuses.
std::byte *allocate_aligned(size_t bytes);
void free_aligned(std::byte *memory) noexcept;

}  // namespace moe
