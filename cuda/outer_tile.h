// A tile of an outer product summed over steps (tokens, or visits of a mixture): a block of 256 threads holds 16 x 64 sums, a
// thread 4 of them, rows row() + 4 i of column(). 32 steps stand in shared memory at a time.
#pragma once
#include "cuda/rows.h"

namespace moe::cuda {

struct OuterTile {
  // In a row of `right` the second 32 columns begin 4 further and rows are 5 banks apart, so that a warp that stores a column of
  // each eight in four rows meets every bank once.
  static constexpr int kM = 16, kN = 64, kSteps = 32, kThreads = 256, kPitch = kN + 5;

  float left[kSteps][kM], right[kSteps][kPitch];

  __device__ static int place(int column) { return column + column / 32 * 4; }
  __device__ static int column() { return static_cast<int>(threadIdx.x) % kN; }
  __device__ static int row() { return static_cast<int>(threadIdx.x) / kN; }

  // right_row(step, column) gives the eight values from a column on, left_value(step, row) one. Zero where there is none.
  template <class RightRow, class LeftValue>
  __device__ __forceinline__ void load(RightRow right_row, LeftValue left_value) {
    const int thread = static_cast<int>(threadIdx.x), step = thread / 8, first = thread % 8 * 8;
    const Eight e = right_row(step, first);
#pragma unroll
    for (int i = 0; i < 8; i++) right[step][place(first + i)] = e.v[i];
    for (int i = thread; i < kSteps * kM; i += kThreads) left[i / kM][i % kM] = left_value(i / kM, i % kM);
  }
  __device__ __forceinline__ void add(float (&sums)[4]) const {
    const int at = place(column());
#pragma unroll 4
    for (int s = 0; s < kSteps; s++)
#pragma unroll
      for (int i = 0; i < 4; i++) sums[i] = fmaf(left[s][row() + 4 * i], right[s][at], sums[i]);
  }
};

}  // namespace moe::cuda
