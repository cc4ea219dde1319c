// A base model: weights in their stored precision, tokenizer and config; immutable and shared after load. Read from a Hugging
// Face folder (config.json, safetensors) or from one GGUF file. Pointers to weights point into memory of backend().
#pragma once
#include <array>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/cancel.h"
#include "base/file.h"
#include "base/log.h"
#include "base/thread_pool.h"
#include "model/config.h"
#include "model/module.h"
#include "tensor/backend.h"
#include "text/tokenizer.h"

namespace moe {

struct ModelOptions {
  // "f32": activations in f32 (strict); "bf16"; "int8": as bf16, but inference multiplies quantized weights with int8 activations
  // (one scale for 32 values); auto: int8 where the processor makes it faster, else bf16. Training always has f32 or bf16.
  std::string compute = "auto";
  int threads = 0;                // 0 = the cores this process may use
  bool bind_threads = false;      // each thread but the caller's stays on one processor
  bool mmap = false;              // weights stay in the file, mapped, where they need no change (cpu)
  std::string device = "cpu";     // "cpu", "cuda" or "cuda:N"
  std::shared_ptr<Backend> backend;  // computes in place of `device`, where it is given
  std::string base_model_name;    // overrides the name recorded in adapters
  Log log;
};

struct LayerWeights {
  std::array<Matrix, kModules> projection;   // by Module
  const float *attention_norm = nullptr;     // [d] before q, k, v
  const float *post_attention_norm = nullptr;// [d] Gemma: after o_proj, else nullptr
  const float *ffn_norm = nullptr;           // [d] before gate and up
  const float *post_ffn_norm = nullptr;      // [d] Gemma: after down_proj, else nullptr
  const float *q_norm = nullptr, *k_norm = nullptr;  // [h] or nullptr
};

class BaseModel {
 public:
  // Errors name file and tensor. `path`: a folder or a .gguf file.
  static std::shared_ptr<const BaseModel> load(const std::string &path, const ModelOptions &options, const Cancel *cancel = nullptr);

  const std::string &path() const { return path_; }
  const std::string &name() const { return name_; }  // for base_model_name_or_path of adapters
  const DecoderConfig &config() const { return config_; }
  const LayerWeights &layer(int64_t i) const { return layers_[static_cast<size_t>(i)]; }
  const Matrix &embedding() const { return embedding_; }
  const Matrix &head() const { return head_; }       // the embedding itself when tied
  const float *final_norm() const { return final_norm_; }
  const float *rope_frequencies(size_t rope) const { return rope_frequencies_[rope]; }  // [h / 2] of config().ropes[rope]
  const Tokenizer *tokenizer() const { return tokenizer_.get(); }  // nullptr: the folder has none
  const Tokenizer &require_tokenizer() const;        // Code::unsupported naming the folder, and why it cannot be used
  const std::string &why_no_tokenizer() const { return why_no_tokenizer_; }  // "" when there is one, or none at all
  std::string architecture_fingerprint() const { return config_.fingerprint(); }
  const std::string &weights_fingerprint() const { return weights_fingerprint_; }

  Backend &backend() const { return *backend_; }
  const std::shared_ptr<Backend> &shared_backend() const { return backend_; }
  ThreadPool &pool() const { return *pool_; }
  std::mutex &pass_mutex() const { return pass_mutex_; }  // a pass holds it: ops of one backend never overlap
  DType activation_type() const { return activation_type_; }  // f32 or bf16, from `compute`
  const char *compute() const { return activation_type_ == DType::f32 ? "f32" : "bf16"; }  // of training
  const char *inference_compute() const { return int8_ ? "int8" : compute(); }
  // Whether inference multiplies this weight with int8 activations.
  bool takes_int8(const Matrix &w, int64_t tokens) const {
    return int8_ && dtype_info(w.dtype).quantized && (int8_always_ || backend_->fast_int8(tokens));
  }
  uint64_t weight_bytes() const { return weight_bytes_; }
  int64_t parameters() const { return parameters_; }
  const Log &log() const { return log_; }

 private:
  friend class WeightLoader;
  BaseModel() = default;

  std::string path_, name_, weights_fingerprint_, why_no_tokenizer_;
  DecoderConfig config_;
  std::vector<LayerWeights> layers_;
  Matrix embedding_, head_;
  const float *final_norm_ = nullptr;
  std::vector<const float *> rope_frequencies_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::shared_ptr<ThreadPool> pool_;
  std::shared_ptr<Backend> backend_;
  Memory storage_{nullptr, nullptr};   // of all weights
  std::vector<FileMapping> mappings_;  // but of those that stay in the file
  mutable std::mutex pass_mutex_;
  DType activation_type_ = DType::bf16;
  bool int8_ = false, int8_always_ = false;  // in inference; always: also where the backend is faster with bf16
  uint64_t weight_bytes_ = 0;
  int64_t parameters_ = 0;
  Log log_;
};

}  // namespace moe
