// Passes over rows. Their limit is reading and writing every element once; batches that stay in a cache can be faster than
// memory.
#include "inputs.h"
#include "models.h"
#include "sampling.h"

namespace moe::bench {
namespace {

constexpr int64_t kTokens = 1600;

double bytes_of(DType type, int64_t n) { return static_cast<double>(kTokens * row_bytes(type, n)); }

void add_rms_norm(const ModelShapes &model, DType out, int threads) {
  const int64_t n = model.hidden;
  add(shape_name("rms_norm", model.name, dtype_info(out).name, kTokens, threads), [=](benchmark::State &state) {
    const auto backend = make_backend(threads);
    Activations x(*backend, kTokens, n, DType::f32), weight(*backend, 1, n, DType::f32), y(*backend, kTokens, n, out);
    sample(state, threads, {0, Limit::read, bytes_of(DType::f32, n) + bytes_of(out, n)},
           [&] { backend->rms_norm(kTokens, n, x.rows(), weight.floats(), 1e-5f, y.rows(), Store::set); });
  });
}

void add_gated_activation(const ModelShapes &model, DType out, int threads) {
  const int64_t n = model.intermediate;
  const Activation phi = model.name == "gemma3_270m" ? Activation::gelu_tanh : Activation::silu;
  add(shape_name("gated_activation", model.name, dtype_info(out).name, kTokens, threads), [=](benchmark::State &state) {
    const auto backend = make_backend(threads);
    Activations a(*backend, kTokens, n, DType::bf16, 1), b(*backend, kTokens, n, DType::bf16, 2), h(*backend, kTokens, n, out);
    sample(state, threads, {0, Limit::read, 2 * bytes_of(DType::bf16, n) + bytes_of(out, n)},
           [&] { backend->gated_activation(kTokens, n, phi, a.rows(), b.rows(), h.rows()); });
  });
  if (out == DType::i8) return;
  add(shape_name("gated_activation_backward", model.name, dtype_info(out).name, kTokens, threads), [=](benchmark::State &state) {
    const auto backend = make_backend(threads);
    Activations a(*backend, kTokens, n, DType::bf16, 1), b(*backend, kTokens, n, DType::bf16, 2),
        dh(*backend, kTokens, n, DType::f32, 3);
    Activations da(*backend, kTokens, n, out), db(*backend, kTokens, n, out);
    sample(state, threads, {0, Limit::read, 2 * bytes_of(DType::bf16, n) + bytes_of(DType::f32, n) + 2 * bytes_of(out, n)},
           [&] { backend->gated_activation_backward(kTokens, n, phi, a.rows(), b.rows(), dh.rows(), da.rows(), db.rows()); });
  });
}

}  // namespace

void add_rows() {
  for (const ModelShapes &model : models()) {
    for (const int threads : {1, 2}) {
      for (const DType out : {DType::bf16, DType::i8}) {
        add_rms_norm(model, out, threads);
        add_gated_activation(model, out, threads);
      }
    }
  }
}

}  // namespace moe::bench
