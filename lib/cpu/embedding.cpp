// Rows of the embedding matrix, expanded from its stored type: out[t] = scale * W[ids[t]].
#include "base/error.h"
#include "cpu/cpu_backend.h"
#include "cpu/row_tasks.h"

namespace moe::cpu {

void CpuBackend::embedding(int64_t tokens, const int32_t *ids, const Matrix &w, float scale, Rows out) {
  for (int64_t t = 0; t < tokens; t++) {
    if (ids[t] < 0 || ids[t] >= w.rows)
      fail(Code::invalid, "embedding: token ", t, ": expected an id below ", w.rows, ", found ", ids[t]);
  }
  const int64_t d = w.columns, bytes = row_bytes(w.dtype, d);
  reserve_scratch(static_cast<size_t>(d) * sizeof(float));
  for_each_row(*pool_, tokens, d, [&](int64_t t, int thread) {
    float *row = f32_row_or(out, t, scratch<float>(thread));
    k_.expand(w.dtype, static_cast<const char *>(w.data) + ids[t] * bytes, d, row);
    if (scale != 1) k_.scale(d, scale, row, row);
    put_row(row, d, out, t, Store::set);
  });
}

}  // namespace moe::cpu
