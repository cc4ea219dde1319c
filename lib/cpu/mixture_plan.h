// What the two directions of the FFN mixture share: which tokens of which block go through which expert, the experts'
// low-rank factors packed for the register tiles, and the narrow [., rank] intermediates.
// Tokens are cut into blocks of kMixtureBlock neighbours. A visit is one (token, expert) pair with selected = 1; visits are
// ordered by block, then expert, then token, so those of one block and expert are neighbours and an expert without visits
// costs nothing. An expert whose three deltas have rank 0 equals the base and is never visited.
// A few tokens (decoding) would not repay the packing: then the factors are read as they are stored.
#pragma once
#include <algorithm>
#include <span>

#include "base/arena.h"
#include "base/thread_pool.h"
#include "cpu/kernels.h"
#include "cpu/panels.h"
#include "tensor/backend.h"

namespace moe::cpu {

inline constexpr int64_t kMixtureBlock = 64;
inline constexpr int64_t kMixtureStrip = 128;  // columns of f that are worked on at a time: a multiple of kPanel

// The factors of one expert. The input factors of gate and up read the same u, so they stand one above the other:
// A = [A^g; A^u], input_rank = rank of gate + rank of up.
struct PackedExpert {
  float *input_rows = nullptr;                                         // A [input_rank, d]
  Panels input, gate, up, down_in, down_out;                           // A^T, B^gT, B^uT, A^dT, B^dT
  Panels input_back, gate_back, up_back, down_in_back, down_out_back;  // A, B^g, B^u, A^d, B^d
};

struct MixturePlan {
  enum class Pass : uint8_t { few_tokens, forward, backward };
  struct Visits {  // of one block and expert
    int64_t expert = 0;
    int64_t first = 0, count = 0;  // rows of the narrow arrays below
    const int32_t *tokens = nullptr;
    const float *gates = nullptr;
  };

  MixturePlan(const Kernels &kernels, const FfnMixtureShape &shape, std::span<const MixtureExpert> experts, Pass pass);
  void take(Arena &arena);      // every array below; the arena may be a measuring one
  void fill(ThreadPool &pool);  // lists the visits and packs the factors

  Visits visits(int64_t block, int64_t expert) const;
  int64_t block_rows(int64_t block) const { return std::min(kMixtureBlock, shape.tokens - block * kMixtureBlock); }
  const MixtureExpert &expert(const Visits &v) const { return experts[static_cast<size_t>(v.expert)]; }
  int64_t input_rank(const Visits &v) const { return expert(v).gate.rank + expert(v).up.rank; }
  float *low_of(const Visits &v) const { return low + v.first * input_stride; }
  float *low_gradient_of(const Visits &v) const { return low_gradient + v.first * input_stride; }
  float *down_of(const Visits &v) const { return down + v.first * down_stride; }
  float *down_gradient_of(const Visits &v) const { return down_gradient + v.first * down_stride; }

  // low = s A u of gate and up, from the f32 rows u [visits, d]
  void input_products(const Visits &v, const float *u) const;
  // a = a0 + (s A^g u) B^gT and b alike in columns [column, column + width), rows of kMixtureStrip, one per visit
  void pre_activations(const Visits &v, Rows a0, Rows b0, int64_t column, int64_t width, float *a, float *b) const;
  void activate(int64_t rows, int64_t width, const float *a, const float *b, float *h) const;

  const Kernels &kernels;
  const FfnMixtureShape shape;
  const std::span<const MixtureExpert> experts;
  const Pass pass;
  int64_t blocks = 0, strips = 0, total = 0;  // total = number of visits
  int64_t input_stride = 0, down_stride = 0;  // largest input rank, largest rank of down
  int64_t *starts = nullptr;                  // [blocks * E + 1]
  int32_t *tokens = nullptr;                  // [total]
  float *gates = nullptr;                     // [total]
  PackedExpert *packed = nullptr;             // [E]; not for a few tokens
  float *low = nullptr;                       // [total, input_stride]
  float *down = nullptr;                      // [total, down_stride]   A^d h_i
  float *down_parts = nullptr;                // [strips, total, down_stride], only for a few tokens: its sums by strips
  float *low_gradient = nullptr;              // [total, input_stride]  s (da_i B^g, db_i B^u), only backward
  float *down_gradient = nullptr;             // [total, down_stride]   s delta B^d, only backward

 private:
  bool visited(int64_t token, int64_t expert) const;
  void pack(int64_t expert);
};

// A strip (rows of kMixtureStrip) into columns [column, column + width) of the rows of y from `first` on.
void store_rows(const Kernels &kernels, const float *in, int64_t rows, int64_t width, Rows y, int64_t first, int64_t column);

}  // namespace moe::cpu
