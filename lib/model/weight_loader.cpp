#include "model/weight_loader.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/checked.h"
#include "base/error.h"
#include "base/sha256.h"
#include "tensor/dequantize.h"

namespace moe {
namespace {

constexpr uint64_t kPieceBytes = uint64_t{4} << 20;  // of one read
constexpr size_t kHashedBytes = 64 << 10;            // of each end of a tensor, for the fingerprint
constexpr size_t kAlignment = 64;
constexpr uint64_t kMappedAlignment = sizeof(float);  // the largest number of a stored type

size_t hashed_bytes(size_t tensor) { return std::min(tensor, kHashedBytes); }

size_t aligned(uint64_t bytes) { return checked_add(bytes, kAlignment - 1, "weights") / kAlignment * kAlignment; }

bool is_weight_type(DType type) { return type != DType::i32 && type != DType::i64 && type != DType::u8; }

}  // namespace

void WeightLoader::load(BaseModel &model, const TensorSource &file, const WeightNames &names, bool interleaved_query_key,
                        bool mmap, const Cancel *cancel) {
  if (mmap && model.backend_->host_memory()) model.mappings_ = file.map();
  WeightLoader(model, file, names, interleaved_query_key).run(cancel);
}

void WeightLoader::run(const Cancel *cancel) {
  std::vector<Planned> ends;
  ends.push_back(plan_matrix(names_.embedding(), canonical_.embedding(), config_.vocabulary, config_.hidden, model_.embedding_));
  if (!config_.tied_embeddings) {
    ends.push_back(plan_matrix(names_.head(), canonical_.head(), config_.vocabulary, config_.hidden, model_.head_));
  } else {
    used_.insert(names_.head());  // some files store the tied head again
  }
  model_.layers_.resize(static_cast<size_t>(config_.layers));
  std::vector<std::vector<Planned>> layers;
  uint64_t bytes = bytes_of(ends);
  for (int64_t i = 0; i < config_.layers; i++) {
    layers.push_back(plan_layer(i));
    bytes = checked_add(bytes, bytes_of(layers.back()), file_.path());
  }
  bytes = checked_add(bytes, bytes_of_norms(), file_.path());
  allocate(bytes);

  for (const Rope &rope : config_.ropes) model_.rope_frequencies_.push_back(put(rope.inverse_frequency));
  read_matrices(ends);
  if (config_.tied_embeddings) model_.head_ = model_.embedding_;
  model_.final_norm_ = read_norm(names_.final_norm(), canonical_.final_norm(), config_.hidden);
  for (int64_t i = 0; i < config_.layers; i++) {
    check_cancel(cancel);
    read_matrices(layers[static_cast<size_t>(i)]);
    read_norms(i);
    log(model_.log_, LogLevel::debug, text(file_.path(), ": layer ", i + 1, " of ", config_.layers, " read"));
  }
  model_.weights_fingerprint_ = fingerprint();
  log_unused();
}

std::vector<WeightLoader::Planned> WeightLoader::plan_layer(int64_t layer) {
  LayerWeights &w = model_.layers_[static_cast<size_t>(layer)];
  std::vector<Planned> planned;
  for (int i = 0; i < kModules; i++) {
    const Module module = static_cast<Module>(i);
    const ModuleShape shape = module_shape(config_, module);
    planned.push_back(plan_matrix(names_.projection(layer, module), canonical_.projection(layer, module), shape.out, shape.in,
                                  w.projection[static_cast<size_t>(i)]));
    if (!interleaved_) continue;
    if (module == Module::q_proj) planned.back().interleaved_heads = config_.heads;
    if (module == Module::k_proj) planned.back().interleaved_heads = config_.kv_heads;
  }
  return planned;
}

void WeightLoader::read_norms(int64_t layer) {
  LayerWeights &w = model_.layers_[static_cast<size_t>(layer)];
  const auto norm = [&](Norm role, int64_t length) {
    return read_norm(names_.norm(layer, role), canonical_.norm(layer, role), length);
  };
  w.attention_norm = norm(Norm::attention, config_.hidden);
  w.ffn_norm = norm(Norm::ffn, config_.hidden);
  if (config_.sandwich_norms) {
    w.post_attention_norm = norm(Norm::post_attention, config_.hidden);
    w.post_ffn_norm = norm(Norm::post_ffn, config_.hidden);
  }
  if (config_.query_key_norm) {
    w.q_norm = norm(Norm::q, config_.head_dimension);
    w.k_norm = norm(Norm::k, config_.head_dimension);
  }
}

// The tensor `name`, present, of this shape and of a type that weights can have.
const TensorInfo &WeightLoader::require(const std::string &name, const std::vector<int64_t> &shape) {
  const TensorInfo *tensor = file_.find(name);
  if (!tensor) fail(Code::format, file_.path(), ": tensor '", name, "' is missing; expected shape ", shape_text(shape));
  const std::string place = text(file_.file_path(*tensor), ": tensor '", name, "'");
  if (tensor->shape != shape)
    fail(Code::format, place, ": expected shape ", shape_text(shape), ", found ", shape_text(tensor->shape));
  if (!tensor->unsupported.empty()) fail(Code::unsupported, place, " has type ", tensor->unsupported, ", which is not supported");
  if (!is_weight_type(tensor->dtype)) {
    fail(Code::format, place, ": expected a floating-point or quantized type, found ", dtype_info(tensor->dtype).name);
  }
  // A bias beside a weight that is used would be left out of the sums: better no model than a wrong one.
  const std::string bias = name.substr(0, name.size() - std::strlen("weight")) + "bias";
  if (file_.find(bias)) fail(Code::unsupported, file_.path(), ": tensor '", bias, "': biases are not supported yet");
  used_.insert(name);
  model_.parameters_ += tensor->elements();
  return *tensor;
}

WeightLoader::Planned WeightLoader::plan_matrix(const std::string &name, std::string canonical_name, int64_t rows,
                                                int64_t columns, Matrix &matrix) {
  const TensorInfo &tensor = require(name, {rows, columns});
  const DTypeInfo &type = dtype_info(tensor.dtype);
  if (columns % type.block_values != 0) {
    fail(Code::format, file_.file_path(tensor), ": tensor '", name, "': expected a multiple of ", type.block_values,
         " columns for ", type.name, ", found ", columns);
  }
  matrix = {tensor.dtype, rows, columns, nullptr};
  return {&tensor, std::move(canonical_name), &matrix, 0, {}};
}

// Where the file is mapped and holds the matrix as it is used; else nullptr.
const std::byte *WeightLoader::mapped(const Planned &planned) const {
  const TensorInfo &tensor = *planned.tensor;
  if (model_.mappings_.empty() || planned.interleaved_heads > 0 || tensor.offset % kMappedAlignment != 0) return nullptr;
  return model_.mappings_[static_cast<size_t>(tensor.file)].data() + tensor.offset;
}

uint64_t WeightLoader::bytes_of(const std::vector<Planned> &planned) const {
  uint64_t bytes = 0;
  for (const Planned &p : planned) {
    if (!mapped(p)) bytes = checked_add(bytes, aligned(p.tensor->bytes), file_.path());
  }
  return bytes;
}

// Of the norms and the frequencies of the rotation, all in f32.
uint64_t WeightLoader::bytes_of_norms() const {
  const uint64_t hidden = aligned(static_cast<uint64_t>(config_.hidden) * sizeof(float)),
                 head = aligned(static_cast<uint64_t>(config_.head_dimension) * sizeof(float));
  const uint64_t of_layer = (config_.sandwich_norms ? 4 : 2) * hidden + (config_.query_key_norm ? 2 * head : 0);
  return static_cast<uint64_t>(config_.layers) * of_layer + hidden + config_.ropes.size() * head;
}

// One block for all, which the system can give in large pages.
void WeightLoader::allocate(uint64_t bytes) {
  try {
    model_.storage_ = ops_.allocate(bytes);
  } catch (const Error &error) {
    fail(error.code(), file_.path(), ": the weights need ", bytes, " bytes: ", error.message());
  }
  free_ = model_.storage_.get();
}

std::byte *WeightLoader::take(uint64_t bytes) { return std::exchange(free_, free_ + aligned(bytes)); }

const float *WeightLoader::put(const std::vector<float> &values) {
  std::byte *to = take(values.size() * sizeof(float));
  ops_.upload(to, values.data(), values.size() * sizeof(float));
  return reinterpret_cast<const float *>(to);
}

// Into the next free memory; the reads are spread over the threads, each of which uploads what it has read.
void WeightLoader::read_matrices(std::vector<Planned> &planned) {
  std::vector<Piece> pieces;
  for (Planned &p : planned) {
    model_.weight_bytes_ += p.tensor->bytes;
    p.matrix->data = mapped(p);
    if (p.matrix->data) continue;
    std::byte *to = take(p.tensor->bytes);
    p.matrix->data = to;
    cut(p, to, pieces);
  }
  std::vector<std::vector<std::byte>> staging(ops_.host_memory() ? 0 : static_cast<size_t>(model_.pool_->threads()));
  model_.pool_->run(static_cast<int64_t>(pieces.size()), [&](int64_t i, int thread) {
    const Piece &piece = pieces[static_cast<size_t>(i)];
    if (staging.empty()) return read_piece(piece, piece.destination);
    std::vector<std::byte> &read = staging[static_cast<size_t>(thread)];
    read.resize(piece.bytes);
    read_piece(piece, read.data());
    keep_ends(piece, read.data());
    ops_.upload(piece.destination, read.data(), piece.bytes);
  });
  for (const Planned &p : planned) add_matrix_to_fingerprint(p);
}

void WeightLoader::cut(Planned &planned, std::byte *destination, std::vector<Piece> &pieces) const {
  const uint64_t bytes = planned.tensor->bytes;
  const uint64_t heads = static_cast<uint64_t>(planned.interleaved_heads), step = heads ? bytes / heads : kPieceBytes;
  const int64_t rows = heads ? planned.matrix->rows / planned.interleaved_heads : 0;
  if (!ops_.host_memory()) planned.ends.resize(2 * hashed_bytes(bytes));
  for (uint64_t offset = 0; offset < bytes; offset += step) {
    pieces.push_back({planned.tensor, offset, std::min(step, bytes - offset), destination + offset, rows, planned.ends.data()});
  }
}

void WeightLoader::read_piece(const Piece &piece, std::byte *destination) const {
  if (piece.rows == 0) {
    file_.read_range(*piece.tensor, piece.offset, destination, piece.bytes);
    return;
  }
  // Stored rows of a head: (0, h/2), (1, h/2 + 1), ...: rows 2 j and 2 j + 1 belong to j and j + h/2.
  std::vector<std::byte> stored(piece.bytes);
  file_.read_range(*piece.tensor, piece.offset, stored.data(), piece.bytes);
  const int64_t half = piece.rows / 2;
  const size_t row_bytes = piece.bytes / static_cast<size_t>(piece.rows);
  for (int64_t row = 0; row < piece.rows; row++) {
    const int64_t source = row < half ? 2 * row : 2 * (row - half) + 1;
    std::memcpy(destination + static_cast<size_t>(row) * row_bytes, stored.data() + static_cast<size_t>(source) * row_bytes,
                row_bytes);
  }
}

const float *WeightLoader::read_norm(const std::string &name, std::string canonical_name, int64_t length) {
  const TensorInfo &tensor = require(name, {length});
  std::vector<std::byte> stored(tensor.bytes);
  file_.read(tensor, stored.data());
  const size_t part = hashed_bytes(stored.size());
  add_to_fingerprint(std::move(canonical_name), tensor, stored.data(), stored.data() + stored.size() - part, part);
  std::vector<float> values(static_cast<size_t>(length));
  dequantize(tensor.dtype, stored.data(), length, values.data());
  if (config_.norm_plus_one) std::for_each(values.begin(), values.end(), [](float &w) { w += 1; });
  model_.weight_bytes_ += values.size() * sizeof(float);
  return put(values);
}

// What of a piece lies in the first and in the last bytes of its tensor.
void WeightLoader::keep_ends(const Piece &piece, const std::byte *read) const {
  const uint64_t tensor = piece.tensor->bytes, part = hashed_bytes(tensor);
  const auto keep = [&](uint64_t first, std::byte *to) {
    const uint64_t begin = std::max(first, piece.offset), end = std::min(first + part, piece.offset + piece.bytes);
    if (begin < end) std::memcpy(to + (begin - first), read + (begin - piece.offset), end - begin);
  };
  keep(0, piece.ends);
  keep(tensor - part, piece.ends + part);
}

// Both ends as they stand in the model.
void WeightLoader::add_matrix_to_fingerprint(const Planned &planned) {
  const size_t bytes = planned.tensor->bytes, part = hashed_bytes(bytes);
  const auto *stored = static_cast<const std::byte *>(planned.matrix->data);
  const std::byte *first = planned.ends.empty() ? stored : planned.ends.data();
  const std::byte *last = planned.ends.empty() ? stored + bytes - part : first + part;
  add_to_fingerprint(planned.canonical_name, *planned.tensor, first, last, part);
}

void WeightLoader::add_to_fingerprint(std::string canonical_name, const TensorInfo &tensor, const std::byte *first,
                                      const std::byte *last, size_t part) {
  const std::string digest = Sha256().update(first, part).update(last, part).hex();
  std::string line = text(canonical_name, " ", dtype_info(tensor.dtype).name, " ", shape_text(tensor.shape), " ", digest, "\n");
  fingerprint_lines_.emplace(std::move(canonical_name), std::move(line));
}

// sha256 over "<name> <type> <shape> <sha256 of both ends>\n" of the tensors of the decoder, by name.
std::string WeightLoader::fingerprint() const {
  Sha256 hash;
  for (const auto &[name, line] : fingerprint_lines_) hash.update(line.data(), line.size());
  return hash.hex();
}

void WeightLoader::log_unused() const {
  size_t count = 0;
  const TensorInfo *first = nullptr;
  for (const TensorInfo &tensor : file_.tensors()) {
    if (used_.contains(tensor.name) || tensor.name == "rope_freqs.weight") continue;
    if (count++ == 0) first = &tensor;
    log(model_.log_, LogLevel::debug, text(file_.path(), ": tensor '", tensor.name, "' is not used"));
  }
  if (count > 0)
    log(model_.log_, LogLevel::info, text(file_.path(), ": ", count, " tensors are not used, the first is '", first->name, "'"));
}

}  // namespace moe
