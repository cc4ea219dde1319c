// bf16 products in the tiles of Intel's AMX (Software Developer's Manual, volume 1, "Programming with Intel AMX"; TDPBF16PS in
// volume 2): eight registers of 16 rows of 64 bytes. Four hold 32 x 32 sums, two 32 rows of A, two half a panel each, 32 values of
// k at a time. Within such a step the processor sums the products of even and of odd k and adds both to the element; steps follow
// in rising order, wherever the element stands. Values too small for normal numbers count as zero.
// Integer products stay with the vectors: the sums of each group of 32 would have to leave the tiles through memory for their
// scales, which was no faster.
#include <immintrin.h>

#include "cpu/kernels.h"

namespace moe::cpu::MOE_KERNEL_LEVEL {
namespace {

constexpr int64_t kSide = 16, kDepth = 32;  // rows and f32 columns of a register; bf16 values of one of its rows

// What LDTILECFG reads.
struct alignas(64) Shapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  void set(int tile, int64_t tile_rows, int64_t bytes) {
    rows[tile] = static_cast<uint8_t>(tile_rows);
    row_bytes[tile] = static_cast<uint16_t>(bytes);
  }
};

// The tile intrinsics of GCC do not say that they read memory; behind this it holds what was written.
inline void finish_writes(const void *memory) { asm volatile("" : : "r"(memory) : "memory"); }

int64_t first_half(int64_t n) { return n < kSide ? n : kSide; }

// Registers: sums 0 (rows 0-15, columns 0-15), 1 (0-15, 16-31), 2 and 3 (rows 16-31); A 4 and 5; panel 6 and 7.
void shape_tiles(int64_t rows, int64_t columns) {
  Shapes shapes;
  const int64_t row_halves[2] = {first_half(rows), rows - first_half(rows)};
  const int64_t column_halves[2] = {first_half(columns), columns - first_half(columns)};
  for (int i = 0; i < 2; i++) {
    if (row_halves[i] > 0) shapes.set(4 + i, row_halves[i], kDepth * 2);
    if (column_halves[i] > 0) shapes.set(6 + i, kDepth / 2, column_halves[i] * 4);
    for (int j = 0; j < 2; j++)
      if (row_halves[i] > 0 && column_halves[j] > 0) shapes.set(2 * i + j, row_halves[i], column_halves[j] * 4);
  }
  finish_writes(&shapes);
  _tile_loadconfig(&shapes);
}

template <bool kLower, bool kRight>
inline __attribute__((always_inline)) void step(const uint16_t *a, int64_t lda, const uint16_t *panel) {
  constexpr int64_t kPanelBytes = kPanel * 4;
  _tile_loadd(4, a, lda * 2);
  _tile_loadd(6, panel, kPanelBytes);
  _tile_dpbf16ps(0, 4, 6);
  if constexpr (kRight) {
    _tile_loadd(7, panel + 2 * kSide, kPanelBytes);
    _tile_dpbf16ps(1, 4, 7);
  }
  if constexpr (kLower) {
    _tile_loadd(5, a + kSide * lda, lda * 2);
    _tile_dpbf16ps(2, 5, 6);
    if constexpr (kRight) _tile_dpbf16ps(3, 5, 7);
  }
}

// Up to 32 rows and columns; the halves that there are.
template <bool kLower, bool kRight>
void tile(int64_t rows, int64_t k, const uint16_t *a, int64_t lda, const uint16_t *panel, float *c, int64_t ldc, bool add) {
  float *const lower = c + kSide * ldc;
  if (add) {
    _tile_loadd(0, c, ldc * 4);
    if constexpr (kRight) _tile_loadd(1, c + kSide, ldc * 4);
    if constexpr (kLower) _tile_loadd(2, lower, ldc * 4);
    if constexpr (kLower && kRight) _tile_loadd(3, lower + kSide, ldc * 4);
  } else {
    for (int64_t r = 0; r < rows; r++) {  // they are stored at once, when the tiles are done
      __builtin_prefetch(c + r * ldc, 1);
      if constexpr (kRight) __builtin_prefetch(c + r * ldc + kSide, 1);
    }
    _tile_zero(0);
    if constexpr (kRight) _tile_zero(1);
    if constexpr (kLower) _tile_zero(2);
    if constexpr (kLower && kRight) _tile_zero(3);
  }
  int64_t i = 0;
  for (; i + kDepth <= k; i += kDepth) step<kLower, kRight>(a + i, lda, panel + i * kPanel);
  if (i < k) {  // the rest, with zeros behind it
    alignas(64) uint16_t a_rest[2 * kSide * kDepth] = {}, panel_rest[kDepth * kPanel] = {};
    for (int64_t r = 0; r < rows; r++) __builtin_memcpy(a_rest + r * kDepth, a + r * lda + i, static_cast<size_t>(k - i) * 2);
    __builtin_memcpy(panel_rest, panel + i * kPanel, static_cast<size_t>((k - i) * kPanel) * 2);
    finish_writes(a_rest);
    finish_writes(panel_rest);
    step<kLower, kRight>(a_rest, kDepth, panel_rest);
  }
  _tile_stored(0, c, ldc * 4);
  if constexpr (kRight) _tile_stored(1, c + kSide, ldc * 4);
  if constexpr (kLower) _tile_stored(2, lower, ldc * 4);
  if constexpr (kLower && kRight) _tile_stored(3, lower + kSide, ldc * 4);
}

void tile_bf16(int64_t rows, int64_t columns, int64_t k, const uint16_t *a, int64_t lda, const uint16_t *panel, float *c, int64_t ldc,
               bool add) {
  const bool right = columns > kSide;
  k += k % 2;  // a panel holds pairs
  for (int64_t r = 0; r < rows; r += 2 * kSide) {
    const int64_t count = rows - r < 2 * kSide ? rows - r : 2 * kSide;
    if (r == 0 || count < 2 * kSide) shape_tiles(count, columns);
    const auto run = count > kSide ? (right ? tile<true, true> : tile<true, false>) : (right ? tile<false, true> : tile<false, false>);
    run(count, k, a + r * lda, lda, panel, c + r * ldc, ldc, add);
  }
  _tile_release();
}

}  // namespace

void fill_amx_kernels(Kernels &table) {
  table.rows_per_tile = 2 * kSide;
  table.bf16_from_tokens = 96;  // weights are expanded once a product: SmolLM2 Q4_1 and Gemma 3 Q4_K_M between 64 and 128
  table.tile_bf16 = tile_bf16;
}

}  // namespace moe::cpu::MOE_KERNEL_LEVEL
