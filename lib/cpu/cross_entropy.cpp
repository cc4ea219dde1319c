// The vocabulary head with its loss, without ever holding the logits [n, V]. With z = h W^T,
//   nll = logsumexp(z) - z_label,   dh = scale (softmax(z) W - W_label)
// and softmax(z) W is attention with keys = values = W: one pass with an online softmax (Milakov & Gimelshein 2018), two
// products for each chunk of the vocabulary. The vocabulary is cut into 8 fixed slices; each gives per row its maximum,
// its sum of exponentials and its weighted sum of weight rows, and they are joined in order. The label stays out of these and
// comes in at the end, with softmax(z)_label - 1 = -(sum of the others) / sum, so that nothing cancels. bf16 hidden rows make
// both products with bf16 operands where the level has them. Without gradient hidden rows may be i8 and meet quantized weights
// in integer products.
#include <cmath>
#include <limits>

#include "base/error.h"
#include "cpu/attention.h"
#include "cpu/cpu_backend.h"

namespace moe::cpu {
namespace {

constexpr int64_t kSlices = 8;
constexpr int64_t kTaskRows = 512;             // rows that share one expansion of the weights
constexpr int64_t kLogitRows = 4 * kRowGroup, kLogitRowsBf16 = 64;  // rows whose logits exist at a time
constexpr int64_t kFewRows = 8, kFewSlice = 512;
constexpr float kNone = -std::numeric_limits<float>::infinity();

struct Head {
  const Kernels &k;
  Rows hidden;
  const Matrix &w;
  const int32_t *labels;
  int64_t rows, row_bytes, stride;  // stride of f32 copies of hidden rows and of the weighted sums
  bool gradient;
  int64_t slices;
  bool bf16 = false;  // products of bf16 operands
  // of slice s and row t: maximum[s * rows + t], sum[s * rows + t], weighted + (s * rows + t) * stride
  float *maximum = nullptr, *sum = nullptr, *weighted = nullptr, *label_logit = nullptr;
  uint8_t *panels = nullptr;  // of int8 hidden rows

  bool int8() const { return hidden.dtype == DType::i8; }
  const uint8_t *int8_row(int64_t t) const { return static_cast<const uint8_t *>(hidden.data) + t * int8_bytes(); }
  int64_t int8_bytes() const { return moe::row_bytes(DType::i8, hidden.stride); }
  const uint16_t *bf16_row(int64_t t) const { return static_cast<const uint16_t *>(hidden.data) + t * hidden.stride; }
  // Vocabulary rows expanded at a time: both forms of panels take 640 KiB of the second-level cache.
  int64_t chunk() const { return std::max<int64_t>(1, (bf16 ? 163840 : 81920) / (w.columns * kPanel)) * kPanel; }
  int64_t logit_rows() const { return int8() ? kPanel : bf16 ? kLogitRowsBf16 : kLogitRows; }
  const std::byte *weights(int64_t row) const { return static_cast<const std::byte *>(w.data) + row * row_bytes; }
};

struct Scratch {
  float *hidden;          // [kTaskRows, stride]
  float *columns, *rows;  // panels of a chunk for h W^T and for P W
  float *logits;          // [logit_rows, logit_stride]
  float *turned;          // [chunk, kPanel] of integer products, whose `columns` are expanded weight rows
  uint16_t *columns_bf16, *rows_bf16, *weights_bf16;  // the same panels, and P, with bf16 operands
  int64_t logit_stride;
  size_t bytes;

