// Reads the weights of a base model: finds each tensor, checks its shape against the config, and reads it into one block of the
// backend's memory; what a device gets passes piece by piece through memory of the host. With `mmap` a matrix that is used as it is
// stored stays in the file. Matrices keep their stored type; norms
// become f32. What a file stores differently is undone here: the +1 of Gemma's norms (Hugging Face) and the row order of q and k
// in GGUF files of the Llama family.
#pragma once
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "formats/gguf.h"
#include "model/base_model.h"
#include "model/weight_names.h"

namespace moe {

class WeightLoader {
 public:
  // `model.config_`, `model.pool_` and `model.backend_` are set already.
  static void load(BaseModel &model, const TensorSource &file, const WeightNames &names, bool interleaved_query_key, bool mmap,
                   const Cancel *cancel);

 private:
  // A piece of a tensor that one task reads. rows > 0: one head, whose rows are interleaved in the file.
  struct Piece {
    const TensorInfo *tensor = nullptr;
    uint64_t offset = 0, bytes = 0;
    std::byte *destination = nullptr;
    int64_t rows = 0;
    std::byte *ends = nullptr;  // of its tensor
  };
  struct Planned {
    const TensorInfo *tensor = nullptr;
    std::string canonical_name;
    Matrix *matrix = nullptr;
    int64_t interleaved_heads = 0;
    std::vector<std::byte> ends;  // the hashed ones, where the weights are not the host's
  };

  WeightLoader(BaseModel &model, const TensorSource &file, const WeightNames &names, bool interleaved)
      : model_(model),
        config_(model.config_),
        ops_(*model.backend_),
        file_(file),
        names_(names),
        canonical_(WeightNames::canonical(config_.sandwich_norms)),
        interleaved_(interleaved) {}
  void run(const Cancel *cancel);
  const TensorInfo &require(const std::string &name, const std::vector<int64_t> &shape);
  Planned plan_matrix(const std::string &name, std::string canonical_name, int64_t rows, int64_t columns, Matrix &matrix);
  std::vector<Planned> plan_layer(int64_t layer);
  const std::byte *mapped(const Planned &planned) const;
  uint64_t bytes_of(const std::vector<Planned> &planned) const;
  void read_matrices(std::vector<Planned> &planned);
  void cut(Planned &planned, std::byte *destination, std::vector<Piece> &pieces) const;
  void read_piece(const Piece &piece, std::byte *destination) const;
  void keep_ends(const Piece &piece, const std::byte *read) const;
  uint64_t bytes_of_norms() const;
  void allocate(uint64_t bytes);
  std::byte *take(uint64_t bytes);
  const float *put(const std::vector<float> &values);
  const float *read_norm(const std::string &name, std::string canonical_name, int64_t length);
  void read_norms(int64_t layer);
  void add_to_fingerprint(std::string canonical_name, const TensorInfo &tensor, const std::byte *first, const std::byte *last, size_t part);
  void add_matrix_to_fingerprint(const Planned &planned);
  std::string fingerprint() const;
  void log_unused() const;

  BaseModel &model_;
  const DecoderConfig &config_;
  Backend &ops_;
  const TensorSource &file_;
  const WeightNames &names_;
  WeightNames canonical_;
  bool interleaved_;
  std::byte *free_ = nullptr;  // in the block of all weights
  std::set<std::string> used_;
  std::map<std::string, std::string> fingerprint_lines_;  // by canonical name
};

}  // namespace moe
