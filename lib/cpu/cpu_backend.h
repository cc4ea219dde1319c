// The CPU's implementation of tensor/backend.h: one file per op in this folder. Ops cut their work into tasks
// of fixed tiles, so that results are bit-equal for any number of threads.
#pragma once
#include <cstring>
#include <memory>
#include <vector>

#include "base/arena.h"
#include "base/file.h"
#include "base/thread_pool.h"
#include "cpu/kernels.h"
#include "tensor/backend.h"

namespace moe::cpu {

struct GatedTerms;  // gated_terms.h

class CpuBackend final : public Backend {
 public:
  CpuBackend(std::shared_ptr<ThreadPool> pool, const Kernels &kernels);
  const char *name() const override { return name_.c_str(); }
  bool fast_int8(int64_t tokens) const override {
    return k_.int8_is_fast && (k_.bf16_from_tokens == 0 || tokens < k_.bf16_from_tokens);
  }

  uint64_t scratch_bytes(const PassSize &size) const override;

  void matmul(int64_t tokens, Rows x, const Matrix &w, Rows y, Store store) override;
  void matmul_transposed(int64_t tokens, Rows dy, const Matrix &w, Rows dx, Store store) override;
  void outer_product(int64_t tokens, int64_t m, int64_t n, Rows v, Rows x, float *g, bool transposed) override;
  void projection(int64_t tokens, Rows x, const Matrix &w, const float *bias, std::span<LowRankTerm> terms, Rows y, Store store,
                  float *scratch) override;
  void projection_backward(int64_t tokens, Rows x, const Matrix &w, std::span<LowRankTerm> terms, Rows dy, Rows dx, Store store,
                           float *scratch) override;
  void projections(int64_t tokens, Rows x, std::span<const ProjectionPart> parts, float *scratch) override;
  void matmul_low_rank(int64_t tokens, Rows x, const Matrix &w, bool transposed, Rows narrow, const Matrix &factor, const float *bias,
                       Rows y, Store store, float *scratch) override;
  void embedding(int64_t tokens, const int32_t *ids, const Matrix &w, float scale, Rows out) override;
  void rms_norm(int64_t tokens, int64_t n, Rows x, const float *weight, float epsilon, Rows y, Store store) override;
  void rms_norm_backward(int64_t tokens, int64_t n, Rows x, const float *weight, float epsilon, Rows dy, Rows dx, Store store) override;
  void fill(int64_t n, float value, float *x) override;
  void copy(int64_t tokens, int64_t n, Rows x, Rows y, Store store) override;
  void gather(int64_t rows, int64_t n, Rows x, const int32_t *index, Rows y) override;
  void scatter(int64_t rows, int64_t n, Rows x, const int32_t *index, Rows y, Store store) override;
  void scale_rows(int64_t tokens, int64_t n, Rows x, const float *factor, int64_t stride, float constant, Rows y) override;
  void row_dots(int64_t tokens, int64_t n, Rows x, Rows y, float constant, float *out, int64_t stride) override;
  void dropout(int64_t tokens, int64_t n, Rows x, float p, uint64_t seed, uint64_t stream, Rows y) override;
  void add_bias(int64_t tokens, int64_t n, const float *bias, Rows y) override;
  void rotary_table(int64_t tokens, int64_t head_dimension, const int32_t *positions, const float *inverse_frequency, float factor,
                    float *table) override;
  void rotary(int64_t tokens, int64_t heads, int64_t head_dimension, Rows in, const float *norm_weight, float epsilon,
              const float *table, Rows out) override;
  void rotary_backward(int64_t tokens, int64_t heads, int64_t head_dimension, Rows in, const float *norm_weight, float epsilon,
                       const float *table, Rows dout, Rows din) override;
  void attention(const AttentionShape &shape, std::span<const AttentionSequence> sequences, Rows q, Rows out, float *log_sum_exp) override;
  void attention_backward(const AttentionShape &shape, std::span<const AttentionSequence> sequences, Rows q, Rows out,
                          const float *log_sum_exp, Rows dout, Rows dq, Rows dk, Rows dv) override;
  void gated_activation(int64_t tokens, int64_t f, Activation phi, Rows a, Rows b, Rows h) override;
  void gated_activation_backward(int64_t tokens, int64_t f, Activation phi, Rows a, Rows b, Rows dh, Rows da, Rows db) override;
  void ffn_mixture(const FfnMixtureShape &shape, std::span<const MixtureExpert> experts, Rows u, Rows a0, Rows b0, Rows hbar, Rows y) override;
  void ffn_mixture_backward(const FfnMixtureShape &shape, std::span<const MixtureExpert> experts, Rows u, Rows a0, Rows b0, Rows dhbar,
                            Rows delta, Rows da0, Rows db0, Rows du, float *dgates) override;
  void router(const RouterShape &shape, Rows u, const float *weight, const float *bias, const RouterState &state) override;
  void router_backward(const RouterShape &shape, Rows u, const float *weight, const RouterState &state, const float *dgates,
                       const RouterLossGradient &losses, float *dz, float *dweight, float *dbias, Rows du) override;
  void cross_entropy(int64_t tokens, Rows hidden, const Matrix &w, const int32_t *labels, float *nll, float scale, Rows dh) override;
  void adamw(int64_t n, float *p, const float *g, float *m, float *v, const AdamW &options) override;
  double sum_of_squares(int64_t n, const float *x) override;

