#include "model/router_alone.h"

#include <algorithm>
#include <cfloat>
#include <charconv>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "cpu/kernels.h"
#include "formats/safetensors.h"
#include "tensor/dequantize.h"

namespace moe {
namespace {

constexpr int64_t kChunk = 4096;  // values of a row that are converted at once
constexpr int64_t kMaxEntries = 1024;

// "layers.<i>.router.weight" to i; -1 for another name.
int64_t layer_of(std::string_view name, std::string_view suffix) {
  constexpr std::string_view kPrefix = "layers.";
  if (!name.starts_with(kPrefix) || !name.ends_with(suffix) || name.size() <= kPrefix.size() + suffix.size()) return -1;
  const char *begin = name.data() + kPrefix.size(), *end = name.data() + name.size() - suffix.size();
  int64_t layer = -1;
  const auto [stop, failure] = std::from_chars(begin, end, layer);
  return failure == std::errc() && stop == end ? layer : -1;
}

// `count` values of a row to f32.
const float *converted(const unsigned char *source, DType dtype, int64_t count, float *space) {
  if (dtype == DType::f32) {
    if (reinterpret_cast<uintptr_t>(source) % alignof(float) == 0) return reinterpret_cast<const float *>(source);
    std::memcpy(space, source, static_cast<size_t>(count) * sizeof(float));
    return space;
  }
  for (int64_t i = 0; i < count; i++) {
    uint16_t bits;
    std::memcpy(&bits, source + i * 2, sizeof bits);
    space[i] = dtype == DType::bf16 ? bf16_to_float(bits) : f16_to_float(bits);
  }
  return space;
}

class RowRouting {
 public:
  RowRouting(const RouterConfig &config, const float *weight, const float *bias)
      : kernels_(cpu::best_kernels()), config_(config), weight_(weight), bias_(bias) {}

  // z = W u + b, then p = softmax(z / tau). False when a number is not finite.
  bool score(const unsigned char *row, DType dtype) {
    const int64_t entries = config_.entries(), d = config_.hidden, bytes = dtype == DType::f32 ? 4 : 2;
    float sum_of_row[kMaxEntries];
    std::fill_n(sum_of_row, entries, 0.0f);
    const bool direct = dtype == DType::f32 && reinterpret_cast<uintptr_t>(row) % alignof(float) == 0;
    const int64_t step = direct ? d : kChunk;
    for (int64_t at = 0; at < d; at += step) {
      const int64_t count = std::min(step, d - at);
      const float *values = converted(row + at * bytes, dtype, count, chunk_);
      for (int64_t i = 0; i < entries; i++) sum_of_row[i] += kernels_.dot(count, weight_ + i * d + at, values);
    }
    for (int64_t i = 0; i < entries; i++) {
      score_[i] = sum_of_row[i] + bias_[i];
      if (!std::isfinite(score_[i])) return false;
    }
    kernels_.scale(entries, 1 / config_.temperature, score_, score_);
    const float sum = kernels_.exp_shifted(entries, score_, kernels_.max(entries, score_), probability_);
    kernels_.scale(entries, 1 / sum, probability_, probability_);
    return true;
  }

  void pick(int32_t *ids, float *weights) const {
    const int64_t k = config_.top_k;
    for (int64_t j = 0; j < k; j++) {
      int32_t best = -1;
      for (int32_t i = 0; i < config_.entries(); i++) {
        if (std::find(ids, ids + j, i) == ids + j && (best < 0 || score_[i] > score_[best])) best = i;
      }
      ids[j] = best;
    }
    const float denominator = divisor(ids);
    float gates = 0;
    for (int64_t j = 0; j < k; j++) {
      if (ids[j] == 0) continue;
      weights[j] = config_.form == GateForm::straight_through ? 1 : probability_[ids[j]] / denominator;
      gates += weights[j];
    }
    for (int64_t j = 0; j < k; j++) {
      if (ids[j] == 0) weights[j] = 1 - gates;
    }
  }

 private:
  float divisor(const int32_t *ids) const {
    if (config_.form != GateForm::renormalised_delta && config_.form != GateForm::weighted) return 1;
    const bool picked_base = std::find(ids, ids + config_.top_k, 0) != ids + config_.top_k;
    float sum = config_.form == GateForm::renormalised_delta || picked_base ? probability_[0] : 0;
    for (int64_t j = 0; j < config_.top_k; j++) sum += ids[j] > 0 ? probability_[ids[j]] : 0;
    return std::max(sum, FLT_MIN);
  }

  const cpu::Kernels &kernels_;
  const RouterConfig &config_;
  const float *weight_, *bias_;
  float score_[kMaxEntries], probability_[kMaxEntries], chunk_[kChunk];
};

}  // namespace

RouterConfig router_sizes(const std::string &path, RouterConfig settings) {
  const Safetensors file(path);
  settings.layers = 0;
  settings.ffn = settings.attention = false;
  for (const TensorInfo &tensor : file.tensors()) {
    const int64_t ffn = layer_of(tensor.name, ".router.weight"), attention = layer_of(tensor.name, ".attn_router.weight");
    const int64_t layer = std::max(ffn, attention);
    if (layer < 0) continue;
    if (layer >= 65536) fail(Code::format, path, ": tensor '", tensor.name, "': expected a layer below 65536");
    if (tensor.shape.size() != 2 || tensor.shape[0] < 2) {
      fail(Code::format, path, ": tensor '", tensor.name, "': expected shape [experts + 1, hidden], found ",
           shape_text(tensor.shape));
    }
    settings.layers = std::max(settings.layers, layer + 1);
    settings.ffn |= ffn >= 0;
    settings.attention |= attention >= 0;
    settings.experts = tensor.shape[0] - 1;
    settings.hidden = tensor.shape[1];
  }
  if (settings.layers == 0) fail(Code::format, path, ": holds no router: tensor 'layers.0.router.weight' is missing");
  return settings;
}

void route_rows(const Router &router, int64_t layer, RouterKind kind, const void *hidden, DType dtype, int64_t rows,
                int64_t row_stride_bytes, int32_t *ids, float *weights) {
  const int64_t k = router.config().top_k;
  RowRouting routing(router.config(), router.weight(layer, kind), router.bias(layer, kind));
  for (int64_t r = 0; r < rows; r++) {
    if (!routing.score(static_cast<const unsigned char *>(hidden) + r * row_stride_bytes, dtype)) {
      fail(Code::numeric, "router: hidden state of row ", r, " is not finite or overflows");
    }
    routing.pick(ids + r * k, weights + r * k);
  }
}

}  // namespace moe
