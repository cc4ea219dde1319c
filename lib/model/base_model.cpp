#include "model/base_model.h"

#include <cstring>

#include "base/error.h"
#include "base/file.h"
#include "base/processors.h"
#include "cpu/backend.h"
#include "formats/gguf.h"
#include "formats/safetensors.h"
#include "model/weight_loader.h"
#include "tensor/cuda.h"

namespace moe {
namespace {

constexpr int kMaxThreads = 1024;

DType activation_type_of(const std::string &compute) {
  if (compute == "auto" || compute == "bf16" || compute == "int8") return DType::bf16;
  if (compute == "f32") return DType::f32;
  fail(Code::invalid, "compute: expected auto, bf16, f32 or int8, found '", compute, "'");
}

int thread_count(int wanted) {
  if (wanted < 0 || wanted > kMaxThreads) fail(Code::invalid, "threads: expected 0 to ", kMaxThreads, ", found ", wanted);
  return wanted > 0 ? wanted : usable_processors();
}

std::shared_ptr<Backend> make_backend(const ModelOptions &options, const std::shared_ptr<ThreadPool> &pool) {
  if (options.backend) return options.backend;
  if (options.device == "cpu") return cpu::make_backend(pool, cpu::best_kernels());
  return open_cuda(options.device);
}

bool is_gguf(const std::string &path) {
  if (!file_exists(path)) return false;
  const File file(path);
  char magic[4] = {};
  if (file.size() >= sizeof magic) file.read(0, magic, sizeof magic);
  return path.ends_with(".gguf") || std::memcmp(magic, "GGUF", sizeof magic) == 0;
}

bool has_tokenizer(const std::string &folder) {
  return file_exists(join_path(folder, "tokenizer.json")) ||
         (file_exists(join_path(folder, "vocab.json")) && file_exists(join_path(folder, "merges.txt")));
}

// A tokenizer of a kind that is not known or not built in leaves the model usable with token ids; why it is so is kept.
template <class Source>
std::shared_ptr<const Tokenizer> tokenizer_or_warning(const Source &source, const std::string &path, const Log &sink,
                                                      std::string &reason) {
  try {
    return load_tokenizer(source);
  } catch (const Error &error) {
    if (error.code() != Code::unsupported) throw;
    reason = error.message();
    log(sink, LogLevel::warning, text(path, ": no tokenizer: ", reason));
    return nullptr;
  }
}

}  // namespace

std::shared_ptr<const BaseModel> BaseModel::load(const std::string &path, const ModelOptions &options, const Cancel *cancel) {
  const std::shared_ptr<BaseModel> model(new BaseModel());
  model->path_ = path;
  model->log_ = options.log;
  model->activation_type_ = activation_type_of(options.compute);
  model->pool_ = std::make_shared<ThreadPool>(thread_count(options.threads), options.bind_threads);
  model->backend_ = make_backend(options, model->pool_);
  model->int8_ = options.compute == "int8" || (options.compute == "auto" && model->backend_->fast_int8(1));
  model->int8_always_ = options.compute == "int8";
  model->name_ = options.base_model_name;

  if (is_gguf(path)) {
    const Gguf file(path);
    model->config_ = read_config(file);
    const bool interleaved = model->config_.family == "llama";
    WeightLoader::load(*model, file, WeightNames::gguf(), interleaved, options.mmap, cancel);
    if (file.find_key("tokenizer.ggml.model"))
      model->tokenizer_ = tokenizer_or_warning(file, path, options.log, model->why_no_tokenizer_);
    if (model->name_.empty()) {
      model->name_ = file.string_or("general.source.huggingface.repository", file.string_or("general.name", path));
    }
  } else if (folder_exists(path)) {
    const std::string config_path = join_path(path, "config.json");
    model->config_ = read_config(read_json(config_path), config_path);
    const Safetensors file(path);
    WeightLoader::load(*model, file, WeightNames::hugging_face(file, model->config_.sandwich_norms), false, options.mmap, cancel);
    if (has_tokenizer(path)) model->tokenizer_ = tokenizer_or_warning(path, path, options.log, model->why_no_tokenizer_);
    if (model->name_.empty()) model->name_ = path;
  } else if (file_exists(path)) {
    fail(Code::format, path, ": expected a model folder with config.json or a GGUF file");
  } else {
    fail(Code::io, path, ": no such model folder or file");
  }

  bool any_quantized = model->takes_int8(model->head_, 1);
  for (const LayerWeights &layer : model->layers_) {
    for (const Matrix &w : layer.projection) any_quantized |= model->takes_int8(w, 1);
  }
  model->int8_ = any_quantized;

  if (model->tokenizer_ && model->tokenizer_->size() > model->config_.vocabulary) {
    moe::log(options.log, LogLevel::warning,
             text(path, ": the tokenizer has ", model->tokenizer_->size(), " tokens, the embedding ", model->config_.vocabulary,
                  ": the ids above it cannot be used"));
  }
  moe::log(options.log, LogLevel::info,
           text(path, ": ", model->config_.family, ", ", model->config_.layers, " layers, ", model->parameters_,
                " parameters in ", model->weight_bytes_, " bytes, ", model->backend_->name(), ", compute ", model->inference_compute(),
                ", ", model->pool_->threads(), " threads"));
  return model;
}

const Tokenizer &BaseModel::require_tokenizer() const {
  if (tokenizer_) return *tokenizer_;
  if (why_no_tokenizer_.empty()) fail(Code::unsupported, path_, ": the model has no tokenizer");
  fail(Code::unsupported, path_, ": the tokenizer cannot be used: ", why_no_tokenizer_);
}

}  // namespace moe
