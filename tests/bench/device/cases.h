// What device_bench measures: ops of a backend at the shapes of models.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bench/models.h"
#include "tensor/backend.h"

namespace moe::bench {

enum class Rate : uint8_t { bf16, f32 };  // of products of such operands

// One op with its arrays in the memory of a backend.
class Instance {
 public:
  Instance(Backend &backend, int64_t least_weight_bytes) : backend_(backend), least_weight_bytes_(least_weight_bytes) {}
  // Random numbers that run() reads, an array that it writes, or one that it reads and changes.
  Rows read(int64_t tokens, int64_t n, DType type, uint64_t seed);
  Rows write(int64_t tokens, int64_t n, DType type);
  Rows change(int64_t tokens, int64_t n, DType type, uint64_t seed);
  template <class T>
  T *write_array(int64_t count) {
    return reinterpret_cast<T *>(take(static_cast<size_t>(count) * sizeof(T), 1));
  }
  int32_t *read_indices(int64_t count, int64_t below);
  // A matrix that is read `times` times, in copies that follow each other: next() takes them in turn, so that more of them than
  // the caches hold come from memory, as the layers of a model do.
  std::function<const Matrix &()> weights(DType type, int64_t out, int64_t in, int times = 1);

  void leave_out(double bytes) { bytes_ -= bytes; }  // of these arrays, which run() does not look at
  void set(std::function<void()> run, double operations, Rate rate);
  void compare(Rows rows, int64_t tokens, int64_t n) { results_.push_back({rows, tokens, n}); }

  void run() const { run_(); }
  double bytes() const { return bytes_; }  // each array once for reading and once for writing
  double operations() const { return operations_; }
  Rate rate() const { return rate_; }
  std::vector<std::vector<float>> results() const;  // of the arrays given to compare()

 private:
  struct Result {
    Rows rows;
    int64_t tokens, n;
  };
  std::byte *take(size_t bytes, int times);
  void fill(Rows rows, int64_t tokens, int64_t n, uint64_t seed);

  Backend &backend_;
  int64_t least_weight_bytes_;
  std::vector<Memory> memory_;
  std::vector<Result> results_;
  std::function<void()> run_;
  double bytes_ = 0, operations_ = 0;
  Rate rate_ = Rate::bf16;
};

struct Case {
  std::string name;  // op/model/what/tokens
  std::function<void(Backend &, Instance &)> prepare;
};

struct Sizes {
  std::vector<ModelShapes> models;
  int64_t prompt, training, cache, labels;  // tokens
};
Sizes measured_sizes();
Sizes small_sizes();  // where the CPU plays a device

std::vector<Case> cases(const Sizes &sizes);

// Pairs of a query and a key that it sees; the queries are the last of the keys.
double visible_pairs(int64_t queries, int64_t keys, int64_t window);

}  // namespace moe::bench
