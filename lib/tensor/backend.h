// The list of operations a device offers. Ops are semantic: each is a thing a paper names. Shapes: T tokens
// (packed, see packed_batch.h), d hidden, f intermediate, H query heads, G key/value heads, h head dimension,
// E experts besides the base. Activations are Rows (f32 or bf16; i8 where an op says so), accumulation is f32, reductions
// have a fixed order that does not depend on the number of threads. Backward formulas stand at each op.
// Ops do not allocate from the system after the first call of a shape and never throw except for a broken argument.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/arena.h"
#include "tensor/matrix.h"

namespace moe {

enum class Activation : uint8_t { silu, gelu_tanh };

// How a product is stored: C = A B, or C += A B.
enum class Store : uint8_t { set, add };

// One low-rank side product of a projection: y += gate_t * scale * B A drop(x). A backend may leave out the tokens whose gate is 0:
// u is for its own backward pass, and the gate gradient of such a token may stay as it is.
struct LowRankTerm {
  LowRank factors;
  const float *gate = nullptr;      // gate of token t at gate[t * gate_stride]; nullptr = 1
  int64_t gate_stride = 0;
  float *u = nullptr;               // [T, rank] A drop(x), written by forward, read by backward
  float dropout = 0;                // probability; mask is a pure function of (seed, stream, t, column)
  uint64_t dropout_seed = 0, dropout_stream = 0;
  LowRankGradient gradient;         // backward: accumulated
  float *gate_gradient = nullptr;   // backward: dL/dgate of token t is added at gate_gradient[t * gate_stride]
};

// One of several projections of the same rows: y = W x + sum of low-rank terms.
struct ProjectionPart {
  const Matrix *w = nullptr;
  std::span<LowRankTerm> terms;
  Rows y;
};

// Keys and values that the queries of one sequence may see. Query i (0-based within `queries`) stands at key index
// key_count - queries + i and sees the keys j <= its own index, with a window only j > index - window.
struct AttentionSequence {
  int64_t first_query = 0, queries = 0;      // rows of q and out
  Rows keys, values;                         // [key_count, G * h]
  int64_t key_count = 0;
};
struct AttentionShape {
  int64_t heads = 0, kv_heads = 0, head_dimension = 0;
  int64_t window = 0;   // 0 = all earlier keys
  float scale = 0;      // scores are scale * <q, k>
};

// Gate forms of the mixture (04: delta, renormalised, weighted, straight-through).
enum class GateForm : uint8_t { delta, renormalised_delta, weighted, straight_through };

struct RouterShape {
  int64_t tokens = 0, hidden = 0, experts = 0;  // E; entries = E + 1, entry 0 = base
  int64_t top_k = 0;
  float temperature = 1;
  GateForm form = GateForm::delta;
  bool force_expert = false;   // k = 1 training: the best non-base expert is evaluated even where the base wins
  const float *bias_for_selection = nullptr;  // [E + 1] added to z / tau for selecting only, or nullptr
};
// What the router's forward leaves for the rest of the pass.
struct RouterState {
  float *z = nullptr;          // [T, E + 1] logits W u + b
  float *p = nullptr;          // [T, E + 1] softmax(z / tau)
  int32_t *picked = nullptr;   // [T, k] entries by falling p, ties to the lowest index (0 = base)
  uint8_t *selected = nullptr; // [T, E] 1 where expert i+1 is evaluated
  float *gates = nullptr;      // [T, E] g of expert i+1; 0 where not selected
};
// Gradients that the router losses add to dL/dp and dL/dz. All may be absent (nullptr / 0).
struct RouterLossGradient {
  const float *balance = nullptr;            // [E + 1] added to dL/dp of every token
  float z = 0;                               // adds z * logsumexp(z_t) * softmax(z_t)_i to dL/dz (softmax without temperature)
  int64_t sequences = 0;                     // supervised term: sequence s, entry supervised_entry[s] (-1 = none)
  const int32_t *starts = nullptr;           // [sequences + 1]
  const int32_t *supervised_entry = nullptr; // [sequences]
  const float *supervised = nullptr;         // [sequences] added to dL/dp[t, entry] of the sequence's tokens
};

// One layer's FFN mixture. With h_0 = phi(a0)*b0, a_i = a0 + s B^g A^g u, b_i alike, h_i = phi(a_i)*b_i:
//   hbar = h_0 + sum_{i selected} g_i (h_i - h_0);   y = D hbar + sum g_i s_i B_i^d A_i^d h_i   (D: see projection)
struct MixtureExpert {
  LowRank gate, up, down;                          // rank 0 = zero delta
  LowRankGradient gate_gradient, up_gradient, down_gradient;  // backward; nullptr inside = frozen
};
struct FfnMixtureShape {
  int64_t tokens = 0, hidden = 0, intermediate = 0, experts = 0;  // E
  Activation activation = Activation::silu;
  const uint8_t *selected = nullptr;  // [T, E]
  const float *gates = nullptr;       // [T, E]
  int64_t top_k = 0;                  // the most experts that a token selects; 0 = E
};

struct AdamW {
  float learning_rate = 0, beta1 = 0.9f, beta2 = 0.999f, epsilon = 1e-8f, weight_decay = 0;
  int64_t step = 1;             // t, from 1
  float gradient_scale = 1;     // gradients are multiplied by this first (clipping)
};

// How large the passes of a run are, as far as the memory that ops take for themselves depends on it.
struct PassSize {
  int64_t tokens = 0, supervised = 0;                     // of a micro-batch
  int64_t hidden = 0, intermediate = 0, query_width = 0;  // values of a row of a layer, of its FFN, of all query heads
  int64_t heads = 0, vocabulary = 0;
  int64_t rank = 0;                // the largest of an adapter or an expert
  int64_t experts = 0, top_k = 0;  // of a router
  int64_t trained = 0;             // parameters of one array
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual const char *name() const = 0;   // "cpu avx512"
  virtual bool fast_int8(int64_t tokens) const = 0;  // products of so many tokens are faster with i8 activations than with bf16 ones