  Scratch(void *base, const Head &head) {
    Carver carver(base);
    const int64_t chunk = head.chunk(), d = head.w.columns, of_f32 = head.int8() || head.bf16 ? 0 : 1;
    const auto take_bf16 = [&](int64_t values) { return reinterpret_cast<uint16_t *>(carver.take(head.bf16 ? values / 2 : 0)); };
    hidden = carver.take(of_f32 * kTaskRows * head.stride);
    columns = carver.take(head.int8() ? expanded_bytes(chunk, d) / 4 : of_f32 * chunk * d);
    turned = carver.take(head.int8() ? chunk * kPanel : 0);
    rows = carver.take(head.gradient ? of_f32 * chunk * round_up(d, kPanel) : 0);
    logit_stride = chunk + 16;
    logits = carver.take(head.logit_rows() * logit_stride);
    columns_bf16 = take_bf16(chunk * d);
    rows_bf16 = take_bf16(head.gradient ? chunk * round_up(d, kPanel) : 0);
    weights_bf16 = take_bf16(head.gradient ? kLogitRowsBf16 * logit_stride : 0);
    bytes = carver.used();
  }
};

// A logit row of the vocabulary [v, v + n) into the running softmax of row t without its label; logits become weights.
void take_logits(const Head &head, int64_t slice, int64_t t, int64_t v, int64_t n, float *logits) {
  const Kernels &k = head.k;
  const int64_t at = slice * head.rows + t, label = head.labels[t] - v;
  if (label >= 0 && label < n) {
    head.label_logit[t] = logits[label];
    logits[label] = kNone;
    if (n == 1) {
      logits[0] = 0;
      return;
    }
  }
  const float highest = k.max(n, logits);
  if (highest > head.maximum[at]) {
    if (head.sum[at] != 0) {
      const float factor = std::exp(head.maximum[at] - highest);
      head.sum[at] *= factor;
      if (head.gradient) k.scale(head.w.columns, factor, head.weighted + at * head.stride, head.weighted + at * head.stride);
    }
    head.maximum[at] = highest;
  }
  head.sum[at] += k.exp_shifted(n, logits, head.maximum[at], logits);
}

void expand_chunk(const Head &head, int64_t v, int64_t n, const Scratch &x) {
  const int64_t d = head.w.columns;
  if (head.int8()) return head.k.expand_i8(head.w.dtype, head.weights(v), head.row_bytes, n, d, reinterpret_cast<uint8_t *>(x.columns));
  const auto columns = [&](auto panel, auto *to) {
    for (int64_t i = 0; i < n; i += kPanel) panel(head.w.dtype, head.weights(v + i), head.row_bytes, std::min(kPanel, n - i), d, to + i * d);
  };
  const auto rows = [&](auto panel, auto *to) {
    for (int64_t c = 0; head.gradient && c < d; c += kPanel)
      panel(head.w.dtype, head.weights(v), head.row_bytes, c, std::min(kPanel, d - c), n, to + c * head.chunk());
  };
  if (head.bf16) {
    columns(head.k.panel_bf16, x.columns_bf16);
    rows(head.k.panel_transposed_bf16, x.rows_bf16);
  } else {
    columns(head.k.panel_f32, x.columns);
    rows(head.k.panel_transposed_f32, x.rows);
  }
}

// Rows [first, end) over one slice of the vocabulary, chunk by chunk.
void run_slice(const Head &head, int64_t slice, int64_t first, int64_t end, const Scratch &x) {
  const int64_t d = head.w.columns, chunk = head.chunk(), chunks = (head.w.rows + chunk - 1) / chunk;
  for (int64_t t = first; t < end; t++) {
    const int64_t at = slice * head.rows + t;
    if (!head.int8() && !head.bf16) read_scaled(head.k, head.hidden, t, 0, d, 1.0f, x.hidden + (t - first) * head.stride);
    head.maximum[at] = kNone;
    head.sum[at] = 0;
    if (head.gradient) std::fill_n(head.weighted + at * head.stride, d, 0.0f);
  }
  for (int64_t c = slice * chunks / kSlices; c < (slice + 1) * chunks / kSlices; c++) {
    const int64_t v = c * chunk, n = std::min(chunk, head.w.rows - v);
    expand_chunk(head, v, n, x);
    for (int64_t t = first, count; t < end; t += count) {
      count = std::min(head.logit_rows(), end - t);
      if (head.int8()) {
        head.k.tile_i8(head.w.dtype, n, count, d, reinterpret_cast<const uint8_t *>(x.columns),
                       head.panels + t / kPanel * int8_panel_bytes(head.w.dtype, d), nullptr, 0, x.turned);
        head.k.transpose(n, round_up(count, 16), x.turned, kPanel, x.logits, x.logit_stride);
      } else if (head.bf16) {
        multiply_panels(head.k, count, n, d, head.bf16_row(t), head.hidden.stride, x.columns_bf16, d * kPanel, x.logits,
                        x.logit_stride, false);
      } else {
        multiply_panels(head.k, count, n, d, x.hidden + (t - first) * head.stride, head.stride, x.columns, d * kPanel, x.logits,
                        x.logit_stride, false);
      }
      for (int64_t i = 0; i < count; i++) take_logits(head, slice, t + i, v, n, x.logits + i * x.logit_stride);
      if (!head.gradient) continue;
      float *const weighted = head.weighted + (slice * head.rows + t) * head.stride;
      if (!head.bf16) {
        multiply_panels(head.k, count, d, n, x.logits, x.logit_stride, x.rows, chunk * kPanel, weighted, head.stride, true);
        continue;
      }
      for (int64_t i = 0; i < count; i++) {
        uint16_t *const row = x.weights_bf16 + i * x.logit_stride;
        head.k.to_bf16(x.logits + i * x.logit_stride, n, row);
        std::fill(row + n, row + bf16_k(n), uint16_t{0});
      }
      multiply_panels(head.k, count, d, n, x.weights_bf16, x.logit_stride, x.rows_bf16, chunk * kPanel, weighted, head.stride, true);
    }
  }
}

// A few rows without gradient: dot products straight from the stored weights. hidden: [rows, stride] f32.
void run_few(const Head &head, int64_t slice, const float *hidden, float *logits) {
  const int64_t v = slice * kFewSlice, n = std::min(kFewSlice, head.w.rows - v);
  if (head.int8()) {
    head.k.dot_rows_i8(head.w.dtype, head.weights(v), head.row_bytes, n, head.w.columns, head.rows, head.int8_row(0), head.int8_bytes(), logits,
                       kFewSlice, false);
  } else {
    head.k.dot_rows(head.w.dtype, head.weights(v), head.row_bytes, n, head.w.columns, head.rows, hidden, head.stride, logits,
                    kFewSlice, false);
  }
  for (int64_t t = 0; t < head.rows; t++) {
    head.maximum[slice * head.rows + t] = kNone;
    head.sum[slice * head.rows + t] = 0;
    take_logits(head, slice, t, v, n, logits + t * kFewSlice);
  }
}

// Joins the slices of row t. space: [d]
void join(const Head &head, int64_t t, float *nll, float scale, Rows dh, float *space) {
  float maximum = head.label_logit[t], others = 0;
  for (int64_t s = 0; s < head.slices; s++) maximum = std::max(maximum, head.maximum[s * head.rows + t]);
  const auto factor = [&](int64_t s) {
    const int64_t at = s * head.rows + t;
    return head.sum[at] == 0 ? 0.0f : std::exp(head.maximum[at] - maximum);
  };
  for (int64_t s = 0; s < head.slices; s++) others += head.sum[s * head.rows + t] * factor(s);
  const float label = std::exp(head.label_logit[t] - maximum), sum = others + label;
  nll[t] = label == 1 ? std::log1p(others) : maximum + std::log(sum) - head.label_logit[t];
  if (!head.gradient) return;
  const int64_t d = head.w.columns;
  float *const row = f32_element(dh, t, 0);
  head.k.expand(head.w.dtype, head.weights(head.labels[t]), d, space);
  head.k.scale(d, -scale * others / sum, space, row);
  for (int64_t s = 0; s < head.slices; s++) {
    if (head.sum[s * head.rows + t] != 0)
      head.k.axpy(d, scale * factor(s) / sum, head.weighted + (s * head.rows + t) * head.stride, row);
  }
}

}  // namespace

void CpuBackend::cross_entropy(int64_t tokens, Rows hidden, const Matrix &w, const int32_t *labels, float *nll, float scale,
                               Rows dh) {
  for (int64_t t = 0; t < tokens; t++) {
    if (labels[t] < 0 || labels[t] >= w.rows)
      fail(Code::invalid, "cross_entropy: label of row ", t, ": expected 0 to ", w.rows - 1, ", found ", labels[t]);
  }
  if (hidden.dtype == DType::i8 && (dh.data || !dtype_info(w.dtype).quantized))
    fail(Code::invalid, "cross_entropy: int8 hidden states need quantized weights and give no gradient");
  if (tokens == 0) return;
  Head head{k_,     hidden, w, labels, tokens, row_bytes(w.dtype, w.columns), round_up(w.columns, 16) + 16, dh.data != nullptr,
            kSlices};
  head.bf16 = k_.bf16_operands && hidden.dtype == DType::bf16 && w.columns == bf16_k(w.columns);
  const bool few = tokens <= kFewRows && !head.gradient;
  if (few) head.slices = (w.rows + kFewSlice - 1) / kFewSlice;

  const auto place = [&](void *base) {
    Carver carver(base);
    head.maximum = carver.take(head.slices * tokens);
    head.sum = carver.take(head.slices * tokens);
    head.label_logit = carver.take(tokens);
    if (head.int8() && !few) {
      head.panels = reinterpret_cast<uint8_t *>(carver.take((tokens + kPanel - 1) / kPanel * int8_panel_bytes(w.dtype, w.columns) / 4));
    }
    head.weighted = carver.take(head.gradient ? head.slices * tokens * head.stride : few ? tokens * head.stride : 0);
    return static_cast<int64_t>(carver.used());
  };
  place(shared<std::byte>(place(nullptr)));

  if (few) {
    float *const rows = head.weighted;
    for (int64_t t = 0; t < tokens && !head.int8(); t++) read_scaled(k_, hidden, t, 0, w.columns, 1.0f, rows + t * head.stride);
    reserve_scratch(sizeof(float) * kFewRows * kFewSlice);
    pool_->run(head.slices, [&](int64_t slice, int thread) { run_few(head, slice, rows, scratch<float>(thread)); });
  } else {
    reserve_scratch(Scratch(nullptr, head).bytes);
    const int64_t blocks = (tokens + kTaskRows - 1) / kTaskRows, block = round_up((tokens + blocks - 1) / blocks, kPanel);
    if (head.int8()) pack_i8(tokens, hidden, w, head.panels);
    pool_->run(kSlices * blocks, [&](int64_t task, int thread) {
      const int64_t first = std::min(task % blocks * block, tokens);
      run_slice(head, task / blocks, first, std::min(first + block, tokens), Scratch(scratch<float>(thread), head));
    });
  }

  constexpr int64_t kJoinRows = 16;
  pool_->run((tokens + kJoinRows - 1) / kJoinRows, [&](int64_t task, int thread) {
    for (int64_t t = task * kJoinRows; t < std::min((task + 1) * kJoinRows, tokens); t++)
      join(head, t, nll, scale, dh, scratch<float>(thread));
  });
}

}  // namespace moe::cpu
