// Moving and scaling rows: copy, gather, scatter, scale_rows, add_bias. Between equal types a copy is exact; f32 to bf16
// rounds to nearest even; adding needs f32 at the destination.
#include <cstring>

#include "cpu/cpu_backend.h"
#include "cpu/row_tasks.h"

namespace moe::cpu {
namespace {

const char *row_at(Rows x, int64_t t) { return static_cast<const char *>(x.data) + t * row_bytes(x.dtype, x.stride); }

void copy_row(const Kernels &k, int64_t n, Rows x, int64_t from, Rows y, int64_t to) {
  const char *source = row_at(x, from);
  char *destination = const_cast<char *>(row_at(y, to));
  if (x.dtype == y.dtype) {
    std::memmove(destination, source, static_cast<size_t>(row_bytes(x.dtype, n)));
  } else if (y.dtype == DType::f32) {
    k.to_f32(reinterpret_cast<const uint16_t *>(source), n, reinterpret_cast<float *>(destination));
  } else {
    k.to_bf16(reinterpret_cast<const float *>(source), n, reinterpret_cast<uint16_t *>(destination));
  }
}

}  // namespace

void CpuBackend::copy(int64_t tokens, int64_t n, Rows x, Rows y, Store store) {
  require_f32_sum("copy", y, store);
  reserve_scratch(static_cast<size_t>(n) * sizeof(float));
  for_each_row(*pool_, tokens, n, [&](int64_t t, int thread) {
    if (store == Store::set && y.dtype != DType::i8) copy_row(k_, n, x, t, y, t);
    else put_row(as_f32(x, t, n, scratch<float>(thread)), n, y, t, store);
  });
}

void CpuBackend::gather(int64_t rows, int64_t n, Rows x, const int32_t *index, Rows y) {
  for_each_row(*pool_, rows, n, [&](int64_t t, int) { copy_row(k_, n, x, index[t], y, t); });
}

void CpuBackend::scatter(int64_t rows, int64_t n, Rows x, const int32_t *index, Rows y, Store store) {
  require_f32_sum("scatter", y, store);
  reserve_scratch(static_cast<size_t>(n) * sizeof(float));
  for_each_row(*pool_, rows, n, [&](int64_t t, int thread) {
    if (store == Store::set) copy_row(k_, n, x, t, y, index[t]);
    else put_row(as_f32(x, t, n, scratch<float>(thread)), n, y, index[t], Store::add);
  });
}

void CpuBackend::scale_rows(int64_t tokens, int64_t n, Rows x, const float *factor, int64_t stride, float constant, Rows y) {
  reserve_scratch(static_cast<size_t>(n) * sizeof(float));
  for_each_row(*pool_, tokens, n, [&](int64_t t, int thread) {
    float *space = scratch<float>(thread), *row = f32_row_or(y, t, space);
    k_.scale(n, (factor ? factor[t * stride] : 1.0f) * constant, as_f32(x, t, n, space), row);
    put_row(row, n, y, t, Store::set);
  });
}

void CpuBackend::add_bias(int64_t tokens, int64_t n, const float *bias, Rows y) {
  reserve_scratch(static_cast<size_t>(n) * sizeof(float));
  for_each_row(*pool_, tokens, n, [&](int64_t t, int thread) {
    float *row = f32_row_or(y, t, scratch<float>(thread));
    as_f32(y, t, n, row);
    k_.add(n, bias, row);
    put_row(row, n, y, t, Store::set);
  });
}

}  // namespace moe::cpu
