// The two products of cuBLAS that the backend uses, column by column in f32, after the checks that cuBLAS makes and those it
// leaves to chance: every matrix lies inside one allocation of the device.
#include <cublas_v2.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <vector>

#include "cuda_host/internal.h"

struct cublasContext {
  cudaStream_t stream = nullptr;
};

namespace cuda_host {
namespace {

size_t size_of(cudaDataType type) { return type == CUDA_R_32F ? 4 : 2; }
float read(const void *data, size_t i, cudaDataType type) {
  if (type == CUDA_R_32F) return static_cast<const float *>(data)[i];
  if (type == CUDA_R_16BF) return __bfloat162float(static_cast<const __nv_bfloat16 *>(data)[i]);
  return __half2float(static_cast<const __half *>(data)[i]);
}
void write(void *data, size_t i, cudaDataType type, float value) {
  if (type == CUDA_R_32F) static_cast<float *>(data)[i] = value;
  else if (type == CUDA_R_16BF) static_cast<__nv_bfloat16 *>(data)[i] = __float2bfloat16(value);
  else static_cast<__half *>(data)[i] = __float2half(value);
}

struct Operand {  // column-major [rows, columns] as stored, leading dimension `ld`
  char *data;
  cudaDataType type;
  size_t rows, columns, ld;
  bool transposed;
  float at(size_t i, size_t j) const { return read(data, transposed ? i * ld + j : j * ld + i, type); }
  size_t bytes() const { return rows == 0 || columns == 0 ? 0 : ((columns - 1) * ld + rows) * size_of(type); }
  Operand batch(size_t index, long long stride) const {
    Operand other = *this;
    other.data += static_cast<long long>(index) * stride * static_cast<long long>(size_of(type));
    return other;
  }
  void require_inside(const char *name) const {
    if (bytes() > 0 && !inside_allocation(data, bytes()))
      fail("cublas: matrix %s of %zu bytes does not lie in device memory", name, bytes());
  }
  void require_defined(const char *name) const {
    for (size_t j = 0; j < columns; j++) {
      if (!is_defined(data + j * ld * size_of(type), rows * size_of(type)))
        fail("cublas: column %zu of matrix %s is not initialised", j, name);
    }
  }
};

void multiply(const Operand &a, const Operand &b, const Operand &c, size_t k, float alpha, float beta) {
  a.require_inside("A"), b.require_inside("B"), c.require_inside("C");
  a.require_defined("A"), b.require_defined("B");
  if (beta != 0) c.require_defined("C");
  std::vector<float> left(c.rows * k), sum(c.rows);  // left[p][i]: the inner loop runs over neighbours
  for (size_t p = 0; p < k; p++)
    for (size_t i = 0; i < c.rows; i++) left[p * c.rows + i] = a.at(i, p);
  for (size_t j = 0; j < c.columns; j++) {
    std::fill(sum.begin(), sum.end(), 0.0f);
    for (size_t p = 0; p < k; p++) {
      const float right = b.at(p, j);
      for (size_t i = 0; i < c.rows; i++) sum[i] += left[p * c.rows + i] * right;
    }
    for (size_t i = 0; i < c.rows; i++) write(c.data, j * c.ld + i, c.type, alpha * sum[i] + (beta == 0 ? 0 : beta * c.at(i, j)));
    mark_defined(c.data + j * c.ld * size_of(c.type), c.rows * size_of(c.type));
  }
}

}  // namespace
}  // namespace cuda_host

using namespace cuda_host;

extern "C" {

cublasStatus_t cublasCreate_v2(cublasHandle_t *handle) {
  const OneCall call;
  if (device_state() != cudaSuccess) return CUBLAS_STATUS_NOT_INITIALIZED;
  *handle = new cublasContext;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) {
  const OneCall call;
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
  const OneCall call;
  handle->stream = stream;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t, void *workspace, size_t bytes) {
  const OneCall call;
  return inside_allocation(workspace, bytes) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}
const char *cublasGetStatusString(cublasStatus_t status) { return status == CUBLAS_STATUS_SUCCESS ? "success" : "cuBLAS failed"; }

cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle, cublasOperation_t transpose_a, cublasOperation_t transpose_b,
                                          int m, int n, int k, const void *alpha, const void *a, cudaDataType a_type, int lda,
                                          long long stride_a, const void *b, cudaDataType b_type, int ldb, long long stride_b,
                                          const void *beta, void *c, cudaDataType c_type, int ldc, long long stride_c,
                                          int batches, cublasComputeType_t compute, cublasGemmAlgo_t) {
  const OneCall call;
  if (device_state() != cudaSuccess) return CUBLAS_STATUS_EXECUTION_FAILED;
  const auto known = [](cudaDataType type) { return type == CUDA_R_32F || type == CUDA_R_16BF || type == CUDA_R_16F; };
  if (!known(a_type) || a_type != b_type || (c_type != a_type && c_type != CUDA_R_32F)) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (compute != CUBLAS_COMPUTE_32F && compute != CUBLAS_COMPUTE_32F_PEDANTIC) return CUBLAS_STATUS_NOT_SUPPORTED;
  const bool ta = transpose_a != CUBLAS_OP_N, tb = transpose_b != CUBLAS_OP_N;
  if (m < 0 || n < 0 || k < 0 || batches < 0) return CUBLAS_STATUS_INVALID_VALUE;
  if (lda < std::max(1, ta ? k : m) || ldb < std::max(1, tb ? n : k) || ldc < std::max(1, m)) return CUBLAS_STATUS_INVALID_VALUE;
  const auto operand = [](const void *data, cudaDataType type, int rows, int columns, int ld, bool transposed) {
    const auto r = static_cast<size_t>(transposed ? columns : rows), w = static_cast<size_t>(transposed ? rows : columns);
    return Operand{static_cast<char *>(const_cast<void *>(data)), type, r, w, static_cast<size_t>(ld), transposed};
  };
  const Operand left = operand(a, a_type, m, k, lda, ta), right = operand(b, b_type, k, n, ldb, tb),
                result = operand(c, c_type, m, n, ldc, false);
  const float factor = *static_cast<const float *>(alpha), keep = *static_cast<const float *>(beta);
  enqueue(handle->stream, [=] {
    DeviceAccess access;
    for (size_t i = 0; i < static_cast<size_t>(batches); i++)
      multiply(left.batch(i, stride_a), right.batch(i, stride_b), result.batch(i, stride_c), static_cast<size_t>(k), factor,
               keep);
    check_canaries();
  });
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t transpose_a, cublasOperation_t transpose_b, int m, int n,
                            int k, const void *alpha, const void *a, cudaDataType a_type, int lda, const void *b,
                            cudaDataType b_type, int ldb, const void *beta, void *c, cudaDataType c_type, int ldc,
                            cublasComputeType_t compute, cublasGemmAlgo_t algorithm) {
  const OneCall call;
  return cublasGemmStridedBatchedEx(handle, transpose_a, transpose_b, m, n, k, alpha, a, a_type, lda, 0, b, b_type, ldb, 0, beta,
                                    c, c_type, ldc, 0, 1, compute, algorithm);
}

}  // extern "C"
