// The CUDA implementation of tensor/backend.h: one .cu per op in this folder. Every pointer an op is given points to memory of
// the device, but for the structs and spans themselves. Ops are queued on one stream and return at once; sum_of_squares waits
// for its result. Sums have an order that depends on the shape alone, so results are bit-equal from run to run.
#pragma once
#include <string>

#include "cuda/memory.h"
#include "cuda/staging.h"
#include "cuda/visits.h"
#include "tensor/backend.h"

namespace moe::cuda {

class CudaBackend : public Backend {
 public:
  explicit CudaBackend(int device);
  ~CudaBackend() override;
  const char *name() const override { return name_.c_str(); }
  bool fast_int8(int64_t) const override { return false; }

  bool host_memory() const override { return false; }
  Memory allocate(size_t bytes) override;
  void upload(void *to, const void *from, size_t bytes) override;
  size_t staging_bytes() const override { return Staging::kBytes; }
  uint64_t scratch_bytes(const PassSize &size) const override;
  void download(void *to, const void *from, size_t bytes) override;
  void copy_bytes(void *to, const void *from, size_t bytes) override;
  void synchronize() override;

  void matmul(int64_t tokens, Rows x, const Matrix &w, Rows y, Store store) override;
  void matmul_transposed(int64_t tokens, Rows dy, const Matrix &w, Rows dx, Store store) override;
  void outer_product(int64_t tokens, int64_t m, int64_t n, Rows v, Rows x, float *g, bool transposed) override;
  void projection(int64_t tokens, Rows x, const Matrix &w, const float *bias, std::span<LowRankTerm> terms, Rows y, Store store,
                  float *scratch) override;
  void projection_backward(int64_t tokens, Rows x, const Matrix &w, std::span<LowRankTerm> terms, Rows dy, Rows dx, Store store,
                           float *scratch) override;
  void embedding(int64_t tokens, const int32_t *ids, const Matrix &w, float scale, Rows out) override;
  void rms_norm(int64_t tokens, int64_t n, Rows x, const float *weight, float epsilon, Rows y, Store store) override;
  void rms_norm_backward(int64_t tokens, int64_t n, Rows x, const float *weight, float epsilon, Rows dy, Rows dx,
                         Store store) override;
  void fill(int64_t n, float value, float *x) override;
  void copy(int64_t tokens, int64_t n, Rows x, Rows y, Store store) override;
  void gather(int64_t rows, int64_t n, Rows x, const int32_t *index, Rows y) override;
  void scatter(int64_t rows, int64_t n, Rows x, const int32_t *index, Rows y, Store store) override;
  void scale_rows(int64_t tokens, int64_t n, Rows x, const float *factor, int64_t stride, float constant, Rows y) override;
  void row_dots(int64_t tokens, int64_t n, Rows x, Rows y, float constant, float *out, int64_t stride) override;
  void dropout(int64_t tokens, int64_t n, Rows x, float p, uint64_t seed, uint64_t stream, Rows y) override;
  void add_bias(int64_t tokens, int64_t n, const float *bias, Rows y) override;
  void rotary_table(int64_t tokens, int64_t head_dimension, const int32_t *positions, const float *inverse_frequency,
                    float factor, float *table) override;
  void rotary(int64_t tokens, int64_t heads, int64_t head_dimension, Rows in, const float *norm_weight, float epsilon,
              const float *table, Rows out) override;
  void rotary_backward(int64_t tokens, int64_t heads, int64_t head_dimension, Rows in, const float *norm_weight, float epsilon,
                       const float *table, Rows dout, Rows din) override;
  void attention(const AttentionShape &shape, std::span<const AttentionSequence> sequences, Rows q, Rows out,
                 float *log_sum_exp) override;
  void attention_backward(const AttentionShape &shape, std::span<const AttentionSequence> sequences, Rows q, Rows out,
                          const float *log_sum_exp, Rows dout, Rows dq, Rows dk, Rows dv) override;
  void gated_activation(int64_t tokens, int64_t f, Activation phi, Rows a, Rows b, Rows h) override;
  void gated_activation_backward(int64_t tokens, int64_t f, Activation phi, Rows a, Rows b, Rows dh, Rows da, Rows db) override;
  void ffn_mixture(const FfnMixtureShape &shape, std::span<const MixtureExpert> experts, Rows u, Rows a0, Rows b0, Rows hbar,
                   Rows y) override;
  void ffn_mixture_backward(const FfnMixtureShape &shape, std::span<const MixtureExpert> experts, Rows u, Rows a0, Rows b0,
                            Rows dhbar, Rows delta, Rows da0, Rows db0, Rows du, float *dgates) override;
  void router(const RouterShape &shape, Rows u, const float *weight, const float *bias, const RouterState &state) override;
  void router_backward(const RouterShape &shape, Rows u, const float *weight, const RouterState &state, const float *dgates,
                       const RouterLossGradient &losses, float *dz, float *dweight, float *dbias, Rows du) override;
  void cross_entropy(int64_t tokens, Rows hidden, const Matrix &w, const int32_t *labels, float *nll, float scale,
                     Rows dh) override;
  void adamw(int64_t n, float *p, const float *g, float *m, float *v, const AdamW &options) override;
  double sum_of_squares(int64_t n, const float *x) override;

 private:
  void select() const { check(cudaSetDevice(device_), "choice of the device"); }
  cudaStream_t on() const {  // the stream of an op
    select();
    return stream_.get();
  }
  // Memory of an op for itself, valid until the next call; only grows.
  template <class T>
  T *scratch(int64_t count) {
    return static_cast<T *>(scratch_.at_least(static_cast<size_t>(count) * sizeof(T)));
  }
  // take(arena) cuts the arrays of an op from that memory: once to measure, once to have them.
  template <class Take>
  void with_scratch(Take &&take) {
    Arena measure;
    take(measure);
    const size_t bytes = measure.peak();
    Arena arena(Memory(scratch<std::byte>(static_cast<int64_t>(bytes)), [](std::byte *) noexcept {}), bytes);
    take(arena);
  }
  void list_visits(const Visits &visits, std::span<const Group> groups);
  bool dense(Rows x, const Matrix &w, Rows y) const;  // cuBLAS can take it
  void product(int64_t tokens, Rows x, const Matrix &w, Rows y, Store store, bool transposed);

  int device_;
  std::string name_;
  bool tensor_cores_ = false;  // mma.sync with bf16, from sm_80 on
  Stream stream_;
  Staging staging_;
  Blas blas_;
  GrowingBuffer scratch_, logits_;
  DeviceBuffer bad_index_;        // see check_index.h
  int64_t index_limits_[2] = {};  // of the last op of each kind
};

}  // namespace moe::cuda
