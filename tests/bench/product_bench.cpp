// Products with stored weights (2 T out in operations): prompts and training batches, few tokens, whose limit is reading the
// weights from memory, and the low-rank products of an adapter of rank 16 with their gradients.
#include "inputs.h"
#include "models.h"
#include "sampling.h"

namespace moe::bench {
namespace {

constexpr int64_t kRank = 16, kTrainingTokens = 1600;

double operations(int64_t tokens, int64_t out, int64_t in) { return 2.0 * static_cast<double>(tokens * out * in); }

Limit limit_of(DType activations) {
  return activations == DType::i8 ? Limit::int8 : activations == DType::bf16 ? bf16_products() : Limit::f32;
}

std::string name_of(const Linear &linear, DType activations) {
  return linear.name + ":" + dtype_info(linear.type).name + ":" + std::to_string(linear.out) + "x" + std::to_string(linear.in) +
         "/" + dtype_info(activations).name;
}

void add_matmul(const ModelShapes &model, const Linear &linear, DType activations, int64_t tokens, int threads) {
  add(shape_name("matmul", model.name, name_of(linear, activations), tokens, threads), [=](benchmark::State &state) {
    const auto backend = make_backend(threads);
    Weights w(linear.type, linear.out, linear.in);
    Activations x(*backend, tokens, linear.in, activations), y(*backend, tokens, linear.out, DType::f32);
    sample(state, threads, {operations(tokens, linear.out, linear.in), limit_of(activations)},
           [&] { backend->matmul(tokens, x.rows(), w.next(), y.rows(), Store::set); });
  });
}

void add_transposed(const ModelShapes &model, const Linear &linear, int64_t tokens, int threads) {
  add(shape_name("matmul_transposed", model.name, name_of(linear, DType::bf16), tokens, threads), [=](benchmark::State &state) {
    const auto backend = make_backend(threads);
    Weights w(linear.type, linear.out, linear.in);
    Activations dy(*backend, tokens, linear.out, DType::bf16), dx(*backend, tokens, linear.in, DType::f32);
    sample(state, threads, {operations(tokens, linear.out, linear.in), bf16_products()},
           [&] { backend->matmul_transposed(tokens, dy.rows(), w.next(), dx.rows(), Store::set); });
  });
}

void add_few_tokens(const ModelShapes &model, const Linear &linear, int64_t tokens, int threads) {
  const bool int8 = dtype_info(linear.type).quantized && make_backend(1)->fast_int8(1);
  const DType activations = int8 ? DType::i8 : DType::bf16;
  add(shape_name("few_tokens", model.name, name_of(linear, activations), tokens, threads), [=](benchmark::State &state) {
    const auto backend = make_backend(threads);
    Weights w(linear.type, linear.out, linear.in, Weights::copies_beyond_caches(linear.type, linear.out, linear.in));
    Activations x(*backend, tokens, linear.in, activations), y(*backend, tokens, linear.out, DType::f32);
    sample(state, threads, {operations(tokens, linear.out, linear.in), limit_of(activations), static_cast<double>(w.bytes())},
           [&] { backend->matmul(tokens, x.rows(), w.next(), y.rows(), Store::set); });
  });
}

// g += v^T x, the gradient of a factor; and the two products of the factors themselves.
void add_low_rank(const ModelShapes &model, int64_t n, int threads) {
  const Work work{operations(kTrainingTokens, kRank, n), bf16_products()};
  const std::string what = "rank:" + std::to_string(kRank) + "x" + std::to_string(n);
  add(shape_name("outer_product", model.name, what, kTrainingTokens, threads), [=](benchmark::State &state) {
    const auto backend = make_backend(threads);
    Activations v(*backend, kTrainingTokens, kRank, DType::f32), x(*backend, kTrainingTokens, n, DType::bf16, 2);
    Activations g(*backend, kRank, n, DType::f32);
    sample(state, threads, work,
           [&] { backend->outer_product(kTrainingTokens, kRank, n, v.rows(), x.rows(), g.floats(), false); });
  });
  add(shape_name("low_rank_down", model.name, what, kTrainingTokens, threads), [=](benchmark::State &state) {
    const auto backend = make_backend(threads);
    Weights a(DType::f32, kRank, n);
    Activations x(*backend, kTrainingTokens, n, DType::bf16), u(*backend, kTrainingTokens, kRank, DType::f32);
    sample(state, threads, work, [&] { backend->matmul(kTrainingTokens, x.rows(), a.next(), u.rows(), Store::set); });
  });
  add(shape_name("low_rank_up", model.name, what, kTrainingTokens, threads), [=](benchmark::State &state) {
    const auto backend = make_backend(threads);
    Weights b(DType::f32, n, kRank);
    Activations u(*backend, kTrainingTokens, kRank, DType::f32), y(*backend, kTrainingTokens, n, DType::f32);
    sample(state, threads, {work.operations, Limit::f32},
           [&] { backend->matmul(kTrainingTokens, u.rows(), b.next(), y.rows(), Store::add); });
  });
}

}  // namespace

void add_products() {
  using Counts = std::vector<int64_t>;
  for (const ModelShapes &model : models()) {
    for (const int threads : {1, 2}) {
      for (const Linear &linear : model.layer) {
        for (const int64_t tokens : model.large ? Counts{512} : Counts{64, 512, kTrainingTokens}) {
          add_matmul(model, linear, DType::bf16, tokens, threads);
          if (dtype_info(linear.type).quantized && tokens < kTrainingTokens)
            add_matmul(model, linear, DType::i8, tokens, threads);
        }
        if (!model.large) add_matmul(model, linear, DType::f32, 512, threads);
        for (const int64_t tokens : model.large ? Counts{512} : Counts{512, kTrainingTokens})
          add_transposed(model, linear, tokens, threads);
        for (const int64_t tokens : {1, 4, 8}) add_few_tokens(model, linear, tokens, threads);
      }
      add_few_tokens(model, {"head", model.head_type, model.vocabulary, model.hidden}, 1, threads);
      for (const int64_t n : {model.hidden, model.intermediate}) add_low_rank(model, n, threads);
    }
  }
}

}  // namespace moe::bench