 private:
  // At least `bytes` of 64-byte aligned scratch for every thread; call before run(), never inside a task. The blocks only
  // grow, so a step that has run once allocates nothing.
  void reserve_scratch(size_t bytes);
  template <class T>
  T *scratch(int thread) { return reinterpret_cast<T *>(scratch_[static_cast<size_t>(thread)].data()); }
  // Memory that all threads of an op share; contents undefined, valid until the next call. Only grows.
  template <class T>
  T *shared(int64_t count) {
    const size_t bytes = static_cast<size_t>(count) * sizeof(T);
    if (shared_.size() < bytes) shared_ = Buffer(bytes + bytes / 4);
    return reinterpret_cast<T *>(shared_.data());
  }
  // One of a few products of the same rows that run as one: y (=|+=) x W^T.
  struct OneProduct {
    const Matrix *w = nullptr;
    Rows y;
    Store store = Store::set;
  };
  static constexpr size_t kMostParts = 4;
  // Products of a few tokens, a task for each range of weight rows; dot(w, data, rows, out, ldo, add) computes one.
  template <class Dot>
  void few_tokens(int64_t tokens, std::span<const OneProduct> parts, Dot &&dot);
  // What joins a product before its results are stored: narrow F^T (transposed: narrow F) and the bias.
  struct Joined {
    Rows narrow;
    Matrix factor;
    const float *bias = nullptr;
    bool transposed = false;
    void panel(const Kernels &kernels, int64_t column, int64_t columns, float *to) const;  // of F
  };
  void matmul_f32(int64_t tokens, Rows x, const Matrix &w, Rows y, Store store, const Joined *joined = nullptr);
  void transposed_f32(int64_t tokens, Rows dy, const Matrix &w, Rows dx, Store store, const Joined *joined = nullptr);
  void matmul_i8(int64_t tokens, Rows x, std::span<const OneProduct> parts);  // beyond kFewInt8Tokens weights of one type
  // The panels of i8 activations for weights like w, int8_panel_bytes each.
  void pack_i8(int64_t tokens, Rows x, const Matrix &w, uint8_t *panels);
  void few_tokens_f32(int64_t tokens, Rows x, const Matrix &w, Rows y, Store store);
  template <class Operand, class MakePanels>
  void product(int64_t tokens, int64_t columns, int64_t k, Rows a, Rows y, Store store, const Joined *joined, MakePanels &&make_panels);
  template <class Operand>
  const Operand *operand_rows(Rows a, int64_t first, int64_t rows, int64_t k, Operand *space, int64_t *lda) const;
  // Gives the plan of a mixture's op its memory and fills it. The memory only grows.
  template <class Plan>
  void prepare(Plan &plan) {
    Arena measure;
    plan.take(measure);
    if (!plan_memory_ || plan_memory_->capacity() < measure.peak()) {
      plan_memory_.reset();
      plan_memory_ = std::make_unique<Arena>(measure.peak() + measure.peak() / 4);
    }
    plan_memory_->release(0);
    plan.take(*plan_memory_);
    plan.fill(*pool_);
  }
  // projection.cpp
  void run_gated_terms(const GatedTerms &gated, Rows input, Rows sum);
  void add_factor_gradients(const GatedTerms &gated, Rows x, Rows dy);
  // Row t of activations as f32: a pointer into x itself when it is f32, else converted into `space`. i8 rows are read whole.
  const float *as_f32(Rows x, int64_t t, int64_t n, float *space) const {
    if (x.dtype == DType::f32) return static_cast<const float *>(x.data) + t * x.stride;
    if (x.dtype == DType::i8) {
      k_.dequantize(n, i8_row(x, t), space);
      return space;
    }
    k_.to_f32(static_cast<const uint16_t *>(x.data) + t * x.stride, n, space);
    return space;
  }
  static uint8_t *i8_row(Rows x, int64_t t) { return static_cast<uint8_t *>(x.data) + row_bytes(DType::i8, x.stride) * t; }
  // Stores one f32 row into activations of any type (Store::add only for f32).
  void put_row(const float *row, int64_t n, Rows y, int64_t t, Store store) const {
    if (y.dtype == DType::bf16) {
      k_.to_bf16(row, n, static_cast<uint16_t *>(y.data) + t * y.stride);
      return;
    }
    if (y.dtype == DType::i8) return k_.quantize(0, n, n, row, i8_row(y, t));
    float *to = static_cast<float *>(y.data) + t * y.stride;
    if (store == Store::add) k_.add(n, row, to);
    else if (to != row) k_.scale(n, 1.0f, row, to);
  }

  // The same for values [column, column + n) of a row of f32 or bf16.
  void put_part(const float *values, int64_t column, int64_t n, Rows y, int64_t t, Store store) const {
    const int64_t at = t * y.stride + column;
    if (y.dtype == DType::bf16) k_.to_bf16(values, n, static_cast<uint16_t *>(y.data) + at);
    else if (store == Store::add) k_.add(n, values, static_cast<float *>(y.data) + at);
    else std::memcpy(static_cast<float *>(y.data) + at, values, static_cast<size_t>(n) * 4);
  }

  std::shared_ptr<ThreadPool> pool_;
  const Kernels &k_;
  std::string name_;
  std::vector<Buffer> scratch_;   // one block per thread
  Buffer shared_;
  std::vector<int64_t> task_starts_, slot_starts_;  // attention: tasks of each sequence; only grow
  std::unique_ptr<Arena> plan_memory_;  // packed experts and narrow arrays of a mixture's op; only grows
  std::vector<LowRankTerm> plain_terms_;  // projection: those that go to the composite; only grows
};

}  // namespace moe::cpu
