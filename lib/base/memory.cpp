#include "base/memory.h"

#include <stdlib.h>
#include <sys/mman.h>

#include <cstdint>

#include "base/error.h"

namespace moe {

std::byte *allocate_aligned(size_t bytes) {
  constexpr size_t kLine = 64, kLargePage = size_t{2} << 20;
  const bool large = bytes >= 2 * kLargePage;
  const size_t alignment = large ? kLargePage : kLine;
  if (bytes > SIZE_MAX - alignment) fail(Code::no_memory, "cannot allocate ", bytes, " bytes");
  const size_t rounded = bytes == 0 ? alignment : (bytes + alignment - 1) / alignment * alignment;
  void *memory = nullptr;
  if (posix_memalign(&memory, alignment, rounded) != 0) fail(Code::no_memory, "cannot allocate ", bytes, " bytes");
#ifdef MADV_HUGEPAGE
  if (large) madvise(memory, rounded, MADV_HUGEPAGE);  // a wish: small pages work as well
#endif
  return static_cast<std::byte *>(memory);
}

void free_aligned(std::byte *memory) noexcept { free(memory); }

}  // namespace moe
