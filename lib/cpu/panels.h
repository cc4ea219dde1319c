// Low-rank factors packed once for the register tiles and used for many groups of rows, and the rows that go over them.
#pragma once
#include "base/arena.h"
#include "cpu/kernels.h"
#include "tensor/matrix.h"

namespace moe::cpu {

// The right operand of C[m, columns] = X[m, k] F: panels of kPanel columns, [k][kPanel] each.
struct Panels {
  float *data = nullptr;
  int64_t k = 0, columns = 0;
};
Panels take_panels(Arena &arena, int64_t k, int64_t columns);
void pack_transposed(const Kernels &kernels, const float *w, const Panels &panels);  // F = W^T, W [columns, k]
void pack_plain(const Kernels &kernels, const float *w, const Panels &panels);       // F = W, W [k, columns]

// C[rows, count] (=|+=) X[rows, depth] F[first .. first + depth, column .. column + count]; column a multiple of kPanel.
void multiply_panels(const Kernels &kernels, int64_t rows, const float *x, int64_t ldx, const Panels &f, int64_t first,
                     int64_t depth, int64_t column, int64_t count, float *c, int64_t ldc, bool add);

// Columns [column, column + width) of the rows `tokens` of x (nullptr: of the rows from `first` on) as f32. i8 rows whole.
void load_rows(const Kernels &kernels, Rows x, int64_t first, const int32_t *tokens, int64_t rows, int64_t column, int64_t width,
               float *out, int64_t ldo);

}  // namespace moe::cpu
