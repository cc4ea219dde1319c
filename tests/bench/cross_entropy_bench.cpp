// The vocabulary head with its loss: 2 V d operations a row, 4 V d with the gradient of the hidden state.
#include "inputs.h"
#include "models.h"
#include "sampling.h"

namespace moe::bench {
namespace {

void add_head(const ModelShapes &model, bool gradient, DType hidden_type, int64_t rows, int threads) {
  const char *op = gradient ? "cross_entropy_gradient" : "cross_entropy";
  const std::string what = std::string(dtype_info(model.head_type).name) + ":" + std::to_string(model.vocabulary) + "x" +
                           std::to_string(model.hidden) + "/" + dtype_info(hidden_type).name;
  add(shape_name(op, model.name, what, rows, threads), [=](benchmark::State &state) {
    const auto backend = make_backend(threads);
    Weights w(model.head_type, model.vocabulary, model.hidden);
    Activations hidden(*backend, rows, model.hidden, hidden_type), dh(*backend, rows, model.hidden, DType::f32);
    std::vector<int32_t> labels(static_cast<size_t>(rows));
    for (size_t t = 0; t < labels.size(); t++) {
      labels[t] = static_cast<int32_t>(test::random_bits(3, t) % static_cast<uint64_t>(model.vocabulary));
    }
    std::vector<float> nll(labels.size());
    const double operations = (gradient ? 4.0 : 2.0) * static_cast<double>(rows * model.vocabulary * model.hidden);
    sample(state, threads, {operations, hidden_type == DType::i8 ? Limit::int8 : bf16_products()}, [&] {
      backend->cross_entropy(rows, hidden.rows(), w.next(), labels.data(), nll.data(), 1, gradient ? dh.rows() : Rows{});
    });
  });
}

}  // namespace

void add_cross_entropy() {
  for (const ModelShapes &model : models()) {
    for (const int threads : {1, 2}) {
      for (const int64_t rows : {200, 1000}) {
        if (rows > 200 && model.name != "smollm2_135m") continue;  // seconds a call
        add_head(model, true, DType::bf16, rows, threads);
      }
      add_head(model, false, DType::bf16, 200, threads);
      add_head(model, false, DType::i8, 200, threads);
    }
  }
}

}  // namespace moe::bench
