#include "cpu/panels.h"

#include <algorithm>
#include <cstring>

namespace moe::cpu {
namespace {

int64_t panel_count(int64_t columns) { return (columns + kPanel - 1) / kPanel; }

}  // namespace

Panels take_panels(Arena &arena, int64_t k, int64_t columns) {
  return {arena.take<float>(static_cast<size_t>(panel_count(columns) * k * kPanel)), k, columns};
}

void pack_transposed(const Kernels &kernels, const float *w, const Panels &panels) {
  for (int64_t c = 0; c < panels.columns; c += kPanel) {
    kernels.panel_f32(DType::f32, w + c * panels.k, panels.k * 4, std::min(kPanel, panels.columns - c), panels.k,
                      panels.data + c * panels.k);
  }
}

void pack_plain(const Kernels &kernels, const float *w, const Panels &panels) {
  for (int64_t c = 0; c < panels.columns; c += kPanel) {
    kernels.panel_transposed_f32(DType::f32, w, panels.columns * 4, c, std::min(kPanel, panels.columns - c), panels.k,
                                 panels.data + c * panels.k);
  }
}

void multiply_panels(const Kernels &kernels, int64_t rows, const float *x, int64_t ldx, const Panels &f, int64_t first,
                     int64_t depth, int64_t column, int64_t count, float *c, int64_t ldc, bool add) {
  for (int64_t j = 0; j < count; j += kPanel) {
    const float *panel = f.data + (column + j) * f.k + first * kPanel;
    kernels.tile_f32(rows, std::min(kPanel, count - j), depth, x, ldx, panel, c + j, ldc, add);
  }
}

void load_rows(const Kernels &kernels, Rows x, int64_t first, const int32_t *tokens, int64_t rows, int64_t column, int64_t width,
               float *out, int64_t ldo) {
  for (int64_t r = 0; r < rows; r++, out += ldo) {
    const int64_t token = tokens ? tokens[r] : first + r, offset = token * x.stride + column;
    if (x.dtype == DType::f32)
      std::memcpy(out, static_cast<const float *>(x.data) + offset, static_cast<size_t>(width) * sizeof(float));
    else if (x.dtype == DType::bf16) kernels.to_f32(static_cast<const uint16_t *>(x.data) + offset, width, out);
    else kernels.dequantize(width, static_cast<const uint8_t *>(x.data) + token * row_bytes(DType::i8, x.stride), out);
  }
}

}  // namespace moe::cpu
