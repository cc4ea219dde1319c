#include "fuzz/readers.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  return moe::fuzz::run(data, size, "x.txt", moe::fuzz::read_paragraphs);
}
