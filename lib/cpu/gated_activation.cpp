// The gate of a feed-forward layer (Shazeer 2020): h = phi(a) b with phi = silu or the tanh form of gelu, and its backward
// da = dh b phi'(a), db = dh phi(a). Columns go in pieces, so that converted bf16 rows stay in the first-level cache.
#include <algorithm>

#include "cpu/cpu_backend.h"
#include "cpu/row_tasks.h"

namespace moe::cpu {
namespace {

constexpr int64_t kPiece = 1024;

}  // namespace

void CpuBackend::gated_activation(int64_t tokens, int64_t f, Activation phi, Rows a, Rows b, Rows h) {
  const auto gate = phi == Activation::silu ? k_.gated_silu : k_.gated_gelu;
  reserve_scratch(3 * kPiece * sizeof(float));
  for_each_row(*pool_, tokens, f, [&](int64_t t, int thread) {
    float *space = scratch<float>(thread);
    for (int64_t j = 0; j < f; j += kPiece) {
      const int64_t n = std::min(kPiece, f - j);
      const bool int8 = h.dtype == DType::i8;
      const Rows to = int8 ? h : columns_from(h, j);
      float *row = f32_row_or(to, t, space + 2 * kPiece);
      gate(n, as_f32(columns_from(a, j), t, n, space), as_f32(columns_from(b, j), t, n, space + kPiece), row);
      if (int8) k_.quantize(j, n, f, row, i8_row(h, t));
      else put_row(row, n, to, t, Store::set);
    }
  });
}

void CpuBackend::gated_activation_backward(int64_t tokens, int64_t f, Activation phi, Rows a, Rows b, Rows dh, Rows da, Rows db) {
  const auto gate = phi == Activation::silu ? k_.gated_silu_backward : k_.gated_gelu_backward;
  reserve_scratch(5 * kPiece * sizeof(float));
  for_each_row(*pool_, tokens, f, [&](int64_t t, int thread) {
    float *space = scratch<float>(thread);
    for (int64_t j = 0; j < f; j += kPiece) {
      const int64_t n = std::min(kPiece, f - j);
      const Rows to_a = columns_from(da, j), to_b = columns_from(db, j);
      float *row_a = f32_row_or(to_a, t, space + 3 * kPiece), *row_b = f32_row_or(to_b, t, space + 4 * kPiece);
      gate(n, as_f32(columns_from(a, j), t, n, space), as_f32(columns_from(b, j), t, n, space + kPiece),
           as_f32(columns_from(dh, j), t, n, space + 2 * kPiece), row_a, row_b);
      put_row(row_a, n, to_a, t, Store::set);
      put_row(row_b, n, to_b, t, Store::set);
    }
  });
}

}  // namespace moe::cpu
