// Cuts an op over rows into tasks of about 16384 elements. Rows are independent of each other, so the cut never changes
// a result.
#pragma once
#include <algorithm>
#include <cstdint>

#include "base/error.h"
#include "base/thread_pool.h"
#include "tensor/backend.h"
#include "tensor/matrix.h"

namespace moe::cpu {

// Calls body(t, thread) for every row t of `rows` rows of n elements.
template <class Body>
void for_each_row(ThreadPool &pool, int64_t rows, int64_t n, Body body) {
  const int64_t rows_per_task = std::clamp<int64_t>(16384 / std::max<int64_t>(n, 1), 1, 256);
  pool.run((rows + rows_per_task - 1) / rows_per_task, [&](int64_t task, int thread) {
    const int64_t end = std::min(rows, (task + 1) * rows_per_task);
    for (int64_t t = task * rows_per_task; t < end; t++) body(t, thread);
  });
}

inline void require_f32_sum(const char *op, Rows y, Store store) {
  if (store == Store::add && y.dtype != DType::f32) fail(Code::invalid, op, ": adding needs f32 rows");
}

// The same rows from column j on.
inline Rows columns_from(Rows x, int64_t j) {
  if (x.dtype == DType::f32) return {static_cast<float *>(x.data) + j, x.dtype, x.stride};
  return {static_cast<uint16_t *>(x.data) + j, x.dtype, x.stride};
}
// Row t of f32 rows, or `space` where the rows are bf16: where an op may write its result before put_row.
inline float *f32_row_or(Rows y, int64_t t, float *space) {
  return y.dtype == DType::f32 ? static_cast<float *>(y.data) + t * y.stride : space;
}

}  // namespace moe::cpu
