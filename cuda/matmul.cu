// Which product is made by what: few tokens by dot products, equal plain types by cuBLAS, bf16 activations on tensor cores,
// the rest in f32. cuBLAS counts columns first, so y = x W^T is y^T = W x^T to it.
// outer_product sums over tokens in parts of 256, then the parts in order.
#include <climits>

#include "cuda/cuda_backend.h"
#include "cuda/outer_tile.h"
#include "cuda/products.h"
#include "cuda/scratch.h"

namespace moe::cuda {
namespace {

constexpr int kThreads = OuterTile::kThreads;
constexpr int64_t kPart = 256;

// sums[part][m][n] of the tokens of a part.
__global__ void __launch_bounds__(kThreads)
    outer_product_kernel(int64_t tokens, int64_t m, int64_t n, View v, View x, float *sums) {
  __shared__ OuterTile tile;
  const int64_t first_n = static_cast<int64_t>(blockIdx.x) * OuterTile::kN, first_m = static_cast<int64_t>(blockIdx.y) * OuterTile::kM;
  const int64_t first_token = static_cast<int64_t>(blockIdx.z) * kPart, end = min(tokens, first_token + kPart);
  float parts[4] = {};
  for (int64_t t = first_token; t < end; t += OuterTile::kSteps) {
    tile.load([&](int step, int column) { return t + step < end ? load8(x, t + step, first_n + column, n) : Eight{}; },
              [&](int step, int row) { return t + step < end && first_m + row < m ? load1(v, t + step, first_m + row) : 0.0f; });
    __syncthreads();
    tile.add(parts);
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const int64_t k = first_m + OuterTile::row() + 4 * i, j = first_n + OuterTile::column();
    if (k < m && j < n) sums[(static_cast<int64_t>(blockIdx.z) * m + k) * n + j] = parts[i];
  }
}

__global__ void __launch_bounds__(kThreads)
    add_parts_kernel(int64_t m, int64_t n, int64_t parts, const float *sums, float *g, bool transposed) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= m * n) return;
  float sum = 0;
  for (int64_t part = 0; part < parts; part++) sum += sums[part * m * n + i];
  g[transposed ? i % n * m + i / n : i] += sum;
}

int as_int(int64_t n) {
  if (n > INT_MAX) fail(Code::invalid, "matmul: expected a dimension below 2^31, found ", n);
  return static_cast<int>(n);
}
cudaDataType data_type(DType type) { return type == DType::f32 ? CUDA_R_32F : CUDA_R_16BF; }

}  // namespace

bool CudaBackend::dense(Rows x, const Matrix &w, Rows y) const {
  return x.dtype == w.dtype && (x.dtype == DType::bf16 || (x.dtype == DType::f32 && y.dtype == DType::f32));
}

void CudaBackend::product(int64_t tokens, Rows x, const Matrix &w, Rows y, Store store, bool transposed) {
  const char *op = transposed ? "matmul_transposed" : "matmul";
  require_f32_sum(op, y, store);
  const Product p{
      tokens, transposed ? view(op, x) : any_view(op, x), view(op, y), stored(w), w.dtype, transposed, store == Store::add};
  if (p.tokens == 0 || p.outer() == 0) return;
  if (tokens <= kFewTokens && !transposed) return few_tokens_product(on(), p);
  if (dense(x, w, y)) {
    const float one = 1, keep = p.add ? 1 : 0;
    select();
    check(cublasGemmEx(blas_.get(), transposed ? CUBLAS_OP_N : CUBLAS_OP_T, CUBLAS_OP_N, as_int(p.outer()), as_int(tokens),
                       as_int(p.inner()), &one, w.data, data_type(w.dtype), as_int(w.columns), x.data, data_type(x.dtype),
                       as_int(x.stride), &keep, y.data, data_type(y.dtype), as_int(y.stride), CUBLAS_COMPUTE_32F,
                       CUBLAS_GEMM_DEFAULT),
          op);
  } else if (tensor_cores_ && x.dtype == DType::bf16 && w.dtype != DType::f32) {
    bf16_product(on(), p);
  } else {
    f32_product(on(), p);
  }
}

void CudaBackend::matmul(int64_t tokens, Rows x, const Matrix &w, Rows y, Store store) { product(tokens, x, w, y, store, false); }
void CudaBackend::matmul_transposed(int64_t tokens, Rows dy, const Matrix &w, Rows dx, Store store) {
  product(tokens, dy, w, dx, store, true);
}

size_t outer_product_scratch(const PassSize &size) {
  const int64_t width = std::max({size.hidden, size.intermediate, size.query_width});
  return static_cast<size_t>((size.tokens + kPart - 1) / kPart * size.rank * width) * sizeof(float);
}

void CudaBackend::outer_product(int64_t tokens, int64_t m, int64_t n, Rows v, Rows x, float *g, bool transposed) {
  if (tokens == 0 || m * n == 0) return;
  const int64_t parts = (tokens + kPart - 1) / kPart;
  float *const sums = scratch<float>(parts * m * n);
  const dim3 grid(blocks_for(n, OuterTile::kN), blocks_for(m, OuterTile::kM), blocks_for(parts, 1));
  MOE_LAUNCH((outer_product_kernel), grid, kThreads, 0, on(), tokens, m, n, view("outer_product", v), view("outer_product", x),
             sums);
  MOE_LAUNCH((add_parts_kernel), blocks_for(m * n, kThreads), kThreads, 0, on(), m, n, parts, static_cast<const float *>(sums), g,
             transposed);
}

}  // namespace moe::cuda