  // ---- memory -----------------------------------------------------------------------------------------
  // Where the arrays lie that ops are given by pointer. On a device with memory of its own no op takes a pointer of the host, but
  // for spans and structs themselves and the results that return by value; ops are queued there, and an index out of its range
  // or a failure of the device may show only at download() or synchronize(). By default the memory is the host's. Ops come from
  // one thread at a time; those of memory from any thread, also while another one calls ops.
  virtual bool host_memory() const { return true; }
  virtual Memory allocate(size_t bytes);                            // 64-byte aligned, contents undefined; may outlive the backend
  virtual void upload(void *to, const void *from, size_t bytes);    // after what is queued; `from` is free at once
  virtual size_t staging_bytes() const { return 0; }                // memory of the host through which uploads go
  virtual uint64_t scratch_bytes(const PassSize &size) const = 0;   // that ops take for themselves, at most, in passes of this size
  virtual void download(void *to, const void *from, size_t bytes);  // waits for what is queued
  virtual void copy_bytes(void *to, const void *from, size_t bytes);  // inside the backend's memory, after what is queued
  virtual void synchronize() {}

  // ---- products -------------------------------------------------------------------------------------
  // y[T, out] (=|+=) x[T, in] W^T.   y may be f32 or (Store::set only) bf16. x may be i8: with quantized W the sums inside a
  // block are then integer sums, other W take the rounded values of x.
  virtual void matmul(int64_t tokens, Rows x, const Matrix &w, Rows y, Store store) = 0;
  // dx[T, in] (=|+=) dy[T, out] W, straight from the stored weights.   dx as y above.
  virtual void matmul_transposed(int64_t tokens, Rows dy, const Matrix &w, Rows dx, Store store) = 0;
  // g[m, n] += sum_t v[t, m] x[t, n] with the sum over t in a fixed order (gradients of low-rank factors).
  // If `transposed`, writes g[n, m] instead (row-major [n, m]). v is [T, m] f32 with m small (a rank).
  virtual void outer_product(int64_t tokens, int64_t m, int64_t n, Rows v, Rows x, float *g, bool transposed) = 0;

