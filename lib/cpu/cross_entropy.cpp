// The vocabulary head with its loss, without ever holding the logits [n, V]. With z = h W^T,
//   nll = logsumexp(z) - z_label,   dh = scale (softmax(z) W - W_label)
// and softmax(z) W is attention with keys = values = W: one pass with an online softmax (Milakov & Gimelshein 2018), two
// products for each chunk of the vocabulary. The vocabulary is cut into 8 fixed slices; each gives per row its maximum,
// its sum of exponentials and its weighted sum of weight rows, and they are joined in order. Without gradient hidden rows may be
// i8 and meet quantized weights in integer products.
#include <cmath>
#include <limits>

#include "base/error.h"
#include "cpu/attention.h"
#include "cpu/cpu_backend.h"

namespace moe::cpu {
namespace {

constexpr int64_t kSlices = 8;
constexpr int64_t kTaskRows = 512;             // rows that share one expansion of the weights
constexpr int64_t kLogitRows = 4 * kRowGroup;  // rows whose logits exist at a time
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
  // of slice s and row t: maximum[s * rows + t], sum[s * rows + t], weighted + (s * rows + t) * stride
  float *maximum = nullptr, *sum = nullptr, *weighted = nullptr, *label_logit = nullptr;
  uint8_t *panels = nullptr;  // of int8 hidden rows

  bool int8() const { return hidden.dtype == DType::i8; }
  const uint8_t *int8_row(int64_t t) const { return static_cast<const uint8_t *>(hidden.data) + t * int8_bytes(); }
  int64_t int8_bytes() const { return moe::row_bytes(DType::i8, hidden.stride); }
  // Vocabulary rows expanded at a time: both forms of panels take 640 KiB of the second-level cache.
  int64_t chunk() const { return std::max<int64_t>(1, 81920 / (w.columns * kPanel)) * kPanel; }
  const std::byte *weights(int64_t row) const { return static_cast<const std::byte *>(w.data) + row * row_bytes; }
};

struct Scratch {
  float *hidden;          // [kTaskRows, stride]
  float *columns, *rows;  // panels of a chunk for h W^T and for P W
  float *logits;          // [kLogitRows, logit_stride]
  float *turned;          // [chunk, kPanel] of integer products, whose `columns` are expanded weight rows
  int64_t logit_stride;
  size_t bytes;

  Scratch(void *base, const Head &head) {
    Carver carver(base);
    hidden = carver.take(head.int8() ? 0 : kTaskRows * head.stride);
    columns = carver.take(head.int8() ? expanded_bytes(head.chunk(), head.w.columns) / 4 : head.chunk() * head.w.columns);
    turned = carver.take(head.int8() ? head.chunk() * kPanel : 0);
    rows = carver.take(head.gradient ? head.chunk() * round_up(head.w.columns, kPanel) : 0);
    logit_stride = head.chunk() + 16;
    logits = carver.take(kLogitRows * logit_stride);
    bytes = carver.used();
  }
};

// A logit row of the vocabulary [v, v + n) into the running softmax of row t.
void take_logits(const Head &head, int64_t slice, int64_t t, int64_t v, int64_t n, float *logits) {
  const Kernels &k = head.k;
  const int64_t at = slice * head.rows + t;
  if (head.labels[t] >= v && head.labels[t] < v + n) head.label_logit[t] = logits[head.labels[t] - v];
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
  for (int64_t i = 0; i < n; i += kPanel) {
    head.k.panel_f32(head.w.dtype, head.weights(v + i), head.row_bytes, std::min(kPanel, n - i), d, x.columns + i * d);
  }
  if (!head.gradient) return;
  for (int64_t c = 0; c < d; c += kPanel) {
    head.k.panel_transposed_f32(head.w.dtype, head.weights(v), head.row_bytes, c, std::min(kPanel, d - c), n,
                                x.rows + c * head.chunk());
  }
}

// Rows [first, end) over one slice of the vocabulary, chunk by chunk.
void run_slice(const Head &head, int64_t slice, int64_t first, int64_t end, const Scratch &x) {
  const int64_t d = head.w.columns, chunk = head.chunk(), chunks = (head.w.rows + chunk - 1) / chunk;
  for (int64_t t = first; t < end; t++) {
    const int64_t at = slice * head.rows + t;
    if (!head.int8()) read_scaled(head.k, head.hidden, t, 0, d, 1.0f, x.hidden + (t - first) * head.stride);
    head.maximum[at] = kNone;
    head.sum[at] = 0;
    if (head.gradient) std::fill_n(head.weighted + at * head.stride, d, 0.0f);
  }
  for (int64_t c = slice * chunks / kSlices; c < (slice + 1) * chunks / kSlices; c++) {
    const int64_t v = c * chunk, n = std::min(chunk, head.w.rows - v);
    expand_chunk(head, v, n, x);
    for (int64_t t = first, count; t < end; t += count) {
      count = std::min(head.int8() ? kPanel : kLogitRows, end - t);
      if (head.int8()) {
        head.k.tile_i8(head.w.dtype, n, count, d, reinterpret_cast<const uint8_t *>(x.columns),
                       head.panels + t / kPanel * int8_panel_bytes(head.w.dtype, d), nullptr, 0, x.turned);
        head.k.transpose(n, round_up(count, 16), x.turned, kPanel, x.logits, x.logit_stride);
      } else {
        multiply_panels(head.k, count, n, d, x.hidden + (t - first) * head.stride, head.stride, x.columns, d * kPanel, x.logits,
                        x.logit_stride, false);
      }
      for (int64_t i = 0; i < count; i++) take_logits(head, slice, t + i, v, n, x.logits + i * x.logit_stride);
      if (!head.gradient) continue;
      multiply_panels(head.k, count, d, n, x.logits, x.logit_stride, x.rows, chunk * kPanel,
                      head.weighted + (slice * head.rows + t) * head.stride, head.stride, true);
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
  float maximum = kNone, sum = 0;
  for (int64_t s = 0; s < head.slices; s++) maximum = std::max(maximum, head.maximum[s * head.rows + t]);
  const auto factor = [&](int64_t s) {
    const int64_t at = s * head.rows + t;
    return head.sum[at] == 0 ? 0.0f : std::exp(head.maximum[at] - maximum);
  };
  for (int64_t s = 0; s < head.slices; s++) sum += head.sum[s * head.rows + t] * factor(s);
  nll[t] = maximum + std::log(sum) - head.label_logit[t];
  if (!head.gradient) return;
  const int64_t d = head.w.columns;
  float *const row = f32_element(dh, t, 0);
  head.k.expand(head.w.dtype, head.weights(head.labels[t]), d, space);
  head.k.scale(d, -scale, space, row);
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
