// Reading of the golden files (tests/golden/README.md) and comparison with them.
#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "base/json.h"
#include "formats/packed.h"
#include "formats/safetensors.h"
#include "model/base_model.h"

namespace moe::test {

inline std::string golden_path(const std::string &name) { return std::string(MOE_TESTS_DIR) + "/golden/" + name; }

inline std::vector<float> golden_floats(const Safetensors &file, const std::string &name) { return file.read_floats(file.at(name)); }

// The largest difference as a share of the largest expected magnitude; infinite for another length or a NaN.
inline double largest_difference(const std::vector<float> &expected, const float *got, size_t count) {
  if (expected.size() != count) return INFINITY;
  double largest = 0, scale = 0;
  for (size_t i = 0; i < count; i++) {
    const double difference = std::abs(static_cast<double>(got[i]) - expected[i]);
    if (!std::isfinite(difference)) return INFINITY;
    largest = std::max(largest, difference);
    scale = std::max(scale, std::abs(static_cast<double>(expected[i])));
  }
  return largest / std::max(scale, 1e-30);
}
inline double largest_difference(const std::vector<float> &expected, const std::vector<float> &got) {
  return largest_difference(expected, got.data(), got.size());
}

// Where the models of this program's tests compute: a device (cuda_host/backends.cpp), or nullptr: the CPU (cpu_backends.cpp).
// Another number of threads then stands for another order of the device's.
std::shared_ptr<Backend> model_backend(int threads);

inline ModelOptions model_options(const std::string &compute = "f32", int threads = 2) {
  ModelOptions options;
  options.compute = compute;
  options.threads = threads;
  options.backend = model_backend(threads);
  return options;
}

inline std::shared_ptr<const BaseModel> golden_model(const std::string &name, const std::string &compute = "f32", int threads = 2) {
  return BaseModel::load(golden_path(name), model_options(compute, threads));
}

}  // namespace moe::test