  // y (=|+=) W x + bias + sum of low-rank terms. bias [out] or nullptr. Composite of the products above.
  // scratch: at least projection_scratch(...) floats.
  virtual void projection(int64_t tokens, Rows x, const Matrix &w, const float *bias, std::span<LowRankTerm> terms, Rows y,
                          Store store, float *scratch);
  // dx (=|+=) W^T dy + low-rank terms; accumulates term gradients. x is the forward input (needed where a term trains or has
  // dropout). dx.data may be nullptr: only the gradients of the terms.
  virtual void projection_backward(int64_t tokens, Rows x, const Matrix &w, std::span<LowRankTerm> terms, Rows dy, Rows dx,
                                   Store store, float *scratch);
  static int64_t projection_scratch(int64_t tokens, int64_t in, int64_t out, std::span<const LowRankTerm> terms);  // floats
  // Queries, keys and values, or gate and up: projections without bias of the same x, set. Composite: one after the other.
  virtual void projections(int64_t tokens, Rows x, std::span<const ProjectionPart> parts, float *scratch);
  // The base product and the wide half of one low-rank term:  y (=|+=) x W^T + narrow F^T + bias  or, transposed,
  // y (=|+=) x W + narrow F, rounded once. narrow f32 [T, rank]; F as B [out, rank] or A [rank, in]; bias only when not transposed.
  // scratch: T times the columns of y floats when y is bf16. Composite of the products above.
  virtual void matmul_low_rank(int64_t tokens, Rows x, const Matrix &w, bool transposed, Rows narrow, const Matrix &factor,
                               const float *bias, Rows y, Store store, float *scratch);

  // ---- rows -------------------------------------------------------------------------------------------
  // out[t] = scale * W[tokens[t]]     out f32 [T, d]
  virtual void embedding(int64_t tokens, const int32_t *ids, const Matrix &w, float scale, Rows out) = 0;
  // y (=|+=) x / sqrt(mean(x^2) + epsilon) * weight, per row of n (Zhang & Sennrich 2019). Add only for f32 y; y may be i8.
  virtual void rms_norm(int64_t tokens, int64_t n, Rows x, const float *weight, float epsilon, Rows y, Store store) = 0;
  // dx (=|+=) r (w dy - xhat mean(xhat w dy)),  xhat = x r,  r = 1/sqrt(mean(x^2) + epsilon)
  virtual void rms_norm_backward(int64_t tokens, int64_t n, Rows x, const float *weight, float epsilon, Rows dy, Rows dx,
                                 Store store) = 0;
  // x[i] = value
  virtual void fill(int64_t n, float value, float *x) = 0;
  // y (=|+=) x with conversion of the element type; y may be i8
  virtual void copy(int64_t tokens, int64_t n, Rows x, Rows y, Store store) = 0;
  // y[t] = x[index[t]]
  virtual void gather(int64_t rows, int64_t n, Rows x, const int32_t *index, Rows y) = 0;
  // y[index[t]] (+=) x[t]; the indices are distinct
  virtual void scatter(int64_t rows, int64_t n, Rows x, const int32_t *index, Rows y, Store store) = 0;
  // y[t] = x[t] * constant * factor[t * stride]; factor nullptr = 1
  virtual void scale_rows(int64_t tokens, int64_t n, Rows x, const float *factor, int64_t stride, float constant, Rows y) = 0;
  // out[t * stride] += constant * <x_t, y_t>     x, y [T, n]
  virtual void row_dots(int64_t tokens, int64_t n, Rows x, Rows y, float constant, float *out, int64_t stride) = 0;
  // y = x * mask / (1 - p); mask by counter-based random numbers of (seed, stream, t, column). Also its own backward.
  virtual void dropout(int64_t tokens, int64_t n, Rows x, float p, uint64_t seed, uint64_t stream, Rows y) = 0;
  // y[t] += bias
  virtual void add_bias(int64_t tokens, int64_t n, const float *bias, Rows y) = 0;

  // ---- attention --------------------------------------------------------------------------------------
  // table[t] = h/2 cosines then h/2 sines of positions[t] * inverse_frequency[j], times factor   (Su et al. 2021)
  virtual void rotary_table(int64_t tokens, int64_t head_dimension, const int32_t *positions, const float *inverse_frequency,
                            float factor, float *table) = 0;
  // Per head: optional rms_norm with weight[h], then rotation of the pairs (j, j + h/2). in [T, heads*h] -> out.
  virtual void rotary(int64_t tokens, int64_t heads, int64_t head_dimension, Rows in, const float *norm_weight, float epsilon,
                      const float *table, Rows out) = 0;
  // din from dout; `in` (the forward input) is read only when norm_weight is given.
  virtual void rotary_backward(int64_t tokens, int64_t heads, int64_t head_dimension, Rows in, const float *norm_weight,
                               float epsilon, const float *table, Rows dout, Rows din) = 0;
  // out = softmax(scale q k^T + causal mask) v per sequence and head; log_sum_exp [T, H] may be nullptr.
  virtual void attention(const AttentionShape &shape, std::span<const AttentionSequence> sequences, Rows q, Rows out,
                         float *log_sum_exp) = 0;
  // For packed training batches (queries == key_count, keys/values rows of one array each):
  // dq, dk, dv f32 [T, .] are set. out and log_sum_exp are those of forward.
  virtual void attention_backward(const AttentionShape &shape, std::span<const AttentionSequence> sequences, Rows q, Rows out,
                                  const float *log_sum_exp, Rows dout, Rows dq, Rows dk, Rows dv) = 0;

