// The shapes that are measured: the linear maps of one layer of real models in the types of their files, their heads and
// attention.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "tensor/dtype.h"

namespace moe::bench {

struct Linear {
  std::string name;  // projections of the same shape and type stand once
  DType type;
  int64_t out, in;
};

struct ModelShapes {
  std::string name;
  int64_t hidden, intermediate, vocabulary;
  int64_t heads, kv_heads, head_dimension, window;  // window 0: all earlier keys
  DType head_type;
  std::vector<Linear> layer;
  bool large;  // measured at fewer numbers of tokens
};

inline std::vector<Linear> qwen3_layer(int64_t hidden, int64_t intermediate, int64_t query, int64_t key, DType type) {
  return {{"q", type, query, hidden},
          {"k_v", type, key, hidden},
          {"o", type, hidden, query},
          {"gate_up", type, intermediate, hidden},
          {"down", type, hidden, intermediate}};
}

inline const std::vector<ModelShapes> &models() {
  static const std::vector<ModelShapes> all = [] {
    std::vector<ModelShapes> list;
    list.push_back({"smollm2_135m",
                    576,
                    1536,
                    49152,
                    9,
                    3,
                    64,
                    0,
                    DType::q8_0,
                    {{"q_o", DType::q4_1, 576, 576},
                     {"k_v", DType::q4_1, 192, 576},
                     {"gate_up", DType::q4_1, 1536, 576},
                     {"down", DType::q4_1, 576, 1536}},
                    false});
    list.push_back({"gemma3_270m",
                    640,
                    2048,
                    262144,
                    4,
                    1,
                    256,
                    512,
                    DType::q8_0,
                    {{"q", DType::q5_0, 1024, 640},
                     {"k_v", DType::q5_0, 256, 640},
                     {"v", DType::q8_0, 256, 640},
                     {"o", DType::q4_k, 640, 1024},
                     {"gate_up", DType::q5_0, 2048, 640},
                     {"down", DType::q6_k, 640, 2048},
                     {"down", DType::q4_k, 640, 2048}},
                    false});
    list.push_back(
        {"qwen3_0.6b", 1024, 3072, 151936, 16, 8, 128, 0, DType::q8_0, qwen3_layer(1024, 3072, 2048, 1024, DType::q8_0), false});
    ModelShapes large{"qwen3_4b", 2560, 9728, 151936, 32, 8, 128, 0, DType::q8_0, {}, true};
    for (const DType type : {DType::q4_k, DType::q8_0, DType::bf16}) {
      for (const Linear &linear : qwen3_layer(2560, 9728, 4096, 1024, type)) large.layer.push_back(linear);
    }
    list.push_back(large);
    return list;
  }();
  return all;
}

}  // namespace moe::bench
