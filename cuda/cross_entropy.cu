// The vocabulary head with its loss, without ever holding the logits [n, V]. With z = h W^T,
//   nll = logsumexp(z) - z_label,   dh = scale (softmax(z) W - W_label)
// and softmax(z) W is attention with keys = values = W: one pass with an online softmax (Milakov & Gimelshein 2018), two products
// for each chunk of the vocabulary. The chunks follow in order, so sums have one order. The label stays out of the sums and comes in
// at the end, with softmax(z)_label - 1 = -(sum of the others) / sum, so that nothing cancels.
#include <cmath>

#include "cuda/check_index.h"
#include "cuda/cuda_backend.h"
#include "cuda/scratch.h"
#include "cuda/weights.h"

namespace moe::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kChunk = 4096;               // rows of the vocabulary
constexpr int64_t kLogits = int64_t{4} << 20;  // logits that exist at a time

// The running softmax of each row: maximum, sum of the exponentials but the label's, logit of the label.
struct Running {
  float *maximum, *others, *label_logit;
};

template <int kCount>
__device__ __forceinline__ float block_max(float x) {
  __shared__ float parts[kCount / 32];
  x = warp_max(x);
  __syncthreads();
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
  __syncthreads();
  for (int i = 0; i < kCount / 32; i++) x = fmaxf(x, parts[i]);
  return x;
}

// Logits z[t] of the vocabulary [first, first + n) become exponentials; what was summed before is scaled to the new maximum.
__global__ void __launch_bounds__(kThreads)
    take_chunk_kernel(int64_t first, int64_t n, int64_t vocabulary, int64_t row, float *logits, const int32_t *labels,
                      Running running, int64_t d, float *weighted, int64_t weighted_stride, BadIndex *bad) {
  const int64_t t = blockIdx.x;
  float *z = logits + t * n;
  const int64_t label = checked_index(labels[t], vocabulary, row + t, bad, IndexOf::label);
  float largest = -INFINITY;
  for (int64_t i = threadIdx.x; i < n; i += kThreads) largest = fmaxf(largest, z[i]);
  largest = block_max<kThreads>(largest);
  const float before = first == 0 ? -INFINITY : running.maximum[t], maximum = fmaxf(before, largest);
  const float kept = first == 0 ? 0.0f : running.others[t], factor = first == 0 || before == maximum ? 1.0f : expf(before - maximum);
  const float label_logit = label >= first && label < first + n ? z[label - first] : 0.0f;
  float sum = 0;
  __syncthreads();  // all have read the label's logit and what stood before
  for (int64_t i = threadIdx.x; i < n; i += kThreads) {
    const float e = first + i == label ? 0.0f : expf(z[i] - maximum);
    sum += e;
    if (weighted) z[i] = e;
  }
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) {
    running.maximum[t] = maximum;
    running.others[t] = kept * factor + sum;
    if (label >= first && label < first + n) running.label_logit[t] = label_logit;
  }
  if (weighted && factor != 1)
    for (int64_t j = threadIdx.x; j < d; j += kThreads) weighted[t * weighted_stride + j] *= factor;
}

template <DType kType>
struct Finish {
  Stored w;
  const int32_t *labels;
  Running running;
  float *nll, scale;
  View dh;  // no data = only the loss
  __device__ void operator()(int64_t t, int64_t j) const {
    const float others = running.others[t], of_label = expf(running.label_logit[t] - running.maximum[t]), sum = others + of_label;
    if (j == 0) nll[t] = of_label == 1 ? log1pf(others) : running.maximum[t] + logf(sum) - running.label_logit[t];
    if (!dh.data) return;
    const int64_t label = labels[t] >= 0 && labels[t] < w.rows ? labels[t] : 0;
    const float factor = scale / sum;
    float values[8];
    load_weights8<kType>(w.row(label), j, w.columns, values);
    Eight e = load8(dh, t, j, w.columns);
    for (int i = 0; i < 8; i++) e.v[i] = factor * (e.v[i] - others * values[i]);
    store8(dh, t, j, w.columns, e);
  }
};

Rows from_row(Rows x, int64_t row) {
  if (x.data) x.data = static_cast<char *>(x.data) + row * row_bytes(x.dtype, x.stride);
  return x;
}

}  // namespace

size_t cross_entropy_scratch(const PassSize &size) {
  const int64_t chunk = std::min(kChunk, size.vocabulary);
  return chunk == 0 ? 0 : static_cast<size_t>(std::min(size.supervised, kLogits / chunk) * (chunk + 3)) * sizeof(float);
}

void CudaBackend::cross_entropy(int64_t tokens, Rows hidden, const Matrix &w, const int32_t *labels, float *nll, float scale,
                                Rows dh) {
  if (dh.data && dh.dtype != DType::f32) fail(Code::invalid, "cross_entropy: the gradient needs f32 rows");
  if (hidden.dtype == DType::i8 && (dh.data || !dtype_info(w.dtype).quantized)) {
    fail(Code::invalid, "cross_entropy: int8 hidden states need quantized weights and give no gradient");
  }
  index_limits_[static_cast<int>(IndexOf::label)] = w.rows;
  const int64_t chunk = std::min(kChunk, w.rows), most = std::min(tokens, kLogits / chunk), d = w.columns;
  for (int64_t first = 0; first < tokens; first += most) {
    const int64_t rows = std::min(most, tokens - first);
    float *const memory = static_cast<float *>(logits_.at_least(static_cast<size_t>(rows * (chunk + 3)) * sizeof(float)));
    const Running running{memory, memory + rows, memory + 2 * rows};
    float *const logits = memory + 3 * rows;
    const Rows x = from_row(hidden, first), gradient = from_row(dh, first);
    for (int64_t v = 0; v < w.rows; v += chunk) {
      const int64_t n = std::min(chunk, w.rows - v);
      const Matrix part{w.dtype, n, d, static_cast<const char *>(w.data) + v * row_bytes(w.dtype, d)};
      matmul(rows, x, part, f32_rows(logits, n), Store::set);
      MOE_LAUNCH((take_chunk_kernel), blocks_for(rows, 1), kThreads, 0, on(), v, n, w.rows, first, logits, labels + first,
                 running, d, static_cast<float *>(gradient.data), gradient.stride, static_cast<BadIndex *>(bad_index_.data()));
      if (gradient.data) matmul_transposed(rows, f32_rows(logits, n), part, gradient, v == 0 ? Store::set : Store::add);
    }
    with_weight_type("cross_entropy", w.dtype, [&]<DType kType>() {
      const Finish<kType> finish{stored(w),   labels + first, running,
                                 nll + first, scale,          gradient.data ? view("cross_entropy", gradient) : View{}};
      for_eights(on(), rows, gradient.data ? d : 8, finish);
    });
  }
}

}  // namespace moe::cuda
