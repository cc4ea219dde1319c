// The vectorized kernels of one instruction-set level, as a table of plain functions. Each level is the same
// source (lib/cpu/kernels/*.cpp) compiled with other flags into a namespace of its own; those files use no
// library templates or inline functions from elsewhere, so that no code built for AVX-512 can be linked into
// the path of an older machine. The ops (lib/cpu/*.cpp) cut tasks and call these.
#pragma once
#include <cstdint>

#include "tensor/dtype.h"
#include "tensor/matrix.h"

namespace moe::cpu {

inline constexpr int64_t kPanel = 32;  // columns of one panel

// Neighbours along a row that share a scale in integer products.
constexpr int64_t int8_group(DType type) { return type == DType::q2_k || type == DType::q3_k || type == DType::q6_k ? 16 : 32; }
// Bytes of a panel of 32 tokens, and of expanded weight rows.
constexpr int64_t int8_panel_bytes(DType type, int64_t k) { return k * kPanel + k / int8_group(type) * 2 * kPanel * 4; }
inline constexpr int64_t kExpandedPiece = 512, kExpandedPieceRowBytes = kExpandedPiece + 256;
constexpr int64_t expanded_bytes(int64_t rows, int64_t k) {
  return (k + kExpandedPiece - 1) / kExpandedPiece * rows * kExpandedPieceRowBytes;
}

// bf16 rows are read, and their panels take space, up to the next multiple of 4 values; those behind k are zero.
constexpr int64_t kBf16Step = 4;
constexpr int64_t bf16_k(int64_t k) { return (k + kBf16Step - 1) / kBf16Step * kBf16Step; }

// Panel of B for C[T, N] = A[T, K] B: 32 columns, K outermost. f32 operand: [K][32]. bf16 operand: [K/2][32][2] (two neighbours
// along K side by side) or [K/4][32][4], as the level multiplies them. Missing columns are zero.
struct Kernels {
  const char *level;          // "scalar", "avx2", ..., "neon_i8mm": see best_kernels
  int64_t rows_per_tile;      // rows of the register tile
  bool bf16_operands;         // bf16 products run as bf16 dot products; otherwise operands are widened to f32
  bool int8_is_fast;          // integer products beat those of widened operands
  int64_t bf16_from_tokens;   // from so many tokens on products of bf16 operands beat them; 0 = never

  // ---- products (kernels/product.cpp) ----
  // C[rows, columns] (=|+=) A[rows, k] * panel. f32 operands. columns <= 32. C rows have stride ldc.
  void (*tile_f32)(int64_t rows, int64_t columns, int64_t k, const float *a, int64_t lda, const float *panel, float *c, int64_t ldc, bool add);
  // the same with bf16 operands (nullptr where bf16_operands is false). A rows must be readable up to bf16_k(k).
  void (*tile_bf16)(int64_t rows, int64_t columns, int64_t k, const uint16_t *a, int64_t lda, const uint16_t *panel, float *c, int64_t ldc, bool add);
  // panel of W^T: columns = rows [row, row + columns) of W, reduction over the k columns of W. `row_data` = first of these rows.
  void (*panel_f32)(DType type, const void *row_data, int64_t row_bytes, int64_t columns, int64_t k, float *panel);
  void (*panel_bf16)(DType type, const void *row_data, int64_t row_bytes, int64_t columns, int64_t k, uint16_t *panel);
  // panels of W: columns [column, column + columns) of W (column a multiple of 32), reduction over `k` rows of W. More than 32
  // columns give several panels one after the other (each k, bf16: bf16_k(k), times 32 values).
  void (*panel_transposed_f32)(DType type, const void *data, int64_t row_bytes, int64_t column, int64_t columns, int64_t k, float *panel);
  void (*panel_transposed_bf16)(DType type, const void *data, int64_t row_bytes, int64_t column, int64_t columns, int64_t k, uint16_t *panel);
  // y[t * ldy + r] = <x_t, W_r> for `rows` rows of W and a few tokens (<= 8): weights are expanded in registers.
  void (*dot_rows)(DType type, const void *row_data, int64_t row_bytes, int64_t rows, int64_t k, int64_t tokens, const float *x, int64_t ldx,
                   float *y, int64_t ldy, bool add);
  // stored values of any weight type to f32, count a multiple of its block
  void (*expand)(DType type, const void *source, int64_t count, float *destination);
  void (*to_f32)(const uint16_t *bf16, int64_t count, float *out);
  void (*to_bf16)(const float *in, int64_t count, uint16_t *out);
  // g[m][n] (stride ldg) += sum_{t<tokens} v[t][m] x[t][n], n <= 32 columns, t in order. x f32 or bf16.
  void (*outer_f32)(int64_t tokens, int64_t m, int64_t n, const float *v, int64_t ldv, const float *x, int64_t ldx, float *g, int64_t ldg);
  void (*outer_bf16)(int64_t tokens, int64_t m, int64_t n, const float *v, int64_t ldv, const uint16_t *x, int64_t ldx, float *g, int64_t ldg);