  // ---- feed-forward -------------------------------------------------------------------------------------
  // h = phi(a) * b      a, b, h [T, f]; h may be i8
  virtual void gated_activation(int64_t tokens, int64_t f, Activation phi, Rows a, Rows b, Rows h) = 0;
  // da = dh * b * phi'(a),  db = dh * phi(a)
  virtual void gated_activation_backward(int64_t tokens, int64_t f, Activation phi, Rows a, Rows b, Rows dh, Rows da, Rows db) = 0;

  // Composites of the ops above, which a backend may override by fused ones.
  // u [T, d], a0, b0 [T, f] -> hbar [T, f] set; y f32 [T, d] += sum g_i s_i B_i^d A_i^d h_i
  virtual void ffn_mixture(const FfnMixtureShape &shape, std::span<const MixtureExpert> experts, Rows u, Rows a0, Rows b0, Rows hbar,
                           Rows y);
  // dhbar f32 [T, f] = D^T delta is given, delta [T, d] is dL/dy. Sets da0, db0 [T, f] = da_0 + sum da_i (what goes back
  // through G and U), adds the low-rank input terms to du f32 [T, d], sets dgates [T, E] (0 where not selected), accumulates
  // expert gradients where wanted.
  virtual void ffn_mixture_backward(const FfnMixtureShape &shape, std::span<const MixtureExpert> experts, Rows u, Rows a0, Rows b0,
                                    Rows dhbar, Rows delta, Rows da0, Rows db0, Rows du, float *dgates);

  // ---- router -------------------------------------------------------------------------------------------
  // u [T, d], weight [E+1, d], bias [E+1]
  virtual void router(const RouterShape &shape, Rows u, const float *weight, const float *bias, const RouterState &state) = 0;
  // From dgates [T, E] (through the form's Jacobian, selection held fixed) and the losses' gradients: dz; then
  // dweight += dz^T u, dbias += sum dz, du (f32, may be null data) += dz W. dz [T, E+1] is written (scratch of the caller).
  virtual void router_backward(const RouterShape &shape, Rows u, const float *weight, const RouterState &state, const float *dgates,
                               const RouterLossGradient &losses, float *dz, float *dweight, float *dbias, Rows du) = 0;

  // ---- head ---------------------------------------------------------------------------------------------
  // nll[t] = logsumexp(h_t W^T) - (h_t W^T)[labels[t]]; if dh (f32 [n, d]) is given: dh[t] = scale (softmax - onehot) W.
  // The logits exist only chunk by chunk. labels[t] in [0, V). Without dh and with quantized W, hidden may be i8.
  virtual void cross_entropy(int64_t tokens, Rows hidden, const Matrix &w, const int32_t *labels, float *nll, float scale, Rows dh) = 0;

  // ---- optimizer ----------------------------------------------------------------------------------------
  // p = p (1 - lr wd) - lr (m / (1-b1^t)) / (sqrt(v / (1-b2^t)) + eps)     (Loshchilov & Hutter 2019)
  virtual void adamw(int64_t n, float *p, const float *g, float *m, float *v, const AdamW &options) = 0;
  virtual double sum_of_squares(int64_t n, const float *x) = 0;   // f64, blocks in fixed order

 private:
  template <class Take>
  void with_memory(Take &&take);  // ffn_mixture.cpp
  template <class Batch>
  void show_host(Batch &batch);
  std::unique_ptr<Arena> memory_;  // of composites that are given no scratch; only grows
  std::vector<uint8_t> selected_;  // what the host must see of a device; only grow
  std::vector<int32_t> listed_;
};

}  // namespace moe
