#include "tensor/dtype.h"

#include <iterator>

#include "base/error.h"

namespace moe {

namespace {

constexpr DTypeInfo kInfos[] = {
    {"F32", 1, 4, false},       {"F16", 1, 2, false},       {"BF16", 1, 2, false},      {"I32", 1, 4, false},
    {"I64", 1, 8, false},       {"U8", 1, 1, false},        {"Q4_0", 32, 18, true},     {"Q4_1", 32, 20, true},
    {"Q5_0", 32, 22, true},     {"Q5_1", 32, 24, true},     {"Q8_0", 32, 34, true},     {"Q2_K", 256, 84, true},
    {"Q3_K", 256, 110, true},   {"Q4_K", 256, 144, true},   {"Q5_K", 256, 176, true},   {"Q6_K", 256, 210, true},
    {"I8", 32, 48, false},
};
static_assert(std::size(kInfos) == static_cast<size_t>(DType::i8) + 1);

}  // namespace

const DTypeInfo &dtype_info(DType type) {
  const auto index = static_cast<size_t>(type);
  if (index >= std::size(kInfos)) fail(Code::internal, "dtype ", index, " does not exist");
  return kInfos[index];
}

}  // namespace moe