  // ---- integer products (kernels/int8.cpp): quantized weights, activation rows of dtype i8 (k a multiple of 32) ----
  // values [first, first + n) of a row of k, multiples of 32, rounded to nearest
  void (*quantize)(int64_t first, int64_t n, int64_t k, const float *x, uint8_t *row);
  void (*dequantize)(int64_t k, const uint8_t *row, float *x);
  // weight rows as codes, expanded_bytes(rows, k)
  void (*expand_i8)(DType type, const void *row_data, int64_t row_bytes, int64_t rows, int64_t k, uint8_t *expanded);
  // panel of up to 32 tokens for weights of the type, int8_panel_bytes(type, k) bytes
  void (*panel_i8)(DType type, int64_t tokens, int64_t k, const uint8_t *x, int64_t x_bytes, uint8_t *panel);
  // c[r * 32 + t] = <expanded row r, token t of the panel> for all expanded rows; written up to the next multiple of 16 tokens.
  // Meanwhile next_bytes from `next` on are fetched into the cache.
  void (*tile_i8)(DType type, int64_t rows, int64_t tokens, int64_t k, const uint8_t *expanded, const uint8_t *panel, const void *next,
                  int64_t next_bytes, float *c);
  // as dot_rows
  void (*dot_rows_i8)(DType type, const void *row_data, int64_t row_bytes, int64_t rows, int64_t k, int64_t tokens, const uint8_t *x,
                      int64_t x_bytes, float *y, int64_t ldy, bool add);

  // ---- vectors (kernels/vector.cpp); x, y contiguous ----
  float (*dot)(int64_t n, const float *x, const float *y);
  float (*sum)(int64_t n, const float *x);
  float (*max)(int64_t n, const float *x);
  void (*axpy)(int64_t n, float alpha, const float *x, float *y);                // y += alpha x
  void (*scale)(int64_t n, float alpha, const float *x, float *y);               // y = alpha x
  void (*multiply)(int64_t n, const float *x, const float *y, float *z);         // z = x y
  void (*add)(int64_t n, const float *x, float *y);                              // y += x
  // y = exp(x - shift), returns the sum of y (shift: usually the maximum or the log-sum-exp); x == y allowed
  float (*exp_shifted)(int64_t n, const float *x, float shift, float *y);
  // h = phi(a) b
  void (*gated_silu)(int64_t n, const float *a, const float *b, float *h);
  void (*gated_gelu)(int64_t n, const float *a, const float *b, float *h);
  // da = dh b phi'(a), db = dh phi(a)
  void (*gated_silu_backward)(int64_t n, const float *a, const float *b, const float *dh, float *da, float *db);
  void (*gated_gelu_backward)(int64_t n, const float *a, const float *b, const float *dh, float *da, float *db);
  // rotation of pairs (j, j + n/2), j < n/2: out = in rotated by +angle (or -angle when sign < 0); table = n/2 cos, n/2 sin
  void (*rotate)(int64_t n, const float *in, const float *table, float sign, float *out);
  // m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2, p -= decay p + step_size m / (sqrt(v) inverse_sqrt_correction2 + epsilon),
  // with g times gradient_scale
  void (*adamw)(int64_t n, float *p, const float *g, float *m, float *v, float gradient_scale, float beta1, float beta2, float decay,
                float step_size, float inverse_sqrt_correction2, float epsilon);
  // y = x * scale where the random word of the element is >= threshold, else 0. Element j takes word (j / 16) % 4 of Philox
  // block first_block + (j / 64) * 16 + j % 16 of (seed, stream), see base/random.h; first_block is a multiple of 16.
  void (*dropout)(int64_t n, const float *x, uint64_t seed, uint64_t stream, uint64_t first_block, uint32_t threshold, float scale, float *y);
  // transposes a block: out[j][i] = in[i][j], i < rows, j < columns
  void (*transpose)(int64_t rows, int64_t columns, const float *in, int64_t ldi, float *out, int64_t ldo);

  // ---- attention (kernels/attention.cpp) ----
  // p = exp(s - log_sum_exp), ds = p (dp - d), each of n values; p may be s and ds may be dp
  void (*softmax_gradient)(int64_t n, const float *s, const float *log_sum_exp, const float *dp, const float *d, float *p, float *ds);
  // out[m][j] = <q_m, x_j> over `columns`, j < rows; x f32 or bf16
  void (*row_scores)(DType type, int64_t m, int64_t rows, int64_t columns, const float *q, int64_t ldq, const void *x, int64_t ldx, float *out,
                     int64_t ldo);
  // out[m][columns] = sum_{j < rows} weights[m][j] x[j][columns], j in order; x f32 or bf16
  void (*weighted_rows)(DType type, int64_t m, int64_t rows, int64_t columns, const float *weights, int64_t ldw, const void *x, int64_t ldx,
                        float *out, int64_t ldo);
};

// The best level of this machine, not above the environment variable MOE_CPU_LEVEL, in this order:
//   x86-64   scalar, avx2, avx2_vnni, avx512, avx512_vnni, avx512_bf16, amx
//   aarch64  scalar, neon, neon_dotprod, neon_i8mm
// The names with vnni and dotprod differ from the one before in the integer products only; avx512_bf16 and neon_i8mm have those and
// products of bf16, amx makes the latter in tiles. Names of another processor or unknown ones: Code::invalid. avx512_bf16 is taken
// by itself only where the dot product is faster than f32 FMA (AMD Zen 4 and later); elsewhere only when asked for by name.
const Kernels &best_kernels();
// One level by name, nullptr when this build or this machine lacks it (tests run all of them).
const Kernels *kernels_of(const char *level);

}  // namespace moe::cpu
