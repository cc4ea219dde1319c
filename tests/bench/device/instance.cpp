#include "base/error.h"
#include "bench/device/cases.h"
#include "bench/inputs.h"

namespace moe::bench {

std::byte *Instance::take(size_t bytes, int times) {
  memory_.push_back(backend_.allocate(bytes));
  bytes_ += static_cast<double>(bytes) * times;
  return memory_.back().get();
}
void Instance::fill(Rows rows, int64_t tokens, int64_t n, uint64_t seed) {
  std::vector<std::byte> values(static_cast<size_t>(tokens * row_bytes(rows.dtype, n)));
  fill_numbers(rows.dtype, tokens * n, seed, values.data());
  backend_.upload(rows.data, values.data(), values.size());
}
Rows Instance::read(int64_t tokens, int64_t n, DType type, uint64_t seed) {
  const Rows rows{take(static_cast<size_t>(tokens * row_bytes(type, n)), 1), type, n};
  fill(rows, tokens, n, seed);
  return rows;
}
Rows Instance::write(int64_t tokens, int64_t n, DType type) {
  return {take(static_cast<size_t>(tokens * row_bytes(type, n)), 1), type, n};
}
Rows Instance::change(int64_t tokens, int64_t n, DType type, uint64_t seed) {
  const Rows rows{take(static_cast<size_t>(tokens * row_bytes(type, n)), 2), type, n};
  fill(rows, tokens, n, seed);
  return rows;
}
int32_t *Instance::read_indices(int64_t count, int64_t below) {
  std::vector<int32_t> indices(static_cast<size_t>(count));
  for (size_t i = 0; i < indices.size(); i++)
    indices[i] = static_cast<int32_t>(test::random_bits(3, i) % static_cast<uint64_t>(below));
  int32_t *const to = write_array<int32_t>(count);
  backend_.upload(to, indices.data(), indices.size() * sizeof(int32_t));
  return to;
}
std::function<const Matrix &()> Instance::weights(DType type, int64_t out, int64_t in, int times) {
  Weights host(type, out, in);
  const int64_t bytes = host.bytes(), copies = 1 + least_weight_bytes_ / bytes;
  memory_.push_back(backend_.allocate(static_cast<size_t>(bytes * copies)));
  std::byte *const first = memory_.back().get();
  for (int64_t i = 0; i < copies; i++) backend_.upload(first + i * bytes, host.next().data, static_cast<size_t>(bytes));
  bytes_ += static_cast<double>(bytes) * times;
  return [=, matrix = Matrix{type, out, in, nullptr}, turn = int64_t{0}]() mutable -> const Matrix & {
    matrix.data = first + turn * bytes;
    turn = (turn + 1) % copies;
    return matrix;
  };
}

void Instance::set(std::function<void()> run, double operations, Rate rate) {
  run_ = std::move(run);
  operations_ = operations;
  rate_ = rate;
}

std::vector<std::vector<float>> Instance::results() const {
  std::vector<std::vector<float>> all;
  for (const Result &result : results_) {
    const auto count = static_cast<size_t>(result.tokens * result.n);
    std::vector<float> values(count);
    if (result.rows.dtype == DType::f32) {
      backend_.download(values.data(), result.rows.data, count * sizeof(float));
    } else {
      std::vector<uint16_t> halves(count);
      backend_.download(halves.data(), result.rows.data, count * sizeof(uint16_t));
      for (size_t i = 0; i < count; i++) values[i] = bf16_to_float(halves[i]);
    }
    all.push_back(std::move(values));
  }
  return all;
}

}  // namespace moe::bench
